//! The `namespaces` engine: user and mount namespaces, native speed.
//!
//! The process enters new namespaces (`user`), puts the guest's view of files together (`root`) and executes the
//! program, keeping its pid. Only an own pid namespace makes it stay behind as supervisor (`init`). Ranks of a parallel
//! job enter the namespaces of the first one instead (`meeting`).
//!
//! Rules: nothing newer than Linux 3.10 is taken for granted; what is newer is tried and has an older way, or the refusal
//! says which release has it. Nothing of the host or of the shared tree is written to.

mod apt;
mod credentials;
mod dev;
mod ids;
mod init;
mod meeting;
mod mounts;
mod net;
mod overlay;
mod probe;
mod remove;
mod resolve;
mod root;
mod seccomp;
mod shared;
mod sys;
mod underlay;
mod user;

pub use remove::{as_root_of, remove_all};

use coracle_api::{Access, Ended, Engine, Host, ImageFacts, LaunchSpec, Refusal, Request, RunError, exec::Prepared};

use crate::{
    ids::Ids,
    meeting::{First, Meeting},
};

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

    /// It stays only when a pid namespace is asked for.
    fn stays(&self) -> bool {
        false
    }

    fn mounts(&self) -> bool {
        true
    }

    fn overlays(&self) -> bool {
        true
    }

    fn probe(&self, host: &Host, _facts: &ImageFacts, request: &Request) -> Result<(), Refusal> {
        if request.kernel {
            return Err(Refusal::new(
                "another release of the kernel was asked for, and the kernel itself tells its own",
            )
            .advise("leave that out, or use `ptrace`"));
        }
        if request.ports {
            return Err(Refusal::new(
                "the network is the host's here, so a port has one number inside and outside, at all addresses",
            )
            .advise("give both the same number and no address, or use `ptrace`"));
        }
        probe::probe(host, request)
    }

    fn notes(&self, host: &Host, request: &Request) -> Vec<String> {
        let mut notes = Vec::new();
        if request.unshare.pid && !probe::own_proc(host) {
            notes.push("/proc shows the host's processes: parts of it are masked here (inside a container), so the kernel refuses a fresh one".to_owned());
        }
        notes
    }

    fn run(&self, spec: &LaunchSpec) -> Result<Ended, RunError> {
        let program = Prepared::new(&spec.argv, &spec.env)?;
        let mut wanted = spec.unshare;
        wanted.uts |= spec.hostname.is_some();
        let ids = Ids::of(&spec.identity);
        let turn = match &spec.access {
            Access::CopyOnWrite { changes } => Some(shared::Turn::take(changes)?),
            Access::ReadOnly | Access::Direct => None,
        };
        let first = match Meeting::attend(spec) {
            Some(Meeting::First(first)) => Some(first),
            Some(Meeting::Joined(others)) => {
                // Host paths are of no use afterwards.
                turn.as_ref().map_or(Ok(()), shared::Turn::list)?;
                if others.enter(&spec.identity)? {
                    if let Some(turn) = turn {
                        turn.end();
                    }
                    root::working_directory(spec)?;
                    credentials::settle(spec, ids)?;
                    return Err(program.exec());
                }
                None
            }
            None => None,
        };
        user::enter(&spec.identity, ids, wanted)?;
        if wanted.pid {
            return init::supervise(spec, ids, turn, &program);
        }
        let begun = first.and_then(First::begin);
        net::name_and_loopback(spec)?;
        root::enter(spec, ids, turn)?;
        if let Some(begun) = begun {
            begun.open();
        }
        credentials::settle(spec, ids)?;
        Err(program.exec())
    }
}
