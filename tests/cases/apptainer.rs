//! The `apptainer` engine with the real thing: Debian sid's apptainer in a tree that is a root of its own, in the slow tier.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use harness::{Output, bundles, images, skip};

/// A tree with apptainer and an account, made once and kept in `target/suites`.
fn tree() -> Option<PathBuf> {
    if skip::unless_slow() || skip::unless_root() || skip::lacks(&["mmdebstrap"]) {
        return None;
    }
    let tree = images::workspace().join("target/suites/apptainer");
    if !tree.exists() {
        fs::create_dir_all(tree.parent().unwrap()).unwrap();
        let half = tree.with_extension("half");
        // An old snapshot of the archive is as good as a new one.
        let old = r#"--aptopt=Acquire::Check-Valid-Until "false""#;
        let packages = "--include=apptainer,ca-certificates,passwd";
        let account = "--customize-hook=chroot \"$1\" useradd -m -u 1234 guest; touch \"$1/etc/hosts\"";
        let args = ["--quiet", "--variant=minbase", packages, old, account, "sid"];
        let made = Command::new("mmdebstrap").args(args).arg(&half).status();
        if !made.is_ok_and(|status| status.success()) {
            skip::because("mmdebstrap makes no Debian sid here (no network?)");
            return None;
        }
        fs::rename(half, &tree).unwrap();
    }
    Some(tree)
}

/// Runs a script in the tree as a real root: a chroot would forbid user namespaces.
fn inside(account: &str, script: &str) -> Output {
    let (tree, bundle) = (tree().unwrap(), bundles::alpine().unwrap());
    let name = format!("srv/{account}-{}.run", script.len());
    fs::copy(bundle, tree.join(&name)).unwrap();
    fs::set_permissions(tree.join(&name), PermissionsExt::from_mode(0o755)).unwrap();
    let enter = r#"
        set -e
        mount --bind "$0" "$0"; cd "$0"
        mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs -o mode=1777 tmp tmp
        pivot_root . .; umount -l .
        exec runuser -l "$1" -c "$2"
    "#;
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["-m", "-p", "-f", "--kill-child", "--propagation", "private", "sh", "-c", enter]).arg(tree);
    command.args([account, &format!("cd /tmp; export CORACLE_CACHE=/tmp CORACLE_ENGINE=S1; a=/{name}\n{script}")]);
    Output::of(command)
}

#[test]
fn arguments_environment_and_statuses_are_exact() {
    if tree().is_none() || bundles::alpine().is_none() {
        return;
    }
    let script = r#"
        $a --coracle-explain | grep -o 'apptainer: accepted'
        $a sh -c 'id -u; pwd; echo "<$1>"' "" 'b$x`y`"'
        FOO='x $(date) `y`' $a env | grep -e ^FOO -e ^ENGINE -e APPTAINER -e SINGULARITY
        echo through | $a cat
        $a sh -c 'exit 9'; echo $?
        $a nonexistent 2>&1 | cut -c1-36; $a /etc/passwd 2>/dev/null; echo $?
        $a sh -c 'kill -9 $$'; echo $?
        $a touch /x 2>&1
        $a --coracle-volume=/etc/hostname:/a/b/c cat /a/b/c | cmp - /etc/hostname && echo bound
        mkdir 'x,y:z'; touch 'x,y:z/f'; $a sleep 9 & sleep 1; kill -TERM $!; wait $!; echo $?
    "#;
    let output = inside("guest", script);
    let expected = "apptainer: accepted\n1234\n/tmp\n<b$x`y`\">\nFOO=x $(date) `y`\nthrough\n9\n\
        coracle: nonexistent: not found in t\n126\n137\ntouch: /x: Read-only file system\nbound\n143\n";
    assert_eq!(output.stdout, expected, "{output}");
}

#[test]
fn changes_are_the_runs_own_or_kept() {
    if tree().is_none() || bundles::alpine().is_none() {
        return;
    }
    let script = r#"
        $a --coracle-writable sh -c 'echo new >/etc/motd; rm -r /opt; mkdir /made; cat /etc/motd'; $a head -c 7 /etc/motd; echo
        mkdir kept; $a --coracle-writable=/tmp/kept sh -c 'echo kept >/k'; $a --coracle-writable=/tmp/kept cat /k
        $a --coracle-user=root sh -c 'id -u; touch /tmp/of-root; stat -c %u /tmp/of-root'; stat -c %u of-root
        $a --coracle-user=55 true 2>&1; echo $?
        $a --coracle-isolated --coracle-hostname=inner sh -c 'id -u; hostname; ls /tmp | wc -l; ls /dev/sda /dev/kvm 2>/dev/null'
    "#;
    let output = inside("guest", script);
    let expected = "new\nWelcome\nkept\n0\n0\n1234\ncoracle: apptainer runs a program as you or as root, not as uid 55: \
        use `ptrace`, or another user\n125\n0\ninner\n0\n";
    assert_eq!(output.stdout, expected, "{output}");
}

#[test]
fn root_runs_too() {
    if tree().is_none() || bundles::alpine().is_none() {
        return;
    }
    let output = inside("root", "$a id -u; $a sh -c 'exit 3'; echo $?; $a --coracle-writable touch /etc/x; echo $?");
    assert_eq!(output.stdout, "0\n3\n0\n", "{output}");
}

#[test]
fn containers_of_the_store_run_too() {
    let Some(tree) = tree() else { return };
    let Some(alpine) = images::find(images::ALPINE) else { return };
    for (from, to) in [(harness::coracle(), "srv/coracle"), (alpine.as_path(), "srv/alpine.tar.gz")] {
        fs::copy(from, tree.join(to)).unwrap();
        fs::set_permissions(tree.join(to), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let script = r#"
        export CORACLE_DIR=/tmp/store; c=/srv/coracle; i=rootfs:/srv/alpine.tar.gz
        $c create -q --name=a $i >/dev/null; $c setup --execmode=S1 a
        $c run a sh -c 'id -u; echo kept >/root/f'; $c run -w /usr -e A=b a sh -c 'cat /root/f; pwd; echo $A'
        $c run -v /srv:/in:ro --hostname=box a sh -c 'ls /in | grep -c coracle; hostname; touch /in/x' 2>&1
        $c run a sh -c 'kill -9 $$'; echo $?; $c run -u nobody a true 2>/dev/null; echo $?
        $c run --read-only a touch /x 2>&1
        $c run -d -q --name=d --execmode=S1 $i sh -c 'echo up; sleep 100' >/dev/null
        for n in 1 2 3 4 5 6 7 8 9; do $c logs d | grep up && break; sleep 0.5; done
        $c exec d id -u; $c ps --format '{{.Names}} {{.State}} {{.Mode}}'; $c stop -t 5 d; $c rm a d; $c verify >/dev/null; echo $?
    "#;
    for account in ["guest", "root"] {
        let output = inside(account, script);
        let expected = "0\nkept\n/usr\nb\n1\nbox\ntouch: /in/x: Read-only file system\n137\n125\n\
            touch: /x: Read-only file system\nup\n0\nd running S1\na exited S1\nd\na\nd\n0\n";
        assert_eq!(output.stdout, expected, "{account}: {output}");
    }
}
