//! Libraries that are loaded later, and what the loader tells of those that are: host paths one way, guest paths the other.
//!
//! Strings that a caller keeps are *interned*: one copy of each, never freed, since nobody says when it is done with them.

use core::{
    ffi::{CStr, c_char, c_int, c_ulong, c_void},
    sync::atomic::{AtomicPtr, Ordering},
};

use coracle_entry::TOLD;
use coracle_intercept::Guest as _;
use coracle_paths::PATH_MAX;
use coracle_sys::{
    self as sys, Fd,
    kernel::{O_CLOEXEC, O_RDONLY},
};

use crate::{
    environment,
    files::Held,
    guest::Process,
    libc::{Next, malloc},
    pool,
    sites::MARK,
    state,
};

/// A string that stays, and the one before it.
struct Kept {
    before: *mut Kept,
    len: usize,
    /// The loader's own string that it stands for, if it does: by that it is found without looking at any text, as often as
    /// an exception is thrown.
    of: AtomicPtr<c_char>,
}

/// No string's address: what was kept for one that may be gone.
const GONE: *mut c_char = core::ptr::without_provenance_mut(1);

impl Kept {
    /// Whether it stands for this string of the loader's, from now on if need be.
    fn is_of(&self, of: *const c_char) -> bool {
        let of = of.cast_mut();
        self.of.load(Ordering::Relaxed) == of
            || self.of.compare_exchange(GONE, of, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

static KEPT: AtomicPtr<Kept> = AtomicPtr::new(core::ptr::null_mut());

/// The one copy of a string; null if there is no memory.
fn intern(text: &[u8], of: *const c_char) -> *const c_char {
    let first = KEPT.load(Ordering::Acquire);
    let mut at = first;
    // SAFETY: the list only grows, at its front; each string follows its head, with a NUL.
    unsafe {
        while !at.is_null() {
            let string = at.add(1).cast::<u8>();
            if core::slice::from_raw_parts(string, (*at).len) == text && (*at).is_of(of) {
                return string.cast();
            }
            at = (*at).before;
        }
        let new = malloc(size_of::<Kept>() + text.len() + 1).cast::<Kept>();
        if new.is_null() {
            return core::ptr::null();
        }
        let string = new.add(1).cast::<u8>();
        string.copy_from_nonoverlapping(text.as_ptr(), text.len());
        string.add(text.len()).write(0);
        let mut before = first;
        loop {
            new.write(Kept { before, len: text.len(), of: AtomicPtr::new(of.cast_mut()) });
            // Of two that are put in at once, both are right.
            match KEPT.compare_exchange(before, new, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return string.cast(),
                Err(now) => before = now,
            }
        }
    }
}

/// Where to go on, and with which path: two registers.
#[repr(C)]
pub(crate) struct Picked {
    function: usize,
    path: *const c_char,
}

unsafe extern "C" fn none() -> *mut c_void {
    core::ptr::null_mut()
}

fn pick(next: &Next, path: *const c_char) -> Picked {
    let function = next.get().unwrap_or(none as *const () as usize);
    if path.is_null() {
        return Picked { function, path };
    }
    // SAFETY: the caller's string.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    // A name without a slash is searched for, and what holds a dollar the loader expands.
    if !name.contains(&b'/') || name.contains(&b'$') {
        return Picked { function, path };
    }
    Picked { function, path: host_path(name) }
}

/// The host path of a library; of one that is not there, where it would be.
fn host_path(name: &[u8]) -> *const c_char {
    let state = state::get();
    if let Some(mut scratch) = pool::take()
        && let Ok(host) = scratch.find(&state.rules, &Process::default(), name)
    {
        return marked(host.to_bytes());
    }
    let mut path = [0; PATH_MAX];
    let mut len = 0;
    for part in [state.rules.view.root(), b"/", name] {
        if let Some(room) = path.get_mut(len..len + part.len()) {
            room.copy_from_slice(part);
            len += part.len();
        }
    }
    marked(&path[..len])
}

/// A host path that goes past the C library's own calls as it is.
fn marked(host: &[u8]) -> *const c_char {
    let mut path = [0; PATH_MAX];
    let len = MARK.len() + host.len() - 1;
    match path.get_mut(..len) {
        Some(room) if host.first() == Some(&b'/') => {
            room[..MARK.len()].copy_from_slice(MARK);
            room[MARK.len()..].copy_from_slice(&host[1..]);
            intern(room, core::ptr::null())
        }
        _ => intern(host, core::ptr::null()),
    }
}

pub(crate) unsafe extern "C" fn pick_dlopen(path: *const c_char) -> Picked {
    static NEXT: Next = Next::new(c"dlopen");
    pick(&NEXT, path)
}

pub(crate) unsafe extern "C" fn pick_dlmopen(path: *const c_char) -> Picked {
    static NEXT: Next = Next::new(c"dlmopen");
    pick(&NEXT, path)
}

/// What the guest calls a file that the loader calls so.
unsafe fn shown(name: *const c_char) -> *const c_char {
    if name.is_null() {
        return name;
    }
    let mut at = KEPT.load(Ordering::Acquire);
    // SAFETY: see `intern`.
    unsafe {
        while !at.is_null() {
            if (*at).of.load(Ordering::Relaxed).cast_const() == name {
                return at.add(1).cast();
            }
            at = (*at).before;
        }
    }
    // SAFETY: the loader's string.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    if bytes.first() != Some(&b'/') {
        return name;
    }
    let mut text = [0; PATH_MAX];
    match state::get().rules.view.to_guest(plain(bytes), &mut text) {
        Some(found) => match intern(&text[..found.len], name) {
            kept if kept.is_null() => name,
            kept => kept,
        },
        None => name,
    }
}

/// A host path without the mark, but for its last slash.
fn plain(host: &[u8]) -> &[u8] {
    let mark = [MARK, TOLD].into_iter().find(|mark| host.starts_with(mark));
    mark.map_or(host, |mark| &host[mark.len() - 1..])
}

/// What the guest calls the file of a host path; `None`: the same, or nothing.
pub(super) fn guest_name<'t>(host: &[u8], text: &'t mut [u8]) -> Option<&'t [u8]> {
    if host.first() != Some(&b'/') {
        return None;
    }
    let len = state::get().rules.view.to_guest(plain(host), text)?.len;
    text.get(..len)
}

/// Writes the guest's name over a host's, where it fits and memory can be written to. By its address it is known for
/// the guest's.
unsafe fn rename(name: *mut c_char) {
    if name.is_null() {
        return;
    }
    // SAFETY: the loader's string, and the one that is kept for it.
    let (host, guest) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(shown(name))) };
    if guest != host && guest.count_bytes() <= host.count_bytes() {
        let _ = Process::default().write(name.expose_provenance() as u64, guest.to_bytes_with_nul());
    }
}

/// A library's string that went may be another's soon.
#[unsafe(no_mangle)]
unsafe extern "C" fn dlclose(library: *mut c_void) -> c_int {
    static NEXT: Next = Next::new(c"dlclose");
    let Some(next) = NEXT.get() else { return -1 };
    // SAFETY: the function of that name, and the caller's own argument; see `intern` for the list.
    unsafe {
        let next: unsafe extern "C" fn(*mut c_void) -> c_int =
            core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        let result = next(library);
        let mut at = KEPT.load(Ordering::Acquire);
        while !at.is_null() {
            if !(*at).of.load(Ordering::Relaxed).is_null() {
                (*at).of.store(GONE, Ordering::Relaxed);
            }
            at = (*at).before;
        }
        result
    }
}

/// The first field of `Dl_info` is the file's name.
#[unsafe(no_mangle)]
unsafe extern "C" fn dladdr(address: *const c_void, info: *mut *const c_char) -> c_int {
    static NEXT: Next = Next::new(c"dladdr");
    type Ask = unsafe extern "C" fn(*const c_void, *mut *const c_char) -> c_int;
    let Some(next) = NEXT.get() else { return 0 };
    // SAFETY: the function of that name, the caller's own arguments.
    unsafe {
        let next: Ask = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        let found = next(address, info);
        if found != 0 {
            *info = shown(*info);
        }
        found
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn dladdr1(
    address: *const c_void,
    info: *mut *const c_char,
    more: *mut *mut c_void,
    flags: c_int,
) -> c_int {
    /// `RTLD_DL_LINKMAP`.
    const LINK_MAP: c_int = 2;
    static NEXT: Next = Next::new(c"dladdr1");
    type Ask = unsafe extern "C" fn(*const c_void, *mut *const c_char, *mut *mut c_void, c_int) -> c_int;
    let Some(next) = NEXT.get() else { return 0 };
    // SAFETY: the function of that name, the caller's own arguments.
    unsafe {
        let next: Ask = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        let found = next(address, info, more, flags);
        if found != 0 {
            if flags == LINK_MAP {
                rename(name_of(*more));
            }
            *info = shown(*info);
        }
        found
    }
}

/// `struct dl_phdr_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Object {
    pub(crate) address: usize,
    pub(crate) name: *const c_char,
    pub(crate) headers: *const c_void,
    pub(crate) count: u16,
    adds: u64,
    subtracts: u64,
    module: usize,
    data: *mut c_void,
}

type Visit = unsafe extern "C" fn(*mut Object, usize, *mut c_void) -> c_int;

struct Visitor {
    visit: Visit,
    data: *mut c_void,
}

unsafe extern "C" fn visit(object: *mut Object, size: usize, visitor: *mut c_void) -> c_int {
    // SAFETY: what `dl_iterate_phdr` below passed on, and the loader's own object, as long as it says.
    unsafe {
        let visitor = &*visitor.cast::<Visitor>();
        let mut copy = core::mem::zeroed::<Object>();
        let len = size.min(size_of::<Object>());
        (&raw mut copy).cast::<u8>().copy_from_nonoverlapping(object.cast(), len);
        copy.name = shown(copy.name);
        (visitor.visit)(&raw mut copy, len, visitor.data)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dl_iterate_phdr(each: Visit, data: *mut c_void) -> c_int {
    static NEXT: Next = Next::new(c"dl_iterate_phdr");
    type Iterate = unsafe extern "C" fn(Visit, *mut c_void) -> c_int;
    let Some(next) = NEXT.get() else { return 0 };
    let mut visitor = Visitor { visit: each, data };
    // SAFETY: the function of that name; the visitor lives until it returns.
    unsafe {
        let next: Iterate = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(visit, (&raw mut visitor).cast())
    }
}

/// The file's name in a `struct link_map`.
unsafe fn name_of(map: *mut c_void) -> *mut c_char {
    // SAFETY: the loader's own record, whose second word that is.
    if map.is_null() { core::ptr::null_mut() } else { unsafe { *map.cast::<*mut c_char>().add(1) } }
}

/// What the loader tells of a library: by the guest's names, where those are no longer than the host's.
#[unsafe(no_mangle)]
unsafe extern "C" fn dlinfo(library: *mut c_void, request: c_int, info: *mut c_void) -> c_int {
    const LINK_MAP: c_int = 2;
    const SEARCHED: c_int = 4;
    const ORIGIN: c_int = 6;
    /// A `Dl_serinfo` is its size, the number of directories, and for each of them two words.
    const HEAD: usize = 2;
    static NEXT: Next = Next::new(c"dlinfo");
    type Ask = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;
    let Some(next) = NEXT.get() else { return -1 };
    // SAFETY: the function of that name, the caller's own arguments; what it then wrote, by dlinfo(3), for which the caller
    // vouches for room, is changed where the guest's name is no longer than what is there.
    unsafe {
        let next: Ask = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        let result = next(library, request, info);
        match request {
            _ if result != 0 => {}
            LINK_MAP => rename(name_of(*info.cast())),
            SEARCHED => {
                let words = info.cast::<usize>();
                for at in 0..*words.add(1).cast::<u32>() as usize {
                    overwrite(*words.add(HEAD + 2 * at).cast());
                }
            }
            ORIGIN => overwrite(info.cast()),
            _ => {}
        }
        result
    }
}

/// Puts the guest's name in the place of a host's, in memory of the caller's.
unsafe fn overwrite(name: *mut u8) {
    let mut text = [0; PATH_MAX];
    // SAFETY: the caller's promise: a string that can be written to.
    unsafe {
        let host = CStr::from_ptr(name.cast()).to_bytes();
        if let Some(found) = guest_name(host, &mut text).filter(|found| found.len() <= host.len()) {
            name.copy_from_nonoverlapping(found.as_ptr(), found.len());
            name.add(found.len()).write(0);
        }
    }
}

/// `AT_EXECFN`: the name by which the program was started; all else is the kernel's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getauxval(kind: c_ulong) -> c_ulong {
    const AT_EXECFN: c_ulong = 31;
    static NEXT: Next = Next::new(c"getauxval");
    if kind == AT_EXECFN
        && let Some(given) = environment::given()
    {
        return given.as_ptr().expose_provenance() as c_ulong;
    }
    let Some(next) = NEXT.get() else { return from_kernel(kind) };
    // SAFETY: the function of that name, which takes a number.
    unsafe {
        let next: unsafe extern "C" fn(c_ulong) -> c_ulong =
            core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(kind)
    }
}

/// As the kernel has it, for what is called while libraries are still being relocated.
#[cold]
#[inline(never)]
fn from_kernel(kind: c_ulong) -> c_ulong {
    let mut vector = [[0; 2]; 40];
    let Ok(file) = sys::open(Fd::CWD, c"/proc/self/auxv", O_RDONLY | O_CLOEXEC, 0) else { return 0 };
    // SAFETY: words are made of bytes, and any bytes are words.
    let bytes = unsafe { core::slice::from_raw_parts_mut((&raw mut vector).cast::<u8>(), size_of_val(&vector)) };
    let _ = sys::read(Held(file).0, bytes);
    vector.iter().find(|entry| entry[0] == kind).map_or(0, |entry| entry[1])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __getauxval(kind: c_ulong) -> c_ulong {
    // SAFETY: the same function.
    unsafe { getauxval(kind) }
}
