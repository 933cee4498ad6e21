//! A container's tree put together for a command of ours: a process that does nothing has the overlay mounted, and its root
//! directory, which we open, is the tree, to read and to write.
//!
//! If something runs in the container, its overlay is the same one, so both see each other's changes.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use coracle_api::{Access, HOLD, Order};
use nix::{fcntl::OFlag, sys::stat::Mode};

use super::{LaunchError, stub};
use crate::store::containers::{Container, base::Layers};

/// A tree that is there as long as this is.
#[derive(Debug)]
pub struct Held {
    child: Child,
    root: PathBuf,
    /// What `root` leads to. Programs inherit it: the root of subordinate ids may not open `/proc/PID/root`.
    _opened: OwnedFd,
}

impl Held {
    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Has the layers of a container put together; what goes wrong is said on standard error by who does it.
///
/// # Errors
/// [`LaunchError`].
pub fn hold(container: &Container, layers: &Layers, places: &[PathBuf]) -> Result<Held, LaunchError> {
    let mut child = stub::by_path(places, |path| {
        let mut order = Order::new(layers.lower.clone());
        order.access = Access::CopyOnWrite { changes: layers.changes.clone() };
        order.made = Some(container.directory().join("made"));
        order.engine = Some("namespaces".to_owned());
        order.names = false;
        // The launcher's own file, which the tree need not have; its descriptor is inherited.
        order.argv = vec![path.into(), HOLD.into()];
        let order = serde_json::to_vec(&order).map_err(io::Error::from).and_then(|text| stub::inherited(&text))?;
        let argument = stub::argument(&order);
        let own: i32 = path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(-1);
        let mut command = Command::new(path);
        command.arg(argument.to_str().unwrap_or_default()).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: between fork and exec the closure makes one system call, on integers.
        unsafe {
            command.pre_exec(move || {
                libc::fcntl(own, libc::F_SETFD, 0);
                Ok(())
            });
        }
        let child = command.spawn();
        debug_assert!(order.as_raw_fd() >= 0, "open until the child has it");
        child
    })?;
    let failed = || LaunchError::step("put the container's tree together");
    let output: Option<File> = child.stdout.take().map(|output| File::from(OwnedFd::from(output)));
    let mut line = String::new();
    BufReader::new(output.ok_or(io::ErrorKind::BrokenPipe).map_err(|error| failed()(error.into()))?)
        .read_line(&mut line)
        .map_err(failed())?;
    let opened = line
        .trim()
        .parse::<u32>()
        // Nothing was said if it could not be started.
        .map_err(|_| io::Error::other("its launcher has failed"))
        .and_then(|process| {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            Ok(nix::fcntl::open(format!("/proc/{process}/root").as_str(), flags, Mode::empty())?)
        });
    match opened {
        Ok(opened) => {
            let root = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
            Ok(Held { child, root, _opened: opened })
        }
        Err(error) => {
            drop(child.stdin.take());
            let _ = child.wait();
            Err(failed()(error))
        }
    }
}
