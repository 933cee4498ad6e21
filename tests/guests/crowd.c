/* More threads wait in calls at once than anybody would keep room for, and programs are started all the same. */
#include "probe.h"
#include <pthread.h>
#include <spawn.h>

enum { CROWD = 100 };
static char *self = PROBES "/crowd", *arguments[] = {"crowd", "tell", NULL}, *none[] = {NULL};
static void *wait_for_it(void *unused) { return (void *)(long)open("/work/../work/fifo", O_RDONLY); }

static void ended(const char *what, pid_t child) {
    int status = -1;
    if (child > 0) waitpid(child, &status, 0);
    printf("%s: %x\n", what, status); fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc > 1) { printf("told %s\n", argv[1]); return 5; }
    chdir("/work"); mkfifo("fifo", 0600); put("script", "#!" PROBES "/crowd tell\n"); chmod("script", 0755); symlink("script", "link");
    pthread_t threads[CROWD]; pthread_attr_t small; pthread_attr_init(&small); pthread_attr_setstacksize(&small, 65536);
    for (int at = 0; at < CROWD; at++) pthread_create(&threads[at], &small, wait_for_it, NULL);
    usleep(300000); struct stat st; T(stat("/etc/../etc/passwd", &st)); T(access("link", X_OK)); fflush(stdout);
    pid_t child = fork(); if (!child) { execve(self, arguments, none); _exit(9); } ended("fork", child);
    child = fork(); if (!child) { execve("link", arguments, none); _exit(9); } ended("a script", child);
    child = vfork(); if (!child) { execve(self, arguments, none); _exit(9); } ended("vfork", child);
    child = 0; int failed = posix_spawn(&child, self, NULL, NULL, arguments, none); ended("posix_spawn", failed ? 0 : child);
    child = 0; T(posix_spawn(&child, "/none", NULL, NULL, arguments, none) != 0); fflush(stdout);
    int fifo = open("fifo", O_RDWR); long all = 0; for (int at = 0; at < CROWD; at++) { void *fd; pthread_join(threads[at], &fd); all += (long)fd > 2; } printf("%ld\n", all); close(fifo);
    return 0;
}
