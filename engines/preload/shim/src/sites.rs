//! The C library's own system calls: those that it makes without any of its names, for itself.
//!
//! Reading /etc/passwd for getpwnam, a locale, hosts, a library that is to be loaded: these go past every name. So when the
//! process begins, such calls in the text of the C library and its loader are made to come to us ([`arch::sites`]), and
//! take the same way as the names' calls. Where the kernel does not let text be changed (SELinux's `execmod`), they stay,
//! and so they do where the compiler put other instructions between number and `syscall` than such as move registers.
//!
//! Host paths come here, too: those that we ourselves gave to the C library. They are *marked* by a beginning that the
//! kernel takes for `/` and that nobody writes ([`MARK`]).

use core::{
    ffi::{CStr, c_int, c_void},
    slice,
    sync::atomic::Ordering,
};

use coracle_entry::{Site, TOLD, Text, build_id, sites};
use coracle_paths::PATH_MAX;
use coracle_sys::{
    self as sys,
    kernel::{
        __NR_accept, __NR_accept4, __NR_access, __NR_bind, __NR_chdir, __NR_clone, __NR_clone3, __NR_creat,
        __NR_execve, __NR_getpeername, __NR_getsockname, __NR_getsockopt, __NR_ioctl, __NR_newfstatat, __NR_open,
        __NR_openat, __NR_prctl, __NR_readlink, __NR_readlinkat, __NR_recvfrom, __NR_recvmmsg, __NR_recvmsg,
        __NR_sendmmsg, __NR_sendmsg, __NR_sendto, __NR_stat, O_ACCMODE, O_CREAT, O_TRUNC, PROT_EXEC, PROT_READ,
        PROT_WRITE,
    },
};

use crate::{
    arch::{
        self,
        sites::{NUMBERS, RETURNS, STUBS, entry, pages, put},
    },
    call::{call, matters, raw},
    libc::Next,
    memory,
    names::{directories, exec, loading::Object, opening, places, plain, stat, streams},
    pool,
    state::{self, State},
};

/// How a host path begins that the C library is to hand to the kernel as it is: `/`, for the kernel.
pub(crate) const MARK: &[u8] = b"/.//.//./";

/// Beside a site's number: rax has it, too, or that of another call.
const IN_RAX: u32 = 1 << 31;

/// A call that was made at a site: which one, its six arguments, and what was in rax.
pub(crate) unsafe extern "C" fn made(number: usize, args: *const [usize; 6], rax: u32) -> isize {
    // SAFETY: the array that the stub made.
    let args = unsafe { *args };
    let number = NUMBERS.get(number).map_or(u32::MAX, |number| number.load(Ordering::Relaxed));
    if number & IN_RAX != 0 && number & !IN_RAX != rax {
        return raw(rax, args);
    }
    if opens_ours(number & !IN_RAX, &args) {
        return raw(number & !IN_RAX, args);
    }
    call(number & !IN_RAX, args)
}

/// Whether glibc opens what we had it open: the path lies in our memory.
#[expect(non_upper_case_globals, reason = "the kernel's own names")]
fn opens_ours(number: u32, args: &[usize; 6]) -> bool {
    match number {
        __NR_open | __NR_creat => pool::is_ours(args[0]),
        __NR_openat => pool::is_ours(args[1]),
        _ => false,
    }
}

/// Whose a call's path is.
pub(crate) enum Path {
    /// A host path that we made.
    Marked,
    /// One below the directories that the loader was told, in the calls to which such paths come. The guest may write these,
    /// too, and so nothing is changed by them.
    Told,
    /// Any other, or the call has none.
    Guests,
}

/// Tells them apart.
#[expect(non_upper_case_globals, reason = "the kernel's own names")]
pub(crate) fn path_of(number: u32, args: &[usize; 6]) -> Path {
    let reads = |flags: usize| flags & (O_ACCMODE | O_CREAT | O_TRUNC) as usize == 0;
    let (path, reads) = match number {
        __NR_open => (args[0], reads(args[1])),
        __NR_openat => (args[1], reads(args[2])),
        __NR_stat | __NR_access | __NR_readlink => (args[0], true),
        __NR_newfstatat | __NR_readlinkat => (args[1], true),
        __NR_execve | __NR_chdir => (args[0], false),
        _ => return Path::Guests,
    };
    match path {
        path if is_marked(path) => Path::Marked,
        path if reads && is_told(path) => Path::Told,
        _ => Path::Guests,
    }
}

/// A library that a loader opens in a directory which it was told, by the guest's name for it: a link there leads where it
/// leads in the guest. The arguments of the call that is to be made; none where the guest does not see the directory.
#[expect(non_upper_case_globals, reason = "the kernel's own names")]
pub(crate) fn as_guest_names_it(
    state: &State,
    number: u32,
    mut args: [usize; 6],
    name: &mut [u8; PATH_MAX],
) -> Option<[usize; 6]> {
    let path = match number {
        __NR_open => 0,
        __NR_openat => 1,
        _ => return None,
    };
    if is_marked(args[path]) || !is_told(args[path]) {
        return None;
    }
    // SAFETY: a string of the guest's or the C library's, which was looked at before.
    let told = unsafe { CStr::from_ptr(core::ptr::with_exposed_provenance(args[path])) }.to_bytes();
    let len = match told.strip_prefix(TOLD) {
        Some(_) => state.rules.view.to_guest(&told[TOLD.len() - 1..], name)?.len,
        None => {
            let rest = told.strip_prefix(state.run.text(Text::Alias))?;
            name.get_mut(..rest.len())?.copy_from_slice(rest);
            rest.len()
        }
    };
    *name.get_mut(len)? = 0;
    args[path] = name.as_ptr().expose_provenance();
    Some(args)
}

/// Whether a path is a host path that we made.
pub(crate) fn is_marked(path: usize) -> bool {
    memory::begins(path, MARK)
}

/// Whether a path lies in a directory that loaders are told, by its name there.
pub(crate) fn is_told(path: usize) -> bool {
    let alias = state::get().run.text(Text::Alias);
    if memory::begins(path, TOLD) {
        return true;
    }
    alias.len() > 1 && memory::begins(path, alias) && memory::begins(path + alias.len(), b"/")
}

/// Changes what can be changed.
pub(crate) fn take(state: &State) {
    static NEXT: Next = Next::new(c"dl_iterate_phdr");
    type Iterate =
        unsafe extern "C" fn(unsafe extern "C" fn(*mut Object, usize, *mut c_void) -> c_int, *mut c_void) -> c_int;
    let Some(next) = NEXT.get() else { return };
    let (stubs, size) = pages();
    // SAFETY: no stub is used yet.
    if unsafe { sys::protect(stubs, size, PROT_READ | PROT_WRITE) }.is_err() {
        return;
    }
    let mut found = Found { state, count: 0, sites: [Taken { at: 0, len: 0 }; STUBS], texts: [(0, 0); TEXTS] };
    // SAFETY: the function of that name; what it is handed lives until it returns.
    unsafe {
        let next: Iterate = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(visit, (&raw mut found).cast());
        // Whether changed text may be executed is seen here, where nothing depends on it yet.
        if sys::protect(stubs, size, PROT_READ | PROT_EXEC).is_err() {
            return;
        }
    }
    for (start, len) in found.texts.into_iter().filter(|(_, len)| *len > 0) {
        jump(start, len, &found.sites[..found.count]);
    }
    if !arch::gnu_get_libc_version() {
        let [(start, len), ..] = found.texts;
        replace(start, len);
    }
}

/// musl's functions that its others call, and that ours do all the work of: there the number of a call is hardly ever set
/// right before it, so the functions themselves go on in ours.
const DOORS: [(&CStr, *const ()); 21] = [
    (c"fopen", streams::fopen as *const ()),
    (c"open", opening::open as *const ()),
    (c"openat", opening::openat as *const ()),
    (c"opendir", directories::opendir as *const ()),
    (c"stat", plain::stat as *const ()),
    (c"lstat", plain::lstat as *const ()),
    (c"fstatat", plain::fstatat as *const ()),
    (c"access", plain::access as *const ()),
    (c"faccessat", stat::faccessat as *const ()),
    (c"readlink", plain::readlink as *const ()),
    (c"readlinkat", plain::readlinkat as *const ()),
    (c"realpath", places::realpath as *const ()),
    (c"getcwd", places::getcwd as *const ()),
    (c"chdir", plain::chdir as *const ()),
    (c"mkdir", plain::mkdir as *const ()),
    (c"unlink", plain::unlink as *const ()),
    (c"rmdir", plain::rmdir as *const ()),
    (c"rename", plain::rename as *const ()),
    (c"execve", exec::execve as *const ()),
    (c"statfs", plain::statfs as *const ()),
    (c"uname", plain::uname as *const ()),
];

/// Has functions of a text begin with a jump to ours of the same name.
fn replace(start: usize, len: usize) {
    let doors = DOORS.map(|(name, ours)| {
        let theirs = arch::lookup(name).expose_provenance();
        (theirs, ours.expose_provenance().wrapping_sub(theirs.wrapping_add(5)).cast_signed())
    });
    change_text(start, len, || {
        for (theirs, distance) in doors {
            if (start..start + len).contains(&theirs)
                && let Ok(distance) = i32::try_from(distance)
            {
                // SAFETY: text that can be written to now; no function of a C library that does such work is shorter, nor
                // does one jump back into its first instructions.
                unsafe { write_jump(theirs, distance) };
            }
        }
    });
}

/// Writes a jump over a distance from its end.
unsafe fn write_jump(at: usize, distance: i32) {
    let at = core::ptr::with_exposed_provenance_mut::<u8>(at);
    // SAFETY: the caller's promise: five bytes of text that can be written to.
    unsafe {
        at.write(0xe9);
        at.add(1).cast::<i32>().write_unaligned(distance);
    }
}

/// Has a text written to, which is executable again afterwards, as was tried before.
fn change_text(start: usize, len: usize, change: impl FnOnce()) {
    const PAGE: usize = 4096;
    let from = start / PAGE * PAGE;
    let size = (start + len).next_multiple_of(PAGE) - from;
    // SAFETY: while this text cannot be executed nothing of it is: `change` and we call only the kernel, and a process
    // has one thread when its constructors run.
    unsafe {
        if sys::protect(from, size, PROT_READ | PROT_WRITE).is_err() {
            return;
        }
        change();
        let _ = sys::protect(from, size, PROT_READ | PROT_EXEC);
    }
}

/// As many texts there may be: the C library's, its loader's, and that of threads, which was apart once.
const TEXTS: usize = 4;

/// A site that is taken: where its number is set, and how many bytes of other instructions follow before the call.
#[derive(Clone, Copy)]
struct Taken {
    at: usize,
    len: usize,
}

struct Found<'s> {
    state: &'s State,
    count: usize,
    sites: [Taken; STUBS],
    texts: [(usize, usize); TEXTS],
}

/// A program header of 64 bits.
#[repr(C)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

unsafe extern "C" fn visit(object: *mut Object, _: usize, found: *mut c_void) -> c_int {
    const LOAD: u32 = 1;
    const NOTE: u32 = 4;
    const READ_EXECUTE: u32 = 5;
    // SAFETY: the loader's object, and what `take` handed on.
    unsafe {
        let (object, found) = (&*object, &mut *found.cast::<Found<'_>>());
        if !is_libc(object.name) {
            return 0;
        }
        let headers = slice::from_raw_parts(object.headers.cast::<Header>(), usize::from(object.count));
        let id = headers.iter().filter(|header| header.kind == NOTE).find_map(|header| {
            let (address, len) = (usize::try_from(header.address).ok()?, usize::try_from(header.file_size).ok()?);
            let notes = core::ptr::with_exposed_provenance::<u8>(object.address + address);
            build_id(slice::from_raw_parts(notes, len))
        });
        for header in headers.iter().filter(|header| header.kind == LOAD && header.flags == READ_EXECUTE) {
            let (address, len) = (usize::try_from(header.address), usize::try_from(header.file_size));
            if let (Ok(address), Ok(len)) = (address, len) {
                let place = found.texts.iter_mut().find(|(_, len)| *len == 0);
                if let Some(place) = place {
                    *place = (object.address + address, len);
                    look(object.address + address, len, id, found);
                }
            }
        }
    }
    0
}

/// The C library, its loader, and the parts that were libraries of their own once.
fn is_libc(name: *const core::ffi::c_char) -> bool {
    if name.is_null() {
        return false;
    }
    // SAFETY: the loader's string.
    let path = unsafe { CStr::from_ptr(name) }.to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    [&b"libc.so"[..], b"libc-2", b"ld-linux", b"ld-2.", b"ld-musl", b"libc.musl", b"libpthread"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Finds the sites in a text, and writes their stubs. Those that the run names are only looked at, unless one is not there.
unsafe fn look(start: usize, len: usize, id: Option<u64>, found: &mut Found<'_>) {
    // SAFETY: text of a library that is loaded, and can be read.
    let text = unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance::<u8>(start), len) };
    let state = found.state;
    let told = || {
        let told = id.and_then(|id| state.run.sites(id, len));
        told.map(|told| told.filter(|site| is_wanted(state, site.number)))
    };
    if told().is_some_and(|mut all| all.all(|site| site.is_in(text))) {
        told().into_iter().flatten().for_each(|site| add(start, text, site, found));
    } else {
        sites(text, &mut |site| {
            if is_wanted(state, site.number) {
                add(start, text, site, found);
            }
        });
    }
}

/// Writes the stub of a site.
fn add(start: usize, text: &[u8], site: Site, found: &mut Found<'_>) {
    let Some(between) = site.between(text) else { return };
    let at = start + site.at;
    let jump = entry(found.count, between.len()).wrapping_sub(at + 5).cast_signed();
    if found.count < STUBS && i32::try_from(jump).is_ok() {
        let in_rax = if site.is_open_by_flags(text) { IN_RAX } else { 0 };
        NUMBERS[found.count].store(site.number | in_rax, Ordering::Relaxed);
        RETURNS[found.count].store(start + site.call() + 2, Ordering::Relaxed);
        // SAFETY: the pages are being written, and the instructions were looked at.
        unsafe { put(found.count, between) };
        found.sites[found.count] = Taken { at, len: between.len() };
        found.count += 1;
    }
}

/// Has the sites of a text jump to their stubs.
fn jump(start: usize, len: usize, sites: &[Taken]) {
    let all = || sites.iter().enumerate().filter(|(_, site)| (start..start + len).contains(&site.at));
    // No more of the text than must be.
    let (Some(first), Some(last)) = (all().map(|(_, site)| site.at).min(), all().map(|(_, site)| site.at).max()) else {
        return;
    };
    change_text(first, last + 5 - first, || {
        for (number, site) in all() {
            let distance = entry(number, site.len).wrapping_sub(site.at + 5).cast_signed();
            if let Ok(distance) = i32::try_from(distance) {
                // SAFETY: text that can be written to now; the five bytes are one instruction, which sets the number,
                // or flags that the stub sets.
                unsafe { write_jump(site.at, distance) };
            }
        }
    });
}

/// Whether calls of this number are to come to us.
fn is_wanted(state: &State, number: u32) -> bool {
    // Calls that have a name whose work the C library's own function does come here through that, once they mean what the
    // kernel is to do.
    const ODD: [u32; 16] = [
        __NR_clone,
        __NR_clone3,
        __NR_ioctl,
        __NR_prctl,
        __NR_bind,
        __NR_accept,
        __NR_accept4,
        __NR_getsockname,
        __NR_getpeername,
        __NR_getsockopt,
        __NR_sendto,
        __NR_recvfrom,
        __NR_sendmsg,
        __NR_recvmsg,
        __NR_sendmmsg,
        __NR_recvmmsg,
    ];
    !ODD.contains(&number) && matters(state, number)
}

/// The state is made, and the process has one thread.
pub(crate) fn start() {
    take(state::get());
}
