/* Threads, clones, futexes and signals between them. */
#include "probe.h"
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <ucontext.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int counter, ready;
static __thread int own = 7;

static void *count(void *many) {
    for (long at = 0; at < (long)many; at++) { pthread_mutex_lock(&mutex); counter++; pthread_mutex_unlock(&mutex); struct stat st; if (at % 50 == 0) stat("/etc/passwd", &st); }
    return (void *)(long)own;
}

static void *wait_for(void *nothing) {
    pthread_mutex_lock(&mutex); while (!ready) pthread_cond_wait(&condition, &mutex); pthread_mutex_unlock(&mutex);
    return NULL;
}

static void *sleeps(void *nothing) { for (;;) pause(); return NULL; }
static volatile int handled;
static pthread_t handler_thread;
static void handle(int signal, siginfo_t *info, void *context) { handled = signal; handler_thread = pthread_self(); }
static sigjmp_buf back;
static void jump(int signal) { siglongjmp(back, signal); }
static int cloned(void *text) { strcpy(text, "written by a clone"); struct stat st; return stat("/etc/passwd", &st) ? 1 : 5; }

int main(void) {
    struct stat st; int status; chdir("/work");
    /* pthreads. */
    pthread_t threads[8]; void *result; long sum = 0;
    for (int at = 0; at < 8; at++) pthread_create(&threads[at], NULL, count, (void *)1000l);
    for (int at = 0; at < 8; at++) { pthread_join(threads[at], &result); sum += (long)result; }
    printf("counted %d sum %ld\n", counter, sum);
    for (int at = 0; at < 4; at++) pthread_create(&threads[at], NULL, wait_for, NULL);
    pthread_mutex_lock(&mutex); ready = 1; pthread_cond_broadcast(&condition); pthread_mutex_unlock(&mutex);
    for (int at = 0; at < 4; at++) T(pthread_join(threads[at], NULL));
    T(pthread_create(&threads[0], NULL, sleeps, NULL)); T(pthread_setname_np(threads[0], "sleeper")); char name[32]; T(pthread_getname_np(threads[0], name, 32)); printf("%s\n", name); T(pthread_cancel(threads[0])); T(pthread_join(threads[0], &result)); printf("cancelled %d\n", result == PTHREAD_CANCELED);
    struct sigaction act = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART}; sigaction(SIGUSR1, &act, NULL); T(pthread_create(&threads[0], NULL, sleeps, NULL)); T(pthread_kill(threads[0], SIGUSR1)); for (int at = 0; at < 1000 && !handled; at++) usleep(1000); printf("handled %d there %d\n", handled, pthread_equal(handler_thread, threads[0])); DIR *tasks = opendir("/proc/self/task"); int seen = 0; while (readdir(tasks)) seen++; closedir(tasks); printf("tasks %d\n", seen - 2); pthread_cancel(threads[0]); pthread_join(threads[0], NULL);
    /* Futexes. */
    static int word = 1; struct timespec soon = {0, 5000000}; T(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0)); T(syscall(SYS_futex, &word, FUTEX_WAIT, 1, &soon, NULL, 0)); T(syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0)); T(syscall(SYS_futex, (int *)8, FUTEX_WAKE, 1, NULL, NULL, 0) <= 0);
    /* Clones. */
    static char stack[65536] __attribute__((aligned(64))), text[64]; pid_t child = clone(cloned, stack + sizeof stack, CLONE_VM | SIGCHLD, text); waitpid(child, &status, 0); printf("%s %d\n", text, WEXITSTATUS(status));
    child = clone(cloned, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS | SIGCHLD, text); waitpid(child, &status, 0); printf("vfork %d\n", WEXITSTATUS(status));
    child = clone(cloned, stack + sizeof stack, 0, text); T(waitpid(child, &status, 0)); T(waitpid(child, &status, __WALL) == child); printf("without SIGCHLD %d\n", WEXITSTATUS(status));
    int pidfd = -1; struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD}; fflush(stdout); child = (pid_t)syscall(SYS_clone3, &args, sizeof args); if (child == 0) { T(stat("/etc/passwd", &st)); fflush(stdout); _exit(9); } T(child > 0); T(pidfd >= 0); siginfo_t info; T(waitid(P_PIDFD, pidfd, &info, WEXITED)); printf("clone3 %d\n", info.si_status);
    args.flags = CLONE_CLEAR_SIGHAND; child = (pid_t)syscall(SYS_clone3, &args, sizeof args); if (child == 0) { struct sigaction now; sigaction(SIGUSR1, NULL, &now); _exit(now.sa_handler == SIG_DFL); } waitpid(child, &status, 0); printf("cleared %d\n", WEXITSTATUS(status));
    T(syscall(SYS_clone3, (void *)8, 64)); T(syscall(SYS_clone3, &args, 8)); T(unshare(CLONE_FILES)); T(unshare(CLONE_FS)); T(unshare(0x80000000u));
    for (int at = 0; at < 50; at++) { child = vfork(); if (child == 0) _exit(at); waitpid(child, &status, 0); if (WEXITSTATUS(status) != at) printf("lost\n"); }
    for (int at = 0; at < 20; at++) if (fork() == 0) _exit(stat("/etc/passwd", &st) != 0);
    int many = 0; while (wait(&status) > 0) many += WEXITSTATUS(status) == 0; printf("children %d\n", many);
    /* Signals. */
    handled = 0; T(kill(getpid(), SIGUSR1)); printf("handled %d\n", handled); sigset_t set, old; sigfillset(&set); T(sigprocmask(SIG_BLOCK, &set, &old)); kill(getpid(), SIGUSR1); sigpending(&old); printf("pending %d\n", sigismember(&old, SIGUSR1)); sigemptyset(&set); sigaddset(&set, SIGUSR1); T(sigwaitinfo(&set, &info)); T(sigtimedwait(&set, &info, &soon)); union sigval value = {.sival_int = 42}; T(sigqueue(getpid(), SIGUSR1, value)); T(sigtimedwait(&set, &info, &soon)); printf("value %d code %d\n", info.si_value.sival_int, info.si_code); sigemptyset(&set); sigprocmask(SIG_SETMASK, &set, NULL);
    signal(SIGSEGV, jump); signal(SIGTRAP, jump); signal(SIGILL, jump); signal(SIGFPE, jump); signal(SIGSYS, jump); int caught = sigsetjmp(back, 1); if (!caught) *(volatile int *)8 = 1; printf("caught %d\n", caught); caught = sigsetjmp(back, 1); if (!caught) __asm__ volatile("int3"); printf("caught %d\n", caught); caught = sigsetjmp(back, 1); if (!caught) __asm__ volatile("ud2"); printf("caught %d\n", caught);
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}; T(sigaltstack(&alternate, NULL)); handled = 0; act.sa_flags = SA_SIGINFO | SA_ONSTACK; sigaction(SIGUSR2, &act, NULL); raise(SIGUSR2); printf("on the other stack %d\n", handled); handled = 0; act.sa_flags = SA_SIGINFO; sigaction(SIGALRM, &act, NULL); struct itimerval alarm_ = {.it_value = {0, 10000}}; setitimer(ITIMER_REAL, &alarm_, NULL); char byte; int ends[2]; pipe(ends); T(read(ends[0], &byte, 1)); act.sa_flags = SA_SIGINFO | SA_RESTART; sigaction(SIGALRM, &act, NULL); child = fork(); if (child == 0) { usleep(60000); write(ends[1], "x", 1); _exit(0); } setitimer(ITIMER_REAL, &alarm_, NULL); T(read(ends[0], &byte, 1)); waitpid(child, &status, 0); struct timespec nap = {0, 30000000}, left; act.sa_flags = SA_SIGINFO; sigaction(SIGALRM, &act, NULL); setitimer(ITIMER_REAL, &alarm_, NULL); T(nanosleep(&nap, &left)); T(mkfifo("fifo", 0600)); setitimer(ITIMER_REAL, &alarm_, NULL); T(open("fifo", O_RDONLY)); act.sa_flags = SA_SIGINFO | SA_RESTART; sigaction(SIGALRM, &act, NULL); child = fork(); if (child == 0) { usleep(60000); open("fifo", O_WRONLY); _exit(0); } setitimer(ITIMER_REAL, &alarm_, NULL); O(open("fifo", O_RDONLY)); waitpid(child, &status, 0);
    child = fork(); if (child == 0) { raise(SIGKILL); } waitpid(child, &status, 0); printf("killed %d\n", WTERMSIG(status)); child = fork(); if (child == 0) abort(); waitpid(child, &status, 0); printf("aborted %d\n", WTERMSIG(status));
    /* It stays until told, or its end could be seen before its going on. */
    int stay[2]; pipe(stay); child = fork(); if (child == 0) { close(stay[1]); raise(SIGSTOP); read(stay[0], &byte, 1); _exit(4); }
    T(waitpid(child, &status, WUNTRACED) == child); printf("stopped %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status)); kill(child, SIGCONT); T(waitpid(child, &status, WCONTINUED) == child); printf("continued %d\n", WIFCONTINUED(status)); close(stay[0]); close(stay[1]);
    T(waitpid(child, &status, 0) == child); printf("exit %d\n", WEXITSTATUS(status));
    T(prctl(PR_SET_PDEATHSIG, SIGTERM)); T(prctl(PR_SET_CHILD_SUBREAPER, 1)); child = fork(); if (child == 0) { if (fork() == 0) { usleep(20000); _exit(11); } _exit(0); } waitpid(child, &status, 0); T(wait(&status) > 0); printf("orphan %d\n", WEXITSTATUS(status)); T(wait(&status));
    return 0;
}
