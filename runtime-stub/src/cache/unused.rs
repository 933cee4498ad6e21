//! What nobody uses: trees without a run that holds their lease, and what killed processes left behind. Found and removed.
//!
//! A name goes before what it names, and what is held is left alone; where locks tell nothing, time does.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use coracle_format::parse_hex;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, renameat},
    sys::stat::Mode,
};

use super::{Cleaned, base::Base, fill::temporary, lease, lock, roots, scratch};

/// Removes what killed processes left behind: temporaries whose lock nobody holds.
pub(super) fn sweep(base: &Base) -> Vec<Cleaned> {
    let mut cleaned = Vec::new();
    let (path, names) = names(base);
    for name in names {
        let Some(rest) = name.strip_prefix('.') else { continue };
        let mut parts = rest.split('-');
        if matches!(parts.next(), Some("new" | "old" | "run" | "exec")) && is_abandoned(base, &name, parts.next()) {
            cleaned.push(Cleaned { removed: remove_unused(base, &name), path: path.join(name) });
        }
    }
    cleaned
}

/// Removes the roots that nothing names. It looks into every tree's directory: not for each start.
pub(super) fn remove_lost(base: &Base) -> Vec<Cleaned> {
    let lost = roots::lost(base).into_iter();
    lost.map(|path| Cleaned { removed: scratch::remove_locked(&path).is_ok(), path }).collect()
}

/// Removes the trees that nobody uses, with their locks.
pub(super) fn remove_trees(base: &Base) -> Vec<Cleaned> {
    let mut cleaned = Vec::new();
    let (path, names) = names(base);
    for name in names {
        let (digest, lock) = name.split_once(".lock").map_or((&*name, false), |(digest, _)| (digest, true));
        if parse_hex(digest).is_none() {
            continue;
        }
        if !lock {
            cleaned.push(Cleaned { removed: remove_unused(base, &name), path: path.join(name) });
        } else if lock::is_free(base, &name) {
            // Somebody may just have opened it to wait: then two unpack, and the second finds the name taken.
            let _ = fs::remove_file(path.join(name));
        }
    }
    cleaned
}

pub(super) fn names(base: &Base) -> (PathBuf, Vec<String>) {
    let Ok(path) = base.path() else { return (PathBuf::new(), Vec::new()) };
    let entries = fs::read_dir(&path).into_iter().flatten().flatten();
    // All names of ours are text.
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    (path, names)
}

/// Whether the maker of a temporary is gone, as far as a process id of this node can tell, or has had a minute to take its
/// lock.
fn is_abandoned(base: &Base, name: &str, pid: Option<&str>) -> bool {
    let dead = pid
        .filter(|_| !base.is_network())
        .and_then(|pid| pid.parse::<i32>().ok())
        .is_some_and(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(Errno::ESRCH));
    let old = base.path().ok().and_then(|path| fs::symlink_metadata(path.join(name)).ok()).is_some_and(|data| {
        data.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age.as_secs() >= 60)
    });
    dead || old
}

/// Removes a tree or a temporary, unless its lease is held.
pub(super) fn remove_unused(base: &Base, name: &str) -> bool {
    let Ok(path) = base.path().map(|path| path.join(name)) else { return false };
    let Ok(metadata) = fs::symlink_metadata(&path) else { return false };
    if !metadata.is_dir() {
        return fs::remove_file(&path).is_ok();
    }
    // NFS has exclusive locks on what is open for writing only.
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let lease = openat(base.fd(), path.join(lease::LEASE).as_path(), flags, Mode::empty());
    if let Ok(lease) = &lease {
        match lock::flock(lease.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) if !coracle_api::locks_stay_here(lease.as_fd()) => {}
            Err(Errno::EWOULDBLOCK) => return false,
            // No locks here, or none that reach other nodes: only time tells. A job may run for weeks.
            _ if lease::is_used(lease) => return false,
            _ => {}
        }
    }
    // The name goes first, so that nobody finds a tree that is half removed, or takes its lease. On NFS a file that is open
    // would stay, under another name.
    // What is a run's alone has everything inside, and guests write to it: no link in it is ours.
    let is_run = name.starts_with(".run-");
    let doomed = temporary(if is_run { "run" } else { "old" });
    let renamed = renameat(base.fd(), name, base.fd(), doomed.as_str());
    drop(lease);
    let doomed = path.with_file_name(doomed);
    renamed.is_ok() && if is_run { scratch::remove_locked(&doomed) } else { roots::remove(&doomed) }.is_ok()
}
