//! Commands for the guest's shell: system(3) and popen(3).

use core::{
    ffi::{CStr, c_char, c_int, c_void},
    mem::MaybeUninit,
    sync::atomic::{AtomicI32, AtomicUsize, Ordering},
};

use coracle_sys::kernel::{__NR_pipe2, __NR_rt_sigaction, __NR_rt_sigprocmask, __NR_wait4, O_CLOEXEC};

use super::{
    actions::{posix_spawn_file_actions_adddup2, posix_spawn_file_actions_destroy, posix_spawn_file_actions_init},
    exec::{may_execute, posix_spawn},
};
use crate::{
    call::raw,
    environment,
    libc::{Next, answer, fdopen, set_errno},
};

const EINTR: isize = 4;
const EINVAL: u16 = 22;
const EMFILE: u16 = 24;
const SIGINT: usize = 2;
const SIGQUIT: usize = 3;
const SIGCHLD: usize = 17;
const SIG_IGN: usize = 1;
const SHELL: &CStr = c"/bin/sh";

/// `sigset_t` of the C library; the kernel looks at the first word.
type Signals = [u64; 16];

/// `posix_spawnattr_t` and `posix_spawn_file_actions_t`: both C libraries' have less.
type Opaque = MaybeUninit<[u64; 64]>;

unsafe extern "C" {
    fn posix_spawnattr_init(attributes: *mut c_void) -> c_int;
    fn posix_spawnattr_destroy(attributes: *mut c_void) -> c_int;
    fn posix_spawnattr_setflags(attributes: *mut c_void, flags: i16) -> c_int;
    fn posix_spawnattr_setsigmask(attributes: *mut c_void, mask: *const Signals) -> c_int;
    fn posix_spawnattr_setsigdefault(attributes: *mut c_void, signals: *const Signals) -> c_int;
    fn posix_spawn_file_actions_addclose(actions: *mut c_void, descriptor: c_int) -> c_int;
    fn fclose(stream: *mut c_void) -> c_int;
    fn fileno(stream: *mut c_void) -> c_int;
}

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

fn sigaction(signal: usize, new: &Action, old: Option<&mut Action>) {
    let old = old.map_or(core::ptr::null_mut(), core::ptr::from_mut);
    raw(
        __NR_rt_sigaction,
        [signal, core::ptr::from_ref(new).expose_provenance(), old.expose_provenance(), size_of::<u64>(), 0, 0],
    );
}

fn sigprocmask(how: usize, new: u64, old: &mut u64) {
    raw(
        __NR_rt_sigprocmask,
        [
            how,
            (&raw const new).expose_provenance(),
            core::ptr::from_mut(old).expose_provenance(),
            size_of::<u64>(),
            0,
            0,
        ],
    );
}

fn wait(process: c_int) -> Result<c_int, isize> {
    let mut status = 0;
    loop {
        let id = usize::try_from(process).unwrap_or(0);
        match raw(__NR_wait4, [id, (&raw mut status).expose_provenance(), 0, 0, 0, 0]) {
            result if result == -EINTR => {}
            result if result < 0 => return Err(result),
            _ => return Ok(status),
        }
    }
}

/// Starts the shell with a command; an error number, or 0.
unsafe fn shell(
    process: &mut c_int,
    command: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
) -> c_int {
    let argv = [c"sh".as_ptr(), c"-c".as_ptr(), command, core::ptr::null()];
    let envp = environment::now().cast_const().cast();
    // SAFETY: strings that end with NUL, lists that end with a null, and what the caller made.
    unsafe { posix_spawn(process, SHELL.as_ptr(), actions, attributes, argv.as_ptr(), envp) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn system(command: *const c_char) -> c_int {
    if command.is_null() {
        return may_execute(SHELL).into();
    }
    const BLOCK: usize = 0;
    const SET: usize = 2;
    /// `POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK`.
    const FLAGS: i16 = 4 | 8;
    let bit = |signal: usize| 1_u64 << (signal - 1);
    let ignore = Action { handler: SIG_IGN, flags: 0, restorer: 0, mask: 0 };
    let (mut interrupt, mut quit, mut mask) = (ignore, ignore, 0);
    sigaction(SIGINT, &ignore, Some(&mut interrupt));
    sigaction(SIGQUIT, &ignore, Some(&mut quit));
    sigprocmask(BLOCK, bit(SIGCHLD), &mut mask);
    let (mut old, mut defaults): (Signals, Signals) = ([0; 16], [0; 16]);
    old[0] = mask;
    for (signal, action) in [(SIGINT, &interrupt), (SIGQUIT, &quit)] {
        if action.handler != SIG_IGN {
            defaults[0] |= bit(signal);
        }
    }
    let mut attributes = Opaque::zeroed();
    let at = attributes.as_mut_ptr().cast();
    let mut process = 0;
    // SAFETY: attributes that are made, used and undone here.
    let failed = unsafe {
        posix_spawnattr_init(at);
        posix_spawnattr_setsigmask(at, &raw const old);
        posix_spawnattr_setsigdefault(at, &raw const defaults);
        posix_spawnattr_setflags(at, FLAGS);
        let failed = shell(&mut process, command, core::ptr::null(), at);
        posix_spawnattr_destroy(at);
        failed
    };
    // A shell that cannot be executed exits with 127.
    let result = if failed == 0 { wait(process) } else { Ok(127 << 8) };
    sigaction(SIGINT, &interrupt, None);
    sigaction(SIGQUIT, &quit, None);
    sigprocmask(SET, mask, &mut 0);
    match result {
        Ok(status) => status,
        Err(error) => {
            answer(error);
            -1
        }
    }
}

/// Streams that [`popen`] opened, and their processes.
struct Opened {
    stream: AtomicUsize,
    process: AtomicI32,
}

const MOST: usize = 128;
static OPENED: [Opened; MOST] = [const { Opened { stream: AtomicUsize::new(0), process: AtomicI32::new(0) } }; MOST];
/// A place that is taken, and whose stream is yet to come.
const TAKEN: usize = 1;

fn close(descriptor: c_int) {
    raw(coracle_sys::kernel::__NR_close, [coracle_sys::Fd(descriptor).arg(), 0, 0, 0, 0, 0]);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut c_void {
    let null = core::ptr::null_mut();
    // SAFETY: the caller's string.
    let mode = unsafe { CStr::from_ptr(mode) }.to_bytes();
    let (reads, keeps) = (mode.contains(&b'r'), mode.contains(&b'e'));
    if reads == mode.contains(&b'w') {
        set_errno(EINVAL);
        return null;
    }
    let take = |opened: &&Opened| opened.stream.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let Some(place) = OPENED.iter().find(take) else {
        set_errno(EMFILE);
        return null;
    };
    let mut ends = [0 as c_int; 2];
    if answer(raw(__NR_pipe2, [ends.as_mut_ptr().expose_provenance(), O_CLOEXEC as usize, 0, 0, 0, 0])) < 0 {
        place.stream.store(0, Ordering::Release);
        return null;
    }
    let (ours, theirs, becomes) = if reads { (ends[0], ends[1], 1) } else { (ends[1], ends[0], 0) };
    let mut actions = Opaque::zeroed();
    let at = actions.as_mut_ptr().cast();
    let mut process = 0;
    // SAFETY: actions that are made, used and undone here; streams of ours that are open.
    let failed = unsafe {
        posix_spawn_file_actions_init(at);
        for other in &OPENED {
            let stream = other.stream.load(Ordering::Acquire);
            if stream > TAKEN {
                let descriptor = fileno(core::ptr::with_exposed_provenance_mut(stream));
                if descriptor != theirs && descriptor != becomes {
                    posix_spawn_file_actions_addclose(at, descriptor);
                }
            }
        }
        posix_spawn_file_actions_adddup2(at, theirs, becomes);
        let failed = shell(&mut process, command, at, core::ptr::null());
        posix_spawn_file_actions_destroy(at);
        failed
    };
    close(theirs);
    if failed != 0 {
        close(ours);
        place.stream.store(0, Ordering::Release);
        set_errno(u16::try_from(failed).unwrap_or(EINVAL));
        return null;
    }
    if !keeps {
        const F_SETFD: usize = 2;
        raw(coracle_sys::kernel::__NR_fcntl, [coracle_sys::Fd(ours).arg(), F_SETFD, 0, 0, 0, 0]);
    }
    // SAFETY: our end of the pipe, and a mode.
    let stream = unsafe { fdopen(ours, if reads { c"r".as_ptr() } else { c"w".as_ptr() }) };
    if stream.is_null() {
        close(ours);
    }
    place.process.store(process, Ordering::Relaxed);
    place.stream.store(stream.expose_provenance(), Ordering::Release);
    stream
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pclose(stream: *mut c_void) -> c_int {
    static NEXT: Next = Next::new(c"pclose");
    let address = stream.expose_provenance();
    let Some(place) = OPENED.iter().find(|opened| opened.stream.load(Ordering::Acquire) == address) else {
        let Some(next) = NEXT.get() else { return -1 };
        // SAFETY: the function of that name, and the caller's stream.
        return unsafe {
            let next: unsafe extern "C" fn(*mut c_void) -> c_int =
                core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
            next(stream)
        };
    };
    let process = place.process.load(Ordering::Relaxed);
    place.stream.store(0, Ordering::Release);
    // SAFETY: a stream that popen made, closed once.
    unsafe { fclose(stream) };
    match wait(process) {
        Ok(status) => status,
        Err(error) => {
            answer(error);
            -1
        }
    }
}
