/* Sandboxes: what a filter refuses is refused, whatever a path means, and what it lets pass works. */
#include "probe.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <ucontext.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ON(number, action) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, action)
#define GIVE(action) BPF_STMT(BPF_RET | BPF_K, action)
#define PASS SECCOMP_RET_ALLOW
#define NO(errno_) (SECCOMP_RET_ERRNO | (errno_))
#define INSTALL(flags, ...) ({ struct sock_filter code[] = {__VA_ARGS__}; struct sock_fprog program = {sizeof code / sizeof *code, code}; prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); (long)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program); })
/* What a program needs that tells and ends. */
#define NEEDED ON(SYS_write, PASS), ON(SYS_exit_group, PASS), ON(SYS_exit, PASS), ON(SYS_rt_sigreturn, PASS)

#ifdef __i386__
#define STAT SYS_stat64
#else
#define STAT SYS_stat
#endif
static char room[4096];

static void in_child(const char *what, void (*does)(void)) {
    printf("== %s\n", what); fflush(stdout); pid_t pid = fork();
    if (pid == 0) { setvbuf(stdout, NULL, _IONBF, 0); does(); _exit(0); }
    int status; waitpid(pid, &status, 0); printf("%s %d\n", WIFSIGNALED(status) ? "killed" : "ended", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void whitelist(void) {
    T(INSTALL(0, LOAD(nr), NEEDED, ON(STAT, PASS), ON(SYS_open, PASS), ON(SYS_close, PASS), ON(SYS_readlink, PASS), ON(SYS_getcwd, PASS), ON(SYS_access, PASS), ON(SYS_chdir, PASS), ON(SYS_mkdir, PASS), ON(SYS_rmdir, PASS), GIVE(SECCOMP_RET_KILL_PROCESS)));
    T(syscall(STAT, "/links/../dir/file", room)); T(syscall(STAT, "/none", room)); O(syscall(SYS_open, "/dir/file", O_RDONLY)); T(syscall(SYS_open, "/dir/new", O_WRONLY | O_CREAT, 0600)); T(syscall(SYS_access, "/etc/passwd", R_OK)); show("link", room, syscall(SYS_readlink, "/links/abs", room, 100));
    T(syscall(SYS_chdir, "/dir/sub")); show("cwd", room, syscall(SYS_getcwd, room, 100) - 1); T(syscall(SYS_mkdir, "/work/made", 0700)); T(syscall(SYS_rmdir, "/work/link/../made")); T(syscall(SYS_rmdir, "/work/made"));
    write(1, "last\n", 5); syscall(SYS_unlink, "/work/kept");
}

static void refused(void) {
    T(INSTALL(0, LOAD(nr), ON(SYS_unlink, NO(ENOTUNIQ)), ON(SYS_mkdir, NO(EL2HLT)), ON(STAT, NO(EBADE)), ON(SYS_getcwd, NO(EBADR)), ON(SYS_chdir, NO(EXFULL)), ON(SYS_execve, NO(ENOANO)), ON(SYS_ptrace, NO(EBADSLT)), ON(SYS_getuid, NO(EBFONT)), GIVE(PASS)));
    T(syscall(SYS_unlink, "/work/kept")); T(syscall(SYS_access, "/work/kept", F_OK)); T(syscall(SYS_mkdir, "/work/made", 0700)); T(syscall(SYS_access, "/work/made", F_OK)); T(syscall(STAT, "/dir/file", room)); T(syscall(STAT, "/none", room)); T(syscall(STAT, 8, room));
    room[0] = 7; T(syscall(SYS_getcwd, room, 100)); printf("%d\n", room[0]); T(syscall(SYS_chdir, "/dir")); T(execl("/probes/strict", "strict", (char *)0)); T(syscall(SYS_ptrace, 0, 0, 0, 0)); T(syscall(SYS_getuid)); T(syscall(-1)); T(syscall(SYS_access, "/dir/file", F_OK));
}

static void arguments(void) {
    /* Reading alone; and a call of the loader's kind is told by its sixth argument from none. */
    T(INSTALL(0, LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 4), LOAD(args[2]), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, O_ACCMODE | O_CREAT), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_RDONLY, 1, 0), GIVE(NO(EUNATCH)), GIVE(PASS)));
    O(syscall(SYS_openat, AT_FDCWD, "/dir/file", O_RDONLY)); O(syscall(SYS_openat, AT_FDCWD, "/dir/file", O_WRONLY)); O(syscall(SYS_openat, AT_FDCWD, "/work/new", O_RDWR | O_CREAT, 0600)); T(syscall(SYS_access, "/work/new", F_OK)); T(syscall(SYS_openat, AT_FDCWD, "/none", O_RDONLY));
    /* Two filters: the stricter answer counts, of equals the newer one's. */
    T(INSTALL(0, LOAD(nr), ON(SYS_openat, SECCOMP_RET_LOG), ON(SYS_access, NO(EDOTDOT)), GIVE(PASS))); T(INSTALL(0, LOAD(nr), ON(SYS_access, NO(ESRMNT)), GIVE(PASS)));
    O(syscall(SYS_openat, AT_FDCWD, "/dir/file", O_RDONLY)); O(syscall(SYS_openat, AT_FDCWD, "/dir/file", O_WRONLY)); T(syscall(SYS_access, "/dir", F_OK));
    /* Calculations, a memory, and jumps. */
    T(INSTALL(0, BPF_STMT(BPF_LD | BPF_IMM, 6), BPF_STMT(BPF_ST, 3), LOAD(nr), BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_LD | BPF_MEM, 3), BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 2), BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, SYS_rmdir + 24), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 0, 1, 0), BPF_STMT(BPF_JMP | BPF_JA, 1), GIVE(PASS), BPF_STMT(BPF_LDX | BPF_IMM, NO(ECOMM)), BPF_STMT(BPF_MISC | BPF_TXA, 0), BPF_STMT(BPF_RET | BPF_A, 0)));
    T(syscall(SYS_rmdir, "/work/none")); T(syscall(SYS_unlink, "/work/none"));
}

static void trapped(int signal, siginfo_t *info, void *context) {
    ucontext_t *at = context;
#ifdef __i386__
    printf("trapped %d: %d path %s\n", signal, info->si_syscall == SYS_access, (char *)at->uc_mcontext.gregs[REG_EBX]); at->uc_mcontext.gregs[REG_EAX] = 77;
#else
    printf("trapped %d: %d path %s at %d\n", signal, info->si_syscall == SYS_access, (char *)at->uc_mcontext.gregs[REG_RDI], info->si_call_addr == (void *)at->uc_mcontext.gregs[REG_RIP]); at->uc_mcontext.gregs[REG_RAX] = 77;
#endif
}

static void traps(void) {
    struct sigaction act = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO}; sigaction(SIGSYS, &act, NULL);
    T(INSTALL(0, LOAD(nr), ON(SYS_access, SECCOMP_RET_TRAP | 5), ON(SYS_getppid, SECCOMP_RET_TRACE | 9), ON(STAT, SECCOMP_RET_TRACE | 9), GIVE(PASS)));
    T(syscall(SYS_access, "/dir/file", F_OK)); T(syscall(SYS_getppid)); T(syscall(STAT, "/dir/file", room));
}

static void kills(void) { T(INSTALL(0, LOAD(nr), ON(STAT, SECCOMP_RET_KILL_PROCESS), GIVE(PASS))); T(syscall(SYS_access, "/dir/file", F_OK)); syscall(STAT, "/none", room); puts("alive"); }

static volatile int stage;
static void *looks(void *arg) { while (stage == 0) usleep(1000); T(syscall(SYS_access, "/dir/file", F_OK)); stage = 2; return arg; }
static void threads(void) {
    pthread_t t; pthread_create(&t, NULL, looks, NULL); T(INSTALL(SECCOMP_FILTER_FLAG_TSYNC, LOAD(nr), ON(SYS_access, NO(EREMCHG)), GIVE(PASS))); stage = 1; pthread_join(t, NULL);
    stage = 0; pthread_create(&t, NULL, looks, NULL); T(INSTALL(0, LOAD(nr), ON(SYS_access, NO(ELIBBAD)), GIVE(PASS))); stage = 1; pthread_join(t, NULL); T(syscall(SYS_access, "/dir/file", F_OK));
}

static void executed(void) {
    T(INSTALL(0, LOAD(nr), ON(SYS_unlink, NO(EMULTIHOP)), ON(SYS_prctl, NO(ENOTNAM)), GIVE(PASS))); pid_t pid = fork(); int status;
    if (pid == 0) { execl("/probes/strict", "strict", "child", (char *)0); _exit(errno); } waitpid(pid, &status, 0); printf("ended %d\n", WEXITSTATUS(status));
    execl("/links/../probes/strict", "strict", "child", (char *)0);
}

static void changed(void) {
    /* Names of sockets, for which another call is made in the end. */
    static struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "/work/link/../socket"}; int one = socket(AF_UNIX, SOCK_DGRAM, 0), two = socket(AF_UNIX, SOCK_DGRAM, 0); T(bind(one, (void *)&at, sizeof at)); struct iovec piece = {"text", 4}; struct mmsghdr many[2] = {{.msg_hdr = {.msg_name = &at, .msg_namelen = sizeof at, .msg_iov = &piece, .msg_iovlen = 1}}, {.msg_hdr = {.msg_name = &at, .msg_namelen = sizeof at, .msg_iov = &piece, .msg_iovlen = 1}}};
    T(INSTALL(0, LOAD(nr), NEEDED, ON(SYS_sendmmsg, PASS), ON(SYS_lchown, PASS), ON(SYS_sendto, PASS), GIVE(SECCOMP_RET_KILL_PROCESS))); T(sendmmsg(two, many, 2, 0)); T(syscall(SYS_lchown, "/work/kept", -1, -1));
}

static volatile int listener;
static void *supervises(void *arg) {
    struct seccomp_notif asked; struct seccomp_notif_resp answer; while (listener <= 0) usleep(1000);
    for (int at = 0; at < 5; at++) { memset(&asked, 0, sizeof asked); memset(&answer, 0, sizeof answer); if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked)) break; answer.id = asked.id; if (asked.data.nr == SYS_getppid) answer.val = 55; else if (asked.data.nr == SYS_getuid) answer.error = -ENOTNAM; else answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE; ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer); }
    return arg;
}
static void supervised(void) {
    pthread_t t; pthread_create(&t, NULL, supervises, NULL); long fd = INSTALL(SECCOMP_FILTER_FLAG_NEW_LISTENER, LOAD(nr), ON(SYS_openat, SECCOMP_RET_USER_NOTIF), ON(SYS_getppid, SECCOMP_RET_USER_NOTIF), ON(SYS_getuid, SECCOMP_RET_USER_NOTIF), GIVE(PASS)); printf("%d\n", fd > 0); listener = fd;
    O(syscall(SYS_openat, AT_FDCWD, "/dir/file", O_RDONLY)); T(syscall(SYS_getppid)); T(syscall(SYS_getuid)); O(syscall(SYS_openat, AT_FDCWD, "/links/../etc/passwd", O_RDONLY)); T(syscall(SYS_access, "/dir/file", F_OK)); T(syscall(SYS_access, "/none", F_OK)); O(syscall(SYS_openat, AT_FDCWD, "/dir/sub/deep", O_RDONLY)); pthread_join(t, NULL);
}

static void wrong(void) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); struct sock_filter bad = {0xffff, 0, 0, 0}; struct sock_fprog program = {1, &bad}; T(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)); program.len = 0; T(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)); program.len = 4097; T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)); program = (struct sock_fprog){1, (void *)8}; T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)); T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 8)); T(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1u << 30, &program)); T(syscall(SYS_seccomp, 99, 0, 0)); unsigned action = SECCOMP_RET_TRAP; T(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action)); T(syscall(SYS_access, "/dir/file", F_OK));
    static struct sock_filter longest[4096]; for (int at = 0; at < 4095; at++) longest[at] = (struct sock_filter)LOAD(nr); longest[4095] = (struct sock_filter)GIVE(PASS); program = (struct sock_fprog){4096, longest}; T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)); program.len = 3000; program.filter = longest + 1096; T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)); T(syscall(SYS_access, "/dir/file", F_OK)); O(syscall(SYS_openat, AT_FDCWD, "/dir/file", O_RDONLY));
}

int main(int argc, char **argv) {
    if (argc > 1) { T(syscall(SYS_unlink, "/work/kept")); T(syscall(SYS_access, "/dir/file", F_OK)); T(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)); return 3; }
    put("/work/kept", "x"); T(mkdir("/work/dir", 0700)); T(symlink("dir", "/work/link"));
    in_child("a list of what is allowed", whitelist); T(access("/work/kept", F_OK)); in_child("refused", refused); in_child("arguments", arguments); in_child("trapped", traps); in_child("killed", kills); in_child("threads", threads); in_child("executed", executed); in_child("changed calls", changed); in_child("supervised", supervised); in_child("wrong", wrong);
    T(access("/work/kept", F_OK)); return 0;
}
