//! `apt-get update` and `apt-get install` as root in a Debian tree, by an ordinary user. Slow tier: it needs the network,
//! through whatever mirror this machine's own apt and mmdebstrap use.

mod common;

use std::{fs, path::Path, process::Command};

use common::{as_root, bind_read_only, copy_on_write, directory, run, script, skip, user, user_with_ranges};
use coracle_api::{Identity, SubordinateIds};

#[test]
fn apt_with_one_id() {
    for suite in ["bookworm", "trixie"] {
        install(suite, user(), None);
    }
}

#[test]
fn apt_with_ranges_of_ids() {
    let Some((uid, gid, ranges)) = user_with_ranges() else { return };
    for suite in ["bookworm", "trixie"] {
        install(suite, (uid, gid), Some(ranges.clone()));
    }
}

fn install(suite: &str, (uid, gid): (u32, u32), ranges: Option<SubordinateIds>) {
    if std::env::var_os("CORACLE_TEST_ALL").is_none() {
        return skip("slow tier (CORACLE_TEST_ALL)");
    }
    let tree = directory();
    let made = Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", suite]).arg(tree.path()).status();
    if !made.is_ok_and(|status| status.success()) {
        return skip("mmdebstrap makes no Debian tree here (not installed, not root, or no network)");
    }
    let real = ranges.is_some();
    // As an unpacked bundle is: all of it the user's, without write bits, no devices.
    for command in [
        format!("rm -rf {0}/dev/* && chown -hR {uid}:{gid} {0}", tree.path().display()),
        format!("find {} -type f -exec chmod a-w {{}} +", tree.path().display()),
    ] {
        assert!(Command::new("sh").args(["-c", &command]).status().expect("sh").success());
    }
    let mut spec = as_root(script(
        tree.path(),
        "set -e; exec 2>&1
         apt-get update -q
         apt-get install -q -y --no-install-recommends sudo openssh-client man-db
         dpkg --audit
         dpkg-query -W -f '${Package} ${Status}\\n' sudo openssh-client man-db
         stat -c '%U:%G %a %n' /var/cache/man /usr/bin/sudo
         useradd -m bob; su bob -c 'id -un'",
    ));
    spec.identity = Identity { host_uid: uid, host_gid: gid, subordinate: ranges, ..spec.identity };
    for (key, value) in [("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C"), ("HOME", "/root")] {
        spec.env.push((key.into(), value.into()));
    }
    let scratch = directory();
    let changes = copy_on_write(&mut spec);
    for own in [scratch.path(), changes.path()] {
        std::os::unix::fs::chown(own, Some(uid), Some(gid)).expect("chown");
    }
    spec.scratch = scratch.path().to_owned();
    spec.binds = ["/etc/resolv.conf", "/etc/hosts"].map(|file| bind_read_only(Path::new(file), file)).into();
    let out = run(&spec).success();
    let tail: Vec<&str> = out.lines().rev().take(6).collect();
    let installed = ["man-db", "openssh-client", "sudo"].map(|name| format!("{name} install ok installed"));
    let owner = if real { "man:man" } else { "root:root" };
    let who = if real { "bob" } else { "root" };
    assert_eq!(tail[0], who, "{out}");
    assert!(tail[1].starts_with("root:root 4") && tail[1].ends_with("/usr/bin/sudo"), "{out}");
    assert!(tail[2].starts_with(owner), "{out}");
    for line in installed {
        assert!(tail.contains(&line.as_str()), "{out}");
    }
    assert!(!out.lines().any(|line| line.starts_with("E:") || line.starts_with("W:")), "{out}");
    assert!(fs::metadata(tree.path().join("usr/bin/sudo")).is_err());
}
