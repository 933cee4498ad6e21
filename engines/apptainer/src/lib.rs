//! The `apptainer` engine: hands the tree to an installed apptainer or singularity (udocker's `S1`).
//!
//! What a site has installed may do what an ordinary user's kernel refuses (its set-user-id starter), so this is the last
//! engine that `auto` asks. The trick: the runtime is told to start *our own executable*, by an inherited descriptor, and
//! that becomes the program ([`coracle_api::Inside`]). So arguments, environment, directory, PATH search and exit statuses
//! are those of every other engine, and no shell of the runtime's evaluates them.
//!
//! Rules: all of the runtime's own habits are switched off (home, working directory, /tmp and a site's bind paths); what
//! the guest sees is what the specification says. Mount points are the runtime's to make, but in a tree that the guest may
//! write to, where it makes none.

mod arguments;
mod installed;
mod mount_points;
mod start;

use coracle_api::{Access, Ended, Engine, Host, ImageFacts, LaunchSpec, Refusal, Request, RunError};

use crate::installed::Installed;

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
        true
    }

    fn probe(&self, host: &Host, _: &ImageFacts, request: &Request) -> Result<(), Refusal> {
        let installed = Installed::find(host.path.as_deref())?;
        if request.ports {
            return Err(Refusal::new(
                "ports cannot have other numbers inside, or one address only: apptainer shares the host's network",
            )
            .advise("use `ptrace`, or leave that out"));
        }
        if request.kernel {
            return Err(Refusal::new(
                "another release of the kernel was asked for, and the kernel itself tells its own",
            )
            .advise("leave that out, or use `ptrace`"));
        }
        installed.may_start()
    }

    fn notes(&self, host: &Host, request: &Request) -> Vec<String> {
        if request.isolated && host.uid != 0 {
            return vec!["apptainer keeps files and processes apart, and guards nothing else".to_owned()];
        }
        Vec::new()
    }

    fn run(&self, spec: &LaunchSpec) -> Result<Ended, RunError> {
        let installed = Installed::find(spec.host_path.as_deref()).map_err(RunError::Refused)?;
        let arguments = arguments::of(spec).map_err(RunError::Refused)?;
        if spec.access == Access::Direct {
            mount_points::make(spec)?;
        }
        start::start(&installed, &arguments, spec)
    }
}
