//! Guests that mean harm, or might: nothing of it may end, stop or mislead the tracer.

mod common;

use std::{fs, io::Read, os::unix::fs::PermissionsExt, path::Path, process::Command};

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
fn a_trap_from_elsewhere_is_not_taken_for_our_own() {
    let (Some(program), Some(tree)) = (compiled("trap"), alpine()) else { return };
    for variant in ["P1", "P2"] {
        let mut spec = spec(tree, &["/it/trap"]);
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(program.path(), "/it", true));
        assert_eq!(run(&spec).text, "right\n", "{variant}");
    }
}

#[test]
fn who_makes_processes_until_there_are_no_more_harms_himself_alone() {
    let (Some(program), Some(tree)) = (compiled("bomb"), alpine()) else { return };
    for variant in ["P1", "P2"] {
        let mut spec = spec(tree, &["sh", "-c", "/it/bomb; cat /etc/alpine-release"]);
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(program.path(), "/it", true));
        let ended = Ended::Exited(0);
        assert_eq!(run(&spec), Output { text: "right\n3.20.3\n".to_owned(), ended }, "{variant}");
    }
}

#[test]
fn who_would_confine_himself_is_told_that_he_cannot() {
    let (Some(program), Some(tree)) = (compiled("confined"), alpine()) else { return };
    for variant in ["P1", "P2"] {
        let mut spec = spec(tree, &["/it/confined"]);
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(program.path(), "/it", true));
        assert_eq!(run(&spec).text, "version: ENOSYS\nrules: ENOSYS\n", "{variant}");
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
    for (seed, variant) in [("1", "P1"), ("2", "P2")] {
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
    // The same where the tracer may copy memory word by word only.
    let dir = volume();
    let mut spec = spec(tree, &["sh", "-c", "/noise/noise 3 1 >/dev/null 2>&1; cat /etc/alpine-release"]);
    spec.binds.push(bind(program.path(), "/noise", true));
    spec.binds.push(bind(dir.path(), "/work", false));
    let (front, mut output) = start_after(&spec, refuse_copies);
    let mut text = String::new();
    output.read_to_string(&mut text).expect("its output");
    assert_eq!((text.as_str(), wait(front)), ("3.20.3\n", Ok(Ended::Exited(0))), "word by word");
    assert!(before == listing(), "the tree is as before");
}

/// Keeps process_vm_readv(2) and process_vm_writev(2) from this process and its children, as a sandbox does.
fn refuse_copies() {
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let code = [
        step(0x20, 0, 0, 0),
        step(0x15, 1, 0, 310),
        step(0x15, 0, 1, 311),
        step(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | 1),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 5, filter: code.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call that reads it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(done, "the sandbox");
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
