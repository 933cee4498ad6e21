//! The harness's runs of an engine, with this one.

#![allow(dead_code, unused_imports, reason = "each test program uses a part")]

use coracle_api::{Ended, LaunchSpec};
use coracle_preload::Preload;
pub(crate) use harness::engine::{ENGINE_FAILED, Output, Tree, alpine, bind, extract, spec, volume};

pub(crate) fn run(spec: &LaunchSpec) -> Output {
    harness::engine::run(&Preload, spec)
}

/// Runs a shell script in the shared tree.
pub(crate) fn expect(script: &str, text: &str) {
    if let Some(tree) = alpine() {
        let output = run(&spec(tree, &["sh", "-c", script]));
        assert_eq!(output, Output { text: text.to_owned(), ended: Ended::Exited(0) }, "{script}");
    }
}
