//! Bundles that were damaged on their way, and nodes on which nothing can be unpacked: one line that says so, status 125,
//! and nothing left behind.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Output, Sandbox, bundles, coracle, images, skip, user};

/// An Alpine bundle's bytes. Its tree is nobody else's, so that none is found unpacked in `/var/tmp`.
fn alpine() -> Option<Vec<u8>> {
    let options = ["--cmd", r#"["/bin/sh"]"#, "--exclude", "etc/motd"];
    Some(fs::read(bundles::of(images::ALPINE, &options)?).unwrap())
}

/// A bundle of these bytes, which the user may execute.
fn bundle(sandbox: &Sandbox, bytes: &[u8]) -> PathBuf {
    let path = sandbox.write("damaged.run", bytes);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Both that have to see damage: the program with which a user checks a file, and the file's own start.
fn verify_and_start(sandbox: &Sandbox, bundle: &Path) -> [Output; 2] {
    [sandbox.run(coracle(), ["verify", bundle.to_str().unwrap()]), sandbox.run(bundle, ["echo", "ran"])]
}

/// What is in the cache but for the user's own directory and the locks in it, which are empty.
fn left(sandbox: &Sandbox) -> Vec<String> {
    let output = sandbox.run("find", ["../cache", "../tmp", "-mindepth", "1", "-not", "-name", "*.lock"]);
    output
        .ok()
        .lines()
        .filter(|line| !line.ends_with(&format!("/coracle-{}", user::ordinary().uid)))
        .map(str::to_owned)
        .collect()
}

fn position(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).rposition(|window| window == part).expect("every bundle has this")
}

#[test]
fn a_bundle_cut_short_says_how_much_of_it_is_there() {
    let Some(whole) = alpine() else { return };
    let sandbox = Sandbox::new();
    // Its end, its middle, and all of its image.
    for keep in [whole.len() - 1, whole.len() - 100, whole.len() * 2 / 3, position(&whole, b"\x28\xb5\x2f\xfd") + 1] {
        let path = bundle(&sandbox, &whole[..keep]);
        for output in verify_and_start(&sandbox, &path) {
            let sizes = format!("{keep} bytes of {}", whole.len());
            output.fails_with(&["damaged.run: is cut short", &sizes, "copy it again"]);
            assert_eq!(output.stderr.lines().count(), 1, "{output}");
        }
    }
    assert!(left(&sandbox).is_empty(), "{:?}", left(&sandbox));
}

#[test]
fn what_was_appended_is_noticed() {
    let Some(mut bytes) = alpine() else { return };
    let sandbox = Sandbox::new();
    bytes.extend_from_slice(b"</html>");
    let path = bundle(&sandbox, &bytes);
    for output in verify_and_start(&sandbox, &path) {
        output.fails_with(&["7 bytes behind its end"]);
    }
}

#[test]
fn one_flipped_bit_anywhere_is_found() {
    let Some(whole) = alpine() else { return };
    let sandbox = Sandbox::new();
    let offset = sandbox.run(bundle(&sandbox, &whole), ["--coracle-offset"]);
    let payload: usize = offset.ok().parse().unwrap();
    let manifest = position(&whole, b"\"stored_sha256\":\"");
    // Region, where, what verify says of it, what a first start says of it.
    let regions: [(&str, usize, &str, &str); 8] = [
        ("slot's magic", position(&whole[..payload], b"\x7fCORACLE-SLOT"), "slot", "slot"),
        ("slot's offset", position(&whole[..payload], b"\x7fCORACLE-SLOT") + 24, "slot", "trailer is corrupt"),
        ("first frame", payload + 1000, "frame 0 of the payload", "frame 0 of the payload"),
        ("payload", payload + (manifest - payload) / 2, "of the payload", "of the payload"),
        ("manifest", manifest + 20, "the manifest", "the manifest"),
        ("index", manifest + 200, "the index", "the index"),
        ("trailer", whole.len() - 60, "the trailer", "the trailer"),
        ("end", whole.len() - 1, "the trailer", "the trailer"),
    ];
    for (region, at, verified, started) in regions {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let path = bundle(&sandbox, &bytes);
        for (output, part) in verify_and_start(&sandbox, &path).iter().zip([verified, started]) {
            assert!(output.code == Some(125) && output.stderr.contains(part), "{region}: {part}: {output}");
            output.fails_with(&["damaged.run", "copy or build"]);
            assert_eq!(output.stderr.lines().count(), 1, "{region}: {output}");
        }
        assert!(left(&sandbox).is_empty(), "{region}: {:?}", left(&sandbox));
    }
    // The stub's own code cannot vouch for itself; a trusted program can tell.
    for at in [payload / 5, payload / 2, payload - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let path = bundle(&sandbox, &bytes);
        sandbox.run(coracle(), ["verify", path.to_str().unwrap()]).fails_with(&["damaged.run", "the stub"]);
    }
    sandbox.run(coracle(), ["verify", bundle(&sandbox, &whole).to_str().unwrap()]).ok();
}

#[test]
fn a_stripped_bundle_says_who_took_its_image() {
    if skip::lacks(&["strip"]) {
        return;
    }
    let Some(whole) = alpine() else { return };
    let sandbox = Sandbox::new();
    let path = bundle(&sandbox, &whole);
    sandbox.run("strip", [&path]).ok();
    for output in verify_and_start(&sandbox, &path) {
        output.fails_with(&["its image is gone", "strip", "copy or build the bundle again"]);
    }
}

/// A command of the user's in a mount namespace in which /tmp and /var/tmp cannot be written; `/mnt` is the sandbox.
fn nowhere(sandbox: &Sandbox, prepare: &str, words: &[&str]) -> Output {
    let script = format!(
        r#"set -e
        mount --bind "$0" /mnt; mount -t tmpfs -o ro none /var/tmp; mount -t tmpfs -o ro none /tmp
        {prepare}
        cd /mnt/work
        exec setpriv --reuid "$1" --regid "$2" --clear-groups env -i PATH=/usr/bin:/bin HOME=/mnt/home ${{@:3}}"#
    );
    let user = user::ordinary();
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", &script]).arg(sandbox.path());
    command.args([user.uid.to_string(), user.gid.to_string()]).args(words);
    Output::of(command)
}

#[test]
fn a_node_without_any_place_names_every_place_it_tried() {
    if skip::unless_root() || skip::lacks(&["unshare", "setpriv", "bash"]) {
        return;
    }
    let Some(whole) = alpine() else { return };
    let sandbox = Sandbox::new();
    bundle(&sandbox, &whole);
    let run = ["./damaged.run", "echo", "ran"];
    let output = nowhere(&sandbox, "", &run);
    output.fails_with(&["no directory to unpack to", "/var/tmp (default): ", "/tmp (default): ", "CORACLE_CACHE"]);
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    let own = "chown \"$1\" /mnt/full";
    let places = [
        ("mount -t tmpfs -o noexec none /mnt/full", "noexec"),
        ("mount -t tmpfs -o size=4m none /mnt/full", "are free and"),
        ("mount -t tmpfs -o nr_inodes=40 none /mnt/full", "inodes are free and"),
    ];
    sandbox.make_dir("full");
    for (mount, reason) in places {
        let words = ["CORACLE_CACHE=/mnt/full", "./damaged.run", "echo", "ran"];
        nowhere(&sandbox, &format!("{mount}; {own}"), &words)
            .fails_with(&["/mnt/full (--coracle-cache or $CORACLE_CACHE)", reason]);
    }
    // A place of the job's own is the last resort, and good enough.
    let words = ["TMPDIR=/mnt/tmp", "./damaged.run", "echo", "ran"];
    assert_eq!(nowhere(&sandbox, "", &words).ok(), "ran");
}

#[test]
fn a_file_that_cannot_grow_ends_unpacking_and_leaves_nothing() {
    if skip::unless_root() || skip::lacks(&["unshare", "setpriv", "bash"]) {
        return;
    }
    let Some(whole) = alpine() else { return };
    let sandbox = Sandbox::new();
    let path = bundle(&sandbox, &whole);
    let words = ["CORACLE_CACHE=/mnt/cache", "./damaged.run", "echo", "ran"];
    // Alpine's C library is larger than this many kilobytes; with the signal ignored the write fails instead.
    let output = nowhere(&sandbox, "trap '' XFSZ; ulimit -f 300", &words);
    output.fails_with(&["no directory to unpack to", "/mnt/cache", "File too large"]);
    assert!(left(&sandbox).is_empty(), "{:?}", left(&sandbox));
    assert_eq!(sandbox.run(&path, ["echo", "ran"]).ok(), "ran");
}
