//! How a container runs, as its settings keep it: everything the user named is read and made absolute.
//!
//! `run` and `create` write it into the container's settings; `start`, `run CONTAINER` and `exec` use it again, with what
//! they are given on top ([`Options::with`]).

use std::{ffi::OsString, path::PathBuf};

use coracle_api::{Accounts, PortMap, Temporary, Unshare};
use coracle_format::Health;
use serde::{Deserialize, Serialize};

use super::log::Bound;

/// Options of a container's runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Program and arguments instead of the image's Cmd.
    pub command: Vec<OsString>,
    /// Program instead of the image's entrypoint; an empty list clears it. Either way the image's Cmd is gone.
    pub entrypoint: Option<Vec<OsString>>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// Whose passwd and group is seen.
    pub accounts: Accounts,
    /// Guest directory to start in.
    pub workdir: Option<PathBuf>,
    /// Variables on top of the image's; one without a value is unset.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// The caller's environment passes.
    pub host_env: bool,
    /// Places of the host.
    pub volumes: Vec<Volume>,
    /// Empty directories that go with the run.
    pub temporary: Vec<Temporary>,
    /// The caller's home directory is shown.
    pub home: bool,
    /// None of the host's files that are shown by default.
    pub no_names: bool,
    /// Defaults not to show.
    pub omit: Vec<PathBuf>,
    /// The host's NVIDIA driver, with all GPUs.
    pub nvidia: bool,
    /// These GPUs of NVIDIA's: numbers, or `all`.
    pub gpus: Option<String>,
    /// Devices: nodes by path, and names of CDI.
    pub devices: Vec<String>,
    /// Namespaces of its own.
    pub unshare: Unshare,
    /// Host name inside.
    pub hostname: Option<OsString>,
    /// The kernel's release as it is told inside.
    pub kernel: Option<String>,
    /// Lines for /etc/hosts.
    pub hosts: Vec<String>,
    /// Content of /etc/resolv.conf.
    pub resolv_conf: Option<String>,
    /// Ports that the host knows by other numbers.
    pub ports: Vec<PortMap>,
    /// Engine for this run rather than the container's.
    #[serde(skip)]
    pub engine: Option<String>,
    /// The tree cannot be written to.
    pub read_only: bool,
    /// The image's configuration is not used.
    pub no_metadata: bool,
    /// CPUs to run on; none for all.
    pub cpus: Vec<usize>,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Signal that `stop` sends, instead of the image's.
    pub stop_signal: Option<i32>,
    /// Seconds that `stop` waits.
    pub stop_timeout: Option<u64>,
    /// How to ask whether the program works, on top of what the image says.
    pub health: Option<Health>,
    /// The log's size is bounded so.
    pub log: Bound,
    /// Standard input is kept open in the background.
    pub interactive: bool,
    /// A terminal.
    pub tty: bool,
    /// The container goes when its run has ended.
    pub remove: bool,
}

/// A place of the host's that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What.
    pub source: Source,
    /// Where the guest sees it.
    pub guest: PathBuf,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// It is no error if the host does not have it.
    #[serde(default)]
    pub optional: bool,
}

/// What a volume shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A file or directory of the host's, absolute.
    Host(PathBuf),
    /// A directory of the store's by name; it begins with what the tree has there.
    Named(String),
    /// The container's own directory there, which can be written to also where the tree cannot.
    Tree,
}

/// A resource limit (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The resource's number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` for none.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

impl Options {
    /// These options with others on top: what was given once is replaced, lists grow, switches stay on.
    #[must_use]
    pub fn with(mut self, top: Self) -> Self {
        if !top.command.is_empty() {
            self.command = top.command;
        }
        if top.entrypoint.is_some() {
            self.entrypoint = top.entrypoint;
        }
        self.user = top.user.or(self.user);
        if top.accounts != Accounts::default() {
            self.accounts = top.accounts;
        }
        self.workdir = top.workdir.or(self.workdir);
        self.env.extend(top.env);
        self.host_env |= top.host_env;
        self.volumes.retain(|old| !top.volumes.iter().any(|new| new.guest == old.guest));
        self.volumes.extend(top.volumes);
        self.temporary.retain(|old| !top.temporary.iter().any(|new| new.guest == old.guest));
        self.temporary.extend(top.temporary);
        self.home |= top.home;
        self.no_names |= top.no_names;
        self.omit.extend(top.omit);
        self.nvidia |= top.nvidia;
        self.gpus = top.gpus.or(self.gpus);
        self.devices.extend(top.devices);
        self.unshare = Unshare {
            pid: self.unshare.pid | top.unshare.pid,
            ipc: self.unshare.ipc | top.unshare.ipc,
            uts: self.unshare.uts | top.unshare.uts,
            net: self.unshare.net | top.unshare.net,
        };
        self.hostname = top.hostname.or(self.hostname);
        self.kernel = top.kernel.or(self.kernel);
        self.hosts.extend(top.hosts);
        self.resolv_conf = top.resolv_conf.or(self.resolv_conf);
        self.ports.extend(top.ports);
        self.engine = top.engine.or(self.engine);
        self.read_only |= top.read_only;
        self.no_metadata |= top.no_metadata;
        if !top.cpus.is_empty() {
            self.cpus = top.cpus;
        }
        self.limits.retain(|old| !top.limits.iter().any(|new| new.resource == old.resource));
        self.limits.extend(top.limits);
        self.stop_signal = top.stop_signal.or(self.stop_signal);
        self.stop_timeout = top.stop_timeout.or(self.stop_timeout);
        self.health = top.health.or(self.health);
        if top.log != Bound::default() {
            self.log = top.log;
        }
        // Of this run alone.
        self.interactive = top.interactive;
        self.tty = top.tty;
        self.remove = top.remove;
        self
    }
}
