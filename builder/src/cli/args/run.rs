//! Arguments of the commands that run something: Docker's, and udocker's where it has more.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, ValueHint};

use super::SourceArgs;

/// `coracle run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// Show this help.
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// Run in the background, and print the container's id.
    #[arg(long, short)]
    pub detach: bool,
    /// Remove the container when the run has ended.
    #[arg(long)]
    pub rm: bool,
    /// Give the new container this name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Write the container's id to this file, which must not exist.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cidfile: Option<PathBuf>,
    /// Run in this directory, which holds a tree, instead of in a container.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub location: Option<PathBuf>,
    /// Run a bundle, given by its file, if the owner of this public key signed it; options for it stand behind it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub require_key: Option<PathBuf>,
    /// Connect these streams only: stdin, stdout, stderr.
    #[arg(long, short, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr", "STDIN", "STDOUT", "STDERR"])]
    pub attach: Vec<String>,
    /// Say on standard error what is done.
    #[arg(long)]
    pub verbose: bool,
    /// How it runs.
    #[command(flatten)]
    pub options: OptionArgs,
    /// Where the image comes from.
    #[command(flatten)]
    pub source_options: SourceArgs,
    /// An image, which makes a new container, or a container; then a command instead of the image's. Options end here.
    #[arg(value_name = "IMAGE|CONTAINER [COMMAND [ARG]...]", trailing_var_arg = true, num_args = 1..,
          required_unless_present = "location")]
    pub words: Vec<OsString>,
}

/// Options that a container keeps: `start` uses them again.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Container")]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct OptionArgs {
    /// Connect standard input; it is connected in any case, but not with -d.
    #[arg(long, short)]
    pub interactive: bool,
    /// Give the program a terminal: ours, or with -d one of its own.
    #[arg(long, short)]
    pub tty: bool,
    /// Run as USER[:GROUP], names or numbers of the image's; yourself by your own.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Show a file, a directory or a named volume inside.
    #[arg(long, short, value_name = "HOST|NAME[:GUEST][:ro|rw]")]
    pub volume: Vec<OsString>,
    /// The same in words: type=bind|volume|tmpfs,source=…,target=…[,readonly].
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub mount: Vec<String>,
    /// Put an empty directory there, which goes with the run.
    #[arg(long, value_name = "GUEST[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Show the volumes of another container.
    #[arg(long, value_name = "CONTAINER[:ro|rw]")]
    pub volumes_from: Vec<String>,
    /// Set a variable; without a value, pass ours.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<OsString>,
    /// Read variables from a file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub env_file: Vec<PathBuf>,
    /// Pass our whole environment.
    #[arg(long)]
    pub hostenv: bool,
    /// Start in this directory, made if need be.
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Run this program instead of the image's; empty for none.
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Tell programs this release of the kernel; engines that intercept can.
    #[arg(long, value_name = "RELEASE")]
    pub kernel: Option<String>,
    /// Host name inside.
    #[arg(long, short = 'h', value_name = "NAME")]
    pub hostname: Option<OsString>,
    /// Show a port of the container's as one of the host's, or at one of its addresses only; ranges too.
    #[arg(long, short, value_name = "[[ADDRESS:]HOST:]GUEST[/tcp|udp]")]
    pub publish: Vec<String>,
    /// Show the ports that the image exposes; the network is the host's, so they are.
    #[arg(long, short = 'P', visible_alias = "netcoop")]
    pub publish_all: bool,
    /// The tree cannot be written to.
    #[arg(long)]
    pub read_only: bool,
    /// Run with this engine: auto, namespaces, ptrace…, or udocker's P1 P2 R1 F1-F4 S1.
    #[arg(long, visible_alias = "engine", value_name = "ENGINE")]
    pub execmode: Option<String>,
    /// Show your home directory.
    #[arg(long)]
    pub bindhome: bool,
    /// Show copies of the host's passwd and group.
    #[arg(long)]
    pub hostauth: bool,
    /// Show the container's passwd and group, and no others.
    #[arg(long, conflicts_with = "hostauth")]
    pub containerauth: bool,
    /// Use nothing of the image's configuration.
    #[arg(long)]
    pub nometa: bool,
    /// Do not show this file of the host's that is shown by default.
    #[arg(long, value_name = "GUEST")]
    pub novol: Vec<PathBuf>,
    /// Show none of the host's files that are shown by default.
    #[arg(long)]
    pub nosysdirs: bool,
    /// Show the host's drivers for direct rendering.
    #[arg(long)]
    pub dri: bool,
    /// Show the host's NVIDIA driver and all GPUs.
    #[arg(long)]
    pub nvidia: bool,
    /// Show the host's NVIDIA driver and these GPUs: all, or numbers.
    #[arg(long, value_name = "GPUS")]
    pub gpus: Option<String>,
    /// Run on these CPUs only.
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Show a device of the host's: a file of /dev, or a name of CDI such as nvidia.com/gpu=all.
    #[arg(long, value_name = "HOST[:GUEST]|NAME")]
    pub device: Vec<String>,
    /// Limit a resource: nofile=1024:2048, core=0, as=BYTES…
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Reap orphans; done in any case.
    #[arg(long)]
    pub init: bool,
    /// The signal that `stop` sends.
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// How long `stop` waits before it kills.
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u64>,
    /// Add a line to /etc/hosts.
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Ask this name server.
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// Look names up in this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// An option of resolv.conf(5).
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Set a label.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// The network: host, or none.
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub network: Option<String>,
    /// Process ids: host, or private.
    #[arg(long, value_name = "host|private")]
    pub pid: Option<String>,
    /// System V IPC: host, or private.
    #[arg(long, value_name = "host|private")]
    pub ipc: Option<String>,
    /// Bound the log of a run in the background: max-size=SIZE (32m; -1 for none), max-file=NUMBER (2).
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Whether it works.
    #[command(flatten)]
    pub health: super::HealthArgs,
    /// What Docker has besides.
    #[command(flatten)]
    pub others: super::OtherArgs,
}

/// `coracle exec`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct ExecArgs {
    /// Run in the background.
    #[arg(long, short)]
    pub detach: bool,
    /// Connect standard input; it is connected in any case, but not with -d.
    #[arg(long, short)]
    pub interactive: bool,
    /// Give the program our terminal.
    #[arg(long, short)]
    pub tty: bool,
    /// Run as USER[:GROUP].
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Set a variable; without a value, pass ours.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<OsString>,
    /// Read variables from a file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub env_file: Vec<PathBuf>,
    /// Start in this directory.
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Refused: nobody gives privileges here.
    #[arg(long)]
    pub privileged: bool,
    /// The container, the program and its arguments. Options end here.
    #[arg(value_name = "CONTAINER COMMAND [ARG]...", trailing_var_arg = true, num_args = 2.., required = true)]
    pub words: Vec<OsString>,
}

/// `coracle start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Stay until it ends, with its output, and end as it does.
    #[arg(long, short)]
    pub attach: bool,
    /// The same, with standard input.
    #[arg(long, short)]
    pub interactive: bool,
    /// The containers.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `coracle logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Only what was written since: 10m, a date, or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what was written until then.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Go on until the container ends.
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many lines from the end; all for all.
    #[arg(long, short = 'n', value_name = "N", default_value = "all", allow_hyphen_values = true)]
    pub tail: String,
    /// Print when each line was written.
    #[arg(long, short)]
    pub timestamps: bool,
    /// The container.
    pub container: String,
}

/// `coracle stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Wait so many seconds before killing it; -1 for ever.
    #[arg(long, short, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    pub time: Option<i64>,
    /// Send this signal instead of the container's.
    #[arg(long, short, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// The containers.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `coracle kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// The signal to send.
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
    /// The containers.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `coracle wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The containers.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `coracle attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Connect output only.
    #[arg(long)]
    pub no_stdin: bool,
    /// Pass signals on to the program.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", action = ArgAction::Set)]
    pub sig_proxy: bool,
    /// The container.
    pub container: String,
}

/// `coracle top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The container.
    pub container: String,
}

/// `coracle port`.
#[derive(Debug, Args)]
pub struct PortArgs {
    /// The container.
    pub container: String,
    /// One of its ports only.
    #[arg(value_name = "PORT[/tcp|udp]")]
    pub port: Option<String>,
}

/// `coracle cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// Follow a symbolic link that the source is.
    #[arg(long, short = 'L')]
    pub follow_link: bool,
    /// Accepted: owners are kept with a container's files in any case.
    #[arg(long, short)]
    pub archive: bool,
    /// CONTAINER:PATH, a path of the host's, or - for a tar on standard input.
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub from: OsString,
    /// CONTAINER:PATH, a path of the host's, or - for a tar on standard output.
    #[arg(value_name = "TARGET", value_hint = ValueHint::AnyPath)]
    pub to: OsString,
}

/// `coracle monitor`: what stays with a run in the background. Not for people.
#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// The descriptor to read the run from.
    pub descriptor: i32,
}

/// `coracle edits`: edits of an engine in a container's tree. Not for people.
#[derive(Debug, Args)]
pub struct EditsArgs {
    /// The container.
    pub container: String,
    /// `lay` or `take-out`.
    pub what: String,
    /// A descriptor that has its lease.
    pub lease: Option<i32>,
}

/// `coracle own`: a tree of its own for a container that stands on an image's. Not for people.
#[derive(Debug, Args)]
pub struct OwnArgs {
    /// The container.
    pub container: String,
    /// A descriptor that has its lease.
    pub lease: Option<i32>,
    /// Leave files of subordinate ids theirs.
    #[arg(long)]
    pub keep: bool,
}
