//! Flattening means what `umoci unpack --rootless` means: the same images, unpacked by both, compared file by file.
//!
//! umoci runs as an unprivileged user. Without umoci, or without the folder of real trees, a test says "skipped".

mod compare;
mod layout;
mod random;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use compare::{facts_of_directory, facts_of_tree, same};
use harness::skip;
use layout::Layout;

/// Real trees, changed and repacked by umoci, which writes the whiteouts.
#[test]
fn real_trees_changed_by_umoci() {
    let Some(images) = images() else {
        skip::because("there is no folder of images: set CORACLE_TEST_IMAGES");
        return;
    };
    if skip::lacks(&["umoci"]) {
        return;
    }
    let mut compared = 0;
    for archive in images {
        three_times(&archive);
        compared += 1;
    }
    println!("{compared} trees compared three times each");
    assert!(compared > 0);
}

/// A Debian with a compiler: thousands of files, hard links, set-id programs, devices.
#[test]
fn debian_changed_by_umoci() {
    if skip::unless_slow() || skip::unless_root() || skip::lacks(&["umoci", "mmdebstrap"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let archive = dir.path().join("debian.tar.gz");
    // An old snapshot of the archive is as good as a new one.
    let options = ["--quiet", "--variant=minbase", "--include=gcc", r#"--aptopt=Acquire::Check-Valid-Until "false""#];
    let made = Command::new("mmdebstrap").args(options).arg("stable").arg(&archive).status();
    assert!(made.is_ok_and(|status| status.success()), "mmdebstrap makes a tree");
    three_times(&archive);
}

/// Compares a tree as it is, with a layer of changes on it, and with one more that takes much of that away.
fn three_times(archive: &Path) {
    let layout = Layout::new();
    layout.add_layer_file(archive);
    layout.commit();
    let first = layout.unpack("first").expect("umoci unpacks a plain tree");
    same(&layout.flatten().expect("flattened"), &first, layout.started(), &archive.display().to_string());
    layout.as_user(
        "cd first/rootfs && rm -rf etc/apk etc/init.d var/spool && mv bin/busybox bin/bb 2>/dev/null; ln bin/bb bin/bb2 2>/dev/null
         rm -rf media; ln -s usr media; rm -rf home; echo file >home; rm -rf srv; mkdir -p srv/a/b; echo x >srv/a/b/c
         ln srv/a/b/c srv/hard; ln -s /srv/a srv/link; chmod 4755 srv/hard; chmod 1777 srv; mkfifo srv/pipe
         truncate -s 5M srv/holes; echo end >>srv/holes; touch -d @1000.5 srv/a; rm -rf tmp; :",
    );
    layout.repack("first");
    let second = layout.unpack("second").expect("umoci unpacks what it packed");
    same(&layout.flatten().expect("flattened"), &second, layout.started(), &archive.display().to_string());
    layout.as_user("cd second/rootfs && rm -rf srv/a srv/hard media home && mkdir media home && echo y >media/y; :");
    layout.repack("second");
    let third = layout.unpack("third").expect("umoci unpacks what it packed");
    same(&layout.flatten().expect("flattened"), &third, layout.started(), &archive.display().to_string());
}

/// Random layers over few names, so that everything meets everything.
#[test]
fn random_layers() {
    if skip::lacks(&["umoci"]) {
        return;
    }
    let rounds = std::env::var("CORACLE_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let (mut unpacked, mut refused) = (0, 0);
    for seed in 1..=rounds {
        let layout = Layout::new();
        let described = random::fill(&layout, seed);
        let ours = layout.flatten();
        match (layout.unpack("out"), ours) {
            (Ok(theirs), Ok(ours)) => {
                same(&ours, &theirs, layout.started(), &format!("seed {seed}\n{described}"));
                unpacked += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (Ok(_), Err(error)) => panic!("seed {seed}: umoci unpacks it, Coracle says {error}\n{described}"),
            (Err(error), Ok(_)) => panic!("seed {seed}: Coracle flattens it, umoci says {error}\n{described}"),
        }
    }
    println!("{unpacked} images compared, {refused} refused by both");
    assert!(unpacked * 2 > rounds, "most random images should be valid");
}

/// The real trees, or none.
fn images() -> Option<Vec<PathBuf>> {
    let folder = std::env::var_os("CORACLE_TEST_IMAGES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/images"), PathBuf::from);
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(".tar.gz"))
        .collect();
    found.sort();
    Some(found)
}
