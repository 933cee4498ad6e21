//! `coracle mkrepo` and `showconf`: where things are kept, and what decides it.

use anyhow::{Context as _, bail};

use crate::{
    cli::{args::MkrepoArgs, print, report, source},
    store::Store,
};

/// Makes an empty store.
pub(super) fn make(args: &MkrepoArgs) -> anyhow::Result<()> {
    let directory = &args.directory;
    if directory.symlink_metadata().is_ok() {
        bail!("{}: it is there already: name a directory that is not", directory.display());
    }
    Store::open(directory)?;
    let path = std::fs::canonicalize(directory).with_context(|| format!("cannot find {}", directory.display()))?;
    print::line(&format!("CORACLE_DIR={}", path.display()))
}

/// Says to who is used to udocker that nothing need be installed.
pub(super) fn install(quiet: bool) -> anyhow::Result<()> {
    report::note(quiet, "there is nothing to install: the engines are inside");
    Ok(())
}

/// Prints what the environment and the configuration files come to.
pub(super) fn show(quiet: bool) -> anyhow::Result<()> {
    let options = source::bare(quiet)?;
    let path = |path: &std::path::Path| path.display().to_string();
    let some = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let mut lines = vec![
        ("store", some(options.store.as_deref().map(path))),
        ("scratch", path(&options.scratch)),
        ("threads", options.threads.to_string()),
        ("downloads at once", options.jobs.to_string()),
        ("login goes to", some(options.own_auth_file.as_deref().map(path))),
    ];
    lines.extend(options.auth_files.iter().map(|file| ("credentials", path(file))));
    lines.extend(options.certificate_directories.iter().map(|directory| ("certificates", path(directory))));
    for (name, value) in
        [("SSL_CERT_FILE", &options.certificate_file), ("SSL_CERT_DIR", &options.certificate_directory)]
    {
        lines.extend(value.as_deref().map(|value| (name, path(value))));
    }
    let proxies = &options.proxies;
    for (name, value) in
        [("http proxy", &proxies.http), ("https proxy", &proxies.https), ("no proxy for", &proxies.none_for)]
    {
        lines.extend(value.clone().map(|value| (name, value)));
    }
    lines.extend(options.daemons.iter().map(|daemon| ("daemon", daemon.clone())));
    lines.extend(["/etc/coracle.toml".to_owned(), "~/.config/coracle.toml".to_owned()].map(|file| ("settings", file)));
    for (name, value) in lines {
        print::line(&format!("{name:<18} {}", print::visible(&value)))?;
    }
    Ok(())
}
