//! The harness's runs of an engine, with this one.

#![allow(dead_code, unused_imports, reason = "each test program uses a part")]

use std::fs;

use coracle_api::{Ended, LaunchSpec};
use coracle_ptrace::Ptrace;
use harness::engine;
pub(crate) use harness::engine::{
    ENGINE_FAILED, NOBODY_IN_PARTICULAR, Output, Tree, alpine, bind, extract, spec, volume, wait,
};

pub(crate) fn start(spec: &LaunchSpec) -> (i32, fs::File) {
    engine::start(&Ptrace, spec)
}

pub(crate) fn start_after(spec: &LaunchSpec, before: impl FnOnce()) -> (i32, fs::File) {
    engine::start_after(&Ptrace, spec, before)
}

pub(crate) fn run(spec: &LaunchSpec) -> Output {
    engine::run(&Ptrace, spec)
}

/// Runs a shell script in the shared tree, under both variants, which must agree.
pub(crate) fn sh(script: &str) -> Option<Output> {
    let tree = alpine()?;
    let mut spec = spec(tree, &["sh", "-c", script]);
    let first = run(&spec);
    spec.variant = Some("P2".to_owned());
    let second = run(&spec);
    assert_eq!(first, second, "P1 and P2 agree");
    Some(first)
}

pub(crate) fn expect(script: &str, text: &str) {
    if let Some(output) = sh(script) {
        assert_eq!(output, Output { text: text.to_owned(), ended: Ended::Exited(0) }, "{script}");
    }
}
