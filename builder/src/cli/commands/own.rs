//! `coracle own`: a container that stands on an image's tree gets one of its own. The launcher calls it.

use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};

use coracle_api::SUBORDINATE;

use crate::{
    cli::{args::OwnArgs, report, source},
    launch::ids,
    source::open_store,
    store::containers::Container,
};

/// Makes the tree.
pub(super) fn run(args: &OwnArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&args.container)?;
    // SAFETY: fcntl with these arguments touches no memory; a number that is no open descriptor is answered with -1.
    let lease = args.lease.filter(|fd| *fd > 2 && unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
    // SAFETY: it is open, and whoever named it on the command line gave it to this process for good.
    let lease = lease.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    make(&container, lease.as_ref().map(std::os::fd::AsFd::as_fd), args.keep, quiet)
}

/// Makes the tree, and says so; does nothing if the container has one. See [`ids::own`].
pub(super) fn make(
    container: &Container,
    lease: Option<BorrowedFd<'_>>,
    keep: bool,
    quiet: bool,
) -> anyhow::Result<()> {
    if container.settings()?.base.is_none() {
        return Ok(());
    }
    // Said once.
    if !ids::inside() {
        report::note(
            quiet,
            &format!("container {} gets a tree of its own: it shares the image's no longer", container.short_id()),
        );
    }
    ids::own(container, lease, keep)?;
    if ids::inside() && !keep {
        // All of it is the caller's.
        let _ = std::fs::remove_file(container.directory().join(SUBORDINATE));
    }
    Ok(())
}
