/* Random system calls with random arguments, bad pointers above all, from several threads and both interfaces, for some
 * seconds: `noise SEED SECONDS`. What they answer is nobody's matter; that somebody answers is. Calls that would end the
 * program itself, stop it, or block it for ever are left out. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const short CALLS[] = {
    SYS_open, SYS_openat, 437, SYS_creat, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat, 439, SYS_readlink,
    SYS_readlinkat, SYS_statfs, SYS_chdir, SYS_fchdir, SYS_getcwd, SYS_chroot, SYS_mkdir, SYS_mkdirat, SYS_mknod, SYS_mknodat, SYS_rmdir,
    SYS_unlink, SYS_unlinkat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat, SYS_chmod,
    SYS_fchmodat, 452, SYS_chown, SYS_fchownat, SYS_utimensat, SYS_truncate, SYS_setxattr, SYS_getxattr, SYS_listxattr, SYS_removexattr,
    SYS_execve, SYS_execveat, SYS_bind, SYS_connect, SYS_sendto, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvfrom, SYS_accept4, SYS_getsockname,
    SYS_getpeername, SYS_inotify_add_watch, SYS_fanotify_mark, SYS_name_to_handle_at, SYS_uname, SYS_getdents64, SYS_mount, SYS_unshare,
    SYS_clone3, SYS_ptrace, SYS_fstat, SYS_ioctl, SYS_getsockopt, SYS_prctl, SYS_capget, SYS_capset, SYS_getgroups, SYS_getresuid, SYS_io_uring_setup, 463, 464, 465, 466, 468, 469,
};
static char *edge; /* The last bytes before a page that is not there. */
static char *text; /* Changed by all threads, all the time. */
static volatile int over;

static uint64_t next(uint64_t *state) { *state ^= *state << 13; *state ^= *state >> 7; *state ^= *state << 17; return *state; }

static uint64_t argument(uint64_t *state) {
    static const char *const WORDS[] = {"/etc/passwd", "/work/x", "..", "", "/proc/self/exe", "/proc/self/fd/3", "/dev/null", "/links/loop", "/dir/../dir/file", "x/y/z", "/proc/self/task/1/cwd", "/work/fifo/"};
    uint64_t kind = next(state) % 12, word = next(state);
    switch (kind) {
    case 0: return word;
    case 1: return word % 4096;
    case 2: return (uint64_t)-(int64_t)(word % 300);
    case 3: return (uintptr_t)edge - word % 200;
    case 4: return (uintptr_t)text + word % 8192;
    case 5: return (uintptr_t)WORDS[word % 12];
    case 6: return (uintptr_t)WORDS[word % 12];
    case 7: return 1ULL << word % 64;
    case 8: return 0x7ffffffff000 - word % 64;
    case 9: return 0xffff800000000000 + word % 64;
    case 10: return 0;
    default: return word % 64;
    }
}

static void *make(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15 | 1;
    while (!over) {
        long number = CALLS[next(&state) % (sizeof CALLS / sizeof *CALLS)];
        uint64_t a[6];
        for (int i = 0; i < 6; i++) a[i] = argument(&state);
        /* Blocking for ever is no fault: non-blocking flags where the call has some. */
        if (number == SYS_open) a[1] |= 04000;
        if (number == SYS_openat) a[2] |= 04000;
        if (number == SYS_accept4 || number == SYS_recvfrom || number == SYS_recvmsg || number == SYS_sendto || number == SYS_ioctl || number == SYS_getdents64) a[0] = 100 + a[0] % 9;
        if (number == SYS_ptrace) a[0] = 1 + a[0] % 7, a[1] = 1 << 22;
        if (number == SYS_prctl) a[0] = 200 + a[0] % 50;
        if (number == SYS_unshare) a[0] |= 0x10000000;
        if (number == SYS_clone3 && a[1] >= 64) a[0] = 8;
        text[next(&state) % 16384] = (char)(next(&state) % 3 ? 'a' + next(&state) % 4 : next(&state) % 2 ? '/' : 0);
        memcpy(edge - 8, "/etc/aa", 7), edge[-1] = 'a';
        syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    return NULL;
}

int main(int argc, char **argv) {
    long seed = argc > 1 ? atol(argv[1]) : 1, seconds = argc > 2 ? atol(argv[2]) : 1;
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 4096, 4096); edge = pages + 4096; memset(pages, 'e', 4096);
    text = mmap(NULL, 24576, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    /* Each in a process of its own: noise may well end it. */
    for (int child = 0; child < 4; child++) {
        if (fork() == 0) {
            for (int signal = 1; signal < 32; signal++) if (signal != SIGALRM) signal == SIGKILL || signal == SIGSTOP ? 0 : (void)sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
            alarm((unsigned)seconds + 2);
            pthread_t threads[3];
            for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, make, (void *)(uintptr_t)(seed * 100 + child * 10 + i));
            sleep((unsigned)seconds);
            over = 1;
            _exit(0);
        }
    }
    int status, ended = 0;
    while (wait(&status) > 0 || errno == EINTR) ended++;
    printf("ended: %d\n", ended);
    return 0;
}
