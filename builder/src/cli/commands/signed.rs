//! `coracle run --require-key`: a bundle that runs only if it is signed.
//!
//! This program is the one that is trusted: it looks at the bundle before anything of it runs. What it looked at is
//! what runs, since the file is executed through the descriptor that was read. A file that others may write to could
//! still change between the two, so such a file is refused.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            process::CommandExt as _,
        },
    },
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};
use coracle_open::Bundle;
use nix::unistd;

use crate::{
    cli::args::RunArgs,
    pack::{PublicKey, verify_signature},
};

/// Checks the bundle and becomes it. Returns only errors.
pub(super) fn run(args: &RunArgs, key: &Path) -> anyhow::Result<u8> {
    let (file, words) = args.words.split_first().context("--require-key: name a bundle")?;
    let path = Path::new(file);
    let bundle = Bundle::open(path)?;
    let meta = bundle.file().metadata().with_context(|| path.display().to_string())?;
    let own = unistd::geteuid().as_raw();
    ensure!(
        meta.permissions().mode() & 0o022 == 0 && (meta.uid() == own || meta.uid() == 0),
        "{}: others than you may change it while it runs, so a signature says nothing: copy it, and run the copy",
        path.display()
    );
    verify_signature(&bundle, &PublicKey::read(key)?)?;
    let name = fs::canonicalize(path).with_context(|| path.display().to_string())?;
    // The descriptor itself is closed by the execution, as every one of the standard library's.
    let opened = format!("/proc/self/fd/{}", bundle.file().as_raw_fd());
    let error = Command::new(opened).arg0(name).args(words).exec();
    Err(error).with_context(|| format!("{}: cannot be executed: is it executable, and /proc mounted?", path.display()))
}
