//! Image facts from real programs, and from programs with any byte of their headers changed.

mod common;

use std::fs;

use coracle::{artifacts, patch};
use coracle_format::ImageConfig;

use common::Builder;

fn facts_of(files: &[(&str, Vec<u8>)]) -> coracle_api::ImageFacts {
    let mut tree = Builder::new();
    for (name, bytes) in files {
        tree.file(name, bytes.clone()).mode = 0o755;
    }
    patch::analyse(&tree.0, &ImageConfig::default()).unwrap().facts
}

#[test]
fn static_dynamic_and_other_files_are_told_apart() {
    let shell = fs::read("/bin/sh").unwrap();
    let loader = fs::read("/lib64/ld-linux-x86-64.so.2").unwrap();
    let facts = facts_of(&[
        ("loader", loader),
        ("script", b"#!/bin/sh\n".to_vec()),
        ("shell", shell.clone()),
        ("short", b"\x7fELF".to_vec()),
        ("static", artifacts::STUB.to_vec()),
    ]);
    assert_eq!(facts.interpreters, ["/lib64/ld-linux-x86-64.so.2"]);
    assert_eq!(facts.static_programs, ["/static"]);
    assert_eq!(facts.architecture, "amd64");
    // What cannot be executed is no program.
    let mut tree = Builder::new();
    tree.file("shell", shell);
    assert_eq!(patch::analyse(&tree.0, &ImageConfig::default()).unwrap().facts, coracle_api::ImageFacts::default());
}

#[test]
fn the_config_names_the_architecture_if_it_does() {
    let mut tree = Builder::new();
    tree.file("shell", fs::read("/bin/sh").unwrap()).mode = 0o755;
    let config = ImageConfig { architecture: "arm64".into(), ..ImageConfig::default() };
    assert_eq!(patch::analyse(&tree.0, &config).unwrap().facts.architecture, "arm64");
}

#[test]
fn damaged_headers_and_short_files_are_no_crash() {
    for program in [fs::read("/bin/sh").unwrap(), artifacts::STUB.to_vec()] {
        for at in 0..1024 {
            for value in [0, 0x7F, 0xFF] {
                let mut bytes = program[..8192].to_vec();
                bytes[at] = value;
                facts_of(&[("a", bytes)]);
            }
        }
        for len in (0..2048).step_by(7) {
            facts_of(&[("a", program[..len].to_vec())]);
        }
    }
}
