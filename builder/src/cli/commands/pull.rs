//! `coracle pull`.

use anyhow::bail;

use crate::{
    cli::{args::PullArgs, print, source},
    source::{PullPolicy, SourceSpec, resolve},
};

/// Fetches an image into the store, and prints its name with the digest of its manifest.
pub(super) fn run(args: PullArgs, quiet: bool) -> anyhow::Result<()> {
    let mut options = source::options(&args.source_options, quiet)?;
    let spec = SourceSpec::parse_os(&args.source)?.at(options.registry.as_deref());
    let SourceSpec::Docker(reference) = &spec else {
        bail!(
            "cannot pull {spec}: only images of registries are kept in the store: give it to `coracle build` as it is"
        );
    };
    // Who says "pull" wants the registry's answer, not an older copy.
    options.pull = match args.source_options.pull {
        None | Some(PullPolicy::Newer) => PullPolicy::Always,
        Some(pull) => pull,
    };
    let image = resolve(&spec, &options)?;
    let digest = image.provenance.manifest.unwrap_or_default();
    print::line(&format!("{}@{digest}", reference.name()))
}
