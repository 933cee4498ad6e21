//! `coracle verify`: a bundle, an image, a container, or the whole store.

use std::{num::NonZero, path::Path};

use anyhow::bail;
use coracle_open::Bundle;

use super::{inspect::is_program, launching};
use crate::{
    cli::{args::VerifyArgs, print, report, source, stored},
    pack::{self, PublicKey},
    source::open_store,
    store::{Findings, Store},
};

/// Checks every byte; says what is damaged and how to mend it.
pub(super) fn run(args: &VerifyArgs, quiet: bool) -> anyhow::Result<()> {
    let jobs = args.jobs.unwrap_or_else(pack::default_jobs);
    let Some(file) = &args.file else { return store(&open_store(&source::bare(quiet)?)?, jobs, quiet) };
    // What is written as a path, or is there, is a bundle.
    if is_program(file) || file.exists() || file.to_string_lossy().starts_with(['/', '.']) {
        return bundle(file, args.key.as_deref(), jobs, quiet);
    }
    if args.key.is_some() {
        bail!("{}: is no bundle: --key is for the file of a bundle", file.display());
    }
    let store = open_store(&source::bare(quiet)?)?;
    let name = file.to_string_lossy();
    if let Ok(container) = store.containers().resolve(&name) {
        let settings = container.settings()?;
        if let Some(damage) = store.damage_of_container(&container) {
            bail!("{damage}");
        }
        launching::kept(&settings)?;
        crate::store::trees::read_container(&container)?;
        return if quiet { Ok(()) } else { print::line(&format!("container {name}: settings and tree can be read")) };
    }
    let mut findings = Findings::default();
    let _using = store.use_blobs()?;
    store.check_images(&[stored::find(&store, &name)?], jobs, &mut findings)?;
    tell(&findings, quiet, &format!("{name}: {} blobs, all whole", findings.blobs))
}

fn bundle(file: &Path, key: Option<&Path>, jobs: NonZero<usize>, quiet: bool) -> anyhow::Result<()> {
    let bundle = Bundle::open(file)?;
    // A signature first: nothing else of a bundle that is not the one that was signed is worth a look.
    let key = key.map(PublicKey::read).transpose()?;
    let comment = key.map(|key| pack::verify_signature(&bundle, &key)).transpose()?;
    let found = pack::verify_open(&bundle, jobs)?;
    if quiet {
        return Ok(());
    }
    print::line(&format!(
        "{}: whole: stub, slot, trailer, manifest, index, {} frames, {} files, {} bytes",
        file.display(),
        found.frames,
        found.entries,
        found.total
    ))?;
    comment.map_or(Ok(()), |comment| print::line(&format!("{}: signed: {}", file.display(), print::visible(&comment))))
}

fn store(store: &Store, jobs: NonZero<usize>, quiet: bool) -> anyhow::Result<()> {
    let findings = store.check(jobs)?;
    if findings.leftovers > 0 {
        report::note(
            quiet,
            &format!("{} leftovers of killed commands take room: `coracle prune` removes them", findings.leftovers),
        );
    }
    let Findings { images, blobs, containers, .. } = findings;
    let whole =
        format!("{}: {images} images, {blobs} blobs, {containers} containers, all whole", store.root().display());
    tell(&findings, quiet, &whole)
}

fn tell(findings: &Findings, quiet: bool, whole: &str) -> anyhow::Result<()> {
    if findings.problems.is_empty() {
        return if quiet { Ok(()) } else { print::line(whole) };
    }
    for problem in &findings.problems {
        print::line(&print::visible(problem))?;
    }
    let count = findings.problems.len();
    bail!("{count} thing{} damaged: each line above says what to do", if count == 1 { " is" } else { "s are" });
}
