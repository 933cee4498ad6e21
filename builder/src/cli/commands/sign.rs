//! `coracle sign`: a bundle gets a signature.

use anyhow::Context as _;
use coracle_open::Bundle;

use crate::{
    cli::{args::SignArgs, ask, report},
    pack::{self, Output},
};

/// Signs a bundle, in its place unless told otherwise.
pub(super) fn run(args: &SignArgs, quiet: bool) -> anyhow::Result<()> {
    let bundle = Bundle::open(&args.file)?;
    let question = format!("Password of {}: ", args.key.display());
    let key = pack::read_secret_key(&args.key, || ask::password(args.password_stdin, &question))?;
    let output = args.output.as_ref().unwrap_or(&args.file);
    let place = Output::create(output)?;
    let comment = args.comment.clone().unwrap_or_else(|| bundle.manifest().provenance.source.clone());
    pack::sign(&bundle, &key, &comment, place.file()).with_context(|| args.file.display().to_string())?;
    place.finish()?;
    report::note(quiet, &format!("{}: signed", output.display()));
    Ok(())
}
