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

/// Every number of a program's headers, one at a time, replaced by those at the ends of its range.
#[test]
fn programs_whose_headers_lie_end_nobody_else() {
    let Some(tree) = alpine() else { return };
    let dir = volume();
    let program = fs::read(tree.root.join("bin/busybox")).expect("a program");
    let word = |at: usize, len: usize| {
        let bytes = program[at..at + len].iter().rev();
        bytes.fold(0, |value, byte| value << 8 | usize::from(*byte))
    };
    let (headers, count) = (word(32, 8), word(56, 2));
    let mut fields = vec![(16, 2), (24, 8), (32, 8), (54, 2), (56, 2)];
    for header in (0..count).map(|number| headers + number * 56) {
        fields.extend([(header, 4), (header + 4, 4)]);
        fields.extend((1..7).map(|field| (header + field * 8, 8)));
    }
    let mut made = 0;
    for (at, len) in fields {
        let old = u64::try_from(word(at, len)).expect("64 bits");
        // With the lower bits as they were, so that pages still fit.
        for new in [0, u64::MAX, (u64::MAX << 12) | old, 1 << 63 | old, (i64::MAX.cast_unsigned() << 12) | old, 1] {
            let mut bytes = program.clone();
            bytes[at..at + len].copy_from_slice(&new.to_le_bytes()[..len]);
            let path = dir.path().join(format!("{at}-{new:x}"));
            fs::write(&path, bytes).expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
            made += 1;
        }
    }
    assert!(made > 200, "{made} programs");
    let script = "for p in /m/*; do timeout 5 $p true; done >/dev/null 2>&1; cat /etc/alpine-release";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(dir.path(), "/m", true));
    assert_eq!(run(&spec), Output { text: "3.20.3\n".to_owned(), ended: Ended::Exited(0) });
}
