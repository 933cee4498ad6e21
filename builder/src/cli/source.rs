//! What the environment and the flags mean to a source.

use anyhow::anyhow;

use super::{args::SourceArgs, progress};
use crate::source::{Options, Owners, PullPolicy, WalkOptions};

/// Options for fetching an image.
pub(super) fn options(args: &SourceArgs, quiet: bool) -> anyhow::Result<Options> {
    let mut options = bare(quiet)?;
    options.platform = args.platform.as_deref().map(str::parse).transpose().map_err(|why: String| anyhow!(why))?;
    options.pull = args.pull.unwrap_or_default();
    options.insecure = args.insecure;
    options.walk = WalkOptions {
        skip_unreadable: args.skip_unreadable,
        owners: if args.keep_owners { Owners::Kept } else { Owners::Mapped },
    };
    Ok(options)
}

/// Options for an image that becomes a container: what was pulled once is not asked for again.
pub(super) fn container_options(args: &SourceArgs, quiet: bool) -> anyhow::Result<Options> {
    let pull = args.pull.unwrap_or(PullPolicy::Missing);
    Ok(Options { pull, ..options(args, quiet)? })
}

/// The environment's options alone.
pub(super) fn bare(quiet: bool) -> anyhow::Result<Options> {
    let options = Options::from_environment(&|name| std::env::var_os(name)).map_err(|why| anyhow!(why))?;
    Ok(Options { progress: progress::new(quiet), ..options })
}
