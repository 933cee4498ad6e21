//! `coracle start`: a container runs (again) as it was made to.

use anyhow::bail;

use super::{
    each::each,
    launching::{self, Run},
    stop,
};
use crate::{
    cli::{
        args::{StartArgs, StopArgs},
        source,
    },
    launch::processes,
    source::open_store,
    store::{Store, containers::State},
};

/// Starts containers in the background and prints their names; with `-a` or `-i`, becomes the one.
pub(super) fn run(args: &StartArgs, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    if args.attach || args.interactive {
        let [name] = args.containers.as_slice() else {
            bail!("only one container can be attached to: start the others without -a and -i");
        };
        return one(&store, name, true);
    }
    each(&args.containers, |name| match one(&store, name, false)? {
        0 => Ok(()),
        status => bail!("container {name}: its program was not started (exit status {status})"),
    })
}

/// Ends what runs in containers, and starts them again.
pub(super) fn restart(args: &StopArgs, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    let asked = stop::asked(args)?;
    each(&args.containers, |name| {
        stop::one(&store, name, asked, args.time)?;
        match one(&store, name, false)? {
            0 => Ok(()),
            status => bail!("container {name}: its program was not started (exit status {status})"),
        }
    })
}

fn one(store: &Store, name: &str, attached: bool) -> anyhow::Result<u8> {
    let container = store.containers().resolve(name)?;
    if matches!(container.state()?, State::Dead(_)) {
        processes::kill_holders(&container);
    }
    if matches!(container.state()?, State::Running(_)) {
        if attached {
            bail!("container {name} runs already: see `coracle attach` and `coracle exec`");
        }
        return Ok(0);
    }
    let settings = container.settings()?;
    let options = launching::kept(&settings)?;
    let run = Run { store, container: &container, settings: &settings, options, exec: false, verbose: false };
    if attached { run.in_foreground(&[]) } else { run.in_background() }
}
