//! Every file of a store cut, overwritten, replaced by another form, or gone: each command says one clear line or
//! works, none panics, and `verify` knows how to mend it.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Sandbox, images, skip};

/// A store with all that there is: an image, its tree, containers of several kinds, runs, a log.
const STORE: [&str; 8] = [
    "import -q tree.tar my:1",
    "create -q --pull=never --name one my:1",
    "run -q --pull=never --execmode=P1 --name two my:1 /bin/busybox chown 5:6 /etc",
    "run -q --pull=never one /bin/busybox touch /etc/made",
    "run -q --pull=never -d --name three my:1 /bin/busybox echo said",
    "wait three",
    "setup --execmode=F3 two",
    "tag my:1 my:2",
];

const COMMANDS: [&str; 16] = [
    "ps -s",
    "images",
    "inspect one",
    "inspect two",
    "inspect my:1",
    "logs three",
    "run -q --pull=never one /bin/busybox true",
    "run -q --pull=never two /bin/busybox true",
    "export -o out.tar two",
    "diff one",
    "clone -q three --name four",
    "create -q --pull=never my:1",
    "save -q -o out.tar my:2",
    "rename one five",
    "prune -q -f",
    "rm -f one two three",
];

/// What becomes of a file; none: it is gone.
fn harms(bytes: &[u8]) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let mut garbled = bytes.to_vec();
    for (place, byte) in garbled.iter_mut().enumerate().skip(bytes.len() / 3).step_by(7) {
        *byte ^= u8::try_from(place % 251).unwrap() | 1;
    }
    let mut all = vec![
        ("gone", None),
        ("empty", Some(Vec::new())),
        ("half", Some(bytes[..bytes.len() / 2].to_vec())),
        ("garbled", Some(garbled)),
    ];
    if bytes.first() == Some(&b'{') {
        let texts = ["[]", "{}", "null", "\"x\"", "{\"version\":99}", "{\"version\":\"x\",\"layers\":7,\"config\":[]}"];
        all.extend(texts.map(|text| (text, Some(text.as_bytes().to_vec()))));
    }
    all
}

/// Files of the store itself, not of the trees in it.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if !["ROOT", "root", "changes", "made"].iter().any(|tree| name.as_bytes() == tree.as_bytes()) {
                files(&path, found);
            }
        } else if !name.as_bytes().ends_with(b"lock") {
            found.push(path);
        }
    }
}

fn corruption(every: usize) {
    if skip::unless_root() {
        return;
    }
    let sandbox = Sandbox::new();
    if !images::small(&sandbox) {
        return;
    }
    for line in STORE {
        sandbox.coracle(line.split(' ')).ok();
    }
    let store = sandbox.path().join("home/.coracle");
    let (store_text, kept) = (store.display().to_string(), sandbox.work("kept").display().to_string());
    // As root, since an overlay leaves a directory that nobody can enter, and files may belong to subordinate ids.
    let shell = |script: &str| assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
    shell(&format!("cp -a {store_text} {kept}"));
    let mut found = Vec::new();
    files(&store, &mut found);
    found.sort();
    assert!(found.len() > 15, "{found:?}");
    let mut number = 0;
    for path in &found {
        let bytes = fs::read(sandbox.work("kept").join(path.strip_prefix(&store).unwrap())).unwrap();
        for (harm, content) in harms(&bytes) {
            number += 1;
            if number % every != 0 {
                continue;
            }
            let shown = path.strip_prefix(&store).unwrap().display().to_string();
            for line in std::iter::once("verify").chain(COMMANDS) {
                // As it was, with one file harmed.
                let again = format!("rm -rf {store_text} && cp -aT {kept} {store_text}");
                shell(&again);
                fs::remove_file(path).unwrap_or_else(|error| panic!("{shown} {harm}: {line}: {error}"));
                if let Some(content) = &content {
                    fs::write(path, content).unwrap();
                    sandbox.own(path);
                }
                let output = sandbox.coracle(line.split(' '));
                let what = format!("{shown} {harm}: {line}: {output}");
                assert!(output.code.is_some_and(|code| [0, 1, 125].contains(&code)), "{what}");
                assert!(output.stderr.lines().all(|line| line.starts_with("coracle: ")), "{what}");
                assert!(!output.stderr.contains("panicked"), "{what}");
                assert!(output.code == Some(0) || !output.stderr.is_empty(), "{what}");
                if output.code != Some(0) && line != "verify" && !line.starts_with("rm ") && !line.starts_with("ps") {
                    assert_eq!(output.stderr.lines().count(), 1, "{what}");
                }
                // What a command refuses for, verify names, with what mends it.
                if line == "verify" {
                    let must = ["blobs/", "images/", "/container.json", "/image.json", "/sum"];
                    let known = must.iter().any(|part| shown.contains(part)) && harm != "gone";
                    assert!(!known || output.code != Some(0), "{what}");
                }
            }
        }
    }
    println!("{number} harms of {} files", found.len());
}

#[test]
fn some_harms_to_some_files_of_a_store() {
    corruption(61);
}

#[test]
fn every_file_of_a_store_harmed() {
    if skip::unless_slow() {
        return;
    }
    corruption(4);
}
