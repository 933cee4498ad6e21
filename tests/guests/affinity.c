/* On which processors a thread may run, asked in every way, by programs that make many calls: an engine that moves its
 * guests about must not let them see it. */
#include "probe.h"
#include <pthread.h>
#include <sched.h>

/* Long enough for whoever watches to have found this thread to be the only busy one. */
static void busy(void) { struct stat st; for (int at = 0; at < 200; at++) stat("/etc/passwd", &st); }

static void tell(const char *who, const cpu_set_t *set) { printf("%s: %d:", who, CPU_COUNT(set)); for (int at = 0; at < 256; at++) if (CPU_ISSET(at, set)) printf(" %d", at); printf("\n"); }

static void ask(const char *who, pid_t thread) { cpu_set_t set; CPU_ZERO(&set); if (sched_getaffinity(thread, sizeof set, &set)) printf("%s: %s\n", who, strerrorname_np(errno)); else tell(who, &set); }

static void read_status(const char *who, int fd) {
    char text[8192], *line; ssize_t got = pread(fd, text, sizeof text - 1, 0); text[got < 0 ? 0 : got] = 0; printf("%s:", who);
    for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) if (!strncmp(line, "Cpus_allowed", 12)) printf(" %s", line);
    printf("\n");
}

static void status(const char *who, const char *path) { int fd = open(path, O_RDONLY); read_status(who, fd); close(fd); }

static void *in_thread(void *who) { cpu_set_t set; busy(); pthread_getaffinity_np(pthread_self(), sizeof set, &set); tell(who, &set); busy(); ask(who, (pid_t)syscall(SYS_gettid)); return NULL; }

static void thread(char *who) { pthread_t thread; busy(); pthread_create(&thread, NULL, in_thread, who); pthread_join(thread, NULL); }

/* Each in a process of its own, since reading `status` may change how it is treated. */
static void family(const char *who) {
    printf("-- %s\n", who); fflush(stdout); busy(); ask("own", 0); busy(); ask("own, by number", getpid());
    thread("thread");
    int up[2], down[2]; pipe(up); pipe2(down, O_NONBLOCK); char one; busy(); fflush(stdout);
    pid_t child = fork();
    if (child == 0) { ask("child at once", 0); busy(); ask("child", 0); busy(); ask("parent", getppid()); fflush(stdout); busy(); write(up[1], "x", 1); do busy(); while (read(down[0], &one, 1) < 0); _exit(0); }
    read(up[0], &one, 1); char path[64]; snprintf(path, sizeof path, "/proc/%d/status", child); usleep(20000); ask("busy child", child); usleep(20000); status("busy child's status", path); write(down[1], "x", 1); waitpid(child, NULL, 0);
    char *ways[] = {"/proc/self/status", "/proc/thread-self/status", "/proc/self/task/../status"};
    for (int at = 0; at < 3; at++) {
        fflush(stdout); child = fork();
        if (child == 0) { busy(); int fd = open(ways[at], O_RDONLY); read_status(ways[at], fd); busy(); read_status("again", fd); busy(); read_status("and again", fd); fflush(stdout); _exit(0); }
        waitpid(child, NULL, 0);
    }
}

int main(int count, char **args) {
    if (count > 1) { ask("executed at once", 0); busy(); ask("executed", 0); return 0; }
    setvbuf(stdout, NULL, _IOFBF, 1 << 16); cpu_set_t whole, half; T(sched_getaffinity(0, sizeof whole, &whole) > 0 || 1);
    family("as started");
    int last = 0; for (int at = 0; at < 256; at++) if (CPU_ISSET(at, &whole)) last = at;
    CPU_ZERO(&half); CPU_SET(last, &half); busy(); T(sched_setaffinity(0, sizeof half, &half)); family("on one"); 
    CPU_ZERO(&half); for (int at = 0, some = 0; at < 256; at++) if (CPU_ISSET(at, &whole) && some++ < 2) CPU_SET(at, &half);
    busy(); T(sched_setaffinity(getpid(), sizeof half, &half)); busy(); family("on two");
    busy(); CPU_ZERO(&half); T(sched_setaffinity(0, sizeof half, &half)); T(sched_setaffinity(0, sizeof half, (void *)8)); T(sched_getaffinity(0, 3, &half)); T(sched_getaffinity(0x7ffffff0, sizeof half, &half)); T(sched_setaffinity(0x7ffffff0, sizeof half, &whole));
    busy(); pid_t child = fork(); if (child == 0) { busy(); CPU_ZERO(&half); CPU_SET(last, &half); sched_setaffinity(getppid(), sizeof half, &half); _exit(0); } waitpid(child, NULL, 0); busy(); ask("set by a child", 0);
    busy(); T(sched_setaffinity(0, sizeof whole, &whole)); busy(); ask("whole again", 0); fflush(stdout);
    char *words[] = {args[0], "again", NULL}; busy(); execv("/proc/self/exe", words);
    return 1;
}
