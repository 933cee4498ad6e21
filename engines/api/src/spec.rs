//! The launch specification: one run, fully resolved.
//!
//! Written by the launcher, read by engines. Host paths are absolute paths of
//! the kernel's view; guest paths are absolute paths as the program sees them.

use std::{ffi::OsString, fs::File, os::fd::AsRawFd as _, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Loader, PortMap, Temporary};

/// Raised when a field changes its meaning. A stub refuses a specification of another version.
pub const SPEC_VERSION: u32 = 1;

/// One run of one program in one tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// [`SPEC_VERSION`].
    pub version: u32,
    /// Host directory that holds the tree.
    pub root: PathBuf,
    /// Where [`root`](Self::root) is a view of the tree, with files edited for the engine
    /// ([`Engine::wants_edits`](crate::Engine::wants_edits)): the tree itself, for engines that take programs over.
    #[serde(default)]
    pub pristine: Option<PathBuf>,
    /// Where files of the guest's own tree are edited in place: host directory with those that they took the place of, under
    /// their names in the tree.
    #[serde(default)]
    pub originals: Option<PathBuf>,
    /// The tree's names as one file (`coracle_paths::table`), if somebody made it: an engine that resolves paths itself
    /// maps it where the guest cannot change the tree, and walks where there is none or it is damaged.
    #[serde(default)]
    pub names: Option<PathBuf>,
    /// What the image says of the tree's files and the disk does not (`coracle_view::truths`), if somebody wrote it: true
    /// modes and owners, for an engine that shows them to a guest with a view of its own.
    #[serde(default)]
    pub truths: Option<PathBuf>,
    /// The tree's loaders, as the build saw them: see [`ImageFacts::loaders`](crate::ImageFacts::loaders). An engine that
    /// needs them and gets none looks for itself.
    #[serde(default)]
    pub loaders: Vec<Loader>,
    /// May the guest change the tree, and where do its changes go.
    pub access: Access,
    /// Host directory of this run's own: mount points, generated files; exists, is writable, is removed by the launcher.
    pub scratch: PathBuf,
    /// The program and its arguments; `argv[0]` is looked up on the guest's PATH if it holds no slash. Never empty.
    pub argv: Vec<OsString>,
    /// The guest path of the program, where that is not what `argv[0]` says.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// How an engine that [cannot run every program](crate::Engine::hands_over) has another one run the rest: a host
    /// path and first arguments. Empty: it cannot, and says so.
    #[serde(default)]
    pub handover: Vec<OsString>,
    /// The guest's whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Guest directory to start in.
    pub cwd: PathBuf,
    /// Make [`cwd`](Self::cwd) if the image lacks it, as Docker does for WORKDIR; otherwise a missing one is an error.
    pub make_cwd: bool,
    /// Who the guest is.
    pub identity: Identity,
    /// Host places that the guest sees, in order: a later one covers an earlier one.
    pub binds: Vec<Bind>,
    /// What `/dev` holds.
    pub devices: Devices,
    /// Namespaces to make beyond those that the engine needs.
    pub unshare: Unshare,
    /// Host name inside; needs `unshare.uts`, or an engine that answers `uname` itself.
    pub hostname: Option<OsString>,
    /// The kernel's release as the guest is told it, instead of the node's, by an engine that answers `uname` itself.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Directories that go with the run, each with the (empty) host directory that is bound for it. An engine that
    /// [mounts](crate::Engine::mounts) puts a file system of memory there instead.
    #[serde(default)]
    pub temporary: Vec<(PathBuf, Temporary)>,
    /// Ports that the host knows by other numbers than the guest.
    #[serde(default)]
    pub ports: Vec<PortMap>,
    /// File that keeps what a guest is told of files (owner, mode, device) and the host cannot keep; it belongs to the tree
    /// and is made if it is not there. A file `owners` beside it (`MODE UID GID MAJOR:MINOR PATH` and a NUL for each,
    /// at last `end COUNT` and a NUL) says what a new one begins with. `None`: such records live as long as the run.
    #[serde(default)]
    pub ledger: Option<PathBuf>,
    /// The launcher's PATH, as in [`Host::path`](crate::Host::path).
    #[serde(default)]
    pub host_path: Option<OsString>,
    /// The name that the user gave the engine (`P2`), where an engine has variants that its aliases choose.
    #[serde(default)]
    pub variant: Option<String>,
    /// A descriptor, closed on exec, whose end tells somebody that the program has started. An engine that stays beside the
    /// program lets go of it then ([`let_go`](Self::let_go)), in all of its processes.
    #[serde(default)]
    pub started: Option<i32>,
    /// Write down there what the run uses ([`crate::recording`]); the directory exists and is empty. Only the engine that
    /// stops every such call can: others ignore it, so whoever wants a recording names that one.
    #[serde(default)]
    pub recording: Option<PathBuf>,
    /// A file, made by whoever comes first, by which runs meet that are to be in the same namespaces: ranks of one parallel
    /// job on one node, say, which the kernel keeps from each other's memory otherwise. Its name stands for all that they
    /// have in common (job, tree, binds, identity…), it is of this boot and this user alone, and so is all else in its
    /// directory. An engine without namespaces of its own has no use for it.
    #[serde(default)]
    pub meeting: Option<PathBuf>,
}

impl LaunchSpec {
    /// A run in the tree at `root`, which it may not change, with the host's devices and nothing else of the host: program,
    /// environment and scratch directory are to be filled in.
    #[must_use]
    pub fn new(root: PathBuf, identity: Identity) -> Self {
        Self {
            version: SPEC_VERSION,
            root,
            pristine: None,
            originals: None,
            names: None,
            truths: None,
            loaders: Vec::new(),
            access: Access::ReadOnly,
            scratch: PathBuf::new(),
            argv: Vec::new(),
            program: None,
            handover: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            make_cwd: false,
            identity,
            binds: Vec::new(),
            devices: Devices::Host,
            unshare: Unshare::default(),
            hostname: None,
            kernel: None,
            temporary: Vec::new(),
            ports: Vec::new(),
            ledger: None,
            host_path: None,
            variant: None,
            started: None,
            recording: None,
            meeting: None,
        }
    }

    /// Lets go of [`started`](Self::started) in this process. The number stays taken, by `/dev/null`, so that who knows it
    /// does not meet another file under it.
    pub fn let_go(&self) {
        let Some(fd) = self.started else { return };
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            // SAFETY: dup3 takes integers; whoever wrote the specification gave the descriptor to the run for good.
            unsafe { libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC) };
        }
    }
}

/// What the guest may do to the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Writes answer `EROFS`; the tree is shared by other runs.
    ReadOnly,
    /// Copy-on-write: changes go to this host directory, which the engine lays out as it needs (`upper`, `work`…).
    CopyOnWrite {
        /// Exists and is writable; kept or removed by the launcher.
        changes: PathBuf,
    },
    /// The tree is the guest's own: a container of the store.
    Direct,
}

/// One host place inside the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Host file or directory.
    pub host: PathBuf,
    /// Where the guest sees it. A missing mount point is made without touching the shared tree.
    pub guest: PathBuf,
    /// Read-only, recursively.
    pub read_only: bool,
    /// Failing to bind is no error (a default of ours that the node or image may lack).
    pub optional: bool,
    /// Why it is there; shown by `explain`.
    pub origin: BindOrigin,
}

/// Where a bind came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindOrigin {
    /// The user's `--coracle-volume` or its environment form.
    Volume,
    /// The configuration file, named.
    Config(PathBuf),
    /// A default; the text says what it is for: `home directory`, `name resolution`, `$TMPDIR`.
    Default(String),
    /// A file that the launcher generated: passwd, group, hostname.
    Generated,
}

/// Who the guest is, and what of that the host really grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id that the guest sees.
    pub uid: u32,
    /// Group id that the guest sees.
    pub gid: u32,
    /// Supplementary groups asked for; an engine that cannot grant them shows what the kernel shows.
    pub groups: Vec<u32>,
    /// The launcher's own user id on the host.
    pub host_uid: u32,
    /// The launcher's own group id on the host.
    pub host_gid: u32,
    /// Ranges that `newuidmap`/`newgidmap` would grant, if they are installed and configured for this user.
    pub subordinate: Option<SubordinateIds>,
}

impl Identity {
    /// Whoever launches it, inside as on the host.
    #[must_use]
    pub fn launcher(uid: u32, gid: u32) -> Self {
        Self { uid, gid, groups: Vec::new(), host_uid: uid, host_gid: gid, subordinate: None }
    }
}

/// Subordinate id ranges (subuid(5), subgid(5)) and the set-user-id helpers that map them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubordinateIds {
    /// First host uid and count.
    pub uids: (u32, u32),
    /// First host gid and count.
    pub gids: (u32, u32),
    /// Path of newuidmap(1).
    pub newuidmap: PathBuf,
    /// Path of newgidmap(1).
    pub newgidmap: PathBuf,
}

/// What the guest finds in `/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Devices {
    /// The host's `/dev`, whole: what batch jobs with GPUs and interconnects expect.
    Host,
    /// Docker's: null zero full random urandom tty ptmx pts shm fd stdin stdout stderr, and these host devices.
    Minimal {
        /// Host device nodes to add, each at the same path inside.
        extra: Vec<PathBuf>,
    },
}

/// Namespaces that a run asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unshare {
    /// Own process ids, with an init that reaps.
    pub pid: bool,
    /// Own System V IPC and message queues.
    pub ipc: bool,
    /// Own host name.
    pub uts: bool,
    /// Own, empty network with loopback up.
    pub net: bool,
}
