//! Sandboxes of a guest's own: the filters that it puts itself under with seccomp(2).
//!
//! The kernel has its filters judge each call as it finally is, and a guest's filter knows only the calls that its program
//! makes. Where a call stops at its entry, that comes before all filters: so they are asked here first, about the call as
//! the program made it, and whatever they would not let pass goes to the kernel untouched, which does as they say.
//! (Where our own filter stops a call, the guest's were asked with it.) What we then put in a call's place must pass
//! them unseen. So each gets a few instructions before its own: no call at all passes, and so does one that carries our
//! mark.
//!
//! Where a filter hands calls to a supervisor (`SECCOMP_RET_USER_NOTIF`), that comes before our own filter's stop, and the
//! supervisor may say that the call is to go on: so there all calls stop at their entry, and what the supervisor is
//! asked about is the call that is made in the end, unmarked.
//!
//! Rules:
//! - A filter is known from the moment when the kernel has taken it, to its thread and all that this makes, for good.
//! - Marks are put where no argument is.

use std::rc::Rc;

use coracle_intercept::{Abi, Call, Errno, table};

use crate::{
    filter::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64},
    memory::Memory,
    registers::Registers,
    request::Gone,
    tracee::{Held, Then, Tracee},
    tracer::{Place, Tracer},
};

/// Numbers of seccomp(2) and prctl(2).
pub(crate) fn seccomp_number(abi: Abi) -> u32 {
    if abi == Abi::X86_64 { 317 } else { 354 }
}

fn prctl_number(abi: Abi) -> u32 {
    if abi == Abi::X86_64 { 157 } else { 172 }
}

/// The longest filter that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;
/// Bytes of an instruction.
const STEP: usize = 8;
/// Where the program stands behind the `struct sock_fprog` that names it.
const PROGRAM_AT: usize = 16;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

impl Step {
    fn of(bytes: &[u8]) -> Option<Self> {
        let [a, b, jt, jf, c, d, e, f] = *bytes else { return None };
        Some(Self { code: u16::from_ne_bytes([a, b]), jt, jf, k: u32::from_ne_bytes([c, d, e, f]) })
    }

    fn to_bytes(self) -> [u8; STEP] {
        let ([a, b], [c, d, e, f]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [a, b, self.jt, self.jf, c, d, e, f]
    }
}

/// A filter as the guest wrote it.
type Program = Rc<[Step]>;

/// The filters of a thread, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters {
    programs: Option<Rc<Vec<Program>>>,
    /// One of them has a supervisor.
    listens: bool,
}

impl Filters {
    pub(crate) fn is_empty(&self) -> bool {
        self.programs.is_none()
    }

    /// Whether a supervisor may be asked about calls.
    pub(crate) fn listen(&self) -> bool {
        self.listens
    }

    fn push(&mut self, taken: &Taken) {
        Rc::make_mut(self.programs.get_or_insert_default()).push(Rc::clone(&taken.program));
        self.listens |= taken.listens;
    }

    /// What the kernel would do with a call: the strictest of all answers, the newest filter's among equals.
    fn action(&self, data: &[u32; 16]) -> u32 {
        let strictness = |answer: u32| (answer & libc::SECCOMP_RET_ACTION_FULL).cast_signed();
        let programs = self.programs.iter().flat_map(|programs| programs.iter().rev());
        programs.map(|program| run(program, data)).fold(libc::SECCOMP_RET_ALLOW, |strictest, answer| {
            if strictness(answer) < strictness(strictest) { answer } else { strictest }
        })
    }
}

/// A filter that the kernel is about to take.
#[derive(Debug)]
pub(crate) struct Taken {
    program: Program,
    /// All threads of the process get the filters of this one (`SECCOMP_FILTER_FLAG_TSYNC`).
    all_threads: bool,
    /// The result is a descriptor.
    listens: bool,
}

/// A call in the eyes of a filter: `struct seccomp_data` as words.
fn data_of(call: &Call, instruction: u64) -> [u32; 16] {
    let arch = if call.abi == Abi::X86_64 { AUDIT_ARCH_X86_64 } else { AUDIT_ARCH_I386 };
    let mut data = [low(call.number), arch, low(instruction), high(instruction), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (words, arg) in data[4..].chunks_exact_mut(2).zip(call.args) {
        words.copy_from_slice(&[low(arg), high(arg)]);
    }
    data
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// Runs a program that the kernel has found to be well-formed; one that is not ends as the strictest.
fn run(program: &[Step], data: &[u32; 16]) -> u32 {
    let (mut at, mut a, mut x, mut memory) = (0_usize, 0_u32, 0_u32, [0_u32; 16]);
    while let Some(Step { code, jt, jf, k }) = program.get(at).copied() {
        at += 1;
        let index = usize::try_from(k).unwrap_or(usize::MAX);
        let operand = if code & 0x08 != 0 { x } else { k };
        match code & 0x07 {
            // LD and LDX: immediate, of the call, of the scratch memory, the call's size.
            class @ 0..=1 => {
                let value = match code & 0xe0 {
                    0x00 => k,
                    0x20 => data.get(index / 4).copied().unwrap_or(0),
                    0x60 => memory.get(index).copied().unwrap_or(0),
                    _ => 64,
                };
                *(if class == 0 { &mut a } else { &mut x }) = value;
            }
            class @ 2..=3 => {
                if let Some(cell) = memory.get_mut(index) {
                    *cell = if class == 2 { a } else { x };
                }
            }
            4 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x20 => a.wrapping_mul(operand),
                    // The kernel ends a program that divides by zero with 0.
                    0x30 if operand == 0 => return 0,
                    0x30 => a / operand,
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a.wrapping_shl(operand),
                    0x70 => a.wrapping_shr(operand),
                    0x80 => a.wrapping_neg(),
                    _ => a ^ operand,
                };
            }
            5 => {
                let holds = match code & 0xf0 {
                    0x00 => {
                        at = at.saturating_add(index);
                        continue;
                    }
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    _ => a & operand != 0,
                };
                at += usize::from(if holds { jt } else { jf });
            }
            6 => return if code & 0x18 == 0x10 { a } else { k },
            // TXA, TAX.
            _ if code & 0x80 != 0 => a = x,
            _ => x = a,
        }
    }
    libc::SECCOMP_RET_KILL_PROCESS
}

/// The instructions before those of a guest's filter.
fn prefix(mark: u64, abi: Abi) -> Vec<Step> {
    let step = |code, jt, jf, k| Step { code, jt, jf, k };
    let (load, equal, give) = (0x20, 0x15, 0x06);
    let allow = step(give, 0, 0, libc::SECCOMP_RET_ALLOW);
    // The sixth argument, of which the upper half says nothing in 32-bit code.
    let (lower, upper) = (step(load, 0, 0, 56), step(load, 0, 0, 60));
    let mut code = vec![step(load, 0, 0, 0), step(equal, 0, 1, u32::MAX), allow, lower];
    if abi == Abi::X86_64 {
        code.extend([step(equal, 0, 3, low(mark)), upper, step(equal, 0, 1, high(mark)), allow]);
    } else {
        code.extend([step(equal, 0, 1, low(mark)), allow]);
    }
    // As every program begins.
    code.push(step(0x00, 0, 0, 0));
    code
}

/// The filter that a call is to install, and the argument that points to it.
fn installed(call: &Call, memory: Memory) -> Option<(Taken, u8)> {
    const FLAG_TSYNC: u64 = 1;
    const FLAG_NEW_LISTENER: u64 = 8;
    const PR_SET_SECCOMP: u64 = 22;
    let number = low(call.number);
    let (at, flags) = match (call.arg(0) & 0xffff_ffff, call.arg(1)) {
        (1, flags) if number == seccomp_number(call.abi) => (2, flags & 0xffff_ffff),
        (PR_SET_SECCOMP, 2) if number == prctl_number(call.abi) => (2, 0),
        _ => return None,
    };
    let word = if call.abi == Abi::X86_64 { 8 } else { 4 };
    let mut header = [0; 16];
    memory.read(call.arg(at), &mut header[..2 * word]).ok()?;
    let count = usize::from(u16::from_ne_bytes([header[0], header[1]]));
    let mut pointer = [0; 8];
    pointer[..word].copy_from_slice(&header[word..2 * word]);
    if !(1..=LONGEST).contains(&count) {
        return None;
    }
    let mut bytes = vec![0; count * STEP];
    memory.read(u64::from_ne_bytes(pointer), &mut bytes).ok()?;
    let program = bytes.chunks_exact(STEP).filter_map(Step::of).collect();
    let taken = Taken { program, all_threads: flags & FLAG_TSYNC != 0, listens: flags & FLAG_NEW_LISTENER != 0 };
    Some((taken, at))
}

/// Puts our mark on a call of a thread that has filters, if there is an argument that is not one, and no supervisor is to be
/// asked about it. `before` is what the program made, with what follows at `instruction`.
pub(crate) fn mark(tracee: &Tracee, mark: u64, call: &mut Call, (before, instruction): (&Call, u64)) {
    if tracee.filters.listens
        && tracee.filters.action(&data_of(before, instruction)) & libc::SECCOMP_RET_ACTION_FULL
            == libc::SECCOMP_RET_USER_NOTIF
    {
        return;
    }
    let whole = |name| matches!(name, "sendto" | "recvfrom" | "fanotify_mark");
    if !tracee.filters.is_empty() && !table::row_of(call.abi, call.number).is_some_and(|row| whole(row.name)) {
        call.args[5] = if call.abi == Abi::X86_64 { mark } else { u64::from(low(mark)) };
    }
}

impl Tracer<'_> {
    /// Handles a call that a guest's sandbox refuses, or that is to make one; whether it was such.
    pub(crate) fn sandboxed(&mut self, thread: i32, now: Registers, call: &Call, place: Place) -> Result<bool, Gone> {
        let Some(tracee) = self.tracees.get(&thread) else { return Ok(false) };
        if place == Place::Entry && !tracee.filters.is_empty() {
            let action = tracee.filters.action(&data_of(call, now.instruction())) & libc::SECCOMP_RET_ACTION_FULL;
            // A supervisor is asked about the call that is made in the end: it may say that it is to go on.
            if !matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_USER_NOTIF) {
                self.go_on(thread, 0)?;
                return Ok(true);
            }
        }
        let number = low(call.number);
        if number != seccomp_number(call.abi) && number != prctl_number(call.abi) {
            return Ok(false);
        }
        let Some((taken, arg)) = installed(call, Memory { pid: thread }) else { return Ok(false) };
        let seen_at = tracee.process.borrow().window;
        let mut changed = *call;
        let slot = match self.lend_filter(&taken.program, seen_at, (arg, &mut changed)) {
            Ok(slot) => slot,
            Err(_) => {
                self.wait_for_slot(thread, place);
                return Ok(true);
            }
        };
        let held = Held { registers: now, call: *call, then: Then::Confined(taken), slot, _pin: None };
        self.hold(thread, now, changed, held)?;
        Ok(true)
    }

    /// Lends a filter with our instructions before it, if there is room for them.
    fn lend_filter(
        &mut self,
        program: &[Step],
        seen_at: u64,
        (arg, call): (u8, &mut Call),
    ) -> Result<Option<crate::window::Slot>, Errno> {
        let mut code = prefix(self.mark, call.abi);
        code.extend_from_slice(program);
        if code.len() > LONGEST {
            return Ok(None);
        }
        let slot = self.window.take(PROGRAM_AT + code.len() * STEP)?;
        let bytes: Vec<u8> = code.iter().flat_map(|step| step.to_bytes()).collect();
        let at = seen_at + self.window.put(slot, PROGRAM_AT, &bytes);
        let word = if call.abi == Abi::X86_64 { 8 } else { 4 };
        let mut header = [0; PROGRAM_AT];
        header[..2].copy_from_slice(&u16::try_from(code.len()).unwrap_or(0).to_ne_bytes());
        header[word..2 * word].copy_from_slice(&at.to_ne_bytes()[..word]);
        call.args[usize::from(arg)] = seen_at + self.window.put(slot, 0, &header);
        Ok(Some(slot))
    }

    /// The kernel has taken a filter, or not.
    pub(crate) fn confined(&mut self, thread: i32, taken: &Taken, result: i64) {
        if result < 0 || (result > 0 && !taken.listens) {
            return;
        }
        let Some(tracee) = self.tracees.get_mut(&thread) else { return };
        tracee.filters.push(taken);
        let (filters, process) = (tracee.filters.clone(), tracee.id());
        if taken.all_threads {
            for other in self.tracees.values_mut().filter(|other| other.id() == process) {
                other.filters = filters.clone();
            }
        }
    }
}
