/* What comes between the calls of a process: threads that fork, handlers that call or leave by a jump, cancellation. */
#include "probe.h"
#include <pthread.h>
#include <setjmp.h>
#include <spawn.h>
#include <time.h>

static long milliseconds(void) { struct timespec now; clock_gettime(CLOCK_MONOTONIC, &now); return now.tv_sec * 1000 + now.tv_nsec / 1000000; }

/* Every way that a path takes; how many of these calls went wrong. */
static long all(void) {
    struct stat st; char text[PATH_MAX]; long bad = 0; int fd;
    bad += (fd = open("/dir/file", O_RDONLY)) < 0; close(fd);
    bad += stat("/dir/file", &st) != 0; bad += stat("dir/file", &st) != 0; bad += stat("/dir/../dir/file", &st) != 0;
    bad += readlink("/proc/self/exe", text, sizeof text) < 0; bad += !getcwd(text, sizeof text); bad += access("/none", F_OK) == 0;
    bad += (fd = open("/work/made", O_CREAT | O_RDWR, 0644)) < 0; close(fd);
    return bad;
}

static volatile int stop;
static void *busy(void *unused) { long bad = 0; while (!stop) bad += all(); return (void *)bad; }

static int child_of(int way) {
    static char *const argv[] = { "interrupts", "child", NULL }, *const envp[] = { "A=1", NULL };
    const char *itself = "/proc/self/exe"; struct stat st; pid_t child; int status; posix_spawn_file_actions_t actions;
    switch (way) {
    case 0: if ((child = fork()) == 0) { if (all()) _exit(97); execve(itself, argv, envp); _exit(99); } break;
    case 1: if ((child = vfork()) == 0) { execve(itself, argv, envp); _exit(99); } break;
    case 2:
        posix_spawn_file_actions_init(&actions); posix_spawn_file_actions_addopen(&actions, 1, "/work/out", O_CREAT | O_WRONLY | O_TRUNC, 0644);
        posix_spawn_file_actions_addopen(&actions, 0, "dir/file", O_RDONLY, 0);
        if (posix_spawn(&child, itself, &actions, NULL, argv, envp)) return 98;
        posix_spawn_file_actions_destroy(&actions); break;
    default: if ((child = vfork()) == 0) { execve("/none", argv, envp); _exit(stat("/dir/../dir/file", &st) ? 96 : 0); }
    }
    while (waitpid(child, &status, 0) < 0) if (errno != EINTR) return 95;
    return status;
}

static sigjmp_buf point; static volatile int armed; static long jumps;
static void leap(int signal) { if (armed) { jumps++; siglongjmp(point, 1); } }

static volatile long handled, wrong;
static void handler(int signal) { int before = errno; wrong += all(); handled++; errno = before; }

static void every(int microseconds) { struct itimerval timer = { { 0, microseconds }, { 0, microseconds } }; setitimer(ITIMER_REAL, &timer, NULL); }

static void *looks(void *unused) { for (;;) { all(); sched_yield(); } }
static int cleaned;
static void clean(void *unused) { cleaned++; }
static void *waits(void *path) { pthread_cleanup_push(clean, NULL); open(path, O_RDONLY); pthread_cleanup_pop(0); return NULL; }

int main(int argc, char **argv) {
    pthread_t threads[2]; void *result; long bad = 0, odd = 0, end; int count = 0;
    if (argc > 1) { _exit(argc != 2 || !getenv("A")); }
    chdir("/");
    for (int at = 0; at < 2; at++) pthread_create(&threads[at], NULL, busy, NULL);
    for (int at = 0; at < 32; at++) { int status = child_of(at % 4); if (status) { printf("way %d: %x\n", at % 4, status); odd++; } }
    stop = 1;
    for (int at = 0; at < 2; at++) { pthread_join(threads[at], &result); bad += (long)result; }
    printf("children of threads: %ld odd, %ld wrong\n", odd, bad);

    /* What a jump leaves behind (descriptors, memory) must not be missed by whoever comes after. */
    signal(SIGALRM, leap); every(400); bad = 0; end = milliseconds() + 150;
    while (milliseconds() < end && jumps < 300) if (!sigsetjmp(point, 1)) { armed = 1; bad += all(); armed = 0; }
    armed = 0; every(0); printf("jumps: %d, %ld wrong\n", jumps > 5, bad); for (int fd = 3; fd < 512; fd++) close(fd); T(all());

    signal(SIGALRM, handler); every(500); bad = 0; end = milliseconds() + 150; while (milliseconds() < end) bad += all();
    every(0); printf("handlers: %d, %ld and %ld wrong\n", handled > 5, wrong, bad);

    for (int at = 0; at < 20; at++) { pthread_create(threads, NULL, looks, NULL); usleep(300 + at * 37); pthread_cancel(*threads); pthread_join(*threads, &result); count += result == PTHREAD_CANCELED; }
    printf("cancelled: %d\n", count); T(all());
#ifdef __GLIBC__
    T(mkfifo("/work/pipe", 0600)); pthread_create(threads, NULL, waits, "/work/pipe"); usleep(20000);
    T(pthread_cancel(*threads)); pthread_join(*threads, &result); T(result == PTHREAD_CANCELED); T(cleaned); T(all());
#endif
    return 0;
}
