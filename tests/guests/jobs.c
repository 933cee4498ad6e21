/* Sessions, process groups, terminals. */
#include "probe.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <termios.h>
#include <time.h>

static volatile sig_atomic_t heard;
static void hear(int signal) { heard = signal; }

/* Both signals are blocked but for here, so that none comes between the look and the wait. */
static void listen_for_one(void) {
    sigset_t none; sigemptyset(&none);
    while (!heard) sigsuspend(&none);
    printf("heard %d\n", heard); heard = 0; fflush(stdout);
}

static void shell(void) {
    /* What a shell does with a job: a group of its own, in the foreground, stopped, continued, in the background. */
    signal(SIGTTOU, SIG_IGN); signal(SIGTTIN, SIG_IGN); signal(SIGTSTP, SIG_IGN);
    int status; pid_t job = fork();
    if (job == 0) { setpgid(0, 0); signal(SIGTTOU, SIG_DFL); signal(SIGTTIN, SIG_DFL); signal(SIGTSTP, SIG_DFL); while (getpgid(0) != tcgetpgrp(0)) usleep(1000); printf("job waits\n"); fflush(stdout); char line[64]; long len = read(0, line, 64); printf("job read %ld\n", len); fflush(stdout); len = read(0, line, 64); _exit(len == 4 ? 6 : 7); }
    setpgid(job, job); T(tcsetpgrp(0, job)); T(waitpid(job, &status, WUNTRACED) == job); printf("job stopped %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status)); fflush(stdout);
    T(tcsetpgrp(0, getpgrp())); kill(-job, SIGCONT); T(waitpid(job, &status, WUNTRACED) == job); printf("in the background: stopped %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status)); fflush(stdout);
    T(tcsetpgrp(0, job)); kill(-job, SIGCONT); T(waitpid(job, &status, WUNTRACED) == job); printf("job ended %d\n", WEXITSTATUS(status));
    T(tcsetpgrp(0, getpgrp())); fflush(stdout);
}

/* Reads up to a text, which is shown; what came behind it is the next one's. */
static void expect(int master, const char *text) {
    static char all[8192]; static size_t len; struct timespec nap = {0, 5000000}; char *found;
    while (!(found = strstr(all, text)) && len < sizeof all - 1) { long got = read(master, all + len, sizeof all - 1 - len); if (got < 0 && errno != EAGAIN) break; if (got < 0) { nanosleep(&nap, NULL); continue; } if (got == 0) break; len += got; all[len] = 0; }
    size_t end = found ? (size_t)(found - all) + strlen(text) : len;
    for (size_t at = 0; at < end; at++) if (all[at] == '\r') all[at] = ' ';
    printf("[%.*s]\n", (int)end, all); memmove(all, all + end, len - end + 1); len -= end;
}

int main(void) {
    char name[64]; int status; chdir("/work"); setvbuf(stdout, NULL, _IOFBF, 65536);
    int master = posix_openpt(O_RDWR | O_NOCTTY); T(master >= 0); T(grantpt(master)); T(unlockpt(master)); T(ptsname_r(master, name, 64)); printf("name %d\n", !strncmp(name, "/dev/pts/", 9)); struct winsize window = {30, 90}; T(ioctl(master, TIOCSWINSZ, &window));
    fcntl(master, F_SETFL, O_NONBLOCK); fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        T(setsid() == getpid()); T(setsid()); int slave = open(name, O_RDWR); T(ioctl(slave, TIOCSCTTY, 0)); dup2(slave, 0); dup2(slave, 1); dup2(slave, 2); T(isatty(0)); char own[64]; T(ttyname_r(0, own, 64)); printf("same name %d\n", !strcmp(own, name)); T(tcgetsid(0) == getpid()); int tty = open("/dev/tty", O_RDWR); T(tty >= 0); T(tcgetpgrp(tty) == getpgrp()); memset(&window, 0, sizeof window); ioctl(0, TIOCGWINSZ, &window); printf("window %d %d\n", window.ws_row, window.ws_col); signal(SIGWINCH, hear); signal(SIGINT, hear); sigset_t both, before; sigemptyset(&both); sigaddset(&both, SIGWINCH); sigaddset(&both, SIGINT); sigprocmask(SIG_BLOCK, &both, &before); printf("ready\n"); fflush(stdout); listen_for_one(); listen_for_one(); sigprocmask(SIG_SETMASK, &before, NULL); shell(); printf("done\n"); fflush(stdout); _exit(3);
    }
    expect(master, "ready"); window.ws_row = 40; ioctl(master, TIOCSWINSZ, &window); expect(master, "heard 28"); write(master, "\003", 1); expect(master, "heard 2");
    expect(master, "job waits"); write(master, "\032", 1); expect(master, "SIGTTIN"[0] ? "in the background" : ""); write(master, "one\n", 4); expect(master, "job read"); write(master, "two\n", 4); expect(master, "done"); T(waitpid(child, &status, 0) == child); printf("exit %d\n", WEXITSTATUS(status));
    T(getpgid(0) == getpgrp()); T(getsid(0) > 0); T(setpgid(0, 0) <= 0); T(setpgid(1, 1)); T(getpriority(PRIO_PROCESS, 0)); T(setpriority(PRIO_PROCESS, 0, 5)); T(nice(1)); struct rlimit limit = {64, 64}; T(setrlimit(RLIMIT_NOFILE, &limit)); T(getrlimit(RLIMIT_NOFILE, &limit)); printf("limit %d\n", (int)limit.rlim_cur); int last = 0; for (int fd; (fd = open("/etc/passwd", O_RDONLY)) >= 0;) last = fd; printf("last %d %s\n", last, strerrorname_np(errno));
    return 0;
}
