//! File actions of posix_spawn(3): paths that the C library opens and changes to in the child.
//!
//! The child has a few kB of stack, so paths become the host's here, when they are added, and go past the C library's own
//! calls as they are ([`MARK`]). A relative one is taken from the directory to which an action before changes: that is
//! kept for each list of actions, by its address, until the list is made anew or destroyed. Of a list whose directory
//! nobody knows, the kernel finds relative paths by itself, from where the child is then.

use core::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::atomic::{AtomicBool, Ordering},
};

use coracle_intercept::{Call, Verdict, enter};
use coracle_paths::PATH_MAX;
use coracle_sys::kernel::{__NR_openat, O_DIRECTORY};

use super::AT_FDCWD;
use crate::{
    files::{self, link_of},
    guarded::Guarded,
    guest::Process,
    libc::{Next, free, malloc},
    pool,
    sites::MARK,
    state,
};

const ENOSYS: c_int = 38;
/// As many lists may there be at once.
const MOST: usize = 64;

/// What is kept of a list.
#[derive(Clone, Copy)]
struct List {
    /// Its address; 0: none.
    at: usize,
    /// Descriptors that its actions make others: bit n is number n, the last stands for all beyond.
    made: u64,
    /// It changes directories.
    moves: bool,
    /// Where its child will be: a guest path, of memory that is to be freed; null: nobody knows.
    directory: *mut c_char,
}

const NONE: List = List { at: 0, made: 0, moves: false, directory: core::ptr::null_mut() };

// SAFETY: its pointer is to memory of the process, which any thread may free.
unsafe impl Send for List {}

static LISTS: Guarded<[List; MOST]> = Guarded::new([NONE; MOST]);
/// Of some list nothing could be kept.
static LOST: AtomicBool = AtomicBool::new(false);

/// Works with a list, which is kept from now on.
fn keep<T>(list: *mut c_void, work: impl FnOnce(&mut List) -> T) -> Option<T> {
    let address = list.expose_provenance();
    let done = LISTS.with(|lists| {
        let at =
            lists.iter().position(|list| list.at == address).or_else(|| lists.iter().position(|list| list.at == 0));
        let list = lists.get_mut(at?)?;
        list.at = address;
        Some(work(list))
    });
    let done = done.flatten();
    LOST.fetch_or(done.is_none(), Ordering::Relaxed);
    done
}

/// Remembers where a list's child will be; `None`: nobody knows.
fn remember(list: *mut c_void, directory: Option<&CStr>) {
    let copy = directory.map_or(core::ptr::null_mut(), |directory| {
        let bytes = directory.to_bytes_with_nul();
        // SAFETY: malloc takes a number, and gives as much or null.
        unsafe {
            let memory = malloc(bytes.len()).cast::<c_char>();
            if !memory.is_null() {
                memory.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            memory
        }
    });
    let before = keep(list, |list| {
        list.moves = true;
        core::mem::replace(&mut list.directory, copy)
    });
    // SAFETY: memory of malloc's that nothing points to any more, or null.
    unsafe { free(before.unwrap_or(copy).cast()) };
}

fn bit_of(descriptor: c_int) -> u64 {
    1 << u32::try_from(descriptor).unwrap_or(0).min(63)
}

fn forget(list: *mut c_void) {
    let address = list.expose_provenance();
    let before =
        LISTS.with(|lists| lists.iter_mut().find(|list| list.at == address).map(|list| core::mem::replace(list, NONE)));
    if let Some(Some(before)) = before {
        // SAFETY: as in `remember`.
        unsafe { free(before.directory.cast()) };
    }
}

/// What a path of a list's next action is taken from.
enum From {
    /// It is whole, or of the directory where this process is.
    Here,
    /// A path below another one, whole now.
    Joined,
    /// The directory in which the child is then.
    Then,
}

/// Writes a path behind the directory that its list has changed to.
fn join(list: *mut c_void, path: &CStr, into: &mut [u8; PATH_MAX]) -> From {
    if path.to_bytes().first() == Some(&b'/') {
        return From::Here;
    }
    let list = list.expose_provenance();
    let joined = LISTS.with(|lists| {
        let directory = match lists.iter().find(|kept| kept.at == list) {
            None if LOST.load(Ordering::Relaxed) => return From::Then,
            Some(kept) if kept.moves => kept.directory,
            _ => return From::Here,
        };
        if directory.is_null() {
            return From::Then;
        }
        // SAFETY: a string of `remember`, which goes only while nobody has the lists.
        let directory = unsafe { CStr::from_ptr(directory) }.to_bytes();
        put(into, [directory, b"/", path.to_bytes_with_nul()]).map_or(From::Then, |()| From::Joined)
    });
    joined.unwrap_or(From::Then)
}

fn put<const N: usize>(into: &mut [u8], parts: [&[u8]; N]) -> Option<()> {
    let mut len = 0;
    for part in parts {
        into.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    Some(())
}

/// A host path (with its NUL) that goes past the C library's own calls as it is; one that is too long for that as it came.
pub(super) fn mark<'h>(host: &'h [u8], into: &'h mut [u8]) -> *const c_char {
    match host.strip_prefix(b"/") {
        Some(rest) if MARK.len() + rest.len() <= into.len().min(PATH_MAX) => {
            into[..MARK.len()].copy_from_slice(MARK);
            into[MARK.len()..MARK.len() + rest.len()].copy_from_slice(rest);
            into.as_ptr().cast()
        }
        _ => host.as_ptr().cast(),
    }
}

/// The host path that open(2) with these flags would use, for a call that the C library makes in the child; a path that
/// leads nowhere if the guest may not.
fn host_of(path: &CStr, flags: usize, into: &mut [u8; PATH_MAX]) {
    let state = state::get();
    // As marked as what leads somewhere: the child, which may come to us with it, has a few kB of stack.
    mark(b"/proc/self/fd/-\0", into);
    let Some(mut scratch) = pool::take() else { return };
    let args = [AT_FDCWD as u64, path.as_ptr().expose_provenance() as u64, flags as u64, 0, 0, 0];
    let mut call = Call { abi: coracle_intercept::Abi::X86_64, number: __NR_openat.into(), args };
    let process = Process::default();
    match enter(&state.rules, &process, &mut call, &mut scratch) {
        Verdict::Make { .. } => {
            let lent = scratch.lent()[0].bytes();
            if !lent.is_empty() {
                mark(lent, into);
            }
        }
        Verdict::Pass => {
            let given = path.to_bytes_with_nul();
            if given.len() <= PATH_MAX {
                into[..given.len()].copy_from_slice(given);
            }
        }
        Verdict::Answer(_) | Verdict::Execute { .. } => {}
    }
}

/// As [`host_of`], of a list's action.
fn host_for(list: *mut c_void, path: &CStr, flags: usize, into: &mut [u8; PATH_MAX]) {
    let mut joined = [0; PATH_MAX];
    match join(list, path, &mut joined) {
        From::Here => host_of(path, flags, into),
        From::Joined => host_of(CStr::from_bytes_until_nul(&joined).unwrap_or(path), flags, into),
        From::Then => {
            if put(into, [MARK, b"proc/self/cwd/", path.to_bytes_with_nul()]).is_none() {
                mark(b"/proc/self/fd/-\0", into);
            }
        }
    }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn posix_spawn_file_actions_init(actions: *mut c_void) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_init");
    forget(actions);
    // SAFETY: the function of that name, and the caller's own argument.
    unsafe { with_list(&NEXT, actions) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn posix_spawn_file_actions_destroy(actions: *mut c_void) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_destroy");
    forget(actions);
    // SAFETY: as above.
    unsafe { with_list(&NEXT, actions) }
}

unsafe fn with_list(next: &Next, actions: *mut c_void) -> c_int {
    let Some(next) = next.get() else { return ENOSYS };
    // SAFETY: a function that takes a list.
    unsafe {
        let next: unsafe extern "C" fn(*mut c_void) -> c_int =
            core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(actions)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn_file_actions_addopen(
    actions: *mut c_void,
    descriptor: c_int,
    path: *const c_char,
    flags: c_int,
    mode: u32,
) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_addopen");
    type Add = unsafe extern "C" fn(*mut c_void, c_int, *const c_char, c_int, u32) -> c_int;
    let Some(next) = NEXT.get() else { return ENOSYS };
    let mut host = [0; PATH_MAX];
    // SAFETY: the caller's string; the function of that name, which copies the path.
    let result = unsafe {
        host_for(actions, CStr::from_ptr(path), usize::try_from(flags).unwrap_or(0), &mut host);
        let next: Add = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(actions, descriptor, host.as_ptr().cast(), flags, mode)
    };
    keep(actions, |list| list.made |= bit_of(descriptor));
    result
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn posix_spawn_file_actions_adddup2(
    actions: *mut c_void,
    from: c_int,
    to: c_int,
) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_adddup2");
    type Add = unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int;
    let Some(next) = NEXT.get() else { return ENOSYS };
    keep(actions, |list| list.made |= bit_of(to));
    // SAFETY: the function of that name, and the caller's own arguments.
    unsafe {
        let next: Add = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(actions, from, to)
    }
}

/// Adds a change of directory.
unsafe fn add_chdir(next: &Next, actions: *mut c_void, path: *const c_char) -> c_int {
    type Add = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;
    let Some(next) = next.get() else { return ENOSYS };
    let mut host = [0; PATH_MAX];
    // SAFETY: the caller's string; the function of that name, which copies the path.
    let result = unsafe {
        host_for(actions, CStr::from_ptr(path), O_DIRECTORY as usize, &mut host);
        let next: Add = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(actions, host.as_ptr().cast())
    };
    if result == 0 {
        // SAFETY: the caller's string.
        let path = unsafe { CStr::from_ptr(path) };
        let directory = match join(actions, path, &mut host) {
            From::Here => Some(path),
            From::Joined => CStr::from_bytes_until_nul(&host).ok(),
            From::Then => None,
        };
        remember(actions, directory);
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn_file_actions_addchdir_np(actions: *mut c_void, path: *const c_char) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_addchdir_np");
    // SAFETY: the caller's own arguments.
    unsafe { add_chdir(&NEXT, actions, path) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn_file_actions_addchdir(actions: *mut c_void, path: *const c_char) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_addchdir");
    // SAFETY: the caller's own arguments.
    unsafe { add_chdir(&NEXT, actions, path) }
}

/// The guest path of an open directory.
fn place_of(descriptor: c_int, into: &mut [u8; PATH_MAX]) -> Option<&CStr> {
    let mut host = [0; PATH_MAX];
    let len = files::readlink(link_of(Some(descriptor)).as_c_str(), &mut host).ok()?;
    let len = state::get().rules.view.to_guest(&host[..len], into.get_mut(..PATH_MAX - 1)?)?.len;
    into[len] = 0;
    CStr::from_bytes_until_nul(into).ok()
}

/// Adds a change to a directory that is open: now, or by an action before, which makes it another one.
unsafe fn add_fchdir(next: &Next, actions: *mut c_void, descriptor: c_int) -> c_int {
    type Add = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
    let Some(next) = next.get() else { return ENOSYS };
    // SAFETY: the function of that name, and the caller's own arguments.
    let result = unsafe {
        let next: Add = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(actions, descriptor)
    };
    if result == 0 {
        let mut place = [0; PATH_MAX];
        let same = keep(actions, |list| list.made & bit_of(descriptor) == 0) == Some(true);
        remember(actions, place_of(descriptor, &mut place).filter(|_| same));
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn_file_actions_addfchdir_np(actions: *mut c_void, descriptor: c_int) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_addfchdir_np");
    // SAFETY: the caller's own arguments.
    unsafe { add_fchdir(&NEXT, actions, descriptor) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn_file_actions_addfchdir(actions: *mut c_void, descriptor: c_int) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn_file_actions_addfchdir");
    // SAFETY: the caller's own arguments.
    unsafe { add_fchdir(&NEXT, actions, descriptor) }
}
