//! What the environment and the flags mean to a source.

use anyhow::{anyhow, bail};

use super::{args::SourceArgs, progress};
use crate::source::{
    Options, Owners, Proxies, PullPolicy, WalkOptions, reference::DEFAULT_REGISTRY, registry::settings::Registry,
};

/// Options for fetching an image.
pub(super) fn options(args: &SourceArgs, quiet: bool) -> anyhow::Result<Options> {
    let mut options = bare(quiet)?;
    options.platform = args.platform.as_deref().map(str::parse).transpose().map_err(|why: String| anyhow!(why))?;
    options.pull = args.pull.unwrap_or_default();
    options.insecure = args.insecure;
    reach(&mut options, args.net.registry.as_deref(), args.net.httpproxy.as_deref())?;
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

/// Has registries reached as udocker's options say.
pub(super) fn reach(options: &mut Options, registry: Option<&str>, proxy: Option<&str>) -> anyhow::Result<()> {
    if let Some(given) = registry {
        let name = registry_name(given)?;
        if given.starts_with("http://") {
            let known = options.registries.get(&name);
            options.registries.insert(&name, Registry { insecure: true, ..known });
        }
        options.registry = Some(name);
    }
    if let Some(proxy) = proxy {
        options.proxies = Proxies { http: Some(proxy.to_owned()), https: Some(proxy.to_owned()), none_for: None };
    }
    Ok(())
}

/// A registry as the user names it: with or without `https://` and a path.
pub(super) fn registry_name(given: &str) -> anyhow::Result<String> {
    let bare = given.strip_prefix("https://").or_else(|| given.strip_prefix("http://")).unwrap_or(given);
    let host = bare.split('/').next().unwrap_or_default();
    // What a reference may begin with is a registry.
    let reference = format!("{host}/x").parse::<crate::source::Reference>();
    match reference {
        Ok(reference) if reference.registry != DEFAULT_REGISTRY => Ok(reference.registry),
        Ok(_) if host.ends_with(DEFAULT_REGISTRY) => Ok(DEFAULT_REGISTRY.to_owned()),
        _ => bail!("{given:?} is no registry: write HOST or HOST:PORT"),
    }
}

/// The environment's options alone.
pub(super) fn bare(quiet: bool) -> anyhow::Result<Options> {
    let options = Options::from_environment(&|name| std::env::var_os(name)).map_err(|why| anyhow!(why))?;
    Ok(Options { progress: progress::new(quiet), ..options })
}
