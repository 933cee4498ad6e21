//! `coracle exec`: one more program in a container that runs.
//!
//! It is a run of its own on the same tree, with the same engine, user, volumes and variables: what it sees of files and
//! (there being no namespace of process ids unless asked for) of processes is what the first sees. Joining the first
//! program's namespaces would be possible for one engine alone, and would end with it.

use anyhow::{Context as _, bail};

use super::launching::{self, Run};
use crate::{
    cli::{args::ExecArgs, options, source},
    launch::Options,
    source::open_store,
    store::containers::State,
};

/// Runs it. Returns only for `-d`, and for errors.
pub(super) fn run(args: ExecArgs, quiet: bool) -> anyhow::Result<u8> {
    if args.privileged {
        bail!("--privileged: nobody gives privileges here: leave it out");
    }
    let store = open_store(&source::bare(quiet)?)?;
    let mut words = args.words.into_iter();
    let name = words.next().and_then(|name| name.into_string().ok()).context("no container is named")?;
    let container = store.containers().resolve(&name)?;
    let State::Running(runs) = container.state()? else {
        bail!("container {name} is not running: start it, or use `coracle run {name}`");
    };
    let settings = container.settings()?;
    let mut options = launching::kept(&settings)?;
    // The program is the caller's alone: no entrypoint goes before it.
    options.entrypoint = Some(Vec::new());
    let top = Options {
        command: words.collect(),
        user: args.user,
        env: options::environment(&args.env, &args.env_file)?,
        workdir: args.workdir,
        interactive: args.interactive,
        tty: args.tty,
        engine: runs.iter().find(|run| !run.exec).and_then(|run| run.engine.clone()),
        ..Options::default()
    };
    options = options.with(top);
    let run = Run { store: &store, container: &container, settings: &settings, options, exec: true, verbose: false };
    if args.detach { run.in_background() } else { run.in_foreground(&[]) }
}
