//! The contract between whoever launches a program in a tree and the engines that can run it there.
//!
//! A leaf: it imports no crate of this workspace. The launcher (`runtime-stub`) fills a [`LaunchSpec`] with *resolved*
//! facts: every path absolute, every default applied, every environment variable read. An engine looks at nothing else.
//!
//! Rules for an engine:
//! - [`Engine::probe`] takes well under a millisecond and leaves no lasting effect. What rules cannot predict (AppArmor,
//!   nested containers) it tries for real in a vfork or fork child, and uses sysctls only to explain.
//! - [`Engine::run`] is called in a process with one thread. It either replaces the process by the guest's program, or
//!   stays as its supervisor and returns how the guest ended ([`Ended`]).
//! - An engine never prints, reads the environment or exits: it returns errors, the launcher reports them.

pub mod env_file;
pub mod exec;
mod facts;
mod host;
mod inside;
pub mod mask;
mod order;
mod ports;
mod record;
pub mod recording;
mod refusal;
mod shared;
pub mod signals;
pub mod size;
mod spec;
pub mod stops;
mod temporary;

pub use facts::{ImageFacts, Libc, Loader};
pub use host::Host;
pub use inside::{INSIDE, Inside};
pub use order::{
    Accounts, HOLD, LAY, Laid, NAMES, NotStarted, ORDER_VERSION, Order, OwnTree, SUBORDINATE, TAKE_OUT, TreeEdits,
    content_sum, kept_launcher,
};
pub use ports::{PortMap, Protocol};
pub use record::{JobId, RECORD_VERSION, Record, RecordIo, Refused, Unpacked, rfc3339};
pub use refusal::{Refusal, RunError};
pub use shared::locks_stay_here;
pub use spec::{Access, Bind, BindOrigin, Devices, Identity, LaunchSpec, SPEC_VERSION, SubordinateIds, Unshare};
pub use temporary::Temporary;

use serde::{Deserialize, Serialize};

/// What a run wants of an engine, beyond starting a program; [`Engine::probe`] says whether it can have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The guest may write to its own copy of the tree.
    pub writable: bool,
    /// The guest sees itself as root.
    pub root: bool,
    /// The guest is to be kept from the host, so an engine that isolates nothing must refuse.
    pub isolated: bool,
    /// Namespaces asked for beyond those the engine needs.
    pub unshare: Unshare,
    /// Ports that the guest and the host are to know by different numbers ([`PortMap::differs`]).
    #[serde(default)]
    pub ports: bool,
    /// How the program that the run begins with is loaded.
    #[serde(default)]
    pub begins: Begins,
    /// The guest is to be told another release of the kernel.
    #[serde(default)]
    pub kernel: bool,
}

/// How a program is loaded, as far as the launcher could see (through `#!` lines).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begins {
    /// It is not in the tree, or no program.
    #[default]
    Unknown,
    /// By an interpreter of its own class, which may bring libraries.
    Dynamic,
    /// By the kernel alone: it is linked statically.
    Static,
    /// It is of another class than this machine's (32 bits).
    Foreign,
    /// By an interpreter, but it makes its system calls by itself, past every library: a Go program.
    OwnCalls,
}

/// How a guest ended, as seen by an engine that stayed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It exited with this status, 0–255.
    Exited(u8),
    /// It was killed by this signal number.
    Signaled(i32),
}

/// A way of running a program inside a tree without privileges.
pub trait Engine: Sync {
    /// The name a user types after `--coracle-engine=`.
    fn name(&self) -> &'static str;

    /// Other names that mean this engine, such as udocker's execution modes.
    fn aliases(&self) -> &'static [&'static str];

    /// Whether the engine stays between the launcher and the guest (a tracer), rather than replacing the process. An
    /// engine that does not stays nevertheless where a pid namespace is asked for.
    fn stays(&self) -> bool;

    /// Whether a copy-on-write run shares files with the tree by hard links, so that its changes had better be on the tree's
    /// file system: elsewhere the whole tree is copied.
    fn links(&self) -> bool {
        false
    }

    /// Whether a run by this name of the engine's (`None`: `auto`'s choice) wants a view of a shared tree with the bundle's
    /// edits for the engine, if it has any. It can do without, more slowly.
    fn wants_edits(&self, _variant: Option<&str>) -> bool {
        false
    }

    /// Whether there are programs that the engine has another one run ([`LaunchSpec::handover`]).
    fn hands_over(&self) -> bool {
        false
    }

    /// Whether it mounts [`LaunchSpec::temporary`] as file systems of their own, so that their limits hold.
    fn mounts(&self) -> bool {
        false
    }

    /// Whether it keeps the changes of a copy-on-write run as an overlay (overlayfs's `upper` and `work`).
    fn overlays(&self) -> bool {
        false
    }

    /// Whether this node, this image and this request allow the engine.
    ///
    /// # Errors
    /// The refusal names the exact reason, in words for the user.
    fn probe(&self, host: &Host, facts: &ImageFacts, request: &Request) -> Result<(), Refusal>;

    /// What a request that [`probe`](Self::probe) accepts would get less of than it asks for, in words for `explain` and
    /// for a note to the user: nothing falls back silently.
    fn notes(&self, _host: &Host, _request: &Request) -> Vec<String> {
        Vec::new()
    }

    /// Runs the program. Returns only on failure, or, where the engine [stays](Engine::stays), when the guest ended.
    ///
    /// # Errors
    /// [`RunError`] says which step failed, on what, why, and how the process should exit.
    fn run(&self, spec: &LaunchSpec) -> Result<Ended, RunError>;
}
