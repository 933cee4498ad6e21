//! The transport: a system call that stands for a libc name goes through the table of meanings, and is made.

use coracle_intercept::{Abi, After, Call, Left, Scratch, Verdict, enter, errno::ENOMEM, leave, table};
use coracle_paths::PATH_MAX;
use coracle_sys::{
    self as sys,
    kernel::{__NR_bind, __NR_connect, __NR_getcwd, __NR_sendmmsg, __NR_sendmsg, __NR_sendto},
};

use crate::{
    exec, fast,
    guest::Process,
    libc::{self, Next},
    opened, pool, sites, state,
};

/// Makes a guest's call; the result as the kernel gives it.
#[inline]
pub(crate) fn call(number: u32, args: [usize; 6]) -> isize {
    fast::call(number, args).unwrap_or_else(|| call_at_length(number, args))
}

/// As [`call`], for whom has seen that the short way is none.
pub(crate) fn call_at_length(number: u32, args: [usize; 6]) -> isize {
    let state = state::get();
    let short = if number == __NR_getcwd { fast::getcwd(state, &args) } else { None };
    short.unwrap_or_else(|| through_table(state, number, args, None))
}

/// As [`call`], but that a function of the C library makes the call: one that can be cancelled, or that knows of fields
/// which its own structures have.
pub(crate) fn call_by(next: &Next, number: u32, args: [usize; 6]) -> isize {
    through_table(state::get(), number, args, Some(next))
}

/// Whether a call means anything to a guest of this run.
pub(crate) fn matters(state: &state::State, number: u32) -> bool {
    table::row_of(Abi::X86_64, number.into()).is_some_and(|row| state.rules.wants(row))
}

#[inline(never)]
fn through_table(state: &state::State, number: u32, args: [usize; 6], by: Option<&Next>) -> isize {
    if !matters(state, number) || by.is_none() && lends(number, &args) {
        return make_by(by, number, args);
    }
    match sites::path_of(number, &args) {
        sites::Path::Marked => make_by(by, number, args),
        sites::Path::Told => told(state, number, args, by),
        sites::Path::Guests => meant(state, number, args, by),
    }
}

/// As the table says of a guest's name for what a loader was told. The room for that name is taken here: a child of
/// posix_spawn(3) has a few kB of stack, and makes calls with marked paths.
#[inline(never)]
fn told(state: &state::State, number: u32, args: [usize; 6], by: Option<&Next>) -> isize {
    let mut name = [0; PATH_MAX];
    match sites::as_guest_names_it(state, number, args, &mut name) {
        Some(args) => meant(state, number, args, by),
        None => make_by(by, number, args),
    }
}

/// Makes a call as the table says.
#[inline(never)]
fn meant(state: &state::State, number: u32, args: [usize; 6], by: Option<&Next>) -> isize {
    let Some(mut scratch) = pool::take() else { return -isize::try_from(ENOMEM.0).unwrap_or(12) };
    scratch.sent = 0;
    let mut asked = args;
    if let Some(after) = opened::asks(state, number, &mut asked) {
        return of_open_file(state, number, asked, after, &mut scratch);
    }
    let given = Call { abi: Abi::X86_64, number: number.into(), args: args.map(|arg| arg as u64) };
    let mut tries = 0;
    loop {
        let process = Process::of_try(tries);
        let mut made = given;
        let after = match enter(&state.rules, &process, &mut made, &mut scratch) {
            Verdict::Pass => {
                drop(scratch);
                return make(&made, number, by);
            }
            Verdict::Answer(answer) => return result_of(answer),
            Verdict::Execute { argv, .. } => {
                let [argv, envp] = [argv, argv + 1].map(|at| made.args.get(usize::from(at)).copied().unwrap_or(0));
                let [argv, envp] =
                    [argv, envp].map(|at| core::ptr::with_exposed_provenance(usize::try_from(at).unwrap_or(0)));
                return exec::execute(state, &process, scratch, exec::Lists { argv, envp });
            }
            Verdict::Make { after, .. } => after,
        };
        lend(&mut made, &mut scratch);
        let turn = state.cow.as_ref().and_then(|view| view.turn(made.number));
        let mut result = make(&made, number, by);
        drop(turn);
        if process.socket.borrow().is_some() {
            result = ended(&process, result);
        }
        match leave(&state.rules, &process, (&given, &made), after, result as i64, &mut scratch) {
            Left::Result(result) => return result_of(result),
            Left::Again => tries += 1,
        }
    }
}

/// A call that asks about an open file. As below, what it needs of the stack is no part of other calls'.
#[inline(never)]
fn of_open_file(state: &state::State, number: u32, args: [usize; 6], after: After, scratch: &mut Scratch) -> isize {
    let made = Call { abi: Abi::X86_64, number: number.into(), args: args.map(|arg| arg as u64) };
    let result = raw(number, args);
    match leave(&state.rules, &Process::of_try(0), (&made, &made), after, result as i64, scratch) {
        Left::Result(result) => result_of(result),
        Left::Again => result,
    }
}

/// What is to be done when a call about a socket has been made.
#[inline(never)]
fn ended(process: &Process, result: isize) -> isize {
    process.socket.take().map_or(result, |ongoing| ongoing.ended(result))
}

/// Whether a socket's address is one that we lend: the C library, which was to make the call, comes back with it.
#[expect(non_upper_case_globals, reason = "the kernel's own names")]
fn lends(number: u32, args: &[usize; 6]) -> bool {
    match number {
        __NR_bind | __NR_connect | __NR_sendmsg | __NR_sendmmsg => pool::is_ours(args[1]),
        __NR_sendto => pool::is_ours(args[4]),
        _ => false,
    }
}

/// Lets arguments point to what the verdict lends: it lies in our memory, which is the guest's.
fn lend(call: &mut Call, scratch: &mut Scratch) {
    let mut before = 0_usize;
    for lent in scratch.lent_mut() {
        if lent.bytes().is_empty() {
            continue;
        }
        let pointer = lent.pointer();
        lent.bytes_mut()[..pointer].copy_from_slice(&before.to_ne_bytes()[..pointer]);
        before = lent.bytes_mut().as_mut_ptr().expose_provenance();
        if let Some(arg) = lent.arg() {
            call.args[arg] = before as u64;
        }
    }
}

fn make(call: &Call, number: u32, by: Option<&Next>) -> isize {
    let args = call.args.map(|arg| usize::try_from(arg).unwrap_or(usize::MAX));
    let made = u32::try_from(call.number).unwrap_or(u32::MAX);
    // The table may have made it another call, of which the function knows nothing.
    make_by(by.filter(|_| made == number), made, args)
}

fn make_by(by: Option<&Next>, number: u32, args: [usize; 6]) -> isize {
    let Some(next) = by.and_then(Next::get) else { return raw(number, args) };
    let [a, b, c, d, e, f] = args;
    // SAFETY: a function of the C library whose arguments are integers and pointers, at most six, and whose result is an
    // integer; arguments that it does not have it does not look at.
    let result = unsafe {
        let next: unsafe extern "C-unwind" fn(usize, usize, usize, usize, usize, usize) -> isize =
            core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        next(a, b, c, d, e, f)
    };
    // Results of `int` have no upper half.
    if result & 0xffff_ffff == 0xffff_ffff { -(libc::errno() as isize) } else { result }
}

/// Makes a call as it stands.
pub(crate) fn raw(number: u32, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    // SAFETY: the guest's own call, for which it answers; what was put into it lives until it returns.
    unsafe { sys::syscall6(number, a, b, c, d, e, f) }
}

fn result_of(answer: i64) -> isize {
    isize::try_from(answer).unwrap_or(-1)
}
