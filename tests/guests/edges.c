/* Where memory ends: paths, arguments, names and answers that lie across the end of what is mapped, and a path that another
 * thread changes while calls are made with it. */
#include "probe.h"
#include <pthread.h>
#include <sys/uio.h>

/* The kernel's own calls: the C library of 32 bits puts some answers together itself. */
#ifdef __x86_64__
#define RAW(name) SYS_##name
#else
#define RAW(name) SYS_##name##64
#endif

/* A page, and behind it nothing; and a page that cannot be written, with nothing behind it either. */
static char *page, *shut;
enum { PAGE = 4096 };

/* A text whose NUL is the last byte before the hole, or is beyond it. */
static char *whole(const char *text) { return strcpy(page + PAGE - strlen(text) - 1, text); }
static char *cut(const char *text) { return memcpy(page + PAGE - strlen(text), text, strlen(text)); }

static void run(const char *what, const char *path, char *const *argv, char *const *envp) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) { execve(path, argv, envp); printf("%s: %s\n", what, strerrorname_np(errno)); fflush(stdout); _exit(1); }
    int status; waitpid(child, &status, 0); printf("%s: ended %x\n", what, status);
}

/* Two names that differ in one byte: whatever is seen of it, it is one of them. */
static char changing[] = "/etc/passwd";
static volatile int over;
static void *change(void *unused) {
    while (!over) { ((volatile char *)changing)[5] ^= 'p' ^ 'q'; for (volatile int at = 0; at < 50; at++); }
    return unused;
}

int main(int argc, char **argv) {
    if (argc > 1) { printf("started with %s\n", argv[1]); return 0; }
    page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); munmap(page + PAGE, PAGE);
    shut = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); munmap(shut + PAGE, PAGE);
    struct stat st; struct statx stx; char text[PATH_MAX];
    chdir("/work"); put("here", "x"); symlink("/etc/passwd", "link");

    /* Paths. */
    T(stat(whole("/etc/passwd"), &st)); T(stat(cut("/etc/passwd"), &st)); T(stat(page + PAGE, &st)); T(stat(page + PAGE - 1, &st)); T(stat(whole(""), &st));
    T(stat((char *)-1, &st)); T(stat((char *)(uintptr_t)0xffff800000000000, &st)); T(stat(NULL, &st));
    O(open(whole("/etc/passwd"), O_RDONLY)); O(open(cut("/etc/passwd"), O_RDONLY)); O(open(cut("new"), O_CREAT | O_WRONLY, 0600)); O(openat(999, cut("new"), O_RDONLY));
    T(access(cut("/etc"), F_OK)); T(access(whole("/etc"), F_OK)); T(mkdir(cut("/work/dir"), 0700)); T(mkdir(whole("/work/dir"), 0700)); T(rmdir(whole("dir")));
    T(rename(cut("here"), "there")); T(rename("here", cut("there"))); T(rename("none", cut("there"))); T(link(cut("here"), "there")); T(symlink(cut("there"), "soft"));
    T(symlink("there", cut("soft"))); T(symlink(whole("there"), "soft")); show_link("soft"); T(unlink(cut("soft"))); T(unlink(whole("soft"))); T(chdir(cut("/"))); T(chdir(whole("/"))); show_cwd();
    T(chdir("/work")); T(truncate(cut("here"), 0)); T(chmod(whole("here"), 0640)); T(getxattr("here", cut("user.name"), text, 10)); T(getxattr(whole("here"), "user.name", text, 10));
    T(mknod(cut("fifo"), S_IFIFO | 0600, 0)); T(stat("fifo", &st)); T(statx(AT_FDCWD, cut("x"), AT_EMPTY_PATH, STATX_SIZE, &stx));
    /* As long as a path may be, and longer, with the hole behind it. */
    memset(page, '/', PAGE); page[PAGE - 1] = 0; T(stat(page, &st)); page[PAGE - 1] = '/'; T(stat(page, &st)); page[0] = 'n'; T(stat(page + 1, &st)); T(stat(page, &st));
    /* At every place of a word, across two pages, and before the hole. */
    char *pair = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const char *names[] = { "/etc/passwd", "/etc", "/etc/none", "/etc/a-name-that-is-longer-than-some-words-of-sixteen-bytes-are-together", "/etc//passwd", "/etc/passwd/", "here" };
    for (unsigned name = 0; name < sizeof names / sizeof *names; name++) {
        int found = 0, missing = 0, other = 0, length = strlen(names[name]);
        for (int at = 0; at < length + 40; at++) {
            char *places[] = { strcpy(pair + PAGE - at, names[name]), whole(names[name] + (at < length ? at : 0)), strcpy(pair + at, names[name]) };
            for (int place = 0; place < 3; place++) { if (!stat(places[place], &st)) found++; else if (errno == ENOENT) missing++; else other++; }
        }
        printf("%s: found %d, missing %d, other %d\n", names[name], found, missing, other);
    }

    /* Answers. */
    T(syscall(RAW(stat), "/etc/passwd", page + PAGE - 8)); T(syscall(RAW(stat), "/none", page + PAGE - 8)); T(syscall(RAW(lstat), "link", shut)); T(syscall(RAW(fstat), 1, shut));
    T(syscall(RAW(stat), "/etc/passwd", page + PAGE - sizeof st)); T(statx(AT_FDCWD, "/etc/passwd", 0, STATX_SIZE, (struct statx *)(page + PAGE - 8)));
    T(readlink("link", page + PAGE - 11, 11)); T(readlink("link", page + PAGE - 11, 100)); T(readlink("link", page + PAGE - 5, 100)); T(readlink("link", shut, 100)); T(readlink("here", shut, 100));
    T(syscall(SYS_getcwd, page + PAGE - 6, 6)); T(syscall(SYS_getcwd, page + PAGE - 5, 6)); T(syscall(SYS_getcwd, shut, 100)); T(syscall(SYS_getcwd, page + PAGE - 6, 100)); T(syscall(SYS_getcwd, page + PAGE - 5, 5));
    T(syscall(SYS_uname, page + PAGE - 100)); T(syscall(SYS_statfs, "/etc", page + PAGE - 8)); T(syscall(SYS_statfs, cut("/etc"), shut));
    int dir = open("/dir", O_RDONLY | O_DIRECTORY); T(syscall(SYS_getdents64, dir, shut, 4096)); T(syscall(SYS_getdents64, dir, page + PAGE - 10, 4096)); close(dir);

    /* Names of sockets. */
    int one = socket(AF_UNIX, SOCK_STREAM, 0), length = 110;
    struct sockaddr_un *name = (struct sockaddr_un *)(page + PAGE - 12);
    name->sun_family = AF_UNIX; memcpy(name->sun_path, "/work/sock", 10);
    T(bind(one, (void *)name, 13)); T(bind(one, (void *)name, 12)); T(listen(one, 1)); T(stat("/work/sock", &st));
    T(getsockname(one, (void *)(page + PAGE - 4), (void *)&length)); length = 110; T(getsockname(one, (void *)shut, (void *)&length)); length = 4; T(getsockname(one, (void *)(page + PAGE - 4), (void *)&length)); printf("length %d\n", length);
    T(getsockname(one, (void *)text, (void *)(page + PAGE))); T(getsockname(one, (void *)text, (void *)shut));
    int two = socket(AF_UNIX, SOCK_STREAM, 0); memcpy(name->sun_path, "/work/sock", 10); T(connect(two, (void *)name, 13)); T(connect(two, (void *)name, 12)); length = 110; T(getpeername(two, (void *)shut, (void *)&length));
    struct iovec piece = {"x", 1}; struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_name = page + PAGE - 3, .msg_namelen = 110}; T(sendmsg(two, &message, 0)); T(sendmsg(two, (void *)(page + PAGE - 8), 0)); T(recvmsg(two, (void *)(page + PAGE - 8), MSG_DONTWAIT));

    /* Programs: argument lists that end at the hole, or do not. */
    char *self = PROBES "/edges", **list = (char **)(page + PAGE) - 3, *none[] = {NULL};
    list[0] = self; list[1] = "arg"; list[2] = NULL; run("a list to the end", self, list, none); list[2] = "more"; run("a list beyond it", self, list, none);
    char *words[] = {self, "arg", NULL}; run("variables beyond it", self, words, list); words[1] = cut("arg"); run("an argument beyond it", self, words, none);
    words[1] = whole("argument"); run("an argument to the end", self, words, none); run("a path beyond it", cut(PROBES "/edges"), words, none); words[1] = "arg"; run("a path to the end", whole(PROBES "/edges"), words, none);

    /* A path that changes. */
    pthread_t other; pthread_create(&other, NULL, change, NULL);
    int found = 0, missing = 0, odd = 0;
    for (int at = 0; at < 3000; at++) { if (!stat(changing, &st)) found++; else if (errno == ENOENT) missing++; else odd++; }
    for (int at = 0; at < 1000; at++) { int fd = open(changing, O_RDONLY); if (fd >= 0) { found += fstat(fd, &st) == 0 && S_ISREG(st.st_mode); close(fd); } else if (errno == ENOENT) missing++; else odd++; }
    over = 1; pthread_join(other, NULL); printf("%d calls, %d odd\n", found + missing, odd);
    return 0;
}
