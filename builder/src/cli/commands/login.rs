//! `coracle login`.

use std::io::{self, IsTerminal as _};

use anyhow::{bail, ensure};

use crate::{
    cli::{args::LoginArgs, ask, report, source},
    source::{
        reference::DEFAULT_REGISTRY,
        registry::{self, credentials},
    },
};

/// Keeps a registry's credentials, once the registry has accepted them.
pub(super) fn run(args: LoginArgs, quiet: bool) -> anyhow::Result<()> {
    let mut options = source::bare(quiet)?;
    options.insecure = args.insecure;
    let registry = name(args.registry.as_deref().or(args.named.as_deref()))?;
    let Some(path) = options.own_auth_file.clone() else {
        bail!("nowhere to keep the password: HOME is not set: set REGISTRY_AUTH_FILE or CORACLE_DIR");
    };
    let user = match args.username {
        Some(user) => user,
        None if io::stdin().is_terminal() => ask::ask(&format!("User name for {registry}: "), true)?,
        None => bail!("no user name, and no terminal to ask at: give -u NAME and --password-stdin"),
    };
    let password = match args.password {
        Some(password) => password,
        None => ask::password(args.password_stdin, &format!("Password of {user}: "))?,
    };
    ensure!(!user.is_empty() && !user.contains(':'), "{user:?} is no user name");
    ensure!(!password.is_empty(), "the password is empty");
    registry::check_login(&registry, &user, &password, &options)?;
    credentials::keep(&path, &registry, &user, &password)?;
    report::note(quiet, &format!("logged in to {registry} as {user}; the password is in {}", path.display()));
    Ok(())
}

/// A registry as the user names it; Docker's if none is named.
pub(super) fn name(given: Option<&str>) -> anyhow::Result<String> {
    source::registry_name(given.unwrap_or(DEFAULT_REGISTRY))
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn registries_as_people_name_them() {
        let is = |given, expected: &str| assert_eq!(name(given).expect("a registry"), expected);
        is(None, "docker.io");
        is(Some("https://index.docker.io/v1/"), "docker.io");
        is(Some("quay.io"), "quay.io");
        is(Some("https://ghcr.io/"), "ghcr.io");
        is(Some("localhost:5000"), "localhost:5000");
        assert!(name(Some("alpine")).is_err() && name(Some("")).is_err() && name(Some("a b")).is_err());
    }
}
