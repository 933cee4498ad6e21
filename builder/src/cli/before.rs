//! What is said before the command: it becomes environment and options of the command, for this process and those it starts.

use anyhow::{Context as _, bail};

use super::args::{Cli, Command};

/// Carries out what stands before the command, and gives back what is left to do.
///
/// To be called first, while the process has one thread.
pub(super) fn apply(mut cli: Cli) -> anyhow::Result<Cli> {
    if let Some(file) = &cli.before.config {
        bail!(
            "--config {}: udocker's settings are not read: see `coracle showconf` for what decides here",
            file.display()
        );
    }
    if let Some(directory) = &cli.repo {
        let found = std::fs::canonicalize(directory).with_context(|| format!("--repo {}", directory.display()))?;
        if !found.is_dir() {
            bail!("--repo {}: it is no directory: make a store by `coracle mkrepo`", directory.display());
        }
        // SAFETY: set_var wants that no other thread reads the environment; `run` calls this before anything starts one.
        unsafe { std::env::set_var("CORACLE_DIR", found) };
    }
    let insecure = cli.before.insecure;
    match &mut cli.command {
        Command::Build(args) => args.source_options.insecure |= insecure,
        Command::Pull(args) => args.source_options.insecure |= insecure,
        Command::Create(args) => args.source_options.insecure |= insecure,
        Command::Run(args) => {
            args.source_options.insecure |= insecure;
            args.verbose |= cli.before.debug;
        }
        Command::Inspect(args) => args.source_options.insecure |= insecure,
        Command::Search(args) => args.insecure |= insecure,
        Command::Login(args) => args.insecure |= insecure,
        Command::Manifest(super::args::ManifestCommand::Inspect(args)) | Command::ManifestInspect(args) => {
            args.source_options.insecure |= insecure;
        }
        _ => {}
    }
    Ok(cli)
}
