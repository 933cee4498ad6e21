/* Every way there is to change a file: each has a file of its own, /ways/00, /ways/01…, with the text "text\n", mode 644,
 * the attribute user.note and an old time; /ways/{one,two} are one file. What each way answers, and what its name shows
 * afterwards, is printed; in a read-only tree that is EROFS and nothing new. */
#include "probe.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

static char path[64], other[64];
static int number = -1;
/* A shared tree that is read-only has lost its write bits on disk, and an engine may show that. */
static mode_t shown = 07777;

static const char *name_of(int error) { return error ? strerrorname_np(error) : "done"; }

/* What the name shows. */
static void show_state(const char *file) {
    struct stat st;
    char text[32] = "", note[8] = "-";
    if (lstat(file, &st)) { printf("  %s", name_of(errno)); return; }
    int fd = open(file, O_RDONLY);
    long len = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (lgetxattr(file, "user.note", note, sizeof note) < 0) strcpy(note, "-");
    for (long at = 0; at < len; at++) if (text[at] == '\n' || !text[at]) text[at] = '.';
    printf("  %o %ld links %s time %s note %.3s size %ld", st.st_mode & shown, (long)st.st_nlink, text,
           st.st_mtim.tv_sec == 1000000000 ? "old" : st.st_mtim.tv_sec == 1100000000 ? "set" : "new", note, (long)st.st_size);
}

/* What has not to answer as the kernel does, but to do no harm. */
#define HARMLESS(what, expression)                                                 \
    do {                                                                           \
        snprintf(path, sizeof path, "/ways/%02d", ++number);                       \
        if ((expression) != 0) errno = 0;                                          \
        printf("%s: tried\n", what);                                               \
    } while (0)

/* A way: its name, and an expression that is -1 if it failed. */
#define WAY(what, expression)                                                      \
    do {                                                                           \
        snprintf(path, sizeof path, "/ways/%02d", ++number);                       \
        snprintf(other, sizeof other, "/ways/new%02d", number);                    \
        errno = 0;                                                                 \
        long result_ = (long)(expression);                                         \
        printf("%s: %s\n", what, name_of(result_ == -1 ? errno : 0));              \
        show_state(path);                                                          \
        printf("\n");                                                              \
    } while (0)

static int write_to(int fd) {
    if (fd < 0) return -1;
    int failed = write(fd, "new", 3) != 3, error = errno;
    close(fd);
    errno = error;
    return failed ? -1 : 0;
}

static int reading(void) { return open(path, O_RDONLY); }

static int through(int fd, int flags) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int got = write_to(open(link, flags)), error = errno;
    close(fd);
    errno = error;
    return got;
}

static const char *link_of(int fd) {
    static char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return link;
}

static int with(int fd, long result) { int error = errno; close(fd); errno = error; return (int)result; }

static int openat2_write(void) {
    uint64_t how[3] = {O_WRONLY | O_NOFOLLOW, 0, 4};
    return write_to((int)syscall(437, AT_FDCWD, path, how, sizeof how));
}

static int mapped(int flags, int protection) {
    int fd = open(path, flags);
    if (fd < 0) return -1;
    char *memory = mmap(NULL, 4096, protection, MAP_SHARED, fd, 0);
    int error = errno;
    close(fd);
    errno = error;
    if (memory == MAP_FAILED) return -1;
    memory[0] = 'T';
    munmap(memory, 4096);
    return 0;
}

static int copied_into(int how) {
    int from = open("/ways/source", O_RDONLY), to = open(path, O_WRONLY), fds[2];
    if (to < 0) return with(from, -1);
    long got = -1;
    if (how == 0) got = syscall(SYS_copy_file_range, from, NULL, to, NULL, 4, 0);
    if (how == 1) got = sendfile(to, from, NULL, 4);
    if (how == 2 && !pipe(fds)) {
        got = splice(from, NULL, fds[1], NULL, 4, 0);
        got = splice(fds[0], NULL, to, NULL, 4, 0);
        close(fds[0]); close(fds[1]);
    }
    close(from);
    return with(to, got < 0 ? -1 : 0);
}

static int flags_of(unsigned long request) {
    int fd = reading(), flags = 0;
    long got = ioctl(fd, request, &flags);
    /* Some file systems have no flags, and a copy-on-write view has none either. */
    if (got < 0 && (errno == ENOTTY || errno == EOPNOTSUPP)) got = 0;
    return with(fd, got);
}

static int handle_of(void) {
    union { struct file_handle handle; char room[sizeof(struct file_handle) + 128]; } all;
    int mount;
    all.handle.handle_bytes = 128;
    if (name_to_handle_at(AT_FDCWD, path, &all.handle, &mount, 0)) return -1;
    int root = open("/", O_RDONLY);
    return with(root, write_to(open_by_handle_at(root, &all.handle, O_WRONLY)));
}

/* By the numbers of 32-bit programs, which this processor's 64-bit ones may call too; memory has to lie low for that. */
static int narrow(int call, int second) {
#ifdef __x86_64__
    static char *low;
    if (!low) low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    strcpy(low, path);
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(call), "b"(low), "c"(second), "d"(0) : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) { errno = -result; return -1; }
    return result;
#else
    return call == 15 ? chmod(path, (mode_t)second) : open(path, second);
#endif
}

static int unnamed(void) {
    int fd = open("/ways", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0) return -1;
    return with(fd, write(fd, "tmp", 3) < 0 ? -1 : linkat(AT_FDCWD, link_of(fd), AT_FDCWD, other, AT_SYMLINK_FOLLOW));
}

int main(void) {
    struct timespec two[2] = {{1100000000, 7}, {1100000000, 7}};
    struct timeval old[2] = {{1100000000, 0}, {1100000000, 0}};
    struct utimbuf older = {1100000000, 1100000000};
    struct stat st;
    uid_t me = getuid();
    gid_t group = getgid();
    int fd, dir = open("/ways", O_RDONLY | O_DIRECTORY);
    if (access("/ways", W_OK) && errno == EROFS) shown = 01555;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    /* Data. */
    WAY("O_WRONLY", write_to(open(path, O_WRONLY)));
    WAY("O_RDWR", write_to(open(path, O_RDWR)));
    WAY("O_TRUNC", write_to(open(path, O_WRONLY | O_TRUNC)));
    WAY("O_RDONLY | O_TRUNC", (fd = open(path, O_RDONLY | O_TRUNC), with(fd, fd)));
    WAY("O_APPEND", write_to(open(path, O_WRONLY | O_APPEND)));
    WAY("creat", write_to(creat(path, 0600)));
    WAY("O_CREAT", write_to(open(path, O_WRONLY | O_CREAT, 0600)));
    WAY("O_CREAT | O_EXCL", write_to(open(path, O_WRONLY | O_CREAT | O_EXCL, 0600)));
    WAY("O_NOFOLLOW", write_to(open(path, O_WRONLY | O_NOFOLLOW)));
    WAY("openat", write_to(openat(dir, path + 6, O_WRONLY)));
    WAY("openat2", openat2_write());
    WAY("a link", symlink(path, other) ? -1 : write_to(open(other, O_WRONLY)));
    WAY("truncate", truncate(path, 2));
    WAY("ftruncate, reading", (fd = reading(), with(fd, ftruncate(fd, 2))));
    WAY("fallocate, reading", (fd = reading(), with(fd, fallocate(fd, 0, 0, 100))));
    WAY("fallocate", (fd = open(path, O_RDWR), with(fd, fallocate(fd, 0, 0, 10))));
    WAY("mmap", mapped(O_RDWR, PROT_READ | PROT_WRITE));
    WAY("mmap, reading", mapped(O_RDONLY, PROT_READ | PROT_WRITE));
    WAY("copy_file_range", copied_into(0));
    WAY("sendfile", copied_into(1));
    WAY("splice", copied_into(2));
    WAY("reopened, reading", through(reading(), O_WRONLY));
    WAY("reopened, O_PATH", through(open(path, O_PATH), O_RDWR));
    WAY("reopened, truncating", through(open(path, O_PATH | O_NOFOLLOW), O_WRONLY | O_TRUNC));
    WAY("by handle", handle_of());
    HARMLESS("narrow open", write_to(narrow(5, O_WRONLY)));
    /* Attributes. */
    WAY("chmod", chmod(path, 0600));
    HARMLESS("narrow chmod", narrow(15, 0600));
    WAY("fchmod, reading", (fd = reading(), with(fd, fchmod(fd, 0600))));
    WAY("fchmodat", fchmodat(dir, path + 6, 0600, 0));
    WAY("fchmodat2, not following", syscall(452, dir, path + 6, 0600, AT_SYMLINK_NOFOLLOW) && errno != ENOSYS ? -1 : 0);
    WAY("fchmodat2, O_PATH", (fd = open(path, O_PATH), with(fd, syscall(452, fd, "", 0600, AT_EMPTY_PATH))));
    WAY("chmod by /proc", (fd = open(path, O_PATH), with(fd, chmod(link_of(fd), 0600))));
    WAY("chown", chown(path, me, group));
    WAY("lchown", lchown(path, me, group));
    WAY("fchown, reading", (fd = reading(), with(fd, fchown(fd, me, group))));
    WAY("fchownat, O_PATH", (fd = open(path, O_PATH), with(fd, fchownat(fd, "", me, group, AT_EMPTY_PATH))));
    WAY("utime", utime(path, &older));
    WAY("utimes", utimes(path, old));
    WAY("lutimes", lutimes(path, old));
    WAY("futimesat", futimesat(dir, path + 6, old));
    WAY("utimensat", utimensat(dir, path + 6, two, 0));
    WAY("utimensat, not following", utimensat(dir, path + 6, two, AT_SYMLINK_NOFOLLOW));
    WAY("futimens, reading", (fd = reading(), with(fd, futimens(fd, two))));
    WAY("utimensat, O_PATH", (fd = open(path, O_PATH), with(fd, syscall(SYS_utimensat, fd, "", two, AT_EMPTY_PATH))));
    WAY("setxattr", setxattr(path, "user.note", "new", 3, 0));
    WAY("lsetxattr", lsetxattr(path, "user.note", "new", 3, 0));
    WAY("fsetxattr, reading", (fd = reading(), with(fd, fsetxattr(fd, "user.note", "new", 3, 0))));
    WAY("removexattr", removexattr(path, "user.note"));
    WAY("lremovexattr", lremovexattr(path, "user.note"));
    WAY("fremovexattr, reading", (fd = reading(), with(fd, fremovexattr(fd, "user.note"))));
    WAY("FS_IOC_SETFLAGS, reading", flags_of(FS_IOC_SETFLAGS));
    WAY("FS_IOC_SETVERSION, reading", flags_of(FS_IOC_SETVERSION));
    /* Names. */
    WAY("link, then write", link(path, other) ? -1 : write_to(open(other, O_WRONLY)));
    WAY("linked by /proc", (fd = open(path, O_PATH), with(fd, linkat(AT_FDCWD, link_of(fd), AT_FDCWD, other, AT_SYMLINK_FOLLOW))) ? -1 : write_to(open(other, O_WRONLY)));
    WAY("rename, then write", rename(path, other) ? -1 : write_to(open(other, O_WRONLY)) ? -1 : rename(other, path));
    WAY("rename over", rename("/ways/source", path));
    WAY("exchange", syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, "/ways/ro", 2));
    WAY("unlink", unlink(path));
    WAY("unlink, then anew", unlink(path) ? -1 : write_to(open(path, O_CREAT | O_WRONLY, 0600)));
    WAY("without a name", unnamed());
    WAY("mknod over", mknod(path, S_IFREG | 0600, 0));
    WAY("access", access(path, W_OK));
    WAY("faccessat2", syscall(439, AT_FDCWD, path, W_OK | R_OK, AT_EACCESS));
    WAY("removed, then written to", (fd = reading()) < 0 || unlink(path) ? -1 : with(fd, open(link_of(fd), O_RDONLY) < 0 ? -1 : 0));
    if (shown != 07777) return 0;
    /* What its mode forbids. */
    T(access("/ways/none", W_OK)); O(open("/ways/none", O_WRONLY)); T(truncate("/ways/none", 0)); T(setxattr("/ways/none", "user.note", "new", 3, 0));
    T(chmod("/ways/none", 0644)); O(open("/ways/none", O_WRONLY)); T(stat("/ways/none", &st)); printf("mode %o\n", st.st_mode);
    /* One file of two names; a directory renamed, and one that is locked. */
    T(stat("/ways/one", &st)); printf("links %ld mode %o\n", (long)st.st_nlink, st.st_mode);
    T(rename("/ways/dir", "/ways/moved")); T(write_to(open("/ways/moved/deep/file", O_WRONLY))); show_state("/ways/moved/deep/file"); printf("\n");
    T(chmod("/ways/locked", 0555)); T(write_to(open("/ways/locked/file", O_WRONLY))); T(stat("/ways/locked", &st)); printf("mode %o\n", st.st_mode); O(open("/ways/locked/new", O_CREAT | O_WRONLY, 0600));
    T(chmod("/ways/locked", 0755));
    T(fstatat(dir, "run", &st, 0)); printf("mode %o\n", st.st_mode);
    return 0;
}
