//! The changes that a run has kept, shipped: as a bundle, as archives of other tools, as a tar.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use harness::{Sandbox, bundles, skip};
use serde_json::Value;

/// What a guest does to its tree: all ways in which a name may come, go, or mean something else.
const WORK: &str = "\
    echo new > /etc/new && chmod 750 /etc/new && echo more >> /etc/motd && rm /etc/issue && \
    mkdir -p /srv/a/b && echo deep > /srv/a/b/c && ln /srv/a/b/c /srv/a/link && ln -s b/c /srv/a/s && mkfifo /srv/a/pipe && \
    rm -r /etc/network && echo file > /etc/network && \
    rm /etc/inittab && mkdir /etc/inittab && echo inner > /etc/inittab/inner && \
    mv /etc/profile /etc/profile.old && \
    cp -p /etc/motd /etc/shells.new && mv /etc/shells.new /etc/shells && \
    rm -r /etc/apk && mkdir /etc/apk && echo own > /etc/apk/world && \
    : > /etc/services && dd if=/dev/zero of=/srv/large bs=1024 count=9000 2>/dev/null && echo end >> /srv/large";

/// What a tree shows of itself: for each path type, mode, content or target.
const SHOW: &str = "\
    cat /etc/motd /etc/new /etc/network /etc/profile.old /etc/inittab/inner /etc/apk/world /srv/a/b/c /srv/a/link /srv/a/s; \
    ls -d /etc/issue /etc/profile /etc/apk/keys 2>&1; stat -c '%s %F' /etc/new /etc/services /srv/a/pipe; \
    test /srv/a/link -ef /srv/a/b/c && echo linked; md5sum /srv/large /bin/busybox /etc/shells; find /etc /srv | grep -v -e localtime -e resolv.conf -e hostname | sort";

fn executable(sandbox: &Sandbox, name: &str, bytes: &[u8]) -> PathBuf {
    let path = sandbox.write(name, bytes);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Name, mode and kind of all members of a tar.
fn members(tar: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(tar);
    let described = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        let link = entry.link_name().unwrap();
        (
            entry.path().unwrap().display().to_string(),
            format!("{:?} {:o} {} {link:?}", header.entry_type(), header.mode().unwrap(), header.size().unwrap()),
        )
    });
    described.collect()
}

#[test]
fn a_runs_changes_are_shipped_as_a_bundle() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let mut listings = Vec::new();
    for engine in ["namespaces", "ptrace"] {
        let option = format!("--coracle-engine={engine}");
        let writable = format!("--coracle-writable={engine}");
        sandbox.run(&bundle, [&option, &writable, "sh", "-c", WORK]).ok();
        let shown = sandbox.run(&bundle, [&option, &writable, "sh", "-c", SHOW]);
        let export = sandbox.run(&bundle, [&writable, "--coracle-export=bundle"]);
        assert_eq!((export.code, export.stderr.as_str()), (Some(0), ""), "{engine}");
        let again = sandbox.run(&bundle, [&writable, "--coracle-export=bundle"]);
        assert!(export.stdout_bytes == again.stdout_bytes, "{engine}: two exports differ");
        let shipped = executable(&sandbox, &format!("{engine}.run"), &export.stdout_bytes);
        sandbox.run(&shipped, ["--coracle-verify"]).ok();
        sandbox.coracle(["verify", shipped.to_str().unwrap()]).ok();
        for other in ["namespaces", "ptrace"] {
            let option = format!("--coracle-engine={other}");
            let again = sandbox.run(&shipped, [&option, "sh", "-c", SHOW]);
            assert_eq!((again.code, &again.stdout), (shown.code, &shown.stdout), "{engine}, run under {other}");
        }
        // Most of the payload is the old one's, byte for byte; and it says where it comes from.
        let info = |path: &PathBuf| -> Value {
            serde_json::from_str(sandbox.run(path, ["--coracle-info=json"]).ok()).unwrap()
        };
        let (old, new) = (info(&bundle), info(&shipped));
        assert_eq!(new["manifest"]["config"], old["manifest"]["config"]);
        assert!(new["manifest"]["provenance"]["changed"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));
        assert!(old["manifest"]["provenance"]["changed"].is_null());
        // The same as a tar, and as another tool's archive.
        let tar = sandbox.run(&bundle, [&writable, "--coracle-tar"]);
        assert!(tar.stdout_bytes == sandbox.run(&shipped, ["--coracle-tar"]).stdout_bytes, "{engine}");
        let oci = sandbox.run(&bundle, [&writable, "--coracle-export=oci"]);
        sandbox.write("oci.tar", &oci.stdout_bytes);
        sandbox.coracle(["build", "oci-archive:oci.tar", "-o", "oci.run"]).ok();
        let built = info(&sandbox.work("oci.run"));
        assert_eq!(built["manifest"]["config"], new["manifest"]["config"]);
        assert!(tar.stdout_bytes == sandbox.run("./oci.run", ["--coracle-tar"]).stdout_bytes, "{engine}: as OCI");
        // A second generation.
        let more = format!("--coracle-writable={engine}-more");
        sandbox.run(&shipped, [&option, &more, "rm", "/etc/new"]).ok();
        let export = sandbox.run(&shipped, [&more, "--coracle-export=bundle"]);
        let second = executable(&sandbox, "second.run", &export.stdout_bytes);
        sandbox.run(&second, ["--coracle-verify"]).ok();
        sandbox.run(&second, ["ls", "/etc/new"]).code_is(1);
        sandbox.run(&second, ["cat", "/srv/a/s"]).ok();
        listings.push(members(&tar.stdout_bytes));
    }
    // Where the node's own are shown, an overlay has a place for them.
    let shown = |name: &&String| !["etc/localtime", "etc/resolv.conf"].contains(&name.as_str());
    let names = listings[0].keys().chain(listings[1].keys()).filter(shown);
    let differ: Vec<_> = names.filter(|name| listings[0].get(*name) != listings[1].get(*name)).collect();
    let differ: Vec<_> = differ.iter().map(|name| (name, listings[0].get(*name), listings[1].get(*name))).collect();
    assert!(differ.is_empty(), "an overlay's changes and a view's differ: {differ:?}");
    assert_eq!(listings[0]["etc/new"], "Regular 750 4 None");
    assert_eq!(listings[0]["etc/services"], "Regular 644 0 None", "the write bits that the disk does not show");
    assert_eq!(listings[0]["etc/inittab/inner"].split(' ').next(), Some("Regular"));
}

#[test]
fn without_changes_an_export_is_the_bundle_itself() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let was = fs::read(&bundle).unwrap();
    assert!(sandbox.run(&bundle, ["--coracle-export=bundle"]).stdout_bytes == was);
    sandbox.make_dir("work/empty");
    assert!(sandbox.run(&bundle, ["--coracle-writable=empty", "--coracle-export=bundle"]).stdout_bytes == was);
    sandbox.write("other/file", "");
    let refused = sandbox.run(&bundle, ["--coracle-writable=other", "--coracle-export=bundle"]);
    refused.fails_with(&["other", "holds no changes of a run"]);
    let refused = sandbox.run(&bundle, ["--coracle-writable=none", "--coracle-export=bundle"]);
    refused.fails_with(&["none", "No such file"]);
}

#[test]
fn what_a_pretended_root_gave_away_is_exported_with_its_owners() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let work = "echo x > /srv/x && chown 33:44 /srv/x && chmod 4750 /srv/x && echo y > /srv/y";
    let options = ["--coracle-engine=ptrace", "--coracle-user=root", "--coracle-writable=kept"];
    sandbox.run(&bundle, options.iter().chain(&["sh", "-c", work])).ok();
    let owner = |dir: &str, path: &str| {
        let tar = sandbox.run(&bundle, [&format!("--coracle-writable={dir}"), "--coracle-tar"]);
        tar.ok();
        let mut archive = tar::Archive::new(&tar.stdout_bytes[..]);
        let found = archive.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap().ends_with(path));
        let header = found.unwrap().header().clone();
        (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap())
    };
    assert_eq!(owner("kept", "srv/x"), (33, 44, 0o4750));
    assert_eq!(owner("kept", "srv/y"), (0, 0, 0o644));
    assert_eq!(owner("kept", "etc/shadow"), (0, 42, 0o640));
    let export = sandbox.run(&bundle, ["--coracle-writable=kept", "--coracle-export=bundle"]);
    let shipped = executable(&sandbox, "shipped.run", &export.stdout_bytes);
    let shown = sandbox.run(
        &shipped,
        ["--coracle-engine=ptrace", "--coracle-user=root", "--coracle-writable", "stat", "-c", "%u %g %a", "/srv/x"],
    );
    assert_eq!(shown.ok(), "33 44 4750");
    if skip::lacks(&["newuidmap"]) {
        return;
    }
    // Under namespaces with subordinate ids, where this user has them, the files are other users' on the host.
    let options = ["--coracle-engine=namespaces", "--coracle-user=root", "--coracle-writable=ids"];
    let done = sandbox.run(&bundle, options.iter().chain(&["sh", "-c", work]));
    if done.code != Some(0) {
        return skip::because(&format!("root by namespaces does not work here: {}", done.stderr));
    }
    let (uid, gid, _) = owner("ids", "srv/x");
    assert!((uid, gid) == (33, 44) || (uid, gid) == (0, 0), "{uid} {gid}: without subordinate ids all is root's");
}
