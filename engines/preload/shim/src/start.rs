//! How a process of a run begins: the run's description is found, mapped, and made into rules.
//!
//! Nothing is allocated but one mapping. What goes wrong ends the process, with one line that says why: without rules the
//! program would run on the host's files.

use core::{
    cell::UnsafeCell,
    ffi::CStr,
    mem::MaybeUninit,
    slice,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use coracle_entry::{Run, Text};
use coracle_intercept::{Identity, Kind, Marks, Port, Rules, ledger::Ledger};
use coracle_paths::{Bind, Table, View};
use coracle_sys::{
    self as sys, Errno, Fd,
    kernel::{
        __NR_lseek, MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, O_CLOEXEC, O_RDONLY, O_RDWR, PROT_READ, PROT_WRITE,
        SEEK_END,
    },
};

use crate::{cow, environment, files, person, pool, state::State};

/// Makes the state of this process, or ends it.
pub(crate) fn start() -> State {
    match try_start() {
        Ok(state) => state,
        Err(why) => fail(&why),
    }
}

/// Why a process cannot be a run's.
struct Failure {
    what: &'static str,
    file: &'static [u8],
    errno: Option<Errno>,
}

impl Failure {
    const fn new(what: &'static str) -> Self {
        Self { what, file: b"", errno: None }
    }
}

fn try_start() -> Result<State, Failure> {
    pool::start().ok_or(Failure::new("no memory"))?;
    let path = environment::description().ok_or(Failure::new("the environment names no run (CORACLE_RUN)"))?;
    let bytes = map_file(path, false)?;
    let run = Run::new(bytes).map_err(|_| Failure {
        what: "the description of the run is damaged, or of another version",
        file: path.to_bytes(),
        errno: None,
    })?;
    let binds = binds(&run)?;
    let root = run.text(Text::Root);
    let mut view = View::new(root, run.root_read_only(), binds).map_err(|_| Failure {
        what: "the run's root or binds are no plain paths",
        file: root,
        errno: None,
    })?;
    let names = run.c_text(Text::Names);
    let has_table = !names.is_empty();
    if has_table {
        let table = Table::new(map_file(names, false)?).map_err(|_| Failure {
            what: "the table of names is damaged, or of another version",
            file: names.to_bytes(),
            errno: None,
        })?;
        view = view.with_table(table);
    }
    let ((uid, gid), (host_uid, host_gid)) = (run.ids(), run.host_ids());
    let identity = Identity { uid, gid, host_uid, host_gid };
    let marks = marks(&run)?;
    let rules = Rules {
        view,
        identity,
        hostname: run.hostname(),
        kernel: None,
        ledger: ledger(&run)?,
        ports: ports(&run)?,
        unlisted: run.unlisted(),
        marks,
    };
    environment::clean(&run);
    person::start(&run);
    let cow = marks.map(|marks| cow::View::new(&run, marks));
    Ok(State { run, rules, cow, plain: has_table && run.root_read_only() && !rules.shows_files() })
}

fn binds(run: &Run<'static>) -> Result<&'static [Bind<'static>], Failure> {
    list(run.bind_count(), run.binds())
}

fn ports(run: &Run<'static>) -> Result<&'static [Port], Failure> {
    let kind = |datagram| if datagram { Kind::Datagram } else { Kind::Stream };
    let ports = run.ports();
    let own = |port: coracle_entry::Port| {
        let kind = kind(port.datagram);
        Port { address: port.address, host: port.host, guest: port.guest, kind }
    };
    list(ports.len(), ports.map(own))
}

/// Room for lists that are as short as they mostly are: a mapping would cost each program more than all else about them.
struct Room(UnsafeCell<[MaybeUninit<u64>; 256]>);

// SAFETY: only whoever makes the state writes to it, which is one thread, once; afterwards it is only read.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([const { MaybeUninit::uninit() }; 256]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Puts a list into memory that stays.
fn list<T: Copy>(count: usize, items: impl Iterator<Item = T>) -> Result<&'static [T], Failure> {
    const { assert!(align_of::<T>() <= align_of::<u64>()) }
    if count == 0 {
        return Ok(&[]);
    }
    let words = (count * size_of::<T>()).div_ceil(size_of::<u64>());
    let taken = TAKEN.fetch_add(words, Ordering::Relaxed);
    // SAFETY: as ROOM says, nobody else has it now; each list gets other words of it.
    let first = match unsafe { (&mut *ROOM.0.get()).get_mut(taken..taken + words) } {
        Some(room) => room.as_mut_ptr().cast::<T>(),
        None => {
            let (size, access) = (count * size_of::<T>(), PROT_READ | PROT_WRITE);
            // SAFETY: a new mapping at a place of the kernel's choice.
            let at = unsafe { sys::map(0, size, access, MAP_PRIVATE | MAP_ANONYMOUS, None, 0) };
            core::ptr::with_exposed_provenance_mut(at.map_err(|_| Failure::new("no memory"))?)
        }
    };
    let mut len = 0;
    for item in items.take(count) {
        // SAFETY: inside the room or the mapping, which are ours alone, and aligned to words at least.
        unsafe { first.add(len).write(item) };
        len += 1;
    }
    // SAFETY: as many were written, and the room and the mapping stay.
    Ok(unsafe { slice::from_raw_parts(first, len) })
}

fn marks(run: &Run<'static>) -> Result<Option<Marks<'static>>, Failure> {
    let path = run.c_text(Text::Marks);
    if path.is_empty() {
        return Ok(None);
    }
    let bytes = map_file(path, false)?;
    let failed = |errno| Failure { what: "the marks of the view cannot be read", file: path.to_bytes(), errno };
    let facts = files::stat(path, true).map_err(|errno| failed(Some(Errno(errno.0))))?;
    Marks::new(bytes, facts.inode.device).map(Some).map_err(|_| failed(None))
}

fn ledger(run: &Run<'static>) -> Result<Option<Ledger<'static>>, Failure> {
    let path = run.c_text(Text::Ledger);
    if path.is_empty() {
        return Ok(None);
    }
    let bytes = map_file(path, true)?;
    let failed = |errno| Failure { what: "the ledger of owners cannot be used", file: path.to_bytes(), errno };
    let home = files::stat(run.c_text(Text::Root), true).map_err(|errno| failed(Some(Errno(errno.0))))?;
    // SAFETY: the mapping is aligned to a page, shared, never undone, and changed by everybody with atomic operations alone.
    let words =
        unsafe { slice::from_raw_parts(bytes.as_ptr().cast::<AtomicU64>(), bytes.len() / size_of::<AtomicU64>()) };
    Ledger::open(words, home.inode.device).map(Some).map_err(|_| failed(None))
}

/// Maps a whole file that all processes of the run change, for good.
pub(crate) fn map_shared(path: &'static CStr) -> Option<&'static [u8]> {
    map_file(path, true).ok()
}

/// Maps a whole file, for good.
fn map_file(path: &'static CStr, shared: bool) -> Result<&'static [u8], Failure> {
    let failed =
        |errno| Failure { what: "a file of the run cannot be mapped", file: path.to_bytes(), errno: Some(errno) };
    let flags = if shared { O_RDWR } else { O_RDONLY };
    let file = sys::open(Fd::CWD, path, flags | O_CLOEXEC, 0).map_err(failed)?;
    // SAFETY: takes numbers alone.
    let len = sys::check(unsafe { sys::syscall3(__NR_lseek, file.arg(), 0, SEEK_END as usize) });
    let mapped = len.and_then(|len| {
        let (access, kind) = if shared { (PROT_READ | PROT_WRITE, MAP_SHARED) } else { (PROT_READ, MAP_PRIVATE) };
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        // SAFETY: a new mapping at a place of the kernel's choice.
        unsafe { sys::map(0, len, access, kind, Some(file), 0) }.map(|at| (at, len))
    });
    let _ = sys::close(file);
    let (at, len) = mapped.map_err(failed)?;
    // SAFETY: mapped, as long as that, never undone; files of a run are replaced and not changed, but for the ledger, whose
    // bytes nobody looks at but as atomic words.
    Ok(unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(at), len) })
}

/// One line, and the end.
fn fail(why: &Failure) -> ! {
    let mut line = Line { bytes: [0; 1024], len: 0 };
    line.put(b"coracle: preload: this process cannot be part of its run: ");
    line.put(why.what.as_bytes());
    if !why.file.is_empty() {
        line.put(b": ");
        line.put(why.file);
    }
    if let Some(errno) = why.errno {
        line.put(b": ");
        match errno.name() {
            Some(name) => line.put(name.as_bytes()),
            None => line.put(b"error"),
        }
    }
    line.put(b": start it with coracle, or take another engine (--coracle-engine=ptrace)\n");
    let _ = sys::write(Fd(2), &line.bytes[..line.len]);
    sys::exit_group(125)
}

struct Line {
    bytes: [u8; 1024],
    len: usize,
}

impl Line {
    /// As much of a text as there is room for.
    fn put(&mut self, text: &[u8]) {
        let len = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + len].copy_from_slice(&text[..len]);
        self.len += len;
    }
}
