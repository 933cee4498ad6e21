//! Arguments of the commands for the store itself.

use std::path::PathBuf;

use clap::{Args, ValueHint};

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
