//! Starting programs: the exec family, and what asks for another process to do so.

use core::ffi::{CStr, c_char, c_int, c_void};

use coracle_intercept::{Call, Verdict, enter, errno::ENOMEM};
use coracle_paths::PATH_MAX;
use coracle_sys::kernel::{__NR_execve, __NR_execveat, AT_EMPTY_PATH};

use super::{actions::mark, asked};
use crate::{
    arch::with_stack,
    environment,
    exec::{self, Finish, Lists, zeroed},
    files,
    guest::Process,
    libc::{Next, answer, errno, set_errno},
    pool,
    sites::{self, MARK},
    state,
};

type Strings = *const *const c_char;

const ENOENT: u16 = 2;
const ENOEXEC: u16 = 8;
const EACCES: u16 = 13;
const ENOTDIR: u16 = 20;
const ENAMETOOLONG: u16 = 36;
const ENOSYS: c_int = 38;

/// Starts the program of a guest path; what it returns is an error of the kernel's, or what `finish` says.
pub(super) fn start(path: *const c_char, argv: Strings, envp: Strings, finish: Finish<'_>) -> isize {
    if sites::is_marked(path.expose_provenance()) {
        return finish(path, argv, envp);
    }
    let state = state::get();
    let Some(mut scratch) = pool::take() else { return -isize::try_from(ENOMEM.0).unwrap_or(12) };
    let process = Process::default();
    let args =
        [path.expose_provenance() as u64, argv.expose_provenance() as u64, envp.expose_provenance() as u64, 0, 0, 0];
    let mut call = Call { abi: coracle_intercept::Abi::X86_64, number: __NR_execve.into(), args };
    match enter(&state.rules, &process, &mut call, &mut scratch) {
        Verdict::Execute { .. } => exec::start(state, &process, scratch, Lists { argv, envp }, finish),
        Verdict::Answer(answer) => isize::try_from(answer).unwrap_or(-1),
        Verdict::Pass | Verdict::Make { .. } => finish(path, argv, envp),
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    fail(start(path, argv, envp, &exec::execve))
}

fn fail(result: isize) -> c_int {
    c_int::try_from(answer(result)).unwrap_or(-1)
}

fn own_environment() -> Strings {
    environment::now().cast_const().cast()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    fail(start(path, argv, own_environment(), &exec::execve))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { execvpe(file, argv, own_environment()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: the caller's own arguments.
    fail(unsafe { search(file, argv, envp, true, &exec::execve) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fexecve(descriptor: c_int, argv: Strings, envp: Strings) -> isize {
    let descriptor = coracle_sys::Fd(descriptor).arg();
    let (argv, envp) = (argv.expose_provenance(), envp.expose_provenance());
    asked(__NR_execveat, [descriptor, c"".as_ptr().expose_provenance(), argv, envp, AT_EMPTY_PATH as usize, 0])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn execveat(dir: usize, path: usize, argv: usize, envp: usize, flags: usize) -> isize {
    asked(__NR_execveat, [dir, path, argv, envp, flags, 0])
}

/// execl(3): the arguments are an array already.
pub(crate) unsafe extern "C" fn execute_list(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { execv(path, argv) }
}

/// execlp(3).
pub(crate) unsafe extern "C" fn search_list(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { execvp(file, argv) }
}

/// execle(3): the environment stands behind the null of the arguments.
pub(crate) unsafe extern "C" fn execute_list_and_environment(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's own arguments, a null and a pointer behind them.
    unsafe {
        let mut at = argv;
        while !(*at).is_null() {
            at = at.add(1);
        }
        execve(path, argv, (*at.add(1)).cast())
    }
}

/// Looks for a program on the PATH of this process, as execvp(3) does; `scripts`: one without `#!` is the shell's.
unsafe fn search(file: *const c_char, argv: Strings, envp: Strings, scripts: bool, finish: Finish<'_>) -> isize {
    let error = |number: u16| -isize::try_from(number).unwrap_or(1);
    // SAFETY: the caller's string.
    let name = unsafe { CStr::from_ptr(file) }.to_bytes();
    let begin = |path: *const c_char| match start(path, argv, envp, finish) {
        // SAFETY: the caller's lists.
        result if result == error(ENOEXEC) && scripts => unsafe { by_shell(path, argv, envp, finish) },
        result => result,
    };
    if name.is_empty() {
        return error(ENOENT);
    }
    if name.contains(&b'/') {
        return begin(file);
    }
    let list = environment::value(b"PATH").map_or(&b"/bin:/usr/bin"[..], CStr::to_bytes);
    let mut denied = false;
    for dir in list.split(|byte| *byte == b':') {
        let slash = usize::from(!dir.is_empty());
        let len = dir.len() + slash + name.len();
        if len >= PATH_MAX {
            if name.len() >= 256 {
                return error(ENAMETOOLONG);
            }
            continue;
        }
        let result = with_stack(len + 1, |room| {
            let path = zeroed(room);
            path[..dir.len()].copy_from_slice(dir);
            path[dir.len()..dir.len() + slash].fill(b'/');
            path[dir.len() + slash..len].copy_from_slice(name);
            begin(path.as_ptr().cast())
        });
        match u16::try_from(-result) {
            Ok(EACCES) => denied = true,
            // ESTALE, ENODEV and ETIMEDOUT are those of a directory's server.
            Ok(ENOENT | ENOTDIR | 116 | 19 | 110) => {}
            _ => return result,
        }
    }
    error(if denied { EACCES } else { ENOENT })
}

/// Has the shell run a file that is no program.
#[cold]
#[inline(never)]
unsafe fn by_shell(path: *const c_char, argv: Strings, envp: Strings, finish: Finish<'_>) -> isize {
    // SAFETY: the caller's list.
    let count = unsafe { (0..).take_while(|at| !(*argv.add(*at)).is_null()).count() };
    with_stack((count + 3) * size_of::<*const c_char>(), |memory| {
        let list = memory.as_mut_ptr().cast::<*const c_char>();
        // SAFETY: room for the shell, the path, what follows the caller's first argument, and a null, also where there
        // was no argument at all; the memory is aligned to 16.
        unsafe {
            list.write(c"/bin/sh".as_ptr());
            list.add(1).write(path);
            for at in 1..count {
                list.add(at + 1).write(*argv.add(at));
            }
            list.add(count.max(1) + 1).write(core::ptr::null());
            start(*list, list, envp, finish)
        }
    })
}

type Spawn = unsafe extern "C" fn(*mut c_int, *const c_char, *const c_void, *const c_void, Strings, Strings) -> c_int;

/// The C library's own posix_spawn, or pidfd_spawn, for a program that was found.
fn spawner(
    next: &Next,
    process: *mut c_int,
    actions: *const c_void,
    attributes: *const c_void,
) -> Option<impl Fn(*const c_char, Strings, Strings) -> isize + use<>> {
    let next = next.get()?;
    // SAFETY: the function of that name.
    let next: Spawn = unsafe { core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next)) };
    Some(move |path: *const c_char, argv, envp| {
        // SAFETY: the path that was found.
        let host = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
        with_stack(MARK.len() + host.len(), |room| {
            let path = mark(host, zeroed(room));
            // SAFETY: the caller's own arguments, and lists that were made of them.
            let number = unsafe { next(process, path, actions, attributes, argv, envp) };
            -isize::try_from(number).unwrap_or(1)
        })
    })
}

/// Has the C library make a child by what `spawner` gives, of the program that `begin` finds. errno stays as it was.
fn spawn<F: Fn(*const c_char, Strings, Strings) -> isize>(
    spawner: impl FnOnce() -> Option<F>,
    begin: impl FnOnce(Finish<'_>) -> isize,
) -> c_int {
    let before = errno();
    let Some(finish) = spawner() else { return ENOSYS };
    let result = begin(&finish);
    set_errno(u16::try_from(before).unwrap_or(0));
    c_int::try_from(-result).unwrap_or(ENOSYS)
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn posix_spawn(
    process: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn");
    spawn(|| spawner(&NEXT, process, actions, attributes), |finish| start(path, argv, envp, finish))
}

/// What was found has a path: the C library's function that searches for nothing starts it.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawnp(
    process: *mut c_int,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    static NEXT: Next = Next::new(c"posix_spawn");
    spawn(
        || spawner(&NEXT, process, actions, attributes),
        |finish| {
            // SAFETY: the caller's own arguments.
            unsafe { search(file, argv, envp, false, finish) }
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pidfd_spawn(
    process: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    static NEXT: Next = Next::new(c"pidfd_spawn");
    spawn(|| spawner(&NEXT, process, actions, attributes), |finish| start(path, argv, envp, finish))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pidfd_spawnp(
    process: *mut c_int,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    static NEXT: Next = Next::new(c"pidfd_spawn");
    spawn(
        || spawner(&NEXT, process, actions, attributes),
        |finish| {
            // SAFETY: the caller's own arguments.
            unsafe { search(file, argv, envp, false, finish) }
        },
    )
}

/// Whether the guest has this file, and may execute it.
pub(super) fn may_execute(path: &CStr) -> bool {
    let Some(mut scratch) = pool::take() else { return false };
    let process = Process::default();
    scratch.find(&state::get().rules, &process, path.to_bytes()).is_ok_and(|host| files::search(host).is_ok())
}
