/* SIGTRAP, by which a tracer may be told of its own doings, from somebody else, while programs are being started. One that
 * blocks it must not notice; one that does not dies of it or is faster, and nothing else. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **args) {
    if (count > 1) return 7;
    int ended = 0, died = 0;
    for (int round = 0; round < 300; round++) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTRAP);
        sigprocmask(round % 2 ? SIG_BLOCK : SIG_UNBLOCK, &set, 0);
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "trap", "again", (char *)0);
            _exit(8);
        }
        pid_t other = fork();
        if (other == 0) for (;;) { kill(child, SIGTRAP); usleep(round % 7 * 30); }
        int status;
        waitpid(child, &status, 0);
        kill(other, SIGKILL);
        waitpid(other, 0, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 7) ended++;
        else if (round % 2 == 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGTRAP) died++;
        else { printf("round %d: %x\n", round, status); return 1; }
    }
    printf("%s\n", ended >= 150 && died > 0 ? "right" : "nothing was tried");
    return 0;
}
