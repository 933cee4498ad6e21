//! Arguments of the commands for the store itself.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// `coracle prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove containers, too, in which nothing runs and that are not protected.
    #[arg(long)]
    pub containers: bool,
    /// Remove images, too, that no container was made of and that are not protected.
    #[arg(long, short = 'a', visible_alias = "all")]
    pub images: bool,
    /// Remove downloads, too, that were broken off just now and could go on.
    #[arg(long)]
    pub partial: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub force: bool,
}

/// `coracle mkrepo`.
#[derive(Debug, Args)]
pub struct MkrepoArgs {
    /// The new store's directory.
    #[arg(value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
}

/// `coracle import-udocker`.
#[derive(Debug, Args)]
pub struct ImportUdockerArgs {
    /// udocker's directory; $UDOCKER_DIR or ~/.udocker unless given.
    #[arg(value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// Only images.
    #[arg(long)]
    pub images: bool,
    /// Only containers.
    #[arg(long, conflicts_with = "images")]
    pub containers: bool,
}

/// `coracle help`.
#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A command, or a topic: udocker.
    pub words: Vec<String>,
}

/// `coracle accounting`.
#[derive(Debug, Args)]
pub struct AccountingArgs {
    /// Files of records, directories of such files (*.json, *.jsonl), or - for standard input.
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    /// A line for each of these.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "day,user,bundle")]
    pub by: Vec<AccountingKey>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "table")]
    pub format: AccountingFormat,
    /// Leave out runs that began before this day, in UTC.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub since: Option<String>,
    /// Leave out runs that began after this day, in UTC.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub until: Option<String>,
}

/// What `coracle accounting` tells runs apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccountingKey {
    /// The day on which they began, in UTC.
    Day,
    /// Who ran them.
    User,
    /// Their bundle, whatever its file is called.
    Bundle,
    /// Their engine.
    Engine,
    /// Where they ran.
    Node,
    /// Their batch job; an array is one.
    Job,
}

/// How `coracle accounting` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccountingFormat {
    /// Columns for people.
    Table,
    /// An array of objects, one for each line.
    Json,
    /// Comma-separated values (RFC 4180), one line for each.
    Csv,
}
