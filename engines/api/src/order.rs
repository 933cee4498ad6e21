//! An order: one run of a container as its caller wants it, not yet resolved.
//!
//! `coracle run` links no engine and must not look into the tree as the guest would; the stub does both. So what crosses
//! between them are *requests* (a user by name, variables on top of the image's, places to show), and the same code of the
//! stub's that plans a bundle's run resolves them against the container's tree and writes the
//! [`LaunchSpec`](crate::LaunchSpec). The caller has made everything absolute and read every file of its own that the user
//! named: an order means the same wherever it is carried out.
//!
//! It travels as JSON through a descriptor: `coracle-stub --coracle-launch=FD`.

use std::{ffi::OsString, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Access, Bind, Devices, ImageFacts, Loader, PortMap, Temporary, Unshare};

/// Raised when a field changes its meaning. A stub refuses an order of another version.
pub const ORDER_VERSION: u32 = 3;

/// Files of the node by which names are resolved: every run shows them. Where a tree lacks one, a run that can write to
/// it has made an empty file to put it on.
pub const NAMES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Name, below [`Order::made`], of the launcher that is kept for programs which an engine hands over, when its own file
/// has no name any more; `len` is its length in bytes.
#[must_use]
pub fn kept_launcher(len: u64) -> String {
    format!("stub-{}-{len}", env!("CARGO_PKG_VERSION"))
}

/// A sum of a file's content (FNV-1a of 64 bits) for its name, as 16 hexadecimal digits: what is kept below
/// [`Order::made`] under a name that ends so can be told from what it was written as. It tells damage, and guards
/// against nobody.
#[must_use]
pub fn content_sum(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Name of the file, beside [`Order::made`], with which the stub marks a tree that was run with subordinate ids: files in it
/// may belong to them.
pub const SUBORDINATE: &str = "subordinate";

/// The bare stub's only argument where it is a run's program and does nothing: it writes its process id (a line), and ends
/// when its input does.
pub const HOLD: &str = "--coracle-hold";

/// What the bare stub is asked to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// [`ORDER_VERSION`].
    pub version: u32,
    /// Host directory that holds the tree.
    pub root: PathBuf,
    /// May the guest change the tree.
    pub access: Access,
    /// What the image says of the tree's files, for views of it ([`LaunchSpec::truths`](crate::LaunchSpec::truths)).
    #[serde(default)]
    pub truths: Option<PathBuf>,
    /// For a container that stands on an image's tree: how it gets one of its own, where an engine needs that.
    #[serde(default)]
    pub own: Option<OwnTree>,
    /// For a container: how files of its tree are edited for an engine that wants that, and made as they were for others.
    #[serde(default)]
    pub edits: Option<TreeEdits>,
    /// Record of owners, modes and devices that belongs to the tree.
    pub ledger: Option<PathBuf>,
    /// Host directory for generated files and mount points, which lives as long as the tree; made if it is not there. A
    /// tree without one gets a directory that goes with the run.
    pub made: Option<PathBuf>,
    /// Program and arguments, the image's and the user's joined; none starts the tree's shell.
    pub argv: Vec<OsString>,
    /// The image's ENV, `KEY=value`.
    pub image_env: Vec<String>,
    /// Variables on top of it, in order; one without a value is unset.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// The caller's environment passes too.
    pub host_env: bool,
    /// `USER[:GROUP]` by name or number; none is root.
    pub user: Option<String>,
    /// Whose passwd and group the guest sees.
    pub accounts: Accounts,
    /// Guest directory to start in, made if the tree lacks it; none is `/`.
    pub workdir: Option<PathBuf>,
    /// Places of the host to show, after the defaults.
    pub binds: Vec<Bind>,
    /// Empty directories that go with the run.
    pub temporary: Vec<Temporary>,
    /// Show the caller's home directory at its own path.
    pub home: bool,
    /// Show the host's files that resolve names.
    pub names: bool,
    /// Defaults not to show, by guest path.
    pub omit: Vec<PathBuf>,
    /// What `/dev` holds.
    pub devices: Devices,
    /// NVIDIA's GPUs to show, numbers or `all`, with the node's driver.
    #[serde(default)]
    pub gpus: Option<String>,
    /// Devices to show: nodes by path, and CDI names.
    #[serde(default)]
    pub device_names: Vec<String>,
    /// Namespaces to make beyond those that the engine needs.
    pub unshare: Unshare,
    /// Host name inside.
    pub hostname: Option<OsString>,
    /// The kernel's release as the guest is told it, instead of the node's.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Lines for `/etc/hosts`, after the host's own.
    pub hosts: Vec<String>,
    /// Content of `/etc/resolv.conf`, instead of the host's.
    pub resolv_conf: Option<String>,
    /// Ports that the host knows by other numbers than the guest.
    pub ports: Vec<PortMap>,
    /// The engine by name or alias; none is `auto`.
    pub engine: Option<String>,
    /// What engines ask about the image.
    pub facts: ImageFacts,
    /// A JSON object in a file, to which the stub adds how the run ended: `status` (as a shell counts it) and `ended`
    /// (seconds since 1970).
    pub record: Option<PathBuf>,
    /// A descriptor whose lock the caller took for the run; every process of the guest's inherits it, and what is done
    /// afterwards does not.
    pub lease: Option<i32>,
    /// A pipe that is closed when the program has started, or gets [`NotStarted`] as one line of JSON.
    pub started: Option<i32>,
    /// Command to run when everything has ended and is on record; empty for none.
    pub finally: Vec<OsString>,
    /// Say on standard error what is done.
    pub verbose: bool,
    /// Run on the host itself, as the caller would ([`root`](Self::root) is `/`), and write down there what is used
    /// ([`crate::recording`]). Of the requests only [`argv`](Self::argv), [`made`](Self::made) and
    /// [`engine`](Self::engine) count then.
    #[serde(default)]
    pub recording: Option<PathBuf>,
}

/// A tree of a container's own, which is not there yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnTree {
    /// Command that makes it. The run's lease is inherited.
    pub command: Vec<OsString>,
    /// Where it is then.
    pub root: PathBuf,
}

/// A tree that is a guest's to change, and whose files can be edited for engines that want that
/// ([`Engine::wants_edits`](crate::Engine::wants_edits)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEdits {
    /// Command that lays them (followed by [`LAY`]), and prints [`Laid`] as JSON, or takes them out ([`TAKE_OUT`]); it fails
    /// while somebody else runs in the tree. The run's lease is inherited.
    pub command: Vec<OsString>,
    /// There are edits in the tree, whole or not.
    pub any: bool,
    /// Those that are there are whole, and made for where the tree is.
    pub laid: Option<Laid>,
}

/// Lay edits: see [`TreeEdits::command`].
pub const LAY: &str = "lay";
/// Take edits out.
pub const TAKE_OUT: &str = "take-out";

/// Edits that are in a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Laid {
    /// Host directory with the edited files as they were, under their names in the tree; nothing else is in it.
    pub pristine: PathBuf,
    /// The tree's loaders when they were laid.
    pub loaders: Vec<Loader>,
}

/// Why a program was not started, for a caller who cannot see standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotStarted {
    /// Exit status: 125, 126 or 127.
    pub status: u8,
    /// What was also said on standard error.
    pub message: String,
}

/// Whose passwd and group a guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accounts {
    /// The tree's, with the caller added when the guest is the caller and the tree does not know him.
    #[default]
    Known,
    /// The tree's own files, which the guest may change.
    Tree,
    /// Copies of the host's.
    Host,
}

impl Order {
    /// An order for the tree's shell as root, with nothing of the host but name resolution.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            version: ORDER_VERSION,
            root,
            access: Access::Direct,
            truths: None,
            own: None,
            edits: None,
            ledger: None,
            made: None,
            argv: Vec::new(),
            image_env: Vec::new(),
            env: Vec::new(),
            host_env: false,
            user: None,
            accounts: Accounts::Known,
            workdir: None,
            binds: Vec::new(),
            temporary: Vec::new(),
            home: false,
            names: true,
            omit: Vec::new(),
            devices: Devices::Host,
            gpus: None,
            device_names: Vec::new(),
            unshare: Unshare::default(),
            hostname: None,
            kernel: None,
            hosts: Vec::new(),
            resolv_conf: None,
            ports: Vec::new(),
            engine: None,
            facts: ImageFacts::default(),
            record: None,
            lease: None,
            started: None,
            finally: Vec::new(),
            verbose: false,
            recording: None,
        }
    }
}
