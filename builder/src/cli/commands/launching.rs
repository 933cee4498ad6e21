//! What `run`, `start` and `exec` share: a container and its options become a running program.

use std::{
    ffi::OsString,
    io::IsTerminal as _,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use coracle_api::{Order, TreeEdits};

use super::create;
use crate::{
    cli::report,
    launch::{Options, health, monitor, order, stub, window::Window},
    store::{
        Store,
        containers::{Container, RunRecord, Settings},
    },
};

/// A run that is about to begin.
pub(super) struct Run<'a> {
    pub(super) store: &'a Store,
    pub(super) container: &'a Container,
    pub(super) settings: &'a Settings,
    pub(super) options: Options,
    pub(super) exec: bool,
    pub(super) verbose: bool,
}

impl Run<'_> {
    fn order(&self) -> anyhow::Result<Order> {
        create::tree_of(self.store, self.settings)?;
        let mut order = order::of_container(self.store, self.container, self.settings, &self.options)?;
        order.verbose = self.verbose;
        Ok(order)
    }

    /// Becomes the program (or rather the stub beside it): never returns but with an error.
    pub(super) fn in_foreground(self, attach: &[String]) -> anyhow::Result<u8> {
        self.wants_terminal()?;
        let mut order = self.order()?;
        let lease = self.container.lease()?.inherit();
        order.lease = Some(lease.number());
        self.how_to_own(&mut order, lease.number())?;
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        self.container.forget_old_runs()?;
        let mut record = RunRecord::of(own, words(&order.argv)).context("cannot look at this process")?;
        record.exec = self.exec;
        record.engine.clone_from(&order.engine);
        order.record = Some(self.container.record_run(&record)?);
        if self.options.remove {
            order.finally = vec![coracle()?.into(), "rm".into(), self.container.id().into()];
        }
        connect(attach)?;
        let error = stub::replace(&order, &self.options, &places(self.store));
        // Nothing runs: the record must not say so, and the container goes if it was to go.
        record.status = Some(125);
        record.ended = Some(record.began);
        let _ = self.container.record_run(&record);
        drop(lease);
        if self.options.remove {
            let _ = self.store.containers().remove(self.container, false);
        }
        Err(error.into())
    }

    /// Starts the program in the background. The exit status: 0, or why it did not start.
    pub(super) fn in_background(self) -> anyhow::Result<u8> {
        let mut order = self.order()?;
        let lease = self.container.lease()?.inherit();
        order.lease = Some(lease.number());
        self.how_to_own(&mut order, lease.number())?;
        self.container.forget_old_runs()?;
        let watch = monitor::Watch {
            store: self.store.root().canonicalize().unwrap_or_else(|_| self.store.root().to_owned()),
            container: self.container.id().to_owned(),
            engine: order.engine.clone(),
            command: words(&order.argv),
            exec: self.exec,
            window: Window::of(std::io::stdin().as_fd()).unwrap_or_default(),
            health: health::wanted(self.settings.config.health.as_ref(), self.options.health.as_ref()),
            places: places(self.store),
            options: self.options,
            order,
        };
        match monitor::start(watch, &coracle()?)? {
            Ok(()) => Ok(0),
            Err(not_started) => {
                eprintln!("coracle: {}", report::one_line(&not_started.message));
                Ok(not_started.status)
            }
        }
    }

    /// Tells the launcher how the container gets a tree of its own, or one with edits, if the engine wants that.
    fn how_to_own(&self, order: &mut Order, lease: i32) -> anyhow::Result<()> {
        // Edits are in the container's own tree, and stay as they are while somebody has the lease.
        if order.own.is_some() || order.root == self.container.own_root() {
            order.edits = Some(TreeEdits {
                command: vec![coracle()?.into(), "edits".into(), self.container.id().into()],
                any: self.container.has_edits(),
                laid: self.container.laid(),
            });
        }
        if let Some(own) = &mut order.own {
            own.command = vec![coracle()?.into(), "own".into(), self.container.id().into(), lease.to_string().into()];
        }
        Ok(())
    }

    /// Docker's rule for `-it`: a terminal is passed on, so there has to be one.
    fn wants_terminal(&self) -> anyhow::Result<()> {
        if self.options.tty && self.options.interactive && !std::io::stdin().is_terminal() {
            bail!("the input device is not a TTY: leave -t out, or start it from a terminal");
        }
        Ok(())
    }
}

/// Runs in a directory outside the store, without a record.
pub(super) fn in_directory(store: &Store, root: PathBuf, options: &Options, verbose: bool) -> anyhow::Result<u8> {
    let mut order = order::of_tree(store, root, &coracle_format::ImageConfig::default(), options)?;
    order.verbose = verbose;
    Err(stub::replace(&order, options, &places(store)).into())
}

/// Connects only these standard streams; none means all.
fn connect(attach: &[String]) -> anyhow::Result<()> {
    if attach.is_empty() {
        return Ok(());
    }
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    let wanted = |name: &str| attach.iter().any(|one| one.eq_ignore_ascii_case(name));
    let failed = |error: nix::errno::Errno| anyhow::Error::new(std::io::Error::from(error));
    if !wanted("stdin") {
        nix::unistd::dup2_stdin(&null).map_err(failed)?;
    }
    if !wanted("stdout") {
        nix::unistd::dup2_stdout(&null).map_err(failed)?;
    }
    if !wanted("stderr") {
        nix::unistd::dup2_stderr(&null).map_err(failed)?;
    }
    Ok(())
}

/// A command for a record.
fn words(argv: &[OsString]) -> Vec<String> {
    if argv.is_empty() {
        return vec!["sh".to_owned()];
    }
    argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// This program's own file.
pub(super) fn coracle() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find coracle's own file")
}

/// Where a file may be put to be executed, if memory may not be.
pub(super) fn places(store: &Store) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("TMPDIR").map(PathBuf::from).into_iter().collect();
    places.push("/tmp".into());
    places.push(store.root().to_owned());
    places.retain(|place| Path::is_absolute(place));
    places
}

/// The options that a container keeps. What another version wrote and this one does not know is left out.
pub(super) fn kept(settings: &Settings) -> anyhow::Result<Options> {
    if settings.options.is_null() {
        return Ok(Options::default());
    }
    serde_json::from_value(settings.options.clone()).context("the container's options cannot be understood")
}
