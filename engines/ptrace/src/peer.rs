//! A stopped tracee, as the table of meanings sees it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    ffi::{CStr, CString},
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
};

use coracle_intercept::{
    Credentials, Errno, Facts, File, FileId, Guest, Kind,
    errno::{EBADF, ENOSYS, EPERM},
    ledger::Inode,
};
use coracle_paths::{Ancestor, Caller, Host, View};

use crate::{
    copying,
    cow::{self, CopyOnWrite},
    deep,
    follow::Follow,
    memory::Memory,
    person::Person,
    process::{Process, Shared},
    recorder::Recorder,
    shown,
    sockets::{self, Sockets},
    tracee::{Tracee, Tracees},
};

/// Directories held open so that what is in them can be reached by a short path, the oldest first.
pub(crate) type Aliases = RefCell<Held>;

/// What is held for the guest's next look-ups.
#[derive(Debug, Default)]
pub(crate) struct Held {
    directories: VecDeque<OwnedFd>,
    /// A file that was made for the call at hand.
    pub(crate) shown: Option<OwnedFd>,
}

/// As many directories at most: they must not use up our descriptors. An alias need only last until the kernel has looked
/// it up.
const MAX_ALIASES: usize = 64;

/// What the tracer has for all of them.
type Common<'t> = (&'t Aliases, &'t RefCell<Sockets>, &'t RefCell<Follow>, Option<&'t RefCell<Recorder>>);

/// One stopped tracee.
pub(crate) struct Peer<'t> {
    pub(crate) thread: i32,
    pub(crate) process: i32,
    record: Shared,
    root: Rc<[u8]>,
    /// It takes itself for somebody else than the host does.
    pretends: bool,
    pub(crate) memory: Memory,
    pub(crate) tracees: &'t Tracees,
    pub(crate) cow: &'t CopyOnWrite<'t>,
    pub(crate) aliases: &'t Aliases,
    pub(crate) sockets: &'t RefCell<Sockets>,
    follow: &'t RefCell<Follow>,
    recorder: Option<&'t RefCell<Recorder>>,
}

impl<'t> Peer<'t> {
    pub(crate) fn new(
        thread: i32,
        process: &Shared,
        pretends: bool,
        tracees: &'t Tracees,
        (aliases, sockets, follow, recorder): Common<'t>,
        cow: &'t CopyOnWrite<'t>,
    ) -> Self {
        let Process { id, root, .. } = &*process.borrow();
        let (record, process, root, memory) = (Rc::clone(process), *id, Rc::clone(root), Memory { pid: thread });
        Self { thread, process, record, root, pretends, memory, tracees, aliases, sockets, follow, recorder, cow }
    }
}

impl Peer<'_> {
    /// A file is about to be executed, or mapped as an interpreter.
    pub(crate) fn executes(&self, host: &CStr) {
        if let Some(recorder) = self.recorder {
            recorder.borrow_mut().executes(host);
        }
    }

    fn person<T>(&self, look: impl FnOnce(&mut Person) -> T) -> Option<T> {
        self.tracees.get(&self.thread).map(|tracee| look(&mut tracee.person.borrow_mut()))
    }

    /// The `/proc` link to its working directory, or to what a descriptor holds.
    fn link_of(&self, descriptor: Option<i32>) -> CString {
        let link = match descriptor {
            None => format!("/proc/{}/cwd", self.thread),
            Some(descriptor) => format!("/proc/{}/fd/{descriptor}", self.thread),
        };
        CString::new(link).unwrap_or_default()
    }
}

/// What fstatat(2) tells, with these flags.
fn stat(host: &CStr, how: i32) -> Result<Facts, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a NUL-terminated path; fstatat writes one struct stat, which is read only when it succeeded.
    let stat = unsafe {
        if libc::fstatat(libc::AT_FDCWD, host.as_ptr(), stat.as_mut_ptr(), how) != 0 {
            return Err(last_errno());
        }
        stat.assume_init()
    };
    Ok(facts(&stat))
}

/// A `struct stat` in the table's words.
pub(crate) fn facts(stat: &libc::stat) -> Facts {
    Facts {
        inode: Inode { device: stat.st_dev, number: stat.st_ino },
        mode: stat.st_mode,
        links: stat.st_nlink,
        uid: stat.st_uid,
        gid: stat.st_gid,
        device: u32::try_from(stat.st_rdev).unwrap_or(0),
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

pub(crate) fn last_errno() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().and_then(|error| u16::try_from(error).ok()).unwrap_or(5))
}

/// Whether two descriptors are of one directory.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let meta = |fd: &OwnedFd| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    meta(one).is_some_and(|one| Some(one) == meta(other))
}

/// Asks openat2(2), unless it has been refused as such: the kernel is older than 5.6, or a sandbox does not know it.
fn meets_link(path: &CStr) -> Option<bool> {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    let how: [u64; 3] = [(libc::O_PATH | libc::O_CLOEXEC).cast_unsigned().into(), 0, libc::RESOLVE_NO_SYMLINKS];
    // SAFETY: a NUL-terminated path, and a `struct open_how` (three u64) of the size given; a descriptor that it makes is
    // closed at once.
    let made = unsafe {
        let fd = libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size_of_val(&how));
        if fd >= 0 {
            libc::syscall(libc::SYS_close, fd);
            return Some(false);
        }
        last_errno()
    };
    match made {
        Errno::ELOOP => Some(true),
        Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES => Some(false),
        ENOSYS | EPERM => {
            REFUSED.store(true, Ordering::Relaxed);
            None
        }
        _ => None,
    }
}

/// The thread of `/proc/PID/NAME` and `/proc/PID/task/TID/NAME`.
fn thread_of(host: &CStr) -> Option<i32> {
    host.to_str().ok()?.split('/').rev().nth(1)?.parse().ok()
}

fn copy(text: &[u8], into: &mut [u8]) -> Option<usize> {
    into.get_mut(..text.len())?.copy_from_slice(text);
    Some(text.len())
}

impl Host for Peer<'_> {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        let len = deep::with_short(path, |path| {
            // SAFETY: a NUL-terminated path, and a buffer that is writable for the length given.
            let len = unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
            usize::try_from(len).map_err(|_| last_errno())
        })?;
        if let Some(recorder) = self.recorder {
            recorder.borrow_mut().crosses(path);
        }
        Ok(len)
    }

    fn ancestor(&self, link: &CStr, text: &mut [u8]) -> Result<Ancestor, Errno> {
        deep::ancestor(link, text)
    }

    fn leads_to(&self, link: &CStr, name: &[u8]) -> bool {
        deep::leads_to(link, name)
    }

    fn meets_link(&self, path: &CStr) -> Option<bool> {
        meets_link(path)
    }

    fn caller(&self) -> Caller {
        Caller { pid: self.process.unsigned_abs(), tid: self.thread.unsigned_abs() }
    }

    fn root_of(&self, pid: u32, root: &mut [u8]) -> Option<usize> {
        let pid = i32::try_from(pid).ok()?;
        self.tracees.get(&pid).and_then(|tracee| copy(&tracee.process.borrow().root, root))
    }

    fn exe_of(&self, pid: u32, exe: &mut [u8]) -> Option<usize> {
        let pid = i32::try_from(pid).ok()?;
        self.tracees.get(&pid).and_then(|tracee| copy(&tracee.process.borrow().exe, exe))
    }
}

impl Guest for Peer<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.memory.read(address, into)
    }

    fn read_string(&self, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        self.memory.read_string(address, into)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.memory.write(address, bytes)
    }

    fn mode(&self, host: &CStr, follow: bool) -> Result<u32, Errno> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        let how = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        deep::with_short(host, |host| {
            // SAFETY: a NUL-terminated path; fstatat writes one struct stat, which is read only when it succeeded.
            unsafe {
                if libc::fstatat(libc::AT_FDCWD, host.as_ptr(), stat.as_mut_ptr(), how) == 0 {
                    Ok(stat.assume_init().st_mode)
                } else {
                    Err(last_errno())
                }
            }
        })
    }

    fn search(&self, host: &CStr) -> Result<(), Errno> {
        deep::with_short(host, |host| {
            // SAFETY: a NUL-terminated path.
            match unsafe { libc::faccessat(libc::AT_FDCWD, host.as_ptr(), libc::X_OK, 0) } {
                0 => Ok(()),
                _ => Err(last_errno()),
            }
        })
    }

    fn stat(&self, host: &CStr, follow: bool) -> Result<Facts, Errno> {
        let how = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        deep::with_short(host, |host| stat(host, how))
    }

    fn set_mode(&self, host: &CStr, mode: u32) -> Result<(), Errno> {
        deep::with_short(host, |host| self.cow.set_mode(host, mode))
    }

    fn credentials(&self) -> Credentials {
        self.person(|person| person.credentials).unwrap_or(Credentials::first(u32::MAX, u32::MAX))
    }

    fn set_credentials(&self, new: &Credentials) {
        self.person(|person| person.credentials = *new);
    }

    fn groups(&self, groups: &mut [u32]) -> usize {
        self.person(|person| {
            for (group, known) in groups.iter_mut().zip(person.groups.iter()) {
                *group = *known;
            }
            person.groups.len()
        })
        .unwrap_or(0)
    }

    fn set_groups(&self, groups: &[u32]) {
        self.person(|person| person.groups = Rc::from(groups));
    }

    fn credentials_of(&self, tid: u32) -> Option<Credentials> {
        let tracee = self.tracees.get(&i32::try_from(tid).ok()?)?;
        Some(tracee.person.borrow().credentials)
    }

    fn place(&self, descriptor: Option<i32>, text: &mut [u8]) -> Result<usize, Errno> {
        self.readlink(&self.link_of(descriptor), text)
    }

    fn link(&self, descriptor: Option<i32>, path: &mut [u8]) -> usize {
        copy(self.link_of(descriptor).as_bytes(), path).unwrap_or(0)
    }

    fn whole_place(&self, text: &mut [u8]) -> Result<usize, Errno> {
        deep::whole_place(&self.link_of(None), text)
    }

    fn alias(&self, dir: &CStr, text: &mut [u8]) -> Result<usize, Errno> {
        let new = deep::open(libc::AT_FDCWD, dir)?;
        let aliases = &mut self.aliases.borrow_mut().directories;
        // The same directory under the same descriptor, so that few are held; by what it is, since names change.
        let held = aliases.iter().find(|held| is_same(held, &new)).map(AsRawFd::as_raw_fd);
        let fd = held.unwrap_or_else(|| {
            if aliases.len() >= MAX_ALIASES {
                aliases.pop_front();
            }
            let fd = new.as_raw_fd();
            aliases.push_back(new);
            fd
        });
        copy(format!("/proc/{}/fd/{fd}", std::process::id()).as_bytes(), text).ok_or(Errno::ENAMETOOLONG)
    }

    fn is_running(&self, host: &CStr) -> bool {
        use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
        let name = std::path::Path::new(std::ffi::OsStr::from_bytes(host.to_bytes()));
        let Ok(file) = std::fs::metadata(name) else { return false };
        file.is_file()
            && file.mode() & 0o111 != 0
            && self.tracees.values().any(|tracee| tracee.process.borrow().file == (file.dev(), file.ino()))
    }

    fn dumpable(&self) -> bool {
        self.record.borrow().dumpable
    }

    fn set_dumpable(&self, dumpable: bool) {
        self.record.borrow_mut().dumpable = dumpable;
    }

    fn socket_to_bind(&self, host: &CStr, given: &[u8], name: &mut [u8]) -> Result<usize, Errno> {
        self.sockets.borrow_mut().start_bind(self.thread, host, given, name)
    }

    fn socket_to_reach(&self, host: &CStr, name: &mut [u8]) -> Result<usize, Errno> {
        self.sockets.borrow_mut().start_reach(self.thread, host, name)
    }

    fn socket_bound(&self, name: &[u8], full: usize, given: &mut [u8]) -> Option<usize> {
        self.sockets.borrow().bound(name, full, given)
    }

    fn socket_kind(&self, descriptor: i32) -> Option<Kind> {
        sockets::kind(self.process, descriptor)
    }

    fn is_v6_only(&self, socket: i32) -> bool {
        sockets::option(self.process, socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).is_some_and(|value| value != 0)
    }

    fn file(&self, host: &CStr, follow: bool) -> Result<File, Errno> {
        let how = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        deep::with_short(host, |host| cow::stat(libc::AT_FDCWD, host, how))
    }

    fn descriptor(&self, descriptor: i32) -> Result<File, Errno> {
        cow::stat(libc::AT_FDCWD, &self.link_of(Some(descriptor)), 0).map_err(|_| EBADF)
    }

    fn unshare(&self, host: &CStr, shared: &FileId, mode: u32) -> Result<Option<FileId>, Errno> {
        if copying::is_large(host) {
            // The process that copies it is to run wherever there is room.
            self.follow.borrow_mut().let_go();
        }
        self.cow.unshare(host, shared, mode)
    }

    fn pin(&self, host: &CStr, path: &mut [u8]) -> Result<(File, usize), Errno> {
        self.cow.pin(host, path)
    }

    fn names_changed(&self) -> bool {
        self.cow.has_changed()
    }

    fn successor(&self, shared: &FileId) -> Option<u64> {
        self.cow.successor(shared)
    }

    fn shown_file(&self, view: &View<'_>, process: u32, host: &CStr, path: &mut [u8]) -> Option<usize> {
        let tracee = self.tracees.get(&i32::try_from(process).ok()?)?;
        let (person, tracer) =
            (tracee.person.borrow(), self.tracees.get(&thread_of(host)?).map_or(0, Tracee::debugger));
        if host.to_bytes().ends_with(b"/status") {
            // It is to tell of no processor that a thread is kept on.
            self.follow.borrow_mut().let_go();
        }
        let (file, made) = shown::make(view, (self.pretends.then_some(&person), tracer), host)?;
        self.aliases.borrow_mut().shown = Some(file);
        copy(made.as_bytes(), path)
    }

    fn looked_at(&self, process: u32) {
        let Ok(process) = i32::try_from(process) else { return };
        if let Some(tracee) = self.tracees.get(&process) {
            tracee.process.borrow_mut().watched = true;
            self.follow.borrow_mut().let_go();
        }
    }

    fn offset(&self, descriptor: i32) -> Result<u64, Errno> {
        let text = std::fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.thread)).map_err(|_| EBADF)?;
        let offset = text.lines().find_map(|line| line.strip_prefix("pos:"));
        offset.and_then(|offset| offset.trim().parse().ok()).ok_or(EBADF)
    }

    fn root(&self) -> &[u8] {
        &self.root
    }

    fn set_root(&self, root: &[u8]) {
        self.record.borrow_mut().root = Rc::from(root);
    }
}
