//! Runs a program in a tree under the preload engine alone, without a bundle: for looking at the engine itself.
//!
//! `enter [F1|F3] [OPTION]… [HOST:GUEST[:ro]]… -- ROOT PROGRAM [ARG]…`; the options are those of `harness::enter`.

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::enter(&coracle_preload::Preload)
}
