//! A guest that makes random calls with bad pointers: nothing of it may end, stop or mislead the tracer.

mod common;

use std::{fs, path::Path, process::Command};

use common::*;
use coracle_api::Ended;

#[test]
fn noise_of_all_kinds_is_answered() {
    if harness::skip::lacks(&["gcc"]) {
        return;
    }
    let Some(tree) = alpine() else { return };
    let program = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(program.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/hostile/noise.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-w", "-static", "-pthread", "-o"]).arg(program.path().join("noise")).arg(source);
    assert!(gcc.status().expect("gcc").success(), "the program is compiled");
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
