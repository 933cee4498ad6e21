/* Small stacks: threads that have the least there is, coroutines, handlers on a signal stack. Whoever stands before a C library's
   names must do with what they leave. */
#include "probe.h"
#include <pthread.h>
#ifdef __GLIBC__
#include <ucontext.h>
#endif

static const char *const nothing[] = { NULL };

/* Every way that a path takes; how many of these calls went wrong. */
static long looks(void) {
    struct stat st; static char text[PATH_MAX]; long bad = 0; int fd;
    bad += (fd = open("/dir/file", O_RDONLY)) < 0; close(fd);
    bad += stat("/dir/file", &st) != 0; bad += stat("dir/file", &st) != 0; bad += lstat("/links/abs", &st) != 0;
    bad += stat("/links/chain", &st) != 0; bad += stat("/dir/../dir/file", &st) != 0; bad += access("/none", F_OK) == 0;
    bad += stat("/none/none", &st) == 0; bad += readlink("/proc/self/exe", text, sizeof text) < 0;
    bad += (fd = open("/work/made", O_CREAT | O_RDWR, 0644)) < 0; bad += write(fd, "x", 1) != 1; close(fd);
    bad += rename("/work/made", "/work/other") != 0; bad += unlink("/work/other") != 0;
    bad += mkdir("/work/new", 0755) != 0; bad += rmdir("/work/new") != 0;
    bad += chdir("/dir") != 0; bad += stat("sub/deep", &st) != 0; bad += chdir("/") != 0;
    return bad;
}

static void *more(void *unused) {
    static char text[PATH_MAX]; long bad = looks(); DIR *list; int status;
    bad += !(list = opendir("/dir")); if (list) closedir(list);
    bad += !getcwd(text, sizeof text); 
    pid_t child = fork();
    if (child == 0) { execve("/etc/passwd", (char **)nothing, (char **)nothing); execve("/proc/self/exe", (char *[]){ "stacks", "child", NULL }, (char **)nothing); _exit(9); }
    bad += waitpid(child, &status, 0) != child || status != 0;
    return (void *)bad;
}

static volatile long handled, wrong;
static void handler(int signal) { wrong += looks(); handled++; }

#ifdef __GLIBC__
static ucontext_t back, there;
static long found;
static void run(void) { found = looks(); swapcontext(&there, &back); }
#endif

/* A stack with nothing on either side. */
static char *stack_of(size_t size) {
    char *memory = mmap(NULL, size + 131072, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + 65536, size, PROT_READ | PROT_WRITE);
    return memory + 65536;
}

int main(int argc, char **argv) {
    pthread_attr_t attributes; pthread_t thread; void *result;
    if (argc > 1) return 0;
    chdir("/");
    /* Every name is bound now: the loader's work is none of ours. */
    T(looks()); T((long)more(NULL));
    pthread_attr_init(&attributes); T(pthread_attr_setstacksize(&attributes, 16384));
    T(pthread_create(&thread, &attributes, more, NULL)); pthread_join(thread, &result); T((long)result);
#ifdef __GLIBC__
    getcontext(&there); there.uc_stack.ss_sp = stack_of(8192); there.uc_stack.ss_size = 8192; there.uc_link = NULL;
    makecontext(&there, run, 0); found = -1; T(swapcontext(&back, &there)); T(found);
#endif
    /* What is on it before the handler is the processor's state, of up to 3 KiB. */
    stack_t stack = { .ss_sp = stack_of(8192), .ss_size = 8192 };
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK };
    T(sigaltstack(&stack, NULL)); T(sigaction(SIGUSR1, &action, NULL)); T(raise(SIGUSR1)); T(handled); T(wrong);
    return 0;
}
