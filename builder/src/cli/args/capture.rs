//! Arguments of `coracle capture`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueHint};

use super::PackArgs;

/// Run a command on this host, and turn what it used into one executable file that repeats it elsewhere.
///
/// The command runs as it would without coracle, only slower: every file, program and library that it and its children
/// use is written down, and files are kept as they were before the run changed them. The bundle holds these files, the
/// environment, the working directory and the command; what the run made is not in it. ./FILE repeats the run; ./FILE
/// ARGS runs the same program with other arguments. It sees the bundle's files only, and may change them until it ends:
/// with --coracle-writable=DIR the changes stay in DIR, and --coracle-volume=HOST:GUEST shows a place of the node
/// inside.
///
/// What looks like a secret (variables such as *_TOKEN, files such as ~/.ssh/id_*) is left out and named. /proc, /sys, /dev,
/// sockets and the network are the node's. Of a directory that was listed the bundle has what was used of it, unless
/// --listed or --include says otherwise. Programs that are set-user-id get no privileges while they are recorded.
///
/// The exit status is the command's; 125 if it could not be captured.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CaptureArgs {
    /// The file to write.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Take this file or directory too, all of it, used or not; also if it looks like a secret.
    #[arg(long, short, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub include: Vec<PathBuf>,
    /// Leave out files that match, such as /home/**/*.log; without a slash, by their name.
    #[arg(long, short = 'x', value_name = "GLOB")]
    pub exclude: Vec<OsString>,
    /// Take all files of the directories that the command listed, used or not.
    #[arg(long)]
    pub listed: bool,
    /// Leave out variables that match.
    #[arg(long, short, value_name = "VARIABLE|GLOB")]
    pub redact: Vec<String>,
    /// Keep variables that match, whatever they look like.
    #[arg(long, value_name = "VARIABLE|GLOB")]
    pub keep_env: Vec<String>,
    /// Only refer to unchanged files that are larger (500M, 2G): path, size and digest are recorded, and a run looks
    /// for them at the same place of its node.
    #[arg(long, value_name = "SIZE", value_parser = coracle_api::size::parse)]
    pub reference_larger: Option<u64>,
    /// So many words of the command stay when the bundle is given other arguments: 2 for `python3 script.py DATA`.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub fixed: usize,
    /// How it is packed.
    #[command(flatten)]
    pub pack: PackArgs,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
