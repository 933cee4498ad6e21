/* What execve(2) makes of files that are odd, and what a program finds when it starts. */
#include "probe.h"
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define SELF PROBES "/programs"
extern char end, etext, __executable_start;
static char *environment[] = {"PROBE=yes", NULL};

/* --- What the started program tells. */

static unsigned long stat_field(int which) {
    char text[2048];
    int fd = open("/proc/self/stat", O_RDONLY);
    long len = read(fd, text, sizeof text - 1);
    close(fd);
    text[len > 0 ? len : 0] = 0;
    char *at = strrchr(text, ')') + 2;
    for (int field = 3; field < which; field++) at = strchr(at, ' ') + 1;
    return strtoul(at, NULL, 10);
}

static void stack_in_maps(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[PATH_MAX + 100];
    while (fgets(line, sizeof line, maps)) {
        char perms[5];
        sscanf(line, "%*s %4s", perms);
        if (strstr(line, "[stack]")) printf("  stack %s\n", perms);
    }
    fclose(maps);
}

static void vector(void) {
    ElfW(auxv_t) saved[64];
    int fd = open("/proc/self/auxv", O_RDONLY);
    long len = read(fd, saved, sizeof saved);
    close(fd);
    int wrong = 0;
    printf("  vector");
    for (int at = 0; at < len / (long)sizeof *saved && saved[at].a_type; at++) {
        printf(" %ld", (long)saved[at].a_type);
        wrong += getauxval(saved[at].a_type) != saved[at].a_un.a_val;
    }
    printf("\n  saved otherwise: %d\n", wrong);
    const ElfW(Phdr) *headers = (void *)getauxval(AT_PHDR);
    printf("  headers %lu of %lu, %d at their place\n", getauxval(AT_PHNUM), getauxval(AT_PHENT), (char *)headers == &__executable_start + ((ElfW(Ehdr) *)&__executable_start)->e_phoff);
    printf("  entry in code %d base %lu secure %lu random %d\n", (char *)getauxval(AT_ENTRY) > &__executable_start && (char *)getauxval(AT_ENTRY) < &etext, getauxval(AT_BASE), getauxval(AT_SECURE), getauxval(AT_RANDOM) != 0);
    printf("  platform %s vdso %d\n", (char *)getauxval(AT_PLATFORM), getauxval(AT_SYSINFO_EHDR) != 0);
    unsigned long heap = stat_field(47), gap = heap - (unsigned long)&end;
    printf("  code at its place %d stack %d heap behind the program %d\n", stat_field(26) == (unsigned long)&__executable_start || stat_field(26) < (unsigned long)&etext, (unsigned long)&heap < stat_field(28) && stat_field(28) - (unsigned long)&heap < 1 << 20, gap < 2ul << 30);
    printf("  argument strings %d environment strings %d\n", stat_field(49) > stat_field(48), stat_field(51) > stat_field(50));
    char *more = sbrk(1 << 20);
    printf("  heap grows %d\n", more != (void *)-1 && (more[(1 << 20) - 1] = 1));
}

static int tell(int argc, char **argv) {
    char comm[17] = {0};
    prctl(PR_GET_NAME, comm);
    printf("  told: %s argc %d comm %s execfn %s\n", argc ? argv[0] : "nothing", argc, comm, (char *)getauxval(AT_EXECFN));
    for (int at = 1; at < argc && at < 6; at++) printf("  [%.60s]\n", argv[at]);
    printf("  "); show_link("/proc/self/exe");
    fflush(stdout);
    return 3;
}

static void signals(void) {
    sigset_t blocked;
    sigprocmask(0, NULL, &blocked);
    printf("  blocked");
    for (int signal = 1; signal < 65; signal++) if (sigismember(&blocked, signal) > 0) printf(" %d", signal);
    printf("\n  ignored");
    for (int signal = 1; signal < 32; signal++) {
        struct sigaction old;
        if (signal != SIGTRAP && !sigaction(signal, NULL, &old) && old.sa_handler == SIG_IGN) printf(" %d", signal);
    }
    printf("\n");
}

/* --- Starting. */

static void ended(const char *what, pid_t child) {
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else printf("%s: signal %d\n", what, WTERMSIG(status));
    fflush(stdout);
}

static void run_with(const char *path, char *const argv[], char *const env[]) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execve(path, argv, env);
        printf("  execve: %s\n", strerrorname_np(errno));
        fflush(stdout);
        _exit(77);
    }
    ended(path, child);
}

static void run(const char *path) {
    char *argv[] = {"name", "--tell", "x y", NULL};
    run_with(path, argv, environment);
}

static void run_at(const char *what, int fd, const char *path, int flags) {
    char *argv[] = {"name", "--tell", NULL};
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int result = (int)syscall(SYS_execveat, fd, path, argv, environment, flags);
        printf("  execveat: %d %s\n", result, result ? strerrorname_np(errno) : "");
        fflush(stdout);
        _exit(77);
    }
    ended(what, child);
}

static void executable(const char *path, const char *text, long len) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0755);
    if (fd < 0 || write(fd, text, len < 0 ? strlen(text) : len) < 0) printf("%s: %s\n", path, strerrorname_np(errno));
    close(fd);
}

static char *whole;
static long size;

static void load_self(void) {
    int fd = open(SELF, O_RDONLY);
    struct stat st;
    fstat(fd, &st);
    size = st.st_size;
    whole = malloc(size + 4096);
    if (read(fd, whole, size) != size) printf("cannot read myself\n");
    close(fd);
}

/* A copy of this program whose segment of a kind is changed. */
static void changed(const char *path, unsigned kind, unsigned to, unsigned flags, const char *interpreter) {
    char *copy = malloc(size + 4096);
    memcpy(copy, whole, size);
    ElfW(Ehdr) *header = (void *)copy;
    ElfW(Phdr) *segment = (void *)(copy + header->e_phoff);
    for (int at = 0; at < header->e_phnum; at++, segment++) {
        if (segment->p_type != kind) continue;
        segment->p_type = to;
        if (flags) segment->p_flags = flags;
        if (interpreter) { segment->p_offset = size; segment->p_filesz = segment->p_memsz = strlen(interpreter) + 1; }
        break;
    }
    if (interpreter) strcpy(copy + size, interpreter);
    executable(path, copy, size + (interpreter ? strlen(interpreter) + 1 : 0));
    free(copy);
}

static void header_with(const char *path, int at, int value, long keep) {
    char *copy = malloc(size);
    memcpy(copy, whole, size);
    copy[at] = value;
    executable(path, copy, keep ? keep : size);
    free(copy);
}

static void *from_thread(void *path) {
    char *argv[] = {"by thread", "--tell", NULL};
    execve(path, argv, environment);
    return NULL;
}

/* The greatest total of argument strings, in steps of a page. */
static void most_arguments(const char *what) {
    static char block[4096];
    static char *argv[3000];
    memset(block, 'a', 4095);
    int good = 0, bad = 2900;
    while (bad - good > 1) {
        int middle = (good + bad) / 2;
        argv[0] = "name"; argv[1] = "--quiet";
        for (int at = 0; at < middle; at++) argv[2 + at] = block;
        argv[2 + middle] = NULL;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) { execve(SELF, argv, environment); _exit(errno == E2BIG ? 7 : 8); }
        int status;
        waitpid(child, &status, 0);
        if (status == 0) good = middle; else bad = middle;
        if (WEXITSTATUS(status) == 8) printf("not E2BIG\n");
    }
    printf("%s: %d pages of arguments\n", what, good);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--tell")) return tell(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "--vector")) { vector(); return 0; }
    if (argc > 1 && !strcmp(argv[1], "--stack")) { stack_in_maps(); printf("  personality %x\n", personality(0xffffffff)); return 0; }
    if (argc > 1 && !strcmp(argv[1], "--signals")) { signals(); return 0; }
    if (argc > 1 && !strcmp(argv[1], "--count")) { printf("  %d arguments, last %s\n", argc, argv[argc - 1]); return 0; }
    if (argc > 1 && !strcmp(argv[1], "--quiet")) return 0;
    if (argc > 1 && !strcmp(argv[1], "--wait")) { write(1, "x", 1); pause(); return 0; }
    if (argc > 1 && !strcmp(argv[1], "--heap")) { printf("  heap %lx behind\n", stat_field(47) - (((unsigned long)&end + 4095) & ~4095ul)); return 0; }
    if (argc > 1 && !strcmp(argv[1], "--fds")) { int open = 0; for (int fd = 0; fd < 100; fd++) open += fcntl(fd, F_GETFD) >= 0; printf("  open %d\n", open); return 0; }
    if (argc < 2 && !strcmp(argc ? argv[0] : "", "")) { printf("  argc %d of nothing\n", argc); return 0; }
    if (argc > 1) return tell(argc, argv);
    chdir("/work");
    load_self();

    printf("--- what it is told\n");
    char *vectors[] = {SELF, "--vector", NULL}; run_with(SELF, vectors, environment);
    char *nothing[] = {NULL}; run_with(SELF, vectors, nothing);
    char *empty[] = {NULL}; run_with(SELF, empty, environment); run_with(SELF, NULL, NULL);
    run_with(SELF, (char **)8, environment); run_with(SELF, vectors, (char **)8); char *bad[] = {"x", (char *)8, NULL}; run_with(SELF, bad, environment);
    symlink(SELF, "a-name-of-more-than-fifteen"); run("a-name-of-more-than-fifteen"); run("./a-name-of-more-than-fifteen"); run("/proc/self/cwd/a-name-of-more-than-fifteen");
    run("/proc/self/exe");

    printf("--- stacks\n");
    char *stacks[] = {"s", "--stack", NULL};
    run_with(SELF, stacks, environment);
    changed("executable-stack", PT_GNU_STACK, PT_GNU_STACK, PF_R | PF_W | PF_X, NULL); run_with("executable-stack", stacks, environment);
    changed("unsaid-stack", PT_GNU_STACK, PT_NULL, 0, NULL); run_with("unsaid-stack", stacks, environment);
    struct rlimit limit, old;
    getrlimit(RLIMIT_STACK, &old);
    limit = old; limit.rlim_cur = 1 << 20; setrlimit(RLIMIT_STACK, &limit); run_with(SELF, stacks, environment);
    limit.rlim_cur = old.rlim_max; setrlimit(RLIMIT_STACK, &limit); run_with(SELF, vectors, environment); setrlimit(RLIMIT_STACK, &old);
    char *heaps[] = {"h", "--heap", NULL};
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) { personality(ADDR_NO_RANDOMIZE); run_with(SELF, heaps, environment); run_with(SELF, stacks, environment); run_with(SELF, vectors, environment); _exit(0); }
    ended("nothing random", child);

    printf("--- interpreters\n");
    executable("text", "just a text that is long enough to be a header of a program, if one looks at its length only\n", -1);
    executable("short", "short\n", -1);
    put("locked", "x"); mkdir("dir", 0755); symlink("loop", "loop");
    executable("script", "#!" SELF "\n", -1);
    const char *interpreters[] = {"/no/such", "/work/text", "/work/short", "/work/locked", "/work/dir", "/work/script", "/work/loop", "/etc/passwd/x", "text", "no", "/work/other-class", ""};
    header_with("other-class", 18, 40, 0);
    for (int at = 0; at < 12; at++) {
        changed("interpreted", PT_NOTE, PT_INTERP, 0, interpreters[at]);
        printf("interpreter %s\n", interpreters[at]);
        run("interpreted");
    }

    printf("--- headers\n");
    header_with("changed", 0, 'E', 0); run("changed");
    header_with("changed", 16, ET_REL, 0); run("changed");
    header_with("changed", 18, 183, 0); run("changed");
    header_with("changed", offsetof(ElfW(Ehdr), e_phentsize), 7, 0); run("changed");
    header_with("changed", offsetof(ElfW(Ehdr), e_phnum), 0, 0); run("changed");
    header_with("changed", 0, 0177, 3); run("changed");
    header_with("changed", 0, 0177, 40); run("changed");
    header_with("changed", 0, 0177, 100); run("changed");

    printf("--- scripts\n");
    executable("s", "#! \t" SELF " \t one two\tthree \t\nrest", -1); run("s"); run("./s"); run("/work/s");
    executable("s", "#!" SELF, -1); run("s");
    executable("s", "#!" SELF " no-newline", -1); run("s");
    executable("s", "#!" SELF " a\r\n", -1); run("s");
    executable("s", "#!" SELF "\r\n", -1); run("s");
    executable("s", "#!" SELF " a\0b\n", strlen(SELF) + 7); run("s");
    executable("s", "#!\0" SELF "\n", strlen(SELF) + 4); run("s");
    char line[1000];
    for (int len = 240; len < 270; len += 3) {
        memset(line, 'a', sizeof line); memcpy(line, "#!" SELF " ", strlen(SELF) + 3); line[len] = '\n';
        executable("s", line, len + 1); printf("a line of %d\n", len); run("s");
    }
    for (int len = 250; len < 262; len += 2) {
        memset(line, '/', sizeof line); memcpy(line, "#!", 2); memcpy(line + len - strlen(SELF), SELF, strlen(SELF)); line[len] = '\n';
        executable("s", line, len + 1); printf("a name of %d\n", len); run("s");
    }
    executable("s", "#!" SELF " x", strlen(SELF) + 4);
    for (int at = 0; at < 7; at++) {
        char name[16], text[64];
        snprintf(name, 16, "n%d", at); snprintf(text, 64, "#!/work/%s%d extra\n", at ? "n" : "s", at - 1);
        if (at == 0) snprintf(text, 64, "#!/work/s\n");
        executable(name, text, -1); printf("nested %d\n", at); run(name);
    }
    executable("s", "#!/work/dir\n", -1); run("s");
    executable("s", "#!/work/locked\n", -1); run("s");
    executable("s", "#!/work/text\n", -1); run("s");
    executable("s", "#!locked\n", -1); run("s");
    run_with("n0", empty, environment);

    printf("--- descriptors\n");
    int fd = open(SELF, O_RDONLY), dir = open(PROBES, O_PATH | O_DIRECTORY), work = open("/work", O_PATH), work_c = open("/work", O_PATH | O_CLOEXEC);
    executable("s", "#!" SELF "\n", -1);
    int script = open("s", O_RDONLY), script_c = open("s", O_RDONLY | O_CLOEXEC);
    run_at("itself", fd, "", AT_EMPTY_PATH); run_at("itself, without the flag", fd, "", 0); run_at("in a directory", dir, "programs", 0); run_at("absolute", dir, SELF, 0);
    run_at("a script", script, "", AT_EMPTY_PATH); run_at("a script that closes", script_c, "", AT_EMPTY_PATH); run_at("a script in a directory", work, "s", 0); run_at("in one that closes", work_c, "s", 0); run_at("absolute, from one that closes", work_c, "/work/s", 0);
    run_at("a link", work, "a-name-of-more-than-fifteen", 0); run_at("a link, not followed", work, "a-name-of-more-than-fifteen", AT_SYMLINK_NOFOLLOW); run_at("no link, not followed", work, "s", AT_SYMLINK_NOFOLLOW);
    run_at("odd flags", work, "s", 0x40000); run_at("a directory", work, "", AT_EMPTY_PATH); run_at("a bad descriptor", 999, "", AT_EMPTY_PATH); run_at("a file as directory", fd, "x", 0); run_at("the working directory", AT_FDCWD, "s", 0); run_at("the working directory itself", AT_FDCWD, "", AT_EMPTY_PATH);
    run_at("only asked", work, "s", 0x10000); run_at("only asked of a text", work, "locked", 0x10000); run_at("only asked, itself", fd, "", AT_EMPTY_PATH | 0x10000);
    int memory = (int)syscall(SYS_memfd_create, "in memory", 1);
    if (write(memory, whole, size) != size) printf("memory\n");
    run_at("in memory", memory, "", AT_EMPTY_PATH);
    char path[64]; snprintf(path, 64, "/proc/self/fd/%d", memory); run(path);
    executable("gone", whole, size); int gone = open("gone", O_RDONLY); unlink("gone"); run_at("removed", gone, "", AT_EMPTY_PATH);
    snprintf(path, 64, "/dev/fd/%d", fd); run(path); snprintf(path, 64, "/proc/self/fd/%d", script); run(path);
    char *fds[] = {"f", "--fds", NULL}; int before = 0; for (int at = 0; at < 100; at++) { int flags = fcntl(at, F_GETFD); before += flags >= 0 && !(flags & FD_CLOEXEC); } printf("to stay open: %d\n", before); run_with(SELF, fds, environment);

    printf("--- rights\n");
    executable("mine", whole, size);
    chmod("mine", 0111); run("mine"); struct stat st; stat("mine", &st); printf("mode %o\n", st.st_mode);
    chmod("mine", 0444); run("mine"); chmod("mine", 0); run("mine"); chmod("mine", 0755);
    int writing = open("mine", O_WRONLY); run("mine"); close(writing); run("mine");
    mkfifo("fifo", 0777); run("fifo"); run("/dev/null"); run("/proc/self/status"); run("."); run("/"); run("none/"); run("mine/"); run(""); executable("s", "#!", -1); run("s");

    printf("--- while it runs\n");
    executable("running", whole, size); executable("other", whole, size); link("running", "same");
    int ends[2]; pipe(ends); fflush(stdout);
    child = fork();
    if (child == 0) { dup2(ends[1], 1); char *argv[] = {"x", "--wait", NULL}; execve("running", argv, environment); _exit(77); }
    char byte; if (read(ends[0], &byte, 1) != 1) printf("it does not run\n");
    O(open("running", O_WRONLY)); O(open("same", O_RDWR)); O(open("running", O_RDONLY | O_TRUNC)); O(open("running", O_RDONLY)); O(open("running", O_WRONLY | O_CREAT, 0755)); O(open("running", O_WRONLY | O_CREAT | O_EXCL, 0755)); O(open("other", O_WRONLY)); O(creat("running", 0755)); T(truncate("running", 1)); T(truncate("other", size)); T(chmod("running", 0755)); T(rename("same", "moved")); T(unlink("moved")); O(openat(AT_FDCWD, "./running", O_RDWR)); snprintf(path, 64, "/proc/%d/exe", child); O(open(path, O_RDONLY)); O(open(path, O_WRONLY));
    kill(child, SIGKILL); waitpid(child, NULL, 0); O(open("running", O_WRONLY));

    printf("--- signals\n");
    fflush(stdout);
    child = fork();
    if (child == 0) {
        sigset_t all; sigfillset(&all); sigprocmask(SIG_SETMASK, &all, NULL); signal(SIGUSR1, SIG_IGN); signal(SIGPIPE, SIG_IGN); signal(SIGUSR2, (void (*)(int))run);
        char *argv[] = {"x", "--signals", NULL}; kill(getpid(), SIGTERM); execve(SELF, argv, environment); _exit(77);
    }
    ended("all blocked", child);

    printf("--- sizes\n");
    char *longest = malloc(200000); memset(longest, 'b', 200000);
    char *one[] = {"x", "--count", longest, "end", NULL};
    longest[131071] = 0; run_with(SELF, one, environment); longest[131071] = 'b'; longest[131072] = 0; run_with(SELF, one, environment);
    executable("s", "#!" SELF " --count\n", -1); run_with("s", one, environment); longest[131071] = 0; run_with("s", one, environment);
    static char *many[200003]; many[0] = "x"; many[1] = "--count"; for (int at = 2; at < 200000; at++) many[at] = "y"; many[200000] = "last"; run_with(SELF, many, environment); run_with("s", many, environment); run_with(SELF, one, many);
    getrlimit(RLIMIT_STACK, &old); limit = old; limit.rlim_cur = 8 << 20; setrlimit(RLIMIT_STACK, &limit); most_arguments("8 MiB of stack"); limit.rlim_cur = 1 << 20; setrlimit(RLIMIT_STACK, &limit); most_arguments("1 MiB of stack"); setrlimit(RLIMIT_STACK, &old);

    printf("--- ways\n");
    fflush(stdout); child = fork();
    if (child == 0) { pthread_t thread; pthread_create(&thread, NULL, from_thread, SELF); pthread_join(thread, NULL); _exit(77); }
    ended("from a thread", child);
    child = fork();
    if (child == 0) { pthread_t thread; pthread_create(&thread, NULL, from_thread, "/no/such"); pthread_join(thread, NULL); _exit(78); }
    ended("not from a thread", child);
    char *spawned[] = {"spawned", "--tell", NULL}; pid_t pid;
    printf("posix_spawn: %d\n", posix_spawn(&pid, SELF, NULL, NULL, spawned, environment)); ended("spawned", pid);
    printf("posix_spawn of nothing: %d\n", posix_spawn(&pid, "/no/such", NULL, NULL, spawned, environment)); printf("posix_spawn of text: %d\n", posix_spawn(&pid, "/work/text", NULL, NULL, spawned, environment));
    child = vfork(); if (child == 0) { execve("/no/such", spawned, environment); execve(SELF, spawned, environment); _exit(77); } ended("vfork", child);
    return 0;
}
