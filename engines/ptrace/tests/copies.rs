//! Large files of a copy-on-write view: they are copied beside the loop, and everything else goes on meanwhile.

mod common;

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use common::{NOBODY_IN_PARTICULAR, Tree, extract, run, spec, start, start_after, volume, wait};
use coracle_api::{Access, Ended, LaunchSpec};

const SIZE: usize = 64 << 20;

/// A tree with a large file in it, and a run of a script in a view of that, which lies in `changes`.
fn prepared(tree: &Tree, changes: &Path, variant: &str, script: &str) -> LaunchSpec {
    let file = tree.root.join("large");
    if !file.exists() {
        // Not all zeroes, so that there is something to copy.
        let content: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at / 4096 % 251).expect("small") | 1).collect();
        fs::write(&file, content).expect("write");
        chown(&file, Some(NOBODY_IN_PARTICULAR), Some(NOBODY_IN_PARTICULAR)).ok();
    }
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.variant = Some(variant.to_owned());
    spec.access = Access::CopyOnWrite { changes: changes.to_owned() };
    spec
}

/// The files that are left of copying.
fn left_over(changes: &Path) -> usize {
    fs::read_dir(changes.join("view/tmp")).expect("its directory").count()
}

#[test]
fn others_go_on_while_a_large_file_is_copied() {
    let Some(tree) = extract("busybox-musl-x86_64") else { return };
    // Two change it at the same time; a third counts how often it looks at a name meanwhile.
    let script = "(echo one >>/large; : >/done) & (echo two >>/large; : >/too) & n=0; while [ ! -e /done ]; do n=$((n+1)); done; wait; \
                  echo $n; wc -c </large; tail -c 8 /large | sort; ls /done /too";
    for variant in ["P1", "P2"] {
        let changes = volume();
        let spec = prepared(&tree, changes.path(), variant, script);
        let before = fs::metadata(tree.root.join("large")).expect("there");
        let output = run(&spec);
        assert_eq!(output.ended, Ended::Exited(0), "{}", output.text);
        let (count, rest) = output.text.split_once('\n').expect("lines");
        assert_eq!(rest, format!("{}\none\ntwo\n/done\n/too\n", SIZE + 8), "{variant}");
        assert!(count.parse::<u32>().expect("a number") > 300, "{variant}: {count} looks while it was copied");
        let after = fs::metadata(tree.root.join("large")).expect("there");
        assert_eq!((after.ino(), after.len(), after.mtime()), (before.ino(), before.len(), before.mtime()));
        assert_eq!(left_over(changes.path()), 0);
    }
}

#[test]
fn a_copy_that_fails_says_why_and_one_that_nobody_waits_for_is_dropped() {
    let Some(tree) = extract("busybox-musl-x86_64") else { return };
    let changes = volume();
    let script = "echo x >>/large; echo $?; truncate -s 3 /large; echo $?; wc -c </large; echo small >/file; cat /file";
    let spec = prepared(&tree, changes.path(), "P1", script);
    let (process, mut output) = start_after(&spec, || {
        // The view itself is made of files, too.
        let limit = libc::rlimit { rlim_cur: 32 << 20, rlim_max: 32 << 20 };
        // SAFETY: setrlimit reads one struct rlimit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    });
    let mut text = String::new();
    output.read_to_string(&mut text).expect("the guest's output");
    assert_eq!(wait(process), Ok(Ended::Exited(0)), "{text}");
    assert_eq!(text.matches("File too large").count(), 2, "{text}");
    assert!(text.ends_with(&format!("1\n{SIZE}\nsmall\n")), "{text}");
    assert_eq!(left_over(changes.path()), 0);

    let script = "sh -c 'echo $$; exec 3>>/large; echo copied' & read x </dev/null; sleep 0.05; kill -9 $!; wait; wc -c </large; echo y >>/large; wc -c </large";
    let changes = volume();
    let spec = prepared(&tree, changes.path(), "P1", script);
    let (process, mut output) = start(&spec);
    let mut text = String::new();
    output.read_to_string(&mut text).expect("the guest's output");
    assert_eq!(wait(process), Ok(Ended::Exited(0)), "{text}");
    assert!(text.ends_with(&format!("{SIZE}\n{}\n", SIZE + 2)), "{text}");
    assert_eq!(left_over(changes.path()), 0);
}
