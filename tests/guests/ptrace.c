/* One guest debugs another: every request of ptrace(2), the stops that it shows, and the waits that tell of them. */
#include "probe.h"

/* Registers and steps are those of 64 bits. */
#ifdef __i386__
int main(void) { puts("64 bits alone"); return 0; }
#else
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/reg.h>
#include <elf.h>

#ifndef PTRACE_GET_SYSCALL_INFO
#define PTRACE_GET_SYSCALL_INFO 0x420e
#endif
#define O_ALL (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT)

static volatile long word = 0x1122334455667788;
static volatile int children;

static long pt(long request, pid_t pid, unsigned long addr, unsigned long data) { return syscall(SYS_ptrace, request, pid, addr, data); }

/* What a wait told, without numbers of processes. */
static void told(const char *what, pid_t wanted, pid_t got, int status) {
    printf("%s: ", what);
    if (got <= 0) { printf(got ? "%s\n" : "nothing\n", strerrorname_np(errno)); return; }
    printf("%s ", got == wanted ? "it" : "another");
    if (WIFEXITED(status)) printf("exited %d\n", WEXITSTATUS(status));
    else if (WIFSIGNALED(status)) printf("killed %d\n", WTERMSIG(status));
    else if (WIFCONTINUED(status)) printf("continued\n");
    else printf("stopped %d event %d\n", WSTOPSIG(status), status >> 16);
}

static int status_of(const char *what, pid_t pid) { int status = 0; pid_t got = waitpid(pid, &status, __WALL); told(what, pid, got, status); return status; }

static void info(pid_t pid) {
    siginfo_t info; memset(&info, 0, sizeof info);
    if (pt(PTRACE_GETSIGINFO, pid, 0, (long)&info)) { printf("  info: %s\n", strerrorname_np(errno)); return; }
    printf("  info: signal %d code %d", info.si_signo, info.si_code);
    if (info.si_code <= 0) printf(" from %s uid %s", info.si_pid == pid ? "itself" : info.si_pid == getpid() ? "us" : info.si_pid ? "other" : "none", info.si_uid == getuid() ? "own" : "other");
    puts("");
}

/* Results that are no numbers of processes or addresses. */
static long long small(long long result) { return result > -4096 && result < 200 ? result : 777; }

/* The call that a tracee stands at. */
static void call(pid_t pid) {
    struct __ptrace_syscall_info call; memset(&call, 0, sizeof call);
    long size = pt(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, (long)&call);
    struct user_regs_struct regs; pt(PTRACE_GETREGS, pid, 0, (long)&regs);
    printf("  size %ld op %d arch %s ip %s sp %s", size, call.op, call.arch == AUDIT_ARCH_X86_64 ? "own" : "other", call.instruction_pointer == regs.rip ? "right" : "wrong", call.stack_pointer == regs.rsp ? "right" : "wrong");
    if (call.op == 1) printf(" entry %lld rax %lld orig %lld", (long long)call.entry.nr, (long long)regs.rax, (long long)regs.orig_rax);
    if (call.op == 2) printf(" exit %lld error %d rax %lld orig %lld", small(call.exit.rval), call.exit.is_error, small(regs.rax), (long long)regs.orig_rax);
    if (call.op == 3) printf(" seccomp %lld data %u", (long long)call.entry.nr, call.seccomp.ret_data);
    puts("");
}

static void show_path(pid_t pid, unsigned long at) {
    char text[64] = {0}; struct iovec to = {text, 32}, from = {(void *)at, 32};
    if (process_vm_readv(pid, &to, 1, &from, 1, 0) < 0) puts("  unreadable"); else printf("  path %s\n", text);
}

/* Who debugs it, as all may read. */
static void show_tracer(pid_t pid) {
    char path[64], line[256]; long tracer = -1; snprintf(path, 64, "/proc/%d/status", pid); FILE *status = fopen(path, "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "TracerPid: %ld", &tracer);
    if (status) fclose(status);
    printf("  traced by %s\n", tracer == getpid() ? "us" : tracer ? "other" : "nobody");
}

static pid_t child_traced(void (*body)(void)) {
    fflush(stdout); pid_t pid = fork();
    if (pid == 0) { pt(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); body(); fflush(stdout); _exit(4); }
    status_of("traced child", pid); return pid;
}

static void nothing(void) {}
static void sleeps(void) { for (;;) pause(); }
static pid_t child(void (*body)(void)) { fflush(stdout); pid_t pid = fork(); if (pid == 0) { body(); fflush(stdout); _exit(5); } return pid; }

static void words(void) {
    puts("== words and registers");
    pid_t pid = child_traced(nothing); long value; info(pid); show_tracer(pid); show_tracer(getpid());
    T(pt(PTRACE_PEEKDATA, pid, (long)&word, (long)&value)); printf("%lx\n", value);
    T(pt(PTRACE_POKEDATA, pid, (long)&word, 77)); T(pt(PTRACE_PEEKTEXT, pid, (long)&word, (long)&value)); printf("%ld\n", value);
    T(pt(PTRACE_POKETEXT, pid, (long)nothing, 0x90)); T(pt(PTRACE_PEEKTEXT, pid, (long)nothing, (long)&value)); printf("%lx\n", value);
    T(pt(PTRACE_PEEKDATA, pid, 8, (long)&value)); T(pt(PTRACE_POKEDATA, pid, 8, 1)); T(pt(PTRACE_PEEKDATA, pid, (long)&word, 8));
    struct user_regs_struct regs, again; T(pt(PTRACE_GETREGS, pid, 0, (long)&regs)); long stack;
    T(pt(PTRACE_PEEKUSER, pid, 8 * RSP, (long)&stack)); printf("%d\n", stack == (long)regs.rsp);
    T(pt(PTRACE_PEEKUSER, pid, 3, (long)&stack)); T(pt(PTRACE_PEEKUSER, pid, 100000, (long)&stack));
    regs.r15 = 1234567; T(pt(PTRACE_SETREGS, pid, 0, (long)&regs)); T(pt(PTRACE_PEEKUSER, pid, 8 * R15, (long)&stack)); printf("%ld\n", stack);
    T(pt(PTRACE_POKEUSER, pid, 8 * R14, 99)); T(pt(PTRACE_GETREGS, pid, 0, (long)&again)); printf("%llu\n", (unsigned long long)again.r14);
    T(pt(PTRACE_GETREGS, pid, 0, 8)); T(pt(PTRACE_SETREGS, pid, 0, 8));
    struct iovec vector = {&again, sizeof again}; T(pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, (long)&vector)); printf("%zu %llu\n", vector.iov_len, (unsigned long long)again.r15);
    again.r13 = 5; T(pt(PTRACE_SETREGSET, pid, NT_PRSTATUS, (long)&vector)); T(pt(PTRACE_PEEKUSER, pid, 8 * R13, (long)&stack)); printf("%ld\n", stack);
    struct iovec part = {&again, 16}; T(pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, (long)&part)); printf("%zu\n", part.iov_len);
    part.iov_len = 13; T(pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, (long)&part)); T(pt(PTRACE_GETREGSET, pid, 12345, (long)&vector)); T(pt(PTRACE_GETREGSET, pid, NT_PRSTATUS, 8));
    static char large[16384]; struct iovec extended = {large, sizeof large}; T(pt(PTRACE_GETREGSET, pid, NT_X86_XSTATE, (long)&extended)); printf("%d\n", extended.iov_len > 576);
    T(pt(PTRACE_SETREGSET, pid, NT_X86_XSTATE, (long)&extended)); struct iovec floats = {large, sizeof large}; T(pt(PTRACE_GETREGSET, pid, NT_PRFPREG, (long)&floats)); printf("%zu\n", floats.iov_len);
    struct user_fpregs_struct fp; T(pt(PTRACE_GETFPREGS, pid, 0, (long)&fp)); fp.xmm_space[0] = 42; T(pt(PTRACE_SETFPREGS, pid, 0, (long)&fp)); memset(&fp, 0, sizeof fp); T(pt(PTRACE_GETFPREGS, pid, 0, (long)&fp)); printf("%u\n", fp.xmm_space[0]);
    unsigned long base = 0, seen; T(pt(PTRACE_ARCH_PRCTL, pid, (long)&base, 0x1003)); T(pt(PTRACE_PEEKUSER, pid, 8 * FS_BASE, (long)&seen)); printf("%d\n", base == seen && base); T(pt(PTRACE_ARCH_PRCTL, pid, (long)&base, 7));
    unsigned long mask = 0; T(pt(PTRACE_GETSIGMASK, pid, 8, (long)&mask)); printf("%lx\n", mask); mask = 1 << (SIGUSR1 - 1); T(pt(PTRACE_SETSIGMASK, pid, 8, (long)&mask)); T(pt(PTRACE_GETSIGMASK, pid, 8, (long)&mask)); printf("%lx\n", mask); T(pt(PTRACE_GETSIGMASK, pid, 4, (long)&mask));
    kill(pid, SIGUSR1); struct __ptrace_peeksiginfo_args args = {0, 1, 4}; siginfo_t infos[4]; T(pt(PTRACE_PEEKSIGINFO, pid, (long)&args, (long)infos)); printf("%d %s\n", infos[0].si_signo, infos[0].si_pid == getpid() ? "us" : "other"); args.flags = 0; T(pt(PTRACE_PEEKSIGINFO, pid, (long)&args, (long)infos));
    T(pt(PTRACE_SETOPTIONS, pid, 0, 1 << 15)); T(pt(PTRACE_SETOPTIONS, pid, 0, O_ALL)); T(pt(PTRACE_SETOPTIONS, pid, 0, 0)); T(pt(4711, pid, 0, 0)); T(pt(PTRACE_LISTEN, pid, 0, 0)); T(pt(PTRACE_INTERRUPT, pid, 0, 0));
    char path[64]; sprintf(path, "/proc/%d/mem", pid); int memory = open(path, O_RDWR); long through = 0; T(pread(memory, &through, 8, (long)&word)); printf("%ld\n", through); through = 78; T(pwrite(memory, &through, 8, (long)&word)); T(pt(PTRACE_PEEKDATA, pid, (long)&word, (long)&value)); printf("%ld\n", value); close(memory);
    T(pt(PTRACE_CONT, pid, 0, 65)); T(pt(PTRACE_CONT, pid, 0, -1)); T(pt(PTRACE_POKETEXT, pid, (long)nothing, 0xc3c3c3c3)); T(pt(PTRACE_CONT, pid, 0, 0)); status_of("end", pid); T(pt(PTRACE_CONT, pid, 0, 0));
}

static void errors(void) {
    puts("== whom one may debug");
    T(pt(PTRACE_ATTACH, getpid(), 0, 0)); T(pt(PTRACE_ATTACH, 1, 0, 0)); T(pt(PTRACE_ATTACH, 4194000, 0, 0)); T(pt(PTRACE_ATTACH, -1, 0, 0)); T(pt(PTRACE_ATTACH, 0, 0, 0)); T(pt(PTRACE_CONT, 4194000, 0, 0));
    pid_t pid = child(sleeps); T(pt(PTRACE_CONT, pid, 0, 0)); T(pt(PTRACE_SEIZE, pid, 1, 0)); T(pt(PTRACE_SEIZE, pid, 0, 1 << 15)); T(pt(PTRACE_DETACH, pid, 0, 0)); T(pt(PTRACE_KILL, pid, 0, 0));
    T(pt(PTRACE_ATTACH, pid, 0, 0)); T(pt(PTRACE_ATTACH, pid, 0, 0)); status_of("attached", pid); info(pid); T(pt(PTRACE_INTERRUPT, pid, 0, 0));
    fflush(stdout); pid_t other = fork(); if (other == 0) { T(pt(PTRACE_ATTACH, pid, 0, 0)); T(pt(PTRACE_SEIZE, pid, 0, 0)); T(pt(PTRACE_PEEKDATA, pid, (long)&word, (long)&word)); T(pt(PTRACE_DETACH, pid, 0, 0)); fflush(stdout); _exit(0); } waitpid(other, 0, 0);
    T(pt(PTRACE_CONT, pid, 0, 0)); T(pt(PTRACE_PEEKDATA, pid, (long)&word, (long)&word)); T(pt(PTRACE_CONT, pid, 0, 0)); T(pt(PTRACE_DETACH, pid, 0, 0)); T(kill(pid, SIGUSR2)); status_of("signal", pid); info(pid); siginfo_t in; pt(PTRACE_GETSIGINFO, pid, 0, (long)&in); in.si_value.sival_int = 3; T(pt(PTRACE_SETSIGINFO, pid, 0, (long)&in)); T(pt(PTRACE_DETACH, pid, 0, 99)); T(pt(PTRACE_DETACH, pid, 0, SIGUSR2)); status_of("end", pid);
    pid = child_traced(nothing); T(pt(PTRACE_KILL, pid, 0, 0)); status_of("killed", pid);
    pid = child(sleeps); T(pt(PTRACE_SEIZE, pid, 0, 0)); T(pt(PTRACE_CONT, pid, 0, 0)); kill(pid, SIGKILL); status_of("killed", pid);
    fflush(stdout); pid = fork(); if (pid == 0) { T(pt(PTRACE_TRACEME, 0, 0, 0)); T(pt(PTRACE_TRACEME, 0, 0, 0)); fflush(stdout); _exit(6); } status_of("end", pid);
    fflush(stdout); pid = fork(); if (pid == 0) { prctl(PR_SET_DUMPABLE, 0); pause(); } usleep(30000); T(pt(PTRACE_ATTACH, pid, 0, 0)); kill(pid, SIGKILL); status_of("end", pid);
}

static void groups(void) {
    puts("== group stops");
    int status; pid_t pid = child(sleeps); T(pt(PTRACE_SEIZE, pid, 0, 0)); T(waitpid(pid, &status, WNOHANG | __WALL)); T(pt(PTRACE_INTERRUPT, pid, 0, 0)); status_of("interrupted", pid); info(pid); T(pt(PTRACE_CONT, pid, 0, 0));
    T(kill(pid, SIGSTOP)); status_of("signal", pid); info(pid); T(pt(PTRACE_CONT, pid, 0, SIGSTOP)); status_of("group", pid); info(pid); T(pt(PTRACE_LISTEN, pid, 0, 0)); T(pt(PTRACE_CONT, pid, 0, 0)); T(waitpid(pid, &status, WNOHANG | __WALL)); T(kill(pid, SIGCONT)); status_of("continued", pid); info(pid); T(pt(PTRACE_CONT, pid, 0, 0)); status_of("its signal", pid); T(pt(PTRACE_CONT, pid, 0, SIGCONT));
    T(pt(PTRACE_INTERRUPT, pid, 0, 0)); status_of("interrupted", pid); T(pt(PTRACE_DETACH, pid, 0, 0)); kill(pid, SIGSTOP); T(waitpid(pid, &status, WUNTRACED) == pid); told("as a child", pid, pid, status);
    T(pt(PTRACE_SEIZE, pid, 0, 0)); status_of("seized in its stop", pid); T(pt(PTRACE_CONT, pid, 0, 0)); T(kill(pid, SIGCONT)); status = status_of("signal", pid); if (status >> 16) { T(pt(PTRACE_CONT, pid, 0, 0)); status_of("signal", pid); } T(pt(PTRACE_DETACH, pid, 0, 0)); kill(pid, SIGKILL); waitpid(pid, 0, 0);
    pid = child_traced(sleeps); T(pt(PTRACE_CONT, pid, 0, SIGSTOP)); status_of("group", pid); info(pid); T(pt(PTRACE_LISTEN, pid, 0, 0)); T(pt(PTRACE_CONT, pid, 0, 0)); T(waitpid(pid, &status, WNOHANG | __WALL)); kill(pid, SIGKILL); status_of("end", pid);
}

static void makes_calls(void) { syscall(SYS_getppid); access("/etc/passwd", F_OK); static char link[64]; syscall(SYS_readlink, "/links/abs", link, 64); syscall(SYS_openat, AT_FDCWD, "/etc/none", 0); syscall(SYS_getcwd, link, 64); syscall(9999); }

static void calls(void) {
    puts("== calls");
    pid_t pid = child_traced(makes_calls); T(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD)); call(pid); struct user_regs_struct regs; long message;
    for (;;) {
        pt(PTRACE_SYSCALL, pid, 0, 0); int status = status_of("entry", pid); if (!WIFSTOPPED(status)) break;
        info(pid); call(pid); pt(PTRACE_GETREGS, pid, 0, (long)&regs); if (regs.orig_rax == SYS_access || regs.orig_rax == SYS_readlink) show_path(pid, regs.rdi); if (regs.orig_rax == SYS_openat) show_path(pid, regs.rsi); T(pt(PTRACE_GETEVENTMSG, pid, 0, (long)&message));
        pt(PTRACE_SYSCALL, pid, 0, 0); status = status_of("exit", pid); if (!WIFSTOPPED(status)) break; call(pid); pt(PTRACE_GETREGS, pid, 0, (long)&regs); if (regs.orig_rax == SYS_readlink || regs.orig_rax == SYS_getcwd) show_path(pid, regs.orig_rax == SYS_getcwd ? regs.rdi : regs.rsi);
    }
    puts("== calls changed");
    static char other[] = "/etc/group"; pid = child_traced(makes_calls);
    for (int at = 0;; at++) {
        pt(PTRACE_SYSCALL, pid, 0, 0); int status = status_of("entry", pid); if (!WIFSTOPPED(status)) break; pt(PTRACE_GETREGS, pid, 0, (long)&regs); printf("  %lld\n", (long long)regs.orig_rax);
        if (regs.orig_rax == SYS_openat) { regs.rsi = (long)other; pt(PTRACE_SETREGS, pid, 0, (long)&regs); } if (regs.orig_rax == SYS_access) { regs.orig_rax = -1; pt(PTRACE_SETREGS, pid, 0, (long)&regs); } if (regs.orig_rax == SYS_getcwd) { regs.orig_rax = SYS_readlink; regs.rdx = 64; regs.rsi = regs.rdi; regs.rdi = (long)other; pt(PTRACE_SETREGS, pid, 0, (long)&regs); }
        pt(PTRACE_SYSCALL, pid, 0, 0); status = status_of("exit", pid); if (!WIFSTOPPED(status)) break; pt(PTRACE_GETREGS, pid, 0, (long)&regs); printf("  %lld rsi %s\n", small(regs.rax), regs.rsi == (unsigned long)other ? "ours" : "its"); if (regs.orig_rax == (unsigned long)-1) { regs.rax = 17; pt(PTRACE_SETREGS, pid, 0, (long)&regs); }
        if (at == 1) { regs.rax = 55; pt(PTRACE_SETREGS, pid, 0, (long)&regs); }
    }
}

extern char steps_begin[], steps_call[], steps_end[], breaks[];
static void steps(void) {
    asm volatile(".globl steps_begin\nsteps_begin: mov $110, %%eax\nsteps_call: syscall\n mov $21, %%eax\n lea 1f(%%rip), %%rdi\n xor %%esi, %%esi\n syscall\n nop\n.globl steps_end\nsteps_end: nop\n jmp 2f\n1: .asciz \"/etc/passwd\"\n2:\n.globl breaks\nbreaks: int3\n nop" ::: "rax", "rcx", "r11", "rdi", "rsi", "memory");
}

static void stepping(void) {
    puts("== steps"); pid_t pid = child_traced(steps); struct user_regs_struct regs; pt(PTRACE_GETREGS, pid, 0, (long)&regs);
    regs.rip = (long)steps_begin; T(pt(PTRACE_SETREGS, pid, 0, (long)&regs));
    for (int at = 0; at < 8; at++) { T(pt(PTRACE_SINGLESTEP, pid, 0, 0)); status_of("step", pid); info(pid); pt(PTRACE_GETREGS, pid, 0, (long)&regs); printf("  at %ld rax %s\n", (long)(regs.rip - (long)steps_begin), (long long)regs.rax < 0 ? "negative" : regs.rax == 0 ? "zero" : regs.rax == (unsigned)getpid() ? "parent" : "other"); }
    T(pt(PTRACE_SYSCALL, pid, 0, 0)); status_of("breakpoint", pid); info(pid); call(pid); pt(PTRACE_GETREGS, pid, 0, (long)&regs); printf("  %ld\n", (long)(regs.rip - (long)breaks)); kill(pid, SIGKILL); status_of("end", pid);
}

static void touches(void) { word = 5; word = 6; }
static void watching(void) {
    puts("== watchpoint"); pid_t pid = child_traced(touches); size_t at = offsetof(struct user, u_debugreg); long value;
    T(pt(PTRACE_POKEUSER, pid, at, (long)&word)); T(pt(PTRACE_POKEUSER, pid, at + 56, 0xd0001)); T(pt(PTRACE_CONT, pid, 0, 0)); status_of("watched", pid); info(pid); pt(PTRACE_PEEKUSER, pid, at + 48, (long)&value); printf("%ld\n", value & 15); pt(PTRACE_PEEKDATA, pid, (long)&word, (long)&value); printf("%ld\n", value);
    T(pt(PTRACE_POKEUSER, pid, at + 56, 0)); T(pt(PTRACE_CONT, pid, 0, 0)); status_of("end", pid);
}

static void *thread(void *arg) { usleep(1000); return arg; }
static void breeds(void) {
    pid_t pid = fork(); if (pid == 0) _exit(1); waitpid(pid, 0, 0); pid = vfork(); if (pid == 0) _exit(2); waitpid(pid, 0, 0);
    pthread_t t; pthread_create(&t, 0, thread, 0); pthread_join(t, 0); execl("/probes/ptrace", "ptrace", "--end", (char *)0);
}

static void events(void) {
    puts("== events"); pid_t pid = child_traced(breeds), last = 0; T(pt(PTRACE_SETOPTIONS, pid, 0, O_ALL)); T(pt(PTRACE_CONT, pid, 0, 0)); int status;
    for (;;) {
        pid_t got = waitpid(-1, &status, __WALL); unsigned long message = 0; if (got < 0) { printf("%s\n", strerrorname_np(errno)); break; }
        if (got != pid) { /* Children and threads come at their own time: only their ends and first stops are counted. */
            if (WIFSTOPPED(status)) { children += status >> 16 == 0 ? WSTOPSIG(status) : 1000 * (status >> 16); pt(PTRACE_CONT, got, 0, WSTOPSIG(status) == SIGSTOP || status >> 16 ? 0 : WSTOPSIG(status)); } else children += 100000; continue; }
        told("parent", pid, got, status); if (!WIFSTOPPED(status)) break; int event = status >> 16; if (event) { info(pid); T(pt(PTRACE_GETEVENTMSG, pid, 0, (long)&message)); if (event == PTRACE_EVENT_EXIT) printf("  status %lx\n", message); else if (event == PTRACE_EVENT_EXEC) printf("  former %s\n", (pid_t)message == pid ? "same" : "other"); else if (event == PTRACE_EVENT_VFORK_DONE) printf("  %s\n", (pid_t)message == last ? "same" : "other"); else last = message; call(pid); }
        pt(PTRACE_CONT, pid, 0, event ? 0 : WSTOPSIG(status));
    }
    while (waitpid(-1, &status, __WALL) > 0) children += 100000; printf("children %d\n", children);
}

static void executes(void) { execl("/probes/ptrace", "ptrace", "--end", (char *)0); }
static void exec_stops(void) {
    for (int how = 0; how < 3; how++) {
        printf("== execve, %s\n", how == 0 ? "calls" : how == 1 ? "calls and event" : "only a signal"); pid_t pid = child_traced(executes); if (how == 1) pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD); char path[64], text[64];
        for (int at = 0; at < 5; at++) { pt(how == 2 ? PTRACE_CONT : PTRACE_SYSCALL, pid, 0, 0); int status = status_of("stop", pid); if (!WIFSTOPPED(status)) break; info(pid); call(pid); sprintf(path, "/proc/%d/exe", pid); show("  exe", text, readlink(path, text, sizeof text)); }
        kill(pid, SIGKILL); waitpid(pid, 0, 0);
    }
    puts("== execve, seized"); pid_t pid = child(sleeps); fflush(stdout); kill(pid, SIGKILL); waitpid(pid, 0, 0); int gate[2]; pipe(gate); pid = fork(); if (pid == 0) { char byte; read(gate[0], &byte, 1); executes(); _exit(1); } T(pt(PTRACE_SEIZE, pid, 0, 0)); write(gate[1], "x", 1); status_of("end", pid); close(gate[0]); close(gate[1]);
}

static void on_signal(int signal, siginfo_t *info, void *context) { children++; }
static void waits(void) {
    puts("== waits"); int status; siginfo_t in; struct rusage usage; struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}; sigaction(SIGALRM, &act, 0);
    pid_t pid = child_traced(sleeps); T(waitpid(pid, &status, WNOHANG)); T(waitid(P_PID, pid, &in, WEXITED | WNOHANG)); printf("%d\n", in.si_pid); T(waitid(P_PID, pid, &in, 0)); T(waitpid(-1, &status, WNOHANG)); T(waitpid(0, &status, WNOHANG)); T(waitpid(-4194000, &status, WNOHANG)); T(waitpid(4194000, &status, 0));
    kill(pid, SIGUSR1); T(pt(PTRACE_CONT, pid, 0, 0)); memset(&in, 0, sizeof in); T(waitid(P_PID, pid, &in, WSTOPPED | WNOWAIT)); printf("%d %s %d %d\n", in.si_signo, in.si_pid == pid ? "it" : "another", in.si_code, in.si_status); T(waitid(P_ALL, 0, &in, WEXITED)); printf("%s %d %d\n", in.si_uid == getuid() ? "own" : "other", in.si_code, in.si_status); T(waitpid(pid, &status, WNOHANG));
    kill(pid, SIGUSR1); T(pt(PTRACE_CONT, pid, 0, 0)); T(wait4(-getpgrp(), &status, 0, &usage) == pid); T(pt(PTRACE_CONT, pid, 0, 0)); ualarm(100000, 0); T(waitpid(pid, &status, 0)); ualarm(100000, 0); T(waitid(P_PID, pid, &in, WEXITED)); T(children > 0);
    act.sa_flags |= SA_RESTART; sigaction(SIGALRM, &act, 0); fflush(stdout); pid_t killer = fork(); if (killer == 0) { usleep(300000); kill(pid, SIGTERM); _exit(0); } ualarm(100000, 0); status_of("after a restart", pid); T(pt(PTRACE_DETACH, pid, 0, SIGTERM)); status_of("end", pid); T(waitpid(killer, &status, 0) == killer); T(waitpid(-1, &status, 0)); T(waitpid(-1, &status, WNOHANG)); T(waitpid(pid, 0, 99999999));
    puts("== a stranger"); int gate[2], gone[2]; pipe(gate); pipe(gone); fflush(stdout); pid_t parent = fork();
    if (parent == 0) { close(gone[0]); pid_t its = fork(); if (its == 0) { close(gone[1]); pause(); _exit(1); } write(gate[1], &its, sizeof its); int end; waitpid(its, &end, 0); _exit(WIFSIGNALED(end) ? WTERMSIG(end) : 99); }
    close(gone[1]); read(gate[0], &pid, sizeof pid); T(waitpid(pid, &status, WNOHANG)); T(pt(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT)); T(waitpid(pid, &status, WNOHANG | __WALL)); T(pt(PTRACE_INTERRUPT, pid, 0, 0)); status_of("interrupted", pid); T(pt(PTRACE_CONT, pid, 0, 0)); kill(pid, SIGHUP); status_of("signal", pid); T(pt(PTRACE_CONT, pid, 0, SIGHUP)); status_of("event", pid); T(pt(PTRACE_CONT, pid, 0, 0)); status_of("end", pid); T(waitpid(pid, &status, 0)); status_of("its parent", parent); close(gone[0]); close(gate[0]); close(gate[1]);
    puts("== signals of children"); static sigset_t set; sigemptyset(&set); sigaddset(&set, SIGCHLD); sigprocmask(SIG_BLOCK, &set, 0); struct sigaction caught = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}; sigaction(SIGCHLD, &caught, 0); pid = child_traced(nothing); T(sigwaitinfo(&set, &in)); T(sigprocmask(SIG_UNBLOCK, &set, 0)); int before = children; T(pt(PTRACE_CONT, pid, 0, 0)); status_of("end", pid); T(children > before); signal(SIGCHLD, SIG_DFL);
}

static void deaths(void) {
    for (int kills = 0; kills < 2; kills++) {
        printf("== a debugger dies%s\n", kills ? ", and kills" : ""); int gate[2]; pipe(gate); fflush(stdout); pid_t pid = child(sleeps), tracer = fork();
        if (tracer == 0) { T(pt(PTRACE_SEIZE, pid, 0, kills ? PTRACE_O_EXITKILL : 0)); T(pt(PTRACE_INTERRUPT, pid, 0, 0)); status_of("interrupted", pid); fflush(stdout); _exit(0); }
        waitpid(tracer, 0, 0); int status; usleep(50000); T(waitpid(pid, &status, WNOHANG) == (kills ? pid : 0)); if (!kills) { T(pt(PTRACE_SEIZE, pid, 0, 0)); T(kill(pid, SIGTERM)); status_of("signal", pid); T(pt(PTRACE_CONT, pid, 0, SIGTERM)); status_of("end", pid); } close(gate[0]); close(gate[1]);
    }
}

static void filtered(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 7), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 8), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {6, code}; prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program); raise(SIGSTOP); syscall(SYS_getppid); syscall(SYS_openat, AT_FDCWD, "/etc/passwd", 0); access("/etc/passwd", 0);
}

static void filters(void) {
    puts("== a filter of its own"); pid_t pid = child_traced(filtered); T(pt(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD)); T(pt(PTRACE_CONT, pid, 0, 0)); status_of("signal", pid); unsigned long message; struct user_regs_struct regs;
    T(pt(PTRACE_CONT, pid, 0, 0)); status_of("filter", pid); info(pid); call(pid); T(pt(PTRACE_GETEVENTMSG, pid, 0, (long)&message)); printf("%lu\n", message); T(pt(PTRACE_SYSCALL, pid, 0, 0)); status_of("exit", pid); call(pid);
    T(pt(PTRACE_SYSCALL, pid, 0, 0)); status_of("entry", pid); call(pid); T(pt(PTRACE_SYSCALL, pid, 0, 0)); status_of("filter", pid); call(pid); pt(PTRACE_GETREGS, pid, 0, (long)&regs); show_path(pid, regs.rsi); T(pt(PTRACE_SYSCALL, pid, 0, 0)); status_of("exit", pid); call(pid); T(pt(PTRACE_CONT, pid, 0, 0)); status_of("end", pid);
}

int main(int argc, char **argv) {
    if (argc > 1) return 9;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16); chdir("/work"); signal(SIGCHLD, SIG_DFL); signal(SIGHUP, SIG_DFL); /* Who was started by nohup ignores it. */
#ifdef FILTERS
    filters();
#else
    words(); errors(); groups(); calls(); stepping(); watching(); events(); children = 0; exec_stops(); waits(); deaths();
#endif
    fflush(stdout); return 0;
}
#endif
