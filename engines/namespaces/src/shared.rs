//! One overlay for all runs that change the same tree at once.
//!
//! Two overlays over one directory of changes would not see each other's files, so the second run takes a clone of the mount
//! that the first one has: in a child that enters the first one's namespaces for as long as it takes (open_tree(2)). What
//! comes of it is a mount of no namespace, which this run puts into its own, with binds of its own on top. The overlay
//! lives until the last run that has a clone of it has ended.
//!
//! `CHANGES/overlay.runs` names the runs (boot, process, its start time), `CHANGES/overlay.lock` is held from the look at
//! that list until this run is on it.

use std::{
    ffi::c_void,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use coracle_api::RunError;

use crate::sys::Step;

/// How long to wait for another run that mounts its overlay just now.
const PATIENCE: Duration = Duration::from_secs(20);

/// A turn at a directory of changes: nobody else mounts them until this run has, and is on the list.
#[derive(Debug)]
pub(crate) struct Turn {
    lock: File,
    list: PathBuf,
    boot: String,
    /// Those on the list that still run.
    others: Vec<(i32, u64)>,
    /// The overlay of one of them.
    mount: Option<OwnedFd>,
}

impl Turn {
    /// Takes a turn. Called before this process has entered namespaces of its own.
    pub(crate) fn take(changes: &Path) -> Result<Self, RunError> {
        let path = changes.join("overlay.lock");
        let what = || format!("lock {}", path.display());
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).step(what)?;
        match wait_for(&lock, PATIENCE) {
            // A file system without locks holds no overlay's changes either; the mount will say so.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP)) => {}
            answer => answer.step(what)?,
        }
        let list = changes.join("overlay.runs");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let text = fs::read_to_string(&list).unwrap_or_default();
        let others: Vec<(i32, u64)> = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ');
                let here = fields.next()? == boot;
                let run = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                (here && start_of(&format!("/proc/{}/stat", run.0)) == Some(run.1)).then_some(run)
            })
            .collect();
        let mut refused = None;
        let mount = others.iter().find_map(|(process, _)| match clone_mount_of(*process) {
            Ok(mount) => Some(mount),
            Err(error) => {
                refused = Some(error);
                None
            }
        });
        match refused {
            Some(source) if mount.is_none() && others.iter().any(|run| start_of(&stat_of(run.0)) == Some(run.1)) => {
                Err(RunError::Step {
                    what: format!("join the run that has mounted {}", changes.display()),
                    source,
                    advice: Some("wait until it has ended, or start this one as the same user".to_owned()),
                })
            }
            _ => Ok(Self { lock, list, boot, others, mount }),
        }
    }

    /// Mounts the overlay over `/`: another run's, or by `fresh`. Then this run is on the list, and the turn is over.
    pub(crate) fn mount(self, fresh: impl FnOnce() -> Result<(), RunError>) -> Result<(), RunError> {
        match &self.mount {
            Some(mount) => move_over_root(mount).step(|| "mount what another run of this tree has mounted")?,
            None => fresh()?,
        }
        self.list()?;
        self.end();
        Ok(())
    }

    /// Puts this run on the list; the turn goes on, so that nobody looks for its overlay before it has one.
    pub(crate) fn list(&self) -> Result<(), RunError> {
        let what = || format!("write {}", self.list.display());
        // In `/proc`'s own numbers, which others read: in a pid namespace getpid(2) gives other ones.
        let own = fs::read_link("/proc/self").step(what)?;
        let start = start_of("/proc/self/stat").ok_or(io::ErrorKind::InvalidData).step(what)?;
        let mut text = format!("{} {} {start}\n", self.boot, own.display());
        for (process, start) in &self.others {
            text.push_str(&format!("{} {process} {start}\n", self.boot));
        }
        fs::write(&self.list, text).step(what)
    }

    /// The turn is over: this run has the overlay.
    pub(crate) fn end(self) {
        // Forked processes have the descriptor, too: unlocking is not left to closing it.
        // SAFETY: flock takes integers.
        unsafe { libc::flock(self.lock.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// Locks a file, at the latest when this time is over.
pub(crate) fn wait_for(lock: &File, patience: Duration) -> io::Result<()> {
    let since = Instant::now();
    loop {
        // SAFETY: flock takes integers; the descriptor is open.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EWOULDBLOCK) && since.elapsed() < patience => {
                thread::sleep(Duration::from_millis(1));
            }
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            error => return Err(error),
        }
    }
}

pub(crate) fn stat_of(process: i32) -> String {
    format!("/proc/{process}/stat")
}

/// When the process of this `stat` file was started, in ticks since boot; none if it has ended.
pub(crate) fn start_of(stat: &str) -> Option<u64> {
    let text = fs::read_to_string(stat).ok()?;
    // The name in parentheses may hold anything; what follows it starts with field 3, the state.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(22 - 4)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

/// What the child is to do, and what came of it.
struct Visit {
    user: RawFd,
    mount: RawFd,
    /// The descriptor, or minus the error.
    answer: libc::c_long,
}

/// A clone of the mount that is a process's root, mounted nowhere.
fn clone_mount_of(process: i32) -> io::Result<OwnedFd> {
    let user = File::open(format!("/proc/{process}/ns/user"))?;
    let mount = File::open(format!("/proc/{process}/ns/mnt"))?;
    let mut visit = Visit { user: user.as_raw_fd(), mount: mount.as_raw_fd(), answer: -libc::c_long::from(libc::EIO) };
    // It shares our memory while we wait, and our descriptors: what it opens is ours. Its root directory is its own.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
    let mut stack = vec![0_u128; 1024];
    let end = stack.as_mut_ptr_range().end;
    // SAFETY: the child runs `child` on `stack`, which nobody else uses, while CLONE_VFORK keeps this thread waiting, so
    // `visit` and `stack` outlive it and are not touched meanwhile. `child` makes system calls only.
    let pid = unsafe { libc::clone(child, end.cast(), flags, (&raw mut visit).cast()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waits for the child made above; a null status pointer is allowed.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    match i32::try_from(visit.answer) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the child opened it in the table of descriptors that it shares with us, for us alone.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let kind = nix::sys::statfs::fstatfs(fd.as_fd())?.filesystem_type();
            if kind == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC {
                Ok(fd)
            } else {
                Err(io::Error::other("it has no overlay"))
            }
        }
        Ok(errno) => Err(io::Error::from_raw_os_error(-errno)),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Runs in the child: no allocation, no lock, no return to the parent's frames.
extern "C" fn child(visit: *mut c_void) -> libc::c_int {
    // SAFETY: `clone_mount_of` passes its visit, and waits.
    let visit = unsafe { &mut *visit.cast::<Visit>() };
    // SAFETY: setns takes integers; the path is a NUL-terminated literal; _exit ends the child alone, whose parent's exit
    // handlers must not run.
    unsafe {
        let entered =
            libc::setns(visit.user, libc::CLONE_NEWUSER) == 0 && libc::setns(visit.mount, libc::CLONE_NEWNS) == 0;
        visit.answer = if entered {
            let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), flags)
        } else {
            -1
        };
        if visit.answer < 0 {
            visit.answer = -libc::c_long::from(*libc::__errno_location());
        }
        libc::_exit(0)
    }
}

/// Mounts over `/` what is mounted nowhere.
fn move_over_root(mount: &OwnedFd) -> io::Result<()> {
    // SAFETY: both paths are NUL-terminated literals, the descriptor is open; the kernel only reads.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
