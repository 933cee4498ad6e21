/* Names of the C library that take or give paths, each called once: what an engine that stands before these names answers must be
 * what the library itself says in a chroot. Compiles with glibc and musl; what only one of them has is left out with the other. */
#include "probe.h"
#include <dlfcn.h>
#include <iconv.h>
#include <link.h>
#include <locale.h>
#include <netdb.h>
#include <spawn.h>
#include <stdarg.h>
#include <sys/auxv.h>
#include <sys/inotify.h>
#include <sys/statvfs.h>

static char text[PATH_MAX];
static char *environment[] = {"PROBE=yes", NULL};

static void ended(const char *what, int status) {
    if (WIFEXITED(status)) printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else printf("%s: status %x\n", what, status);
}

/* Runs a call that does not come back, in a child. */
#define X(call)                                                                        \
    do {                                                                               \
        fflush(stdout);                                                                \
        int status_;                                                                   \
        pid_t child_ = fork();                                                         \
        if (child_ == 0) { call; printf("%s: %s\n", #call, strerrorname_np(errno)); fflush(stdout); _exit(77); } \
        waitpid(child_, &status_, 0);                                                  \
        ended(#call, status_);                                                         \
    } while (0)

/* A text that a function returns, freed. */
#define S(call)                                                                        \
    do {                                                                               \
        errno = 0;                                                                     \
        char *said_ = (call);                                                          \
        printf("%s: %s\n", #call, said_ ? said_ : strerrorname_np(errno));             \
        if (said_ && said_ != text) free(said_);                                       \
    } while (0)

static void where(void) {
    chdir("/links/dir/sub");
    S(getcwd(NULL, 0)); S(getcwd(text, sizeof text)); S(getcwd(text, 3));
    setenv("PWD", "/links/dir/sub", 1); S(get_current_dir_name());
    setenv("PWD", "/work", 1); S(get_current_dir_name()); unsetenv("PWD"); S(get_current_dir_name());
    S(realpath("/links/chain", NULL)); S(realpath("deep", text)); S(realpath("/none", NULL)); S(realpath("/dir/file/", NULL));
#ifdef __GLIBC__
    S(canonicalize_file_name("/links/up/links/abs")); S(canonicalize_file_name("")); S(getwd(text)); T(euidaccess("/links/abs", R_OK)); T(eaccess("/none", R_OK));
#endif
    S(realpath("/proc/self/cwd", NULL)); T(faccessat(AT_FDCWD, "/links/dangling", F_OK, AT_SYMLINK_NOFOLLOW)); T(faccessat(AT_FDCWD, "/links/abs", R_OK, AT_EACCESS));
    chdir("/work");
}

static void files(void) {
    struct statvfs fs; struct stat st; FILE *stream;
    T(statvfs("/links/dir", &fs)); T(statvfs("/none", &fs)); T(pathconf("/links/abs", _PC_LINK_MAX) > 0); T(pathconf("/none", _PC_LINK_MAX));
    O(open("made", O_CREAT | O_EXCL | O_WRONLY, 0640)); T(stat("/work/made", &st)); printf("mode %o\n", st.st_mode & 07777);
    O(creat("/work/created", 0600)); T(creat("/dir/new", 0600)); O(openat(AT_FDCWD, "/links/abs", O_RDONLY)); O(openat(-1, "/links/rel", O_RDONLY)); O(openat(-1, "links", O_RDONLY));
    stream = fopen("/work/text", "wx"); printf("fopen x: %s\n", stream && fputs("one\ntwo\n", stream) >= 0 && fclose(stream) == 0 ? "written" : "not");
    T(fopen("/work/text", "wx") != NULL); T(fopen("/work/text", "?") != NULL);
    stream = fopen("/work/text", "a+"); printf("fopen a+: %ld\n", stream ? ftell(stream) : -1L); if (stream) { fputs("three\n", stream); rewind(stream); printf("first %s", fgets(text, sizeof text, stream)); }
    stream = stream ? freopen("/dir/file", "r", stream) : NULL; printf("freopen: %s", stream && fgets(text, sizeof text, stream) ? text : "none\n");
    T(stream && freopen("/none", "r", stream) != NULL);
    /* It goes to /tmp, which can be written to where the host's is shown. */
    stream = tmpfile(); if (access("/tmp", W_OK) == 0 && !(stream && fputs("x", stream) >= 0 && fclose(stream) == 0)) printf("tmpfile: none\n");
    unsetenv("TMPDIR"); char *name = tempnam("/work", "pre"); printf("tempnam: %s\n", name && strncmp(name, "/work/pre", 9) == 0 && access(name, F_OK) != 0 ? "free" : "not"); free(name);
    char a[] = "/work/aXXXXXX.c", b[] = "bXXXXXX", c[] = "/work/cXXXXXX", d[] = "/work/short";
    O(mkstemps(a, 2)); printf("%.6s%s %d\n", a, a + 13, access(a, F_OK)); O(mkostemp(b, O_CLOEXEC | O_APPEND)); T(access(b, W_OK)); T(mktemp(c) == c && *c && access(c, F_OK) != 0); T(mkstemp(d));
    T(mkfifo("/work/pipe", 0600)); T(mkfifoat(AT_FDCWD, "/links/dir/pipe", 0600)); T(lstat("pipe", &st)); printf("fifo %d\n", S_ISFIFO(st.st_mode));
    T(symlinkat("/work/text", AT_FDCWD, "link")); T(unlinkat(AT_FDCWD, "pipe", 0)); T(linkat(AT_FDCWD, "link", AT_FDCWD, "hard", AT_SYMLINK_FOLLOW)); T(stat("hard", &st)); printf("links %d\n", (int)st.st_nlink);
    T(remove("hard")); T(remove("/dir/file")); T(rename("created", "/work/renamed")); T(renameat(AT_FDCWD, "renamed", AT_FDCWD, "/none/x")); T(truncate("text", 3)); T(lchown("link", getuid(), getgid())); T(fchmodat(AT_FDCWD, "text", 0600, 0)); T(fchmodat(AT_FDCWD, "/dir/file", 0600, 0));
    struct timeval times[2] = {{1000, 0}, {2000, 0}}; T(utimes("text", times)); T(lutimes("link", times)); T(stat("text", &st)); printf("mtime %ld\n", (long)st.st_mtime); int fd = open("text", O_RDONLY); T(futimes(fd, times)); close(fd);
    T(syscall(SYS_access, "/links/abs", R_OK)); T(syscall(SYS_mkdir, "/work/by-number", 0700)); T(syscall(SYS_rmdir, "/work/by-number")); T(syscall(SYS_unlink, "/dir/file")); show("readlinkat", text, readlinkat(AT_FDCWD, "/links/abs", text, sizeof text));
    struct dirent **list; int count = scandir("/links/dir", &list, NULL, alphasort); for (int at = 0; at < count; at++) printf("scandir %s\n", list[at]->d_name); T(scandir("/none", &list, NULL, NULL));
    DIR *dir = opendir("/links/dir"); printf("dirfd %d, %d\n", dir && dirfd(dir) >= 0, dir && fstat(dirfd(dir), &st) == 0 && S_ISDIR(st.st_mode)); T(opendir("/etc/passwd") != NULL);
    int watch = inotify_init1(IN_CLOEXEC); T(inotify_add_watch(watch, "/links/dir", IN_CREATE) > 0); T(inotify_add_watch(watch, "/none", IN_CREATE)); close(watch);
}

static void commands(const char *self) {
    char *argv[] = {"named", "--tell", "a b", NULL}; pid_t child; int status;
    X(execl(self, "by execl", "--tell", "one", "two", "three", "four", "five", "six", NULL)); X(execle(self, "by execle", "--tell", NULL, environment)); X(execlp("none-such", "x", NULL));
    setenv("PATH", "/none:/dynamic", 1); X(execlp("names", "by execlp", "--tell", NULL)); X(execvp("names", argv)); X(execv("names", argv)); X(execve(self, argv, environment)); X(fexecve(open(self, O_RDONLY), argv, environment));
#ifdef __GLIBC__
    X(execvpe("names", argv, environment));
#endif
    posix_spawn_file_actions_t actions; posix_spawn_file_actions_init(&actions); posix_spawn_file_actions_addopen(&actions, 1, "/work/spawned", O_CREAT | O_WRONLY, 0600); posix_spawn_file_actions_addopen(&actions, 0, "/links/abs", O_RDONLY, 0);
    fflush(stdout); status = posix_spawn(&child, self, &actions, NULL, argv, environment); printf("posix_spawn: %s\n", status ? strerrorname_np(status) : "done"); if (!status) { waitpid(child, &status, 0); ended("spawned", status); }
    FILE *spawned = fopen("/work/spawned", "r"); while (spawned && fgets(text, sizeof text, spawned)) printf("> %s", text);
    posix_spawn_file_actions_addopen(&actions, 5, "/none", O_RDONLY, 0); status = posix_spawnp(&child, "names", &actions, NULL, argv, environment); printf("an action that fails: %s\n", status ? strerrorname_np(status) : "none"); if (!status) { waitpid(child, &status, 0); ended("it", status); }
    status = posix_spawn(&child, "/none", NULL, NULL, argv, environment); printf("posix_spawn of nothing: %s\n", status ? strerrorname_np(status) : "done"); if (!status) { waitpid(child, &status, 0); ended("it", status); }
#if defined __GLIBC__
    posix_spawn_file_actions_t moved; posix_spawn_file_actions_init(&moved); posix_spawn_file_actions_addchdir_np(&moved, "/links/dir"); fflush(stdout);
    status = posix_spawnp(&child, "names", &moved, NULL, argv, environment); if (!status) waitpid(child, &status, 0); ended("posix_spawnp elsewhere", status);
#endif
    /* There is no shell in the tree. */
    T(system(NULL) != 0); status = system("exit 3"); ended("system", status); FILE *pipe = popen("exit 4", "r"); printf("popen: %s\n", pipe ? "opened" : "none"); if (pipe) ended("pclose", pclose(pipe));
    T(popen("x", "?") != NULL);
}

static int object(struct dl_phdr_info *info, size_t size, void *found) {
    (void)size; const char *name = info->dlpi_name; int *count = found;
    if (name && *name == '/' && access(name, F_OK) != 0) printf("an object that is not there: %s\n", name);
    ++*count; return 0;
}

static void loader(void) {
    Dl_info info = {0}; int objects = 0;
    /* Names of libraries are what the guest can open; how its loader spells them is its own. */
    printf("dladdr: %s\n", dladdr((void *)(size_t)&strlen, &info) && info.dli_fname && access(info.dli_fname, R_OK) == 0 ? "there" : "not");
    printf("dl_iterate_phdr: %s\n", dl_iterate_phdr(object, &objects) == 0 && objects > 1 ? "all" : "not");
    printf("dlopen of none: %s\n", dlopen("/none/lib.so", RTLD_NOW) ? "opened" : "refused"); printf("dlopen of text: %s\n", dlopen("/etc/passwd", RTLD_NOW) ? "opened" : "refused"); printf("dlopen of itself: %s\n", dlopen(NULL, RTLD_NOW) ? "opened" : "refused");
    printf("locale: %s\n", setlocale(LC_ALL, "none.none") ? "there" : "none"); printf("C: %s\n", setlocale(LC_ALL, "C"));
    iconv_t there = iconv_open("UTF-8", "NO-SUCH-SET"); printf("iconv: %s\n", there == (iconv_t)-1 ? "none" : "there");
}

static int tell(int argc, char **argv) {
    printf("told: %s", argv[0]); for (int at = 2; at < argc; at++) printf(" [%s]", argv[at]);
    printf(" execfn %s env %s\n", (char *)getauxval(AT_EXECFN), getenv("PROBE") ? getenv("PROBE") : "none");
    printf("invoked %s, short %s, in %s\n", program_invocation_name, program_invocation_short_name, getcwd(text, sizeof text)); show_link("/proc/self/exe"); return 5;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--tell")) return tell(argc, argv);
    where(); files(); loader(); commands("/dynamic/names");
    return 0;
}
