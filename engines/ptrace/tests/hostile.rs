//! Guests that mean harm, or might: nothing of it may end, stop or mislead the tracer.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use common::*;
use coracle_api::Ended;

/// A program of `tests/guests/hostile`, in a directory that everybody may read; `None` without a compiler.
fn compiled(name: &str) -> Option<tempfile::TempDir> {
    if harness::skip::lacks(&["gcc"]) {
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/guests/hostile/{name}.c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-w", "-static", "-pthread", "-o"]).arg(dir.path().join(name)).arg(source);
    assert!(gcc.status().expect("gcc").success(), "{name} is compiled");
    Some(dir)
}

#[test]
fn narrow_calls_of_wide_programs_do_not_leave_the_tree() {
    let (Some(program), Some(tree)) = (compiled("narrow"), alpine()) else { return };
    for variant in ["P1", "P2"] {
        let mut spec = spec(tree, &["/it/narrow"]);
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(program.path(), "/it", true));
        assert_eq!(run(&spec).text, "open -38, access -38, getpid 1\n", "{variant}");
    }
}

#[test]
fn noise_of_all_kinds_is_answered() {
    let (Some(program), Some(tree)) = (compiled("noise"), alpine()) else { return };
    let listing = || {
        let out = Command::new("find").arg(&tree.root).args(["-printf", "%p %i %m %s %T@ %C@\n"]).output();
        out.expect("find").stdout
    };
    let before = listing();
    for (seed, variant) in [("1", "P1"), ("2", "P2"), ("3", "P1")] {
        let dir = volume();
        // The shell runs beside it, and must be served all the while.
        let script = format!("/noise/noise {seed} 1 >/dev/null 2>&1; cat /etc/alpine-release");
        let mut spec = spec(tree, &["sh", "-c", &script]);
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(program.path(), "/noise", true));
        spec.binds.push(bind(dir.path(), "/work", false));
        let ended = Ended::Exited(0);
        assert_eq!(run(&spec), Output { text: "3.20.3\n".to_owned(), ended }, "seed {seed} under {variant}");
    }
    assert!(before == listing(), "the tree is as before");
}
