//! `coracle sbom`: the packages of an image, for other tools.

use std::path::Path;

use anyhow::ensure;
use coracle_format::{hex, sha256};

use super::{image, inspect::is_program};
use crate::{
    cli::{
        args::{SbomArgs, SbomFormat},
        print, report, source,
    },
    flatten::{self, Limits},
    pack::{self, Output},
    packages::{Packages, Subject, cyclonedx, spdx},
};

/// Prints or writes the list.
pub(super) fn run(args: &SbomArgs, quiet: bool) -> anyhow::Result<()> {
    let options = source::options(&args.source_options, quiet)?;
    let mut given = args.source.clone();
    // As for inspect: the bare name of a file that is a program means a bundle, not an image.
    if is_program(Path::new(&given)) {
        given = "bundle:".into();
        given.push(&args.source);
    }
    let image = image::find(&given, &options)?;
    let flatten = flatten::Options {
        limits: Limits::default(),
        spool: options.scratch,
        threads: pack::default_jobs(),
        apart: false,
    };
    let tree = flatten::flatten(image.content, &flatten)?;
    let found = Packages::of(&tree);
    for database in &found.unread {
        report::note(quiet, &format!("{database}: packages of this kind are not read: the list lacks them"));
    }
    ensure!(
        !found.list.is_empty() || found.unread.is_empty(),
        "{}: its packages cannot be listed: only the databases of dpkg and apk can be read",
        args.source.display()
    );
    let digest = image.provenance.manifest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"));
    let subject = Subject {
        name: image.provenance.source.clone(),
        // What has no manifest is known by what it holds.
        sha256: digest.map_or_else(|| hex(&sha256(format!("{found:?}").as_bytes())), str::to_owned),
        time: image::newest()?.map(|time| time.seconds),
    };
    let document = match args.format {
        SbomFormat::Cyclonedx => cyclonedx(&found, &subject),
        SbomFormat::Spdx => spdx(&found, &subject),
    };
    match &args.output {
        None => print::json(&document),
        Some(path) => {
            let output = Output::create(path)?;
            serde_json::to_writer_pretty(output.file(), &document)?;
            Ok(output.finish_as(0o644)?)
        }
    }
}
