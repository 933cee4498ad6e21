//! Root with one id only: changing owner, becoming somebody else and making devices succeed without effect.
//!
//! The kernel refuses these with `EINVAL` or `EPERM` where no second id is mapped, and package managers stop there. A
//! filter answers "done" in its stead. It is stateless: a program that asks afterwards who it is, or whose a file is, still
//! sees root.

use std::io;

use libc::{c_long, sock_filter, sock_fprog};

/// One architecture's calls that succeed without effect, and its two that do when they would make a device.
struct Calls {
    /// `AUDIT_ARCH_…`.
    arch: u32,
    /// Calls answered at once.
    done: &'static [c_long],
    /// mknod-like calls, and which argument is the mode.
    devices: &'static [(c_long, u32)],
}

#[cfg(target_arch = "x86_64")]
const CALLS: [Calls; 2] = [
    Calls {
        arch: 0xC000_003E,
        done: &[
            libc::SYS_chown,
            libc::SYS_fchown,
            libc::SYS_lchown,
            libc::SYS_fchownat,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
            libc::SYS_setgroups,
        ],
        devices: &[(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)],
    },
    // i386: lchown fchown chown, their 32-bit forms and fchownat; setuid setgid setreuid setregid setresuid setresgid
    // setfsuid setfsgid setgroups, and their 32-bit forms (numbers of asm/unistd_32.h).
    Calls {
        arch: 0x4000_0003,
        done: &[
            16, 95, 182, 198, 207, 212, 298, 23, 46, 70, 71, 164, 170, 138, 139, 81, 213, 214, 203, 204, 208, 210, 215,
            216, 206,
        ],
        devices: &[(14, 1), (297, 2)],
    },
];

#[cfg(target_arch = "aarch64")]
const CALLS: [Calls; 1] = [Calls {
    arch: 0xC000_00B7,
    done: &[
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_setgroups,
    ],
    devices: &[(libc::SYS_mknodat, 2)],
}];

const NUMBER: u32 = 0; // offsets in struct seccomp_data
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Installs the filter. Needs `CAP_SYS_ADMIN` in the user namespace (or no_new_privs), and stays for good.
pub(crate) fn pretend_ownership() -> io::Result<()> {
    let mut filter = program();
    let program =
        sock_fprog { len: u16::try_from(filter.len()).map_err(io::Error::other)?, filter: filter.as_mut_ptr() };
    // SAFETY: `program` describes `filter`, which outlives the call; the kernel copies it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn program() -> Vec<sock_filter> {
    let mut filter = vec![load(ARCH)];
    for calls in &CALLS {
        let block = block(calls);
        // A block may be longer than a conditional jump reaches; it goes around it by an unconditional one.
        filter.push(jump(libc::BPF_JEQ, calls.arch, 1, 0));
        filter.push(statement(libc::BPF_JMP | libc::BPF_JA, u32::try_from(block.len()).unwrap_or(u32::MAX)));
        filter.extend(block);
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter
}

/// Ends with an answer in every case.
fn block(calls: &Calls) -> Vec<sock_filter> {
    let done = answer(libc::SECCOMP_RET_ERRNO); // errno 0: success
    let mut block = vec![load(NUMBER)];
    for call in calls.done {
        block.push(jump(libc::BPF_JEQ, number(*call), 0, 1));
        block.push(done);
    }
    for (call, mode) in calls.devices {
        block.extend([
            jump(libc::BPF_JEQ, number(*call), 0, 6),
            load(ARGUMENTS + 8 * mode),
            statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, libc::S_IFMT),
            jump(libc::BPF_JEQ, libc::S_IFCHR, 1, 0),
            jump(libc::BPF_JEQ, libc::S_IFBLK, 0, 1),
            done,
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    block.push(answer(libc::SECCOMP_RET_ALLOW));
    block
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(action: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, action)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, then: u8, otherwise: u8) -> sock_filter {
    let code = libc::BPF_JMP | test | libc::BPF_K;
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt: then, jf: otherwise, k }
}
