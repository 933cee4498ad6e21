//! The table against the kernel's own lists of system calls, so that a new call is noticed: each is either in the table or
//! known to carry no path, name or id of the host.

use std::{collections::BTreeMap, fs, path::Path};

use coracle_intercept::{
    Abi,
    table::{TABLE, row_of},
};

/// Calls that pass untouched. Of those that name things by descriptor, the descriptor was translated when it was made.
const HARMLESS: &str = "
    _llseek _newselect _sysctl add_key adjtimex afs_syscall alarm arch_prctl bdflush bpf break brk cachestat
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 clock_settime clock_settime64 close close_range
    copy_file_range create_module delete_module dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 exit exit_group fadvise64 fadvise64_64
    fallocate fanotify_init fchdir fcntl fcntl64 fdatasync fgetxattr finit_module flistxattr flock fork fsconfig
    fsmount fsopen fstatfs fstatfs64 fsync ftime ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake get_kernel_syms get_mempolicy get_robust_list get_thread_area getcpu
    getitimer getpgid getpgrp getpid getpmsg getppid getpriority getrandom
    getrlimit getrusage getsid gettid gettimeofday gtty idle init_module inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
    io_uring_enter io_uring_register ioperm iopl ioprio_get ioprio_set ipc kcmp kexec_file_load kexec_load
    keyctl kill landlock_add_rule landlock_create_ruleset landlock_restrict_self listen listns lock lookup_dcookie lseek
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr madvise map_shadow_stack mbind membarrier memfd_create
    memfd_secret migrate_pages mincore mlock mlock2 mlockall mmap mmap2 modify_ldt move_pages mprotect mpx
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep nfsservctl nice
    oldfstat pause perf_event_open personality pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
    pkey_free pkey_mprotect poll ppoll ppoll_time64 pread64 preadv preadv2 prlimit64 process_madvise
    process_mrelease process_vm_readv process_vm_writev prof profil pselect6 pselect6_time64 ptrace putpmsg pwrite64
    pwritev pwritev2 query_module quotactl_fd read readahead readdir readv reboot 
    remap_file_pages request_key restart_syscall rseq rseq_slice_yield rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp security select semctl semget semop semtimedop semtimedop_time64 sendfile sendfile64 
    set_mempolicy set_mempolicy_home_node set_robust_list set_thread_area set_tid_address setdomainname sethostname
    setitimer setpgid setpriority setrlimit setsid setsockopt settimeofday sgetmask shmat shmctl shmdt shmget
    shutdown sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socket
    socketpair splice ssetmask stime stty sync sync_file_range syncfs sysfs sysinfo syslog tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill tuxcall
    ugetrlimit ulimit umask userfaultfd ustat vfork vhangup vm86 vm86old vmsplice vserver wait4 waitid
    waitpid write writev
";

/// `#define __NR_name number` of one header; empty without it.
fn kernel_list(header: &str) -> BTreeMap<String, u64> {
    let places = [format!("/usr/include/x86_64-linux-gnu/asm/{header}"), format!("/usr/include/asm/{header}")];
    let text = places.iter().find(|path| Path::new(path).exists()).and_then(|path| fs::read_to_string(path).ok());
    text.unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("#define __NR_")?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

fn compare(abi: Abi, header: &str) {
    let kernel = kernel_list(header);
    if kernel.is_empty() {
        harness::skip::because(&format!("no {header}: install the kernel's headers (linux-libc-dev)"));
        return;
    }
    assert!(kernel.len() > 300, "the header was understood");
    let harmless: Vec<&str> = HARMLESS.split_whitespace().collect();
    let mut unknown = Vec::new();
    for (name, number) in &kernel {
        match row_of(abi, *number) {
            Some(row) => assert_eq!(row.name, name, "number {number} on {abi:?}"),
            None if harmless.contains(&name.as_str()) => {}
            None => unknown.push(format!("{name} ({number})")),
        }
    }
    assert!(unknown.is_empty(), "calls that the table does not know on {abi:?}: {unknown:?}");
}

#[test]
fn every_call_of_64_bits_is_known() {
    compare(Abi::X86_64, "unistd_64.h");
}

#[test]
fn every_call_of_32_bits_is_known() {
    compare(Abi::I386, "unistd_32.h");
}

#[test]
fn every_row_has_a_number() {
    for row in TABLE {
        assert!(row.number(Abi::X86_64).or(row.number(Abi::I386)).is_some(), "{} is on some interface", row.name);
        assert!(!HARMLESS.split_whitespace().any(|name| name == row.name), "{} is in both lists", row.name);
    }
}
