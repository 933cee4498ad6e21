//! Whether this node lets one process of ours trace another: tried with a real child, explained by the sysctls.

use std::{fs, io};

use coracle_api::Refusal;
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

use crate::request;

/// What the node allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Filters that stop chosen calls for a tracer (P1).
    pub(crate) filter: bool,
}

/// Seizes a child that does nothing and asks the kernel whether it knows filters.
pub(crate) fn probe() -> Result<Allowed, Refusal> {
    let refusal = |what: &str, error: io::Error| Refusal::new(format!("{what}: {error}"));
    // A program that its user may execute but not read, or that gave up privileges, is closed to tracing and `/proc`; so
    // would its children be, and our descriptors to them. Nothing here needs that protection.
    // SAFETY: PR_SET_DUMPABLE takes integers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    // SAFETY: the child only waits for its end, by async-signal-safe calls.
    let child = match unsafe { fork() }.map_err(|error| refusal("fork", error.into()))? {
        ForkResult::Child => loop {
            // SAFETY: pause takes nothing; the parent kills this process, or its end does (PDEATHSIG).
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        },
        ForkResult::Parent { child } => child,
    };
    let seized =
        request::seize(child.as_raw(), true).or_else(|first| request::seize(child.as_raw(), false).map_err(|_| first));
    // SAFETY: kill takes two integers; the child is ours and not yet waited for.
    unsafe { libc::kill(child.as_raw(), libc::SIGKILL) };
    let _ = waitpid(child, Some(nix::sys::wait::WaitPidFlag::__WALL));
    match seized {
        Ok(()) => Ok(Allowed { filter: has_filter() }),
        Err(error) => Err(explain(error)),
    }
}

/// Whether filters can be had.
pub(crate) fn has_filter() -> bool {
    filter_refusal().is_none()
}

/// What is said where filters cannot be had: the kernel does not know them, or a sandbox around us keeps them from us.
pub(crate) fn filter_refusal() -> Option<io::Error> {
    // SAFETY: a null program is refused with EFAULT by a kernel that knows filters, before anything changes.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::null::<libc::sock_fprog>()) };
    let error = io::Error::last_os_error();
    (done != -1 || error.raw_os_error() != Some(libc::EFAULT)).then_some(error)
}

fn explain(error: io::Error) -> Refusal {
    let refusal = Refusal::new(format!("ptrace(PTRACE_SEIZE) of a child: {error}"));
    let tracer = fs::read_to_string("/proc/self/status").ok();
    let tracer = tracer.as_deref().and_then(|status| status.lines().find_map(|line| line.strip_prefix("TracerPid:")));
    if let Some(tracer) = tracer.map(str::trim).filter(|tracer| *tracer != "0") {
        return refusal.advise(format!("process {tracer} (a debugger?) traces this one and takes its children"));
    }
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    match scope.as_deref().map(str::trim) {
        Some("3") => refusal.advise("kernel.yama.ptrace_scope is 3 here, which forbids it until a reboot"),
        Some("2") => refusal.advise("kernel.yama.ptrace_scope is 2 here: only an administrator may trace"),
        _ => refusal.advise(
            "a sandbox around this process (an old Docker's seccomp profile, SELinux's deny_ptrace) forbids it",
        ),
    }
}
