//! The house rules that a compiler does not check.

use std::{fs, path::PathBuf, process::Command};

use harness::images::workspace;

/// Lines that a Rust file may have.
const MOST_LINES: usize = 520;
/// Columns that a comment may fill; the formatter, which sees to code, lets comments be.
const COLUMNS: usize = 125;

/// Tracked and new files of the project with one of these endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let files: Vec<PathBuf> = names
        .lines()
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .map(|name| workspace().join(name))
        .filter(|path| path.is_file())
        .collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn files_hold_one_noun() {
    let mut long = Vec::new();
    for path in files(&[".rs"]) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > MOST_LINES {
            long.push(format!("{lines} lines: {}", path.display()));
        }
    }
    assert!(long.is_empty(), "longer than {MOST_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn comments_fit_beside_the_code() {
    let mut wide = Vec::new();
    for path in files(&[".rs"]) {
        for (at, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let table = line.contains("// |") || line.contains("//! |");
            if line.trim_start().starts_with("//") && !table && line.chars().count() > COLUMNS {
                wide.push(format!("{}:{}", path.display(), at + 1));
            }
        }
    }
    assert!(wide.is_empty(), "comments wider than {COLUMNS} columns:\n{}", wide.join("\n"));
}

#[test]
fn modules_say_what_they_are_for() {
    let mut silent = Vec::new();
    for path in files(&[".rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        // Headers may follow inner attributes.
        let first = text.lines().find(|line| !line.is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            silent.push(path.display().to_string());
        }
    }
    assert!(silent.is_empty(), "no module header:\n{}", silent.join("\n"));
}

#[test]
fn nothing_is_left_to_do_in_silence() {
    // Split, so that this file does not find itself.
    let words = [concat!("FIX", "ME"), concat!("XX", "X:"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    let mut found = Vec::new();
    for path in files(&[".rs", ".sh", ".toml"]) {
        let text = fs::read_to_string(&path).unwrap();
        for word in words {
            if text.contains(word) {
                found.push(format!("{word} in {}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
