/* Processes and threads until the kernel has no more for this user (RLIMIT_NPROC), again and again; then a bomb: everybody
 * forks until nobody can. Afterwards all is as before. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MORE = 60, MOST = 5000 };

/* Threads of this user's processes, which are what the limit counts. */
static int tasks(void) {
    int found = 0;
    struct dirent *entry;
    DIR *processes = opendir("/proc");
    while ((entry = readdir(processes))) {
        char path[300];
        struct stat st;
        snprintf(path, sizeof path, "/proc/%s/task", entry->d_name);
        if (isdigit(entry->d_name[0]) && !stat(path, &st) && st.st_uid == getuid()) found += st.st_nlink - 2;
    }
    closedir(processes);
    return found;
}

static void *sleeps(void *nothing) { for (;;) pause(); }

int main(void) {
    static pid_t children[MOST];
    volatile int *all = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 4; round++) {
        /* Others of this user come and go. */
        struct rlimit limit;
        getrlimit(RLIMIT_NPROC, &limit);
        limit.rlim_cur = tasks() + MORE;
        if (setrlimit(RLIMIT_NPROC, &limit)) return 2;
        int made = 0, error = 0;
        while (made < MOST) {
            children[made] = fork();
            if (children[made] < 0) { error = errno; break; }
            if (children[made] == 0) { pthread_t thread; for (;;) if (round < 2 || pthread_create(&thread, 0, sleeps, 0)) pause(); }
            made++;
        }
        if (made == 0 || error != EAGAIN) { printf("round %d: %d processes, error %d\n", round, made, error); return 1; }
        for (int at = 0; at < made; at++) kill(children[at], SIGKILL);
        for (int at = 0; at < made; at++) waitpid(children[at], 0, 0);
    }
    pid_t bomb = fork();
    if (bomb == 0) {
        setpgid(0, 0);
        for (;;) if (fork() < 0) { __atomic_add_fetch(all, 1, __ATOMIC_SEQ_CST); if (*all > 300) kill(0, SIGKILL); usleep(100); }
    }
    waitpid(bomb, 0, 0);
    /* Those who came into the group after it had been killed. */
    for (int tries = 0; tries < 200 && !kill(-bomb, SIGKILL); tries++) usleep(10000);
    for (int tries = 0; tries < 500; tries++) {
        pid_t last = fork();
        if (last == 0) { execl("/bin/sh", "sh", "-c", "exit 5", (char *)0); _exit(6); }
        int status;
        if (last > 0 && waitpid(last, &status, 0) == last) { printf("%s\n", WIFEXITED(status) && WEXITSTATUS(status) == 5 ? "right" : "wrong"); return 0; }
        usleep(10000);
    }
    puts("no process can be had any more");
    return 1;
}
