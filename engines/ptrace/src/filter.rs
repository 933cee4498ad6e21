//! The seccomp filter of a guest: which of its calls stop for the tracer.
//!
//! One program for both interfaces of the processor. Numbers are searched in a tree of comparisons, so that a call that
//! passes costs a handful of instructions (and nothing on kernels that remember what always passes).

use std::{io, mem::offset_of};

use coracle_intercept::{Abi, Rules, table::TABLE};

use crate::{
    follow,
    nested::{FILTER_MARK, ptrace_number},
    sandbox::seccomp_number,
};

/// 64-bit code, to a filter.
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// 32-bit code.
pub(crate) const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Numbers from here on are the x32 interface, which no table of ours knows.
const X32: u32 = 0x4000_0000;

/// landlock_create_ruleset(2), on all interfaces: by it a program begins to confine itself. What the tracer does in its
/// stead would not be confined, and of what the tracer holds for it (programs to execute, files to read) it could reach
/// nothing.
pub(crate) const CONFINE: u32 = 444;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// What stops a call.
const STOP: u32 = libc::SECCOMP_RET_TRACE | FILTER_MARK;

type Code = Vec<libc::sock_filter>;

/// Which calls of a number stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Unless this argument has this value.
    Unless(u8, u64),
    /// If this argument is one of these values.
    OneOf(u8, &'static [u32]),
    /// If this argument has one of these flags.
    Flags(u8, u32),
    /// Unless the sixth argument is the loader's mark.
    Unmarked,
}

/// Makes the filter; `mark` is what the loader's own openat calls carry in their sixth argument.
pub(crate) fn program(rules: &Rules<'_>, mark: u64) -> Code {
    let allow = step(RETURN, libc::SECCOMP_RET_ALLOW);
    let wide = section(rules, Abi::X86_64, mark);
    let narrow = section(rules, Abi::I386, mark & 0xffff_ffff);
    let refuse_x32 =
        [branch(AT_LEAST, X32, 0, 1), step(RETURN, libc::SECCOMP_RET_ERRNO | u32::try_from(libc::ENOSYS).unwrap_or(0))];
    let load_number = step(LOAD, offset(offset_of!(libc::seccomp_data, nr)));
    let mut code = vec![step(LOAD, offset(offset_of!(libc::seccomp_data, arch)))];
    code.push(branch(EQUAL, AUDIT_ARCH_X86_64, 1, 0));
    code.push(step(JUMP, length(wide.len() + 1 + refuse_x32.len())));
    code.push(load_number);
    code.extend(refuse_x32);
    code.extend(wide);
    code.push(branch(EQUAL, AUDIT_ARCH_I386, 1, 0));
    code.push(allow);
    code.push(load_number);
    code.extend(narrow);
    code
}

fn section(rules: &Rules<'_>, abi: Abi, mark: u64) -> Code {
    let mut calls: Vec<(u32, When)> = TABLE
        .iter()
        .filter(|row| rules.wants(row))
        .filter_map(|row| {
            let when = match row.passes_with() {
                Some((arg, value)) => When::Unless(arg, value),
                None if row.name == "openat" => When::Unmarked,
                None => match (row.needs_one_of(), row.needs_flags()) {
                    (Some((arg, values)), _) => When::OneOf(arg, values),
                    (_, Some((arg, flags))) => When::Flags(arg, flags),
                    _ => When::Always,
                },
            };
            Some((u32::from(row.number(abi)?), when))
        })
        .chain([ptrace_number(abi), CONFINE, seccomp_number(abi)].map(|number| (number, When::Always)))
        .chain(follow::numbers(abi).map(|number| (number, When::Always)))
        .collect();
    calls.sort_unstable_by_key(|call| call.0);
    tree(&calls, mark)
}

fn tree(calls: &[(u32, When)], mark: u64) -> Code {
    let mut code = Code::new();
    if calls.len() > 4 {
        let (low, high) = calls.split_at(calls.len() / 2);
        let left = tree(low, mark);
        code.push(branch(AT_LEAST, high[0].0, 0, 1));
        code.push(step(JUMP, length(left.len())));
        code.extend(left);
        code.extend(tree(high, mark));
        return code;
    }
    for (number, when) in calls {
        let leaf = leaf(*when, mark);
        code.push(branch(EQUAL, *number, 0, u8::try_from(leaf.len()).unwrap_or(u8::MAX)));
        code.extend(leaf);
    }
    code.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    code
}

fn leaf(when: When, mark: u64) -> Code {
    let trace = step(RETURN, STOP);
    let (arg, value) = match when {
        When::Always => return vec![trace],
        When::Unless(arg, value) => (arg, value),
        When::Unmarked => (5, mark),
        When::OneOf(arg, values) => return one_of(arg, values),
        When::Flags(arg, flags) => {
            let at = offset(offset_of!(libc::seccomp_data, args)) + 8 * u32::from(arg);
            let allow = step(RETURN, libc::SECCOMP_RET_ALLOW);
            return vec![step(LOAD, at), branch(ANY_BIT, flags, 1, 0), allow, trace];
        }
    };
    let at = offset(offset_of!(libc::seccomp_data, args)) + 8 * u32::from(arg);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a word, little-endian")]
    let (low, high) = (value as u32, (value >> 32) as u32);
    vec![
        step(LOAD, at),
        branch(EQUAL, low, 0, 3),
        step(LOAD, at + 4),
        branch(EQUAL, high, 0, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        trace,
    ]
}

/// Stops if the lower half of an argument, which is an `int`, has one of these values.
fn one_of(arg: u8, values: &[u32]) -> Code {
    let mut code = vec![step(LOAD, offset(offset_of!(libc::seccomp_data, args)) + 8 * u32::from(arg))];
    for (at, value) in values.iter().enumerate() {
        code.push(branch(EQUAL, *value, u8::try_from(values.len() - at).unwrap_or(u8::MAX), 0));
    }
    code.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    code.push(step(RETURN, STOP));
    code
}

fn step(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn length(instructions: usize) -> u32 {
    u32::try_from(instructions).unwrap_or(u32::MAX)
}

/// Puts this thread under the filter, for good and for all its children. Async-signal-safe.
pub(crate) fn install(code: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: code.as_ptr().cast_mut(),
    };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes integers; PR_SET_SECCOMP reads the program, which outlives the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use coracle_intercept::Identity;
    use coracle_paths::View;

    use super::*;

    /// What the kernel's interpreter does with the instructions that are used here.
    fn verdict(code: &[libc::sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let data = libc::seccomp_data { nr: number.cast_signed(), arch, instruction_pointer: 0, args };
        // SAFETY: seccomp_data is plain old data without padding, 64 bytes long.
        let bytes: [u8; 64] = unsafe { std::mem::transmute(data) };
        let (mut at, mut word) = (0, 0);
        loop {
            let step = code[at];
            at += 1;
            match step.code {
                LOAD => {
                    let from = usize::try_from(step.k).expect("an offset");
                    word = u32::from_ne_bytes(bytes[from..from + 4].try_into().expect("four bytes"));
                }
                EQUAL => at += usize::from(if word == step.k { step.jt } else { step.jf }),
                ANY_BIT => at += usize::from(if word & step.k != 0 { step.jt } else { step.jf }),
                AT_LEAST => at += usize::from(if word >= step.k { step.jt } else { step.jf }),
                JUMP => at += usize::try_from(step.k).expect("a distance"),
                RETURN => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn rules(uid: u32) -> Rules<'static> {
        Rules {
            view: View::new(b"/tree", true, &[]).expect("a view"),
            identity: Identity { uid, gid: uid, host_uid: 1000, host_gid: 1000 },
            hostname: None,
            kernel: None,
            ledger: None,
            ports: &[],
            unlisted: true,
            marks: None,
        }
    }

    #[test]
    fn exactly_the_calls_of_the_table_stop() {
        const MARK: u64 = 0x1234_5678_9abc_def0;
        for uid in [0, 1000] {
            let rules = rules(uid);
            let code = program(&rules, MARK);
            assert!(code.len() < 4096, "the kernel's limit");
            for (abi, arch) in [(Abi::X86_64, AUDIT_ARCH_X86_64), (Abi::I386, AUDIT_ARCH_I386)] {
                for number in 0..600 {
                    let row = coracle_intercept::table::row_of(abi, number).filter(|row| rules.wants(row));
                    let number = u32::try_from(number).expect("small");
                    let mut args = [7; 6];
                    if let Some((at, values)) = row.and_then(coracle_intercept::Row::needs_one_of) {
                        args[usize::from(at)] = u64::from(values[values.len() - 1]);
                    }
                    if let Some((at, flags)) = row.and_then(coracle_intercept::Row::needs_flags) {
                        args[usize::from(at)] = u64::from(flags);
                        assert_eq!(verdict(&code, arch, number, [17; 6]), libc::SECCOMP_RET_ALLOW, "SIGCHLD alone");
                    }
                    let ours = [ptrace_number(abi), CONFINE, seccomp_number(abi)].contains(&number)
                        || follow::numbers(abi).contains(&number);
                    let stops = row.is_some() || ours;
                    let expected = if stops { STOP } else { libc::SECCOMP_RET_ALLOW };
                    assert_eq!(verdict(&code, arch, number, args), expected, "{abi:?} {number} {row:?}");
                }
            }
        }
    }

    #[test]
    fn what_passes_by_its_arguments() {
        const MARK: u64 = 0x1234_5678_9abc_def0;
        let code = program(&rules(1000), MARK);
        let pass = libc::SECCOMP_RET_ALLOW;
        let stop = STOP;
        let wide = |number, args| verdict(&code, AUDIT_ARCH_X86_64, number, args);
        assert_eq!(wide(257, [0, 0, 0, 0, 0, MARK]), pass, "the loader's openat");
        assert_eq!(wide(257, [0, 0, 0, 0, 0, MARK ^ 1]), stop);
        assert_eq!(wide(257, [0, 0, 0, 0, 0, MARK ^ 1 << 40]), stop);
        assert_eq!(verdict(&code, AUDIT_ARCH_I386, 295, [0, 0, 0, 0, 0, MARK & 0xffff_ffff]), pass);
        assert_eq!(wide(16, [1, 0x5401, 0, 0, 0, 0]), pass, "ioctl of a terminal");
        assert_eq!(wide(16, [1, 0x4008_6602, 0, 0, 0, 0]), stop, "FS_IOC_SETFLAGS");
        assert_eq!(wide(45, [1, 1, 1, 1, 0, 0]), pass, "recvfrom without an address");
        assert_eq!(wide(45, [1, 1, 1, 1, 1 << 32, 0]), stop);
        assert_eq!(wide(X32 | 2, [1; 6]), libc::SECCOMP_RET_ERRNO | 38, "the x32 interface");
        assert_eq!(verdict(&code, 0, 2, [1; 6]), pass, "another architecture cannot be");
    }
}
