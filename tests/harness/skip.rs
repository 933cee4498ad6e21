//! Tests that cannot run here say so by name; they never pass in silence.
//!
//! A skipped test prints its reason and appends it to the file that `CORACLE_TEST_SKIPS` names; `cargo xtask test`
//! prints that file at its end.

use std::{env, fs::OpenOptions, io::Write as _, path::Path, thread};

/// Records that the calling test is skipped.
pub fn because(reason: &str) {
    let name = thread::current().name().unwrap_or("?").to_owned();
    println!("skipped: {name}: {reason}");
    if let Some(path) = env::var_os("CORACLE_TEST_SKIPS")
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "{name}: {reason}");
    }
}

/// Whether all programs are installed; if not, the test is recorded as skipped: `if skip::lacks(&["umoci"]) { return; }`.
#[must_use]
pub fn lacks(programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !installed(program)).collect();
    if !missing.is_empty() {
        because(&format!("not installed: {}", missing.join(", ")));
    }
    !missing.is_empty()
}

/// Whether this is not the slow tier (`cargo xtask test --all`); if so, the test is recorded as skipped.
#[must_use]
pub fn unless_slow() -> bool {
    let quick = env::var_os("CORACLE_TEST_ALL").is_none();
    if quick {
        because("slow tier: cargo xtask test --all");
    }
    quick
}

/// Whether the harness is not root; if so, the test is recorded as skipped.
#[must_use]
pub fn unless_root() -> bool {
    let ordinary = !crate::user::is_root();
    if ordinary {
        because("needs root to prepare the ground (mounts, other users' files)");
    }
    ordinary
}

fn installed(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}
