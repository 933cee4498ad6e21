//! Why a view cannot be had.

use std::{io, path::PathBuf};

use nix::errno::Errno;

/// A view could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A system call failed on this path.
    #[error("{step} {}: {}{}", path.display(), io::Error::from(*errno), advice(*errno))]
    Step {
        /// What was tried: `make`, `link`…
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The directory holds an overlay's changes.
    #[error(
        "{}: holds the changes of a run under the namespaces engine, which keeps them as an overlay: name another directory, or ask for that engine",
        .0.display()
    )]
    Overlay(PathBuf),
    /// The view is of another image.
    #[error("{}: holds the changes of another image ({made_from}): name another directory, or remove that one", path.display())]
    OtherImage {
        /// The directory of changes.
        path: PathBuf,
        /// What the view says that it was made from.
        made_from: String,
    },
    /// Something of the view's own is missing or damaged.
    #[error("{}: {what}, so it cannot be told which of its files are shared: copy what you need out of its root, and remove it", path.display())]
    Damaged {
        /// The view.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

impl ViewError {
    pub(crate) fn step<'a>(step: &'static str, path: &'a std::path::Path) -> impl FnOnce(Errno) -> Self + 'a {
        move |errno| Self::Step { step, path: path.to_owned(), errno }
    }
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC => ": free some space (or inodes), or name another directory",
        Errno::EDQUOT => ": your quota is used up: free some space, or name another directory",
        Errno::EROFS => ": it is on a read-only file system: name another directory",
        _ => "",
    }
}

/// The error number of a failed call of the standard library.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
