/* Processes made in every way. */
#include "probe.h"
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

extern char **environ;

/* A child looks for a file by its guest path, so that one without a tracer is found out. */
static void born(const char *what, long child) {
    if (child == 0) _exit(access("/dir/file", R_OK) ? 9 : 3);
    if (child < 0) { printf("%s: %s\n", what, strerrorname_np(errno)); return; }
    int status = 0; waitpid((pid_t)child, &status, __WALL); printf("%s: status %d\n", what, WEXITSTATUS(status));
}

static volatile int continued; static void go_on(int signal) { (void)signal; continued = 1; }

int main(void) {
    fflush(stdout); setvbuf(stdout, NULL, _IONBF, 0); struct stat st;
    born("fork", fork()); born("clone", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); born("clone, untraced", syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0)); born("clone, no signal", syscall(SYS_clone, 0, 0, 0, 0, 0));
    struct clone_args how = {.exit_signal = SIGCHLD}; born("clone3", syscall(SYS_clone3, &how, sizeof how)); how.flags = CLONE_UNTRACED; born("clone3, untraced", syscall(SYS_clone3, &how, sizeof how));
    int pidfd = -1; how.flags = CLONE_PIDFD; how.pidfd = (uint64_t)(uintptr_t)&pidfd; born("clone3, pidfd", syscall(SYS_clone3, &how, sizeof how)); printf("pidfd %d\n", pidfd >= 0);
    T(syscall(SYS_clone3, (void *)8, sizeof how)); T(syscall(SYS_clone3, &how, 8)); how.flags = 1ULL << 60; T(syscall(SYS_clone3, &how, sizeof how)); how.flags = CLONE_SIGHAND; T(syscall(SYS_clone3, &how, sizeof how)); T(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0));
    int dir = open("/dir", O_PATH | O_DIRECTORY); how = (struct clone_args){.exit_signal = SIGCHLD, .flags = CLONE_INTO_CGROUP, .cgroup = (unsigned)dir}; born("clone3, no group", syscall(SYS_clone3, &how, sizeof how)); how.cgroup = 999; born("clone3, no descriptor", syscall(SYS_clone3, &how, sizeof how)); how.cgroup = (uint64_t)-1; born("clone3, no number", syscall(SYS_clone3, &how, sizeof how)); how.cgroup = (unsigned)dir; born("clone3, too small", syscall(SYS_clone3, &how, 64)); close(dir);
    pid_t child = vfork(); if (child == 0) _exit(access("/dir/file", R_OK) ? 9 : 4); int status; T(waitpid(child, &status, 0) == child); printf("vfork %d\n", WEXITSTATUS(status));
    char *words[] = {"none", NULL}; T(posix_spawn(&child, "/none", NULL, NULL, words, environ));
    /* Calls that a stop interrupts go on for the rest of their time; a poll, a sleep and an open that waits. */
    int pipes[2]; pipe(pipes); chdir("/work"); T(mkfifo("fifo", 0600));
    child = fork();
    if (child == 0) {
        signal(SIGCONT, go_on); struct timespec little = {0, 300000000}, rest = {0, 0}; struct pollfd none = {pipes[0], POLLIN, 0};
        int slept = nanosleep(&little, &rest), polled = poll(&none, 1, 300); signal(SIGCONT, SIG_DFL);
        int again = nanosleep(&little, NULL), opened = open("fifo", O_RDONLY); printf("slept %d polled %d again %d opened %d continued %d\n", slept, polled, again, opened >= 0, continued); _exit(0);
    }
    struct timespec wait = {0, 100000000}; kill(child, SIGSTOP); T(waitpid(child, &status, WUNTRACED) == child); printf("stopped %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status)); kill(child, SIGCONT); T(waitpid(child, &status, WCONTINUED) == child); printf("continued %d\n", WIFCONTINUED(status));
    for (int round = 0; round < 9; round++) { nanosleep(&wait, NULL); kill(child, SIGSTOP); waitpid(child, &status, WUNTRACED); nanosleep(&wait, NULL); kill(child, SIGCONT); }
    nanosleep(&wait, NULL); int writer = open("fifo", O_WRONLY); T(waitpid(child, &status, 0) == child); printf("ended %d, opened %d\n", status, writer >= 0);
    /* Rights given up, and whom nobody may look into. */
    T(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); T(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); T(stat("/dir/file", &st)); O(open("/dir/file", O_RDONLY)); T(stat("/none", &st)); show_cwd(); born("fork, not dumpable", fork()); T(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    struct rlimit none = {0, 0}; getrlimit(RLIMIT_NOFILE, &none); none.rlim_cur = 3; T(setrlimit(RLIMIT_NOFILE, &none)); O(open("/dir/file", O_RDONLY)); T(stat("/dir/file", &st)); none.rlim_cur = none.rlim_max; T(setrlimit(RLIMIT_NOFILE, &none));
    child = fork(); if (child == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); pid_t inner = fork(); if (inner == 0) { prctl(PR_SET_PDEATHSIG, SIGUSR1); write(pipes[1], "x", 1); pause(); _exit(0); } char one; read(pipes[0], &one, 1); _exit(0); } T(waitpid(child, &status, 0) == child); printf("ended %d\n", status);
    return 0;
}
