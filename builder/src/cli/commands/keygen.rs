//! `coracle keygen`: a pair of keys in minisign's format.

use std::{ffi::OsString, path::PathBuf};

use anyhow::ensure;

use crate::{
    cli::{args::KeygenArgs, ask, report},
    pack,
};

/// Makes NAME.key and NAME.pub.
pub(super) fn run(args: &KeygenArgs, quiet: bool) -> anyhow::Result<()> {
    let named = |end: &str| {
        let mut name = OsString::from(&args.name);
        name.push(end);
        PathBuf::from(name)
    };
    let (secret, public) = (named(".key"), named(".pub"));
    for file in [&secret, &public] {
        ensure!(file.symlink_metadata().is_err(), "{}: it is there already: choose another name", file.display());
    }
    let password = if args.no_password { None } else { Some(new_password(args.password_stdin)?) };
    pack::write_key_pair(&secret, &public, password)?;
    report::note(
        quiet,
        &format!(
            "{}: keep it for yourself; {}: give it to whoever runs your bundles",
            secret.display(),
            public.display()
        ),
    );
    Ok(())
}

fn new_password(from_stdin: bool) -> anyhow::Result<String> {
    let password = ask::password(from_stdin, "Password of the new key: ")?;
    ensure!(!password.is_empty(), "the password is empty: for a key without one there is --no-password");
    ensure!(from_stdin || ask::ask("The same again: ", false)? == password, "the two are not the same");
    Ok(password)
}
