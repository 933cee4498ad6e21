//! Copy-on-write views of trees whose files may be written to on disk: there the kernel guards nothing, and what is pinned
//! and asked again must.

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use common::{extract, run, spec, volume};
use coracle_api::Access;

/// All of a file that may not change.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    name: String,
    inode: u64,
    mode: u32,
    mtime: (i64, i64),
    content: Vec<u8>,
}

/// The files in a directory.
fn look(dir: &Path) -> Vec<File> {
    let files = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").path());
    let mut seen: Vec<_> = files
        .map(|path| {
            let (data, content) = (path.symlink_metadata().expect("stat"), fs::read(&path).expect("its content"));
            let name = path.display().to_string();
            File { name, inode: data.ino(), mode: data.mode(), mtime: (data.mtime(), data.mtime_nsec()), content }
        })
        .collect();
    seen.sort();
    seen
}

#[test]
fn a_name_that_becomes_a_shared_file_s_before_the_call_is_made_changes_nothing_shared() {
    if harness::skip::lacks(&["gcc"]) {
        return;
    }
    let Some(tree) = extract("busybox-musl-x86_64") else { return };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/changing/swap.c");
    let program = tree.root.join("swap");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-w", "-static", "-pthread", "-o"]).arg(&program).arg(source);
    assert!(gcc.status().expect("gcc").success(), "it is compiled");
    let ways = tree.root.join("ways");
    fs::create_dir(&ways).expect("mkdir");
    for number in 0..60 {
        fs::write(ways.join(format!("{number:02}")), "text\n").expect("write");
    }
    for path in [&program, &ways] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let user = spec(&tree, &[]).identity;
    let owner = format!("{}:{}", user.host_uid, user.host_gid);
    if nix::unistd::Uid::effective().is_root() {
        assert!(Command::new("chown").arg("-R").args([&owner]).arg(&ways).status().expect("chown").success());
    }
    let before = look(&ways);
    for variant in ["P1", "P2"] {
        let changes = volume();
        let mut spec = spec(&tree, &["/swap", "/ways"]);
        spec.variant = Some(variant.to_owned());
        spec.access = Access::CopyOnWrite { changes: changes.path().to_owned() };
        let output = run(&spec);
        assert_eq!(before, look(&ways), "{variant}");
        assert_eq!(output.text, "right\n", "{variant}");
    }
}
