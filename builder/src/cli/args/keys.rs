//! Arguments of the commands that sign bundles.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// `coracle keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The files to make, less .key (for whoever signs) and .pub (for everybody).
    #[arg(value_name = "NAME", default_value = "coracle", value_hint = ValueHint::FilePath)]
    pub name: PathBuf,
    /// Do not encrypt the secret key.
    #[arg(long, short = 'W', conflicts_with = "password_stdin")]
    pub no_password: bool,
    /// Read the password from standard input.
    #[arg(long)]
    pub password_stdin: bool,
}

/// `coracle sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The bundle.
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The secret key, in minisign's format.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
    /// Write the signed bundle here, instead of in the place of the other; - is standard output.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// A line to sign with it; unless given, what the bundle was made of.
    #[arg(long, short, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Read the key's password from standard input.
    #[arg(long)]
    pub password_stdin: bool,
}
