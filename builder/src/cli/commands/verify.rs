//! `coracle verify`.

use crate::{
    cli::{args::VerifyArgs, print},
    pack,
};

/// Checks every byte of a bundle.
pub(super) fn run(args: &VerifyArgs, quiet: bool) -> anyhow::Result<()> {
    let found = pack::verify(&args.file, args.jobs.unwrap_or_else(pack::default_jobs))?;
    if quiet {
        return Ok(());
    }
    print::line(&format!(
        "{}: whole: stub, slot, trailer, manifest, index, {} frames, {} files, {} bytes",
        args.file.display(),
        found.frames,
        found.entries,
        found.total
    ))
}
