//! `coracle logout`.

use super::login::name;
use crate::{
    cli::{args::LogoutArgs, report, source},
    source::registry::credentials,
};

/// Forgets a registry's credentials, and says where others are left.
pub(super) fn run(args: LogoutArgs, quiet: bool) -> anyhow::Result<()> {
    let options = source::bare(quiet)?;
    if args.all {
        let forgotten = options.own_auth_file.as_deref().map_or(Ok(false), credentials::forget_all)?;
        report::note(quiet, if forgotten { "logged out of all registries" } else { "was not logged in anywhere" });
        return Ok(());
    }
    let registry = name(args.registry.as_deref().or(args.named.as_deref()))?;
    let forgotten = match &options.own_auth_file {
        Some(path) => credentials::forget(path, &registry)?,
        None => false,
    };
    let said = if forgotten { "logged out of" } else { "was not logged in to" };
    report::note(quiet, &format!("{said} {registry}"));
    if credentials::find(&registry, "", &options)?.is_some() {
        report::note(quiet, &format!("there are credentials for {registry} from Docker or Podman, which are used too"));
    }
    Ok(())
}
