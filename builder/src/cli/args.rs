//! The command line as parsed: each flag once. Help, completions and manual pages are made from these definitions.

use std::{ffi::OsString, num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::source::PullPolicy;

mod capture;
mod containers;
mod images;
mod keys;
mod others;
mod run;
mod store;
mod udocker;

pub use capture::*;
pub use containers::*;
pub use images::*;
pub use keys::*;
pub use others::*;
pub use run::*;
pub use store::*;
pub use udocker::*;

/// A container image in, one executable file out.
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    propagate_version = false,
    max_term_width = 100,
    disable_help_subcommand = true,
    args_override_self = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print nothing but errors and what was asked for.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Use this store, which must be there, instead of $CORACLE_DIR or ~/.coracle.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub repo: Option<PathBuf>,
    /// What udocker has before its commands besides.
    #[command(flatten)]
    pub before: BeforeArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn an image into one executable file.
    Build(Box<BuildArgs>),
    /// Run a command on this host, and turn what it used into one executable file that repeats it elsewhere.
    Capture(Box<CaptureArgs>),
    /// Fetch an image into the store.
    Pull(PullArgs),
    /// Make a container of an image.
    Create(Box<CreateArgs>),
    /// Look for images in a registry.
    Search(SearchArgs),
    /// Show manifests of a registry.
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Show a manifest of a registry.
    #[command(hide = true)]
    ManifestInspect(ManifestArgs),
    /// List images of the store.
    Images(ImagesArgs),
    /// Remove images from the store.
    Rmi(RmiArgs),
    /// Give an image one more name.
    Tag(TagArgs),
    /// Show what an image's layers were made by.
    History(HistoryArgs),
    /// Named volumes: list, make, show and remove them.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Write images as an archive.
    Save(SaveArgs),
    /// Take in the images of an archive.
    Load(LoadArgs),
    /// Make an image or a container of a root file system's tar.
    Import(Box<ImportArgs>),
    /// Write a container's tree as a tar.
    Export(ExportArgs),
    /// Run a program in a new container of an image, or in a container.
    Run(Box<RunArgs>),
    /// Start containers again.
    Start(StartArgs),
    /// Run one more program in a container that runs.
    Exec(ExecArgs),
    /// Stay with a container that runs in the background.
    Attach(AttachArgs),
    /// Print what containers in the background wrote.
    Logs(LogsArgs),
    /// Ask containers to end, and kill those that do not.
    Stop(StopArgs),
    /// Stop containers, and start them again.
    Restart(StopArgs),
    /// Send a signal to containers.
    Kill(KillArgs),
    /// Wait until containers have ended, and print their exit statuses.
    Wait(WaitArgs),
    /// List the processes of a container.
    Top(TopArgs),
    /// Show where a container's ports are on the host.
    Port(PortArgs),
    /// Copy files between the host and a container.
    Cp(CpArgs),
    /// Stay beside a run in the background.
    #[command(hide = true)]
    Monitor(MonitorArgs),
    /// Remove what was thrown away, as the root of subordinate ids.
    #[command(hide = true)]
    Sweep,
    /// Give a container a tree of its own.
    #[command(hide = true)]
    Own(OwnArgs),
    /// Edit files of a container's tree for an engine, or make them as they were.
    #[command(hide = true)]
    Edits(EditsArgs),
    /// List containers.
    Ps(PsArgs),
    /// Remove containers.
    Rm(RmArgs),
    /// Copy a container.
    Clone(CloneArgs),
    /// Give a container another name.
    Rename(RenameArgs),
    /// Give a container one more name.
    Name(NameArgs),
    /// Take a name from its container.
    Rmname(RmnameArgs),
    /// Choose a container's engine, or repair its tree.
    Setup(SetupArgs),
    /// Keep containers and images from being removed.
    Protect(ProtectArgs),
    /// Let protected containers and images be removed.
    Unprotect(ProtectArgs),
    /// Show what a container has changed of its image.
    Diff(DiffArgs),
    /// Free what nothing needs any more.
    Prune(PruneArgs),
    /// Make an empty store.
    Mkrepo(MkrepoArgs),
    /// Show what the environment and the configuration files come to.
    Showconf,
    /// Show what a bundle, a container or an image is.
    Inspect(InspectArgs),
    /// Check every byte of a bundle, an image, or the whole store.
    Verify(VerifyArgs),
    /// Sum the records that runs of bundles left (--coracle-report).
    Accounting(AccountingArgs),
    /// List the packages of an image for other tools: CycloneDX or SPDX.
    Sbom(SbomArgs),
    /// Make a pair of keys to sign bundles with.
    Keygen(KeygenArgs),
    /// Sign a bundle.
    Sign(SignArgs),
    /// Keep a registry's user name and password.
    Login(LoginArgs),
    /// Forget them.
    Logout(LogoutArgs),
    /// Copy the images and containers of udocker.
    ImportUdocker(ImportUdockerArgs),
    /// Say that there is nothing to install.
    #[command(hide = true)]
    Install(InstallArgs),
    /// Print versions.
    Version,
    /// Print help: of a command, or (help udocker) what udocker's commands are called here.
    Help(HelpArgs),
    /// Print a shell's completions.
    Completions(CompletionsArgs),
    /// Print the manual page, or write one page per command to a directory.
    #[command(hide = true)]
    Man(ManArgs),
}

impl Command {
    /// Exit status of a failure of this command.
    pub(super) fn failure(&self) -> u8 {
        match self {
            Self::ImportUdocker(_)
            | Self::Search(_)
            | Self::Manifest(_)
            | Self::ManifestInspect(_)
            | Self::Diff(_)
            | Self::Prune(_)
            | Self::Mkrepo(_)
            | Self::Showconf
            | Self::Images(_)
            | Self::Rmi(_)
            | Self::Tag(_)
            | Self::History(_)
            | Self::Volume(_)
            | Self::Port(_)
            | Self::Save(_)
            | Self::Load(_)
            | Self::Import(_)
            | Self::Export(_)
            | Self::Ps(_)
            | Self::Attach(_)
            | Self::Cp(_)
            | Self::Logs(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Kill(_)
            | Self::Wait(_)
            | Self::Top(_)
            | Self::Rm(_)
            | Self::Clone(_)
            | Self::Rename(_)
            | Self::Name(_)
            | Self::Rmname(_)
            | Self::Setup(_)
            | Self::Protect(_)
            | Self::Unprotect(_) => 1,
            _ => super::FAILURE,
        }
    }
}

/// `coracle build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The image: [docker://]NAME[:TAG][@DIGEST], docker-archive:FILE, oci:DIR[:TAG], oci-archive:FILE,
    /// docker-daemon:NAME, rootfs:DIR|TAR, bundle:FILE, container:NAME, a path, or - for standard input.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: OsString,
    /// The file to write; - is standard output.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// List every program and library that the preload engine needs edited, how, and every one that is left as it is,
    /// why; on standard output, or on standard error if the bundle goes there.
    #[arg(long)]
    pub report: bool,
    /// Where the image comes from.
    #[command(flatten)]
    pub source_options: SourceArgs,
    /// What becomes of it.
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// How it is packed.
    #[command(flatten)]
    pub pack: PackArgs,
    /// How much it may hold.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Options of every command that takes an image from somewhere.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// The image for this platform, of those that the source has.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// When to ask the registry: always, newer (ask, but take what was pulled before if it does not answer), missing
    /// (only for what was never pulled), never; reuse (missing, and `run` takes the container that has the name already).
    /// Unless given: newer; for containers missing.
    #[arg(long, value_name = "WHEN")]
    pub pull: Option<PullPolicy>,
    /// Allow plain http and unknown certificates.
    #[arg(long)]
    pub insecure: bool,
    /// How a registry is reached.
    #[command(flatten)]
    pub net: NetArgs,
    /// Leave out, with a note, what cannot be read of a directory.
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Keep the owners of a directory's files; else what belongs to the directory's own owner becomes root's.
    #[arg(long)]
    pub keep_owners: bool,
}

/// Changes to the image.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Changes to the image")]
pub struct ChangeArgs {
    /// Copy a file or a directory's content into the image, as COPY of a Dockerfile does.
    #[arg(long, value_name = "SRC:DST")]
    pub copy: Vec<OsString>,
    /// Leave out what matches, such as /usr/share/doc/**.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<OsString>,
    /// Replace the entrypoint: a JSON list, or a command for /bin/sh; empty for none.
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Replace the default arguments: a JSON list, or a command for /bin/sh; empty for none.
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Option<String>,
    /// Set a variable; without a value, take ours.
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Start in this directory of the image.
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Bind a place of the host at every run.
    #[arg(long, short, value_name = "HOST[:GUEST][:ro]")]
    pub volume: Vec<String>,
    /// Run as this user of the image.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Give runs nothing of the host but devices and name resolution.
    #[arg(long)]
    pub isolated: bool,
    /// Run with this engine unless told otherwise.
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
}

/// How to pack.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Packing")]
pub struct PackArgs {
    /// zstd's level: more makes a smaller file in more time.
    #[arg(long, value_name = "LEVEL", default_value_t = crate::pack::DEFAULT_LEVEL,
          value_parser = clap::value_parser!(i32).range(1..=22))]
    pub compression: i32,
    /// Threads; as many as CPUs may be used unless given.
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
}

/// How much an image may hold: layers are made by others.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Entries of all layers together.
    #[arg(long, value_name = "N")]
    pub limit_entries: Option<u64>,
    /// Bytes of all layers and of all files once decompressed.
    #[arg(long, value_name = "BYTES")]
    pub limit_size: Option<u64>,
    /// Bytes of one path.
    #[arg(long, value_name = "BYTES")]
    pub limit_path: Option<u64>,
    /// Directories one inside the other.
    #[arg(long, value_name = "N")]
    pub limit_depth: Option<u64>,
    /// Decompressed bytes per stored byte of a layer.
    #[arg(long, value_name = "N")]
    pub limit_ratio: Option<u64>,
    /// Bytes of names, link targets and attributes of all layers together.
    #[arg(long, value_name = "BYTES")]
    pub limit_metadata: Option<u64>,
}

/// `coracle pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The image, as for build.
    pub source: OsString,
    /// Where the image comes from.
    #[command(flatten)]
    pub source_options: SourceArgs,
}

/// What a word of `coracle inspect` may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InspectKind {
    /// A container of the store's.
    Container,
    /// An image of any source.
    Image,
    /// A bundle's file.
    Bundle,
}

/// `coracle inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A bundle, a container, or an image as for build.
    #[arg(value_name = "FILE|CONTAINER|IMAGE", value_hint = ValueHint::AnyPath, required = true)]
    pub what: Vec<OsString>,
    /// Print JSON, as is always done for containers.
    #[arg(long)]
    pub json: bool,
    /// Print parts of the JSON, by a template with {{.Field.Field}} and {{json .Field}} in it.
    #[arg(long, short, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print the directory of a container's tree.
    #[arg(long, short)]
    pub path: bool,
    /// Take it for one of these only.
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub kind: Option<InspectKind>,
    /// Show also how much room a container takes.
    #[arg(long, short)]
    pub size: bool,
    /// Where the image comes from.
    #[command(flatten)]
    pub source_options: SourceArgs,
}

/// `coracle verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A bundle's file, an image or a container; the whole store unless given.
    #[arg(value_name = "FILE|IMAGE|CONTAINER", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Threads; as many as CPUs may be used unless given.
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Check also that the owner of this public key, in minisign's format, signed the bundle.
    #[arg(long, short, value_name = "FILE", requires = "file", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
}

/// `coracle login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry; Docker's unless given.
    pub registry: Option<String>,
    /// The same, as udocker has it.
    #[arg(long = "registry", value_name = "REGISTRY", conflicts_with = "registry", hide = true)]
    pub named: Option<String>,
    /// User name; asked for unless given.
    #[arg(long, short)]
    pub username: Option<String>,
    /// Password; asked for unless given. Other users of this machine may see it in the list of processes.
    #[arg(long, short, conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input.
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Allow plain http and unknown certificates.
    #[arg(long)]
    pub insecure: bool,
}

/// `coracle logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry; Docker's unless given.
    pub registry: Option<String>,
    /// The same, as udocker has it.
    #[arg(long = "registry", value_name = "REGISTRY", conflicts_with = "registry", hide = true)]
    pub named: Option<String>,
    /// Forget all of them.
    #[arg(long, short, conflicts_with_all = ["registry", "named"])]
    pub all: bool,
}

/// `coracle completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `coracle man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page per command here.
    pub directory: Option<PathBuf>,
}
