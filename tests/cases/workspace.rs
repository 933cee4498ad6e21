//! The shape of the project itself: which crate may import which.

use std::{collections::BTreeMap, process::Command};

use harness::images::workspace;
use serde_json::Value;

/// What each crate may import of the workspace; anything else is an arrow against the line of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("coracle-api", &[]),
    ("coracle-format", &[]),
    ("coracle-open", &["coracle-format"]),
    ("coracle-paths", &[]),
    ("coracle-elf", &[]),
    ("coracle-view", &[]),
    ("coracle-layout", &["coracle-api", "coracle-paths", "coracle-intercept", "coracle-ledger"]),
    ("coracle-ledger", &[]),
    ("coracle-sys", &[]),
    ("coracle-intercept", &["coracle-paths", "coracle-elf", "coracle-view", "coracle-ledger"]),
    ("coracle-namespaces", &["coracle-api", "coracle-sys", "coracle-paths"]),
    (
        "coracle-ptrace",
        &[
            "coracle-api",
            "coracle-sys",
            "coracle-paths",
            "coracle-intercept",
            "coracle-elf",
            "coracle-view",
            "coracle-layout",
        ],
    ),
    ("coracle-trap", &["coracle-api", "coracle-sys", "coracle-paths", "coracle-intercept", "coracle-elf"]),
    ("coracle-entry", &["coracle-paths", "coracle-elf"]),
    (
        "coracle-preload",
        &[
            "coracle-api",
            "coracle-sys",
            "coracle-paths",
            "coracle-intercept",
            "coracle-elf",
            "coracle-view",
            "coracle-layout",
            "coracle-entry",
        ],
    ),
    (
        "coracle-shim",
        &["coracle-sys", "coracle-paths", "coracle-intercept", "coracle-elf", "coracle-view", "coracle-entry"],
    ),
    ("coracle-apptainer", &["coracle-api"]),
    (
        "coracle-stub",
        &[
            "coracle-format",
            "coracle-open",
            "coracle-api",
            "coracle-paths",
            "coracle-intercept",
            "coracle-entry",
            "coracle-namespaces",
            "coracle-ptrace",
            "coracle-trap",
            "coracle-preload",
            "coracle-apptainer",
            "coracle-ledger",
            "coracle-view",
        ],
    ),
    ("coracle", &["coracle-format", "coracle-open", "coracle-api", "coracle-elf", "coracle-view", "coracle-ledger"]),
    ("xtask", &["coracle-tests"]),
    ("coracle-tests", &["coracle-api", "coracle-paths"]),
];

#[test]
fn imports_follow_the_line() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} has no line in ARROWS"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let import = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"].as_str() == Some("dev");
            if names.contains(&import) && !for_tests && !allowed.contains(&import) {
                wrong.push(format!("{name} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
