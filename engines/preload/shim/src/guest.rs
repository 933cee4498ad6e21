//! The guest whose calls are caught: this process itself.
//!
//! Its memory is ours, but a pointer may lead nowhere ([`memory`]). Descriptors that a call needs while it is made
//! are closed when its [`Process`] goes.

use core::{cell::RefCell, ffi::CStr};

use coracle_intercept::{
    Credentials, Errno, Facts, File, FileId, Guest, Kind,
    errno::{EBADF, EFAULT, EROFS},
};
use coracle_paths::{Ancestor, Caller, Host, View};
use coracle_sys::{
    self as sys, Fd,
    kernel::{O_DIRECTORY, O_NOFOLLOW},
};

use crate::{
    deep,
    files::{self, Held, Short, link_of},
    memory, person, program, shown,
    sockets::{self, Ongoing},
    state,
};

/// As many directories on the way of one long path may be open at once.
const MAX_HELD: usize = 4;

/// As often a call is made again because a name may have changed its meaning meanwhile.
const TRIES: u32 = 16;

/// One call of this process's.
#[derive(Debug, Default)]
pub(crate) struct Process {
    /// What the call reaches by `/proc/self/fd/N`.
    held: RefCell<[Option<Held>; MAX_HELD]>,
    /// What is to be done when a call about a socket has ended.
    pub(crate) socket: RefCell<Option<Ongoing>>,
    /// How often it has been made before, and was to be made again.
    tries: u32,
}

fn address_of(address: u64) -> Result<usize, Errno> {
    usize::try_from(address).map_err(|_| EFAULT)
}

fn copy(text: &[u8], into: &mut [u8]) -> Option<usize> {
    into.get_mut(..text.len())?.copy_from_slice(text);
    Some(text.len())
}

impl Process {
    /// A call that was made so often before.
    pub(crate) fn of_try(tries: u32) -> Self {
        Self { tries, ..Self::default() }
    }

    /// Keeps a descriptor until the call has been made, and writes a path to what it holds, without a NUL.
    pub(crate) fn hold(&self, held: Held, path: &mut [u8]) -> Result<usize, Errno> {
        let link = link_of(Some(held.0.0));
        let mut all = self.held.borrow_mut();
        let free = all.iter_mut().find(|held| held.is_none()).ok_or(Errno::ENAMETOOLONG)?;
        *free = Some(held);
        copy(link.as_bytes(), path).ok_or(Errno::ENAMETOOLONG)
    }
}

impl Host for Process {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        files::readlink(path, target)
    }

    fn ancestor(&self, link: &CStr, text: &mut [u8]) -> Result<Ancestor, Errno> {
        deep::ancestor(link, text)
    }

    fn leads_to(&self, link: &CStr, name: &[u8]) -> bool {
        deep::leads_to(link, name)
    }

    fn meets_link(&self, path: &CStr) -> Option<bool> {
        files::meets_link(path)
    }

    fn caller(&self) -> Caller {
        Caller { pid: sys::getpid(), tid: sys::gettid() }
    }

    fn root_of(&self, pid: u32, root: &mut [u8]) -> Option<usize> {
        // Any process that may be looked into is taken for one of ours: which ones are, nobody keeps.
        let link = Short::<32>::new().put(b"/proc/").number(pid).put(b"/root");
        files::readlink(link.as_c_str(), &mut [0; 8]).ok()?;
        copy(program::root(), root)
    }

    fn exe_of(&self, pid: u32, exe: &mut [u8]) -> Option<usize> {
        if pid == sys::getpid() {
            return program::path().and_then(|path| copy(path, exe));
        }
        program::path_of(pid, exe)
    }
}

impl Guest for Process {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        memory::read(address_of(address)?, into)
    }

    fn read_string(&self, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let text = memory::string(address_of(address)?, into.len())?;
        into.get_mut(..text.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(text);
        Ok(text.len() - 1)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        memory::write(address_of(address)?, bytes)
    }

    fn mode(&self, host: &CStr, follow: bool) -> Result<u32, Errno> {
        files::stat(host, follow).map(|facts| facts.mode)
    }

    fn search(&self, host: &CStr) -> Result<(), Errno> {
        files::search(host)
    }

    fn stat(&self, host: &CStr, follow: bool) -> Result<Facts, Errno> {
        files::stat(host, follow)
    }

    fn set_mode(&self, host: &CStr, mode: u32) -> Result<(), Errno> {
        match &state::get().cow {
            Some(view) => view.set_mode(host, mode),
            None => files::set_mode(host, mode),
        }
    }

    fn credentials(&self) -> Credentials {
        person::credentials()
    }

    fn set_credentials(&self, new: &Credentials) {
        person::set_credentials(new);
    }

    fn groups(&self, groups: &mut [u32]) -> usize {
        person::groups(groups)
    }

    fn set_groups(&self, groups: &[u32]) {
        person::set_groups(groups);
    }

    fn credentials_of(&self, tid: u32) -> Option<Credentials> {
        (tid == sys::getpid() || tid == sys::gettid()).then(person::credentials)
    }

    fn is_running(&self, _: &CStr) -> bool {
        // The kernel knows of those that it started; of others nobody does.
        false
    }

    fn dumpable(&self) -> bool {
        person::dumpable()
    }

    fn set_dumpable(&self, dumpable: bool) {
        person::set_dumpable(dumpable);
    }

    fn place(&self, descriptor: Option<i32>, text: &mut [u8]) -> Result<usize, Errno> {
        files::readlink(link_of(descriptor).as_c_str(), text)
    }

    fn link(&self, descriptor: Option<i32>, path: &mut [u8]) -> usize {
        copy(link_of(descriptor).as_bytes(), path).unwrap_or(0)
    }

    fn whole_place(&self, text: &mut [u8]) -> Result<usize, Errno> {
        deep::whole_place(link_of(None).as_c_str(), text)
    }

    fn alias(&self, dir: &CStr, text: &mut [u8]) -> Result<usize, Errno> {
        self.hold(files::open_place(dir, O_DIRECTORY)?, text)
    }

    fn socket_to_bind(&self, host: &CStr, given: &[u8], name: &mut [u8]) -> Result<usize, Errno> {
        sockets::start_bind(self, host, given, name)
    }

    fn socket_to_reach(&self, host: &CStr, name: &mut [u8]) -> Result<usize, Errno> {
        self.hold(files::open_place(host, 0)?, name)
    }

    fn socket_bound(&self, name: &[u8], full: usize, given: &mut [u8]) -> Option<usize> {
        sockets::bound(name, full, given)
    }

    fn socket_kind(&self, descriptor: i32) -> Option<Kind> {
        sockets::kind(descriptor)
    }

    fn is_v6_only(&self, socket: i32) -> bool {
        sockets::is_v6_only(socket)
    }

    fn shown_file(&self, view: &View<'_>, process: u32, host: &CStr, path: &mut [u8]) -> Option<usize> {
        let file = shown::make(view, process, host)?;
        self.hold(file, path).ok()
    }

    // The kernel's own answers are the guest's here: nothing was narrowed.
    fn looked_at(&self, _: u32) {}

    fn offset(&self, descriptor: i32) -> Result<u64, Errno> {
        const SEEK_CUR: usize = 1;
        // SAFETY: takes numbers alone.
        let offset = unsafe { sys::syscall3(sys::kernel::__NR_lseek, Fd(descriptor).arg(), 0, SEEK_CUR) };
        sys::check(offset).map(|offset| offset as u64).map_err(|_| EBADF)
    }

    fn root(&self) -> &[u8] {
        program::root()
    }

    fn set_root(&self, root: &[u8]) {
        program::set_root(root);
    }

    fn file(&self, host: &CStr, follow: bool) -> Result<File, Errno> {
        files::file(host, follow)
    }

    fn descriptor(&self, descriptor: i32) -> Result<File, Errno> {
        files::file(link_of(Some(descriptor)).as_c_str(), true).map_err(|_| EBADF)
    }

    fn unshare(&self, host: &CStr, shared: &FileId, mode: u32) -> Result<Option<FileId>, Errno> {
        state::get().cow.as_ref().ok_or(EROFS)?.unshare(host, shared, mode)
    }

    fn pin(&self, host: &CStr, path: &mut [u8]) -> Result<(File, usize), Errno> {
        let held = files::open_place(host, O_NOFOLLOW)?;
        let file = self.descriptor(held.0.0)?;
        let len = self.hold(held, path)?;
        *path.get_mut(len).ok_or(Errno::ENAMETOOLONG)? = 0;
        Ok((file, len + 1))
    }

    fn names_changed(&self) -> bool {
        // Other processes change them, and nobody counts: it is believed for as often as a name may change its meaning.
        self.tries < TRIES
    }

    fn successor(&self, shared: &FileId) -> Option<u64> {
        state::get().cow.as_ref()?.successor(shared)
    }
}
