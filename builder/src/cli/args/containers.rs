//! Arguments of the commands for containers.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueHint};

use super::{LimitArgs, SourceArgs};

/// How a listing is printed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct ListArgs {
    /// Print it so: json (an object per line), or text with {{.Field}} and {{json .}} in it, for each line; with
    /// "table " before it, under headings.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Cut nothing off.
    #[arg(long)]
    pub no_trunc: bool,
}

/// `coracle create`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct CreateArgs {
    /// Show this help.
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Give the container this name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// If another container has the name, make this one without.
    #[arg(long)]
    pub force: bool,
    /// How it will run.
    #[command(flatten)]
    pub options: super::OptionArgs,
    /// Where the image comes from.
    #[command(flatten)]
    pub source_options: SourceArgs,
    /// How much it may hold.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The image, as for build; then a command instead of the image's. Options end here.
    #[arg(value_name = "IMAGE [COMMAND [ARG]...]", trailing_var_arg = true, num_args = 1.., required = true)]
    pub words: Vec<OsString>,
}

/// `coracle ps`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct PsArgs {
    /// Show only containers in which something runs.
    #[arg(long, short)]
    pub running: bool,
    /// Show all containers (the default; for those who are used to Docker).
    #[arg(long, short, conflicts_with = "running")]
    pub all: bool,
    /// Show the engine of each (udocker's execution mode).
    #[arg(long, short)]
    pub mode: bool,
    /// Show what each takes on disk.
    #[arg(long, short)]
    pub size: bool,
    /// Show the platform of each.
    #[arg(long, short)]
    pub platform: bool,
    /// Show only what matches: name=TEXT, id=TEXT, ancestor=IMAGE, status=created|running|exited|dead,
    /// health=starting|healthy|unhealthy|none, label=KEY[=VALUE].
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Show only the newest one.
    #[arg(long, short)]
    pub latest: bool,
    /// Show only so many, the newest.
    #[arg(long, short = 'n', value_name = "N")]
    pub last: Option<usize>,
    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `coracle rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The containers: names, ids, or beginnings of ids.
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// Kill what runs in them first; remove damaged ones too.
    #[arg(long, short)]
    pub force: bool,
    /// Accepted and without effect: containers have no volumes of their own.
    #[arg(long, short, hide = true)]
    pub volumes: bool,
}

/// `coracle clone`.
#[derive(Debug, Args)]
pub struct CloneArgs {
    /// The container.
    pub container: String,
    /// Give the new one this name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// `coracle name`.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The container.
    pub container: String,
    /// One more name for it.
    pub name: String,
}

/// `coracle rename`.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// The container, by the name that it loses (or its id: then it loses its first name, if it has one).
    pub container: String,
    /// Its new name.
    pub name: String,
}

/// `coracle rmname`.
#[derive(Debug, Args)]
pub struct RmnameArgs {
    /// The name; its container stays.
    pub name: String,
}

/// `coracle setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// The container.
    pub container: String,
    /// Run it with this engine from now on: auto, namespaces, trap, preload, ptrace, apptainer, or udocker's P1 P2 R1 R2
    /// R3 F1 F2 F3 F4 S1. Without it, the engine is printed.
    #[arg(long, value_name = "ENGINE", alias = "engine")]
    pub execmode: Option<String>,
    /// Use the host's NVIDIA driver from now on.
    #[arg(long)]
    pub nvidia: bool,
    /// Make files and directories that their owner cannot read or write so that he can.
    #[arg(long)]
    pub fixperm: bool,
    /// Forget what runs have left: their records and logs.
    #[arg(long)]
    pub purge: bool,
    /// Accepted and without effect: nothing in a tree depends on the engine, so changing it is always possible.
    #[arg(long, hide = true)]
    pub force: bool,
}

/// `coracle protect` and `coracle unprotect`.
#[derive(Debug, Args)]
pub struct ProtectArgs {
    /// Containers or images.
    #[arg(required = true, value_name = "CONTAINER|IMAGE")]
    pub what: Vec<String>,
}

/// `coracle export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write here instead of standard output; - is standard output.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Write settings and engine too, for `coracle import --clone`.
    #[arg(long)]
    pub clone: bool,
    /// Write even if something runs in it and changes files meanwhile.
    #[arg(long)]
    pub live: bool,
    /// The container; before or after it, the file in udocker's way of writing (`export -o FILE CONTAINER`,
    /// `export - CONTAINER`).
    #[arg(required = true, num_args = 1..=2, value_name = "CONTAINER")]
    pub words: Vec<String>,
}

/// `coracle diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The container.
    pub container: String,
    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}
