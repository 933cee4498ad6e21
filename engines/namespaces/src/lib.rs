//! The `namespaces` engine: user and mount namespaces, native speed.
//!
//! The process enters new namespaces, puts the guest's view of files together and executes the program, keeping its pid;
//! only an own pid namespace makes it stay behind as supervisor.

mod dev;
mod resolve;
mod root;
mod sys;
mod user;

use coracle_api::{Ended, Engine, Host, ImageFacts, LaunchSpec, Refusal, Request, RunError, exec::Prepared};

/// The engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Namespaces;

impl Engine for Namespaces {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["R1"]
    }

    fn stays(&self) -> bool {
        false
    }

    fn probe(&self, _host: &Host, _facts: &ImageFacts, _request: &Request) -> Result<(), Refusal> {
        Ok(())
    }

    fn run(&self, spec: &LaunchSpec) -> Result<Ended, RunError> {
        let program = Prepared::new(&spec.argv, &spec.env)?;
        user::enter(&spec.identity, spec.unshare)?;
        root::enter(spec)?;
        Err(program.exec())
    }
}
