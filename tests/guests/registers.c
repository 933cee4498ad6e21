/* What a call leaves in the registers, also when signals come, or it is restarted: all as the program set them but the
 * result's (and what the instruction itself overwrites). */
#include "probe.h"
#include <pthread.h>

#ifdef __x86_64__
/* Makes a call by an instruction of its own, and says which registers changed. */
static long made(const char *what, long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d; register long r8 __asm__("r8") = e; register long r9 __asm__("r9") = f; long result = number, rcx, next, flags, before;
    __asm__ volatile("pushfq; pop %[before]; lea 1f(%%rip), %[next]; syscall; 1: mov %%rcx, %[rcx]; pushfq; pop %[flags]"
                     : "+a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8), "+r"(r9), [rcx] "=&r"(rcx), [next] "=&r"(next), [flags] "=&r"(flags), [before] "=&r"(before)::"rcx", "r11", "memory");
    static long wrong; static const char *last; long seen[] = {a, b, c, r10, r8, r9}; (void)seen;
    if (what) { printf("%s: %s; next %d flags %d\n", what, result < 0 ? strerrorname_np((int)-result) : "done", rcx == next, flags == before); last = what; }
    else wrong += rcx != next;
    extern long left[6]; for (int at = 0; at < 6; at++) left[at] = seen[at];
    return result;
}
#else
static long made(const char *what, long number, long a, long b, long c, long d, long e, long f) {
    long result = number; (void)e; (void)f; extern long left[6];
    __asm__ volatile("int $0x80" : "+a"(result), "+b"(a), "+c"(b), "+d"(c), "+S"(d)::"memory");
    if (what) printf("%s: %s\n", what, result < 0 ? strerrorname_np((int)-result) : "done");
    long seen[] = {a, b, c, d, e, f}; for (int at = 0; at < 6; at++) left[at] = seen[at];
    return result;
}
#endif
long left[6];

static void call(const char *what, long number, long a, long b, long c, long d, long e, long f) {
    long given[] = {a, b, c, d, e, f}, result = made(what, number, a, b, c, d, e, f);
    for (int at = 0; at < 6; at++) if (left[at] != given[at]) printf("%s: argument %d changed\n", what, at);
    if (result > 2 && result < 1000 && number != SYS_chdir) close((int)result);
}

static volatile long alarms, handled;
static void on_alarm(int signal) { (void)signal; __atomic_fetch_add(&alarms, 1, __ATOMIC_SEQ_CST); int fd = open("/etc/passwd", O_RDONLY); if (fd >= 0) __atomic_fetch_add(&handled, 1, __ATOMIC_SEQ_CST); close(fd); }

static void *opens(void *result) {
    long wrong = 0;
    for (int at = 0; at < 3000; at++) {
        long fd = made(NULL, SYS_openat, AT_FDCWD, (long)"/links/chain", O_RDONLY, 77, 88, 99);
        if (fd < 0) wrong++; else close((int)fd);
    }
    *(long *)result = wrong; return NULL;
}

static void *blocks(void *path) { pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL); int fd = open(path, O_RDONLY); (void)fd; return NULL; }

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0); chdir("/work");
    call("openat", SYS_openat, AT_FDCWD, (long)"/etc/passwd", O_RDONLY, 11, 22, 33); call("openat, relative", SYS_openat, AT_FDCWD, (long)"../links/abs", O_RDONLY, 11, 22, 33); call("openat, missing", SYS_openat, AT_FDCWD, (long)"/none", O_RDONLY, 11, 22, 33); call("openat, bad", SYS_openat, AT_FDCWD, 8, O_RDONLY, 11, 22, 33); call("open", SYS_open, (long)"/dir/file", O_RDONLY, 44, 11, 22, 33);
    call("open, directory", SYS_open, (long)"/dir/sub/", O_RDONLY | O_DIRECTORY, 44, 11, 22, 33); call("creat", SYS_creat, (long)"/work/made", 0600, 44, 11, 22, 33); call("mkdir", SYS_mkdir, (long)"/work/dir", 0700, 44, 11, 22, 33); call("mkdirat", SYS_mkdirat, AT_FDCWD, (long)"/work/dir/x", 0700, 11, 22, 33); call("symlinkat", SYS_symlinkat, (long)"/etc", AT_FDCWD, (long)"/work/link", 11, 22, 33); call("chdir", SYS_chdir, (long)"/work/dir", 44, 55, 11, 22, 33); show_cwd(); call("chdir, file", SYS_chdir, (long)"/etc/passwd", 44, 55, 11, 22, 33); call("read-only", SYS_open, (long)"/etc/new", O_WRONLY | O_CREAT, 0600, 11, 22, 33); call("stat", SYS_access, (long)"/etc/passwd", R_OK, 55, 11, 22, 33);
    /* Signals that come at any time, whose handler makes such calls itself. */
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}; sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}}; long wrong = 0, rounds = 0, other[2] = {0, 0};
    setitimer(ITIMER_REAL, &often, NULL); while (alarms < 300) { long fd = made(NULL, SYS_openat, AT_FDCWD, (long)"/etc/passwd", O_RDONLY, 7, 8, 9); rounds++; if (fd < 0 || left[1] == 0 || left[3] != 7 || left[4] != 8) wrong++; else close((int)fd); } setitimer(ITIMER_REAL, &never, NULL);
    printf("signals: wrong %ld, handled %d\n", wrong, handled == alarms);
    pthread_t threads[2]; setitimer(ITIMER_REAL, &often, NULL); for (int at = 0; at < 2; at++) pthread_create(&threads[at], NULL, opens, &other[at]); for (int at = 0; at < 2; at++) pthread_join(threads[at], NULL); setitimer(ITIMER_REAL, &never, NULL); printf("in threads: wrong %ld %ld, handled %d\n", other[0], other[1], handled == alarms);
    /* An open that waits: restarted after a signal's handler, interrupted, stopped and continued, cancelled; children meanwhile. */
    T(mkfifo("/work/fifo", 0600)); int status, ready[2]; struct timespec little = {0, 30000000}; pipe(ready); char one;
    for (int way = 0; way < 3; way++) {
        pid_t child = fork();
        if (child == 0) {
            action.sa_flags = way == 1 ? 0 : SA_RESTART; sigaction(SIGALRM, &action, NULL); write(ready[1], "x", 1); long before = handled, given[] = {AT_FDCWD, (long)"/work/fifo", O_RDONLY, 7, 8, 9};
            long fd = made(NULL, SYS_openat, given[0], given[1], given[2], given[3], given[4], given[5]); int same = 1; for (int at = 0; at < 4; at++) same &= left[at] == given[at];
            printf("way %d: %s, same %d, handled %d\n", way, fd < 0 ? strerrorname_np((int)-fd) : "open", same, handled > before); _exit(5);
        }
        read(ready[0], &one, 1); for (int at = 0; at < 3; at++) { nanosleep(&little, NULL); kill(child, way == 2 ? (at % 2 ? SIGCONT : SIGSTOP) : SIGALRM); }
        while (way == 1) { siginfo_t info = {0}; waitid(P_PID, child, &info, WEXITED | WNOWAIT | WNOHANG); if (info.si_pid) break; kill(child, SIGALRM); nanosleep(&little, NULL); }
        nanosleep(&little, NULL); if (way == 2) kill(child, SIGCONT); int writer = way == 1 ? -1 : open("/work/fifo", O_WRONLY); T(waitpid(child, &status, 0) == child); printf("status %x\n", status); close(writer);
    }
    for (int at = 0; at < 3; at++) { pthread_t thread; void *end; pthread_create(&thread, NULL, blocks, "/work/fifo"); nanosleep(&little, NULL); pthread_cancel(thread); pthread_join(thread, &end); printf("cancelled %d\n", end == PTHREAD_CANCELED); }
    return 0;
}
