//! The `apptainer` engine: an installed apptainer or singularity.
//!
//! Not in this version: it is registered so that its name is known and `explain` tells the truth, and it refuses every
//! run with that reason.

use coracle_api::{Ended, Engine, Host, ImageFacts, LaunchSpec, Refusal, Request, RunError};

/// The engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Apptainer;

impl Engine for Apptainer {
    fn name(&self) -> &'static str {
        "apptainer"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["S1", "singularity"]
    }

    fn stays(&self) -> bool {
        false
    }

    fn probe(&self, _: &Host, _: &ImageFacts, _: &Request) -> Result<(), Refusal> {
        Err(refusal())
    }

    fn run(&self, _: &LaunchSpec) -> Result<Ended, RunError> {
        Err(RunError::Refused(refusal()))
    }
}

fn refusal() -> Refusal {
    Refusal::new("not in this version of Coracle")
}
