/* Owners, modes, devices and rights, as root and as whom root becomes. */
#include "../probe.h"
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/sysmacros.h>

#define CHILD(...) do { fflush(stdout); int child_ = fork(); if (!child_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(child_, NULL, 0); } while (0)

static void line(const char *name, const char *how, int failed, unsigned mode, unsigned uid, unsigned gid, unsigned major, unsigned minor, unsigned links) {
    if (failed) printf("%s %s: %s\n", how, name, strerrorname_np(errno));
    else printf("%s %s: %o %d.%d %d:%d links %d\n", how, name, mode, uid, gid, major, minor, links);
}

/* By every call that tells. */
static void show_file(const char *name) {
    struct stat a; struct statx x;
    int failed = lstat(name, &a);
    line(name, "lstat", failed, a.st_mode, a.st_uid, a.st_gid, major(a.st_rdev), minor(a.st_rdev), a.st_nlink);
    if (failed) return;
#define SAME(call, m, u, g, r, l) do { if (call) printf("%s: %s\n", #call, strerrorname_np(errno)); else if ((m) != a.st_mode || (u) != a.st_uid || (g) != a.st_gid || (r) != a.st_rdev || (l) != a.st_nlink) line(name, #call, 0, m, u, g, major(r), minor(r), l); } while (0)
    SAME(statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x), x.stx_mode, x.stx_uid, x.stx_gid, makedev(x.stx_rdev_major, x.stx_rdev_minor), x.stx_nlink);
    int fd = open(name, O_PATH | O_NOFOLLOW); struct stat b;
    SAME(fstat(fd, &b), b.st_mode, b.st_uid, b.st_gid, b.st_rdev, b.st_nlink);
    SAME(fstatat(fd, "", &b, AT_EMPTY_PATH), b.st_mode, b.st_uid, b.st_gid, b.st_rdev, b.st_nlink);
    SAME(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x), x.stx_mode, x.stx_uid, x.stx_gid, makedev(x.stx_rdev_major, x.stx_rdev_minor), x.stx_nlink);
    close(fd);
#ifdef __i386__
    /* The oldest, whose ids have 16 bits. */
    struct { unsigned dev, ino; unsigned short mode, links, uid, gid; unsigned rdev, rest[12]; } o;
    if (!S_ISLNK(a.st_mode)) { if (syscall(SYS_stat, name, &o)) perror("stat"); else line(name, "stat", 0, o.mode, o.uid, o.gid, 0, 0, o.links); }
#else
    if (!S_ISLNK(a.st_mode)) SAME(syscall(SYS_stat, name, &b), b.st_mode, b.st_uid, b.st_gid, b.st_rdev, b.st_nlink);
#endif
}

/* To write, to read, to search as somebody of some groups. */
/* openat2(2). */
static int open2(const char *path, uint64_t flags, uint64_t mode) { uint64_t how[3] = {flags, mode, 0}; return (int)syscall(437, AT_FDCWD, path, how, sizeof how); }

static void become(int uid, int gid) { setgroups(0, NULL); setgid(gid); setuid(uid); }

static void rights(const char *name) {
    printf("rights of %d.%d to %s:", (int)setfsuid(-1), (int)setfsgid(-1), name);
    for (int mode = 0; mode < 8; mode++) printf(" %s", access(name, mode) ? strerrorname_np(errno) : "yes");
    for (int mode = 0; mode < 3; mode++) { int fd = open(name, mode | O_NONBLOCK); printf(" %s", fd < 0 ? strerrorname_np(errno) : "open"); close(fd); }
    puts("");
}

static void as(int uid, int gid, void (*what)(void)) { fflush(stdout); int child = fork(); if (!child) { become(uid, gid); what(); fflush(stdout); _exit(0); } waitpid(child, NULL, 0); }

static void change(void) {
    printf("as %d\n", (int)geteuid());
    T(chown("a", 5, -1)); T(chown("a", -1, 6)); T(chown("a", -1, -1)); T(chown("a", geteuid(), getegid())); T(chmod("a", 0640)); show_file("a"); T(chmod("a", 02775)); show_file("a");
    T(truncate("a", 3)); T(utimensat(AT_FDCWD, "a", NULL, 0)); struct timespec two[2] = {{1, 2}, {3, 4}}; T(utimensat(AT_FDCWD, "a", two, 0));
    T(mkdir("d/new", 0777)); T(rmdir("d/new")); T(unlink("d/b")); T(rename("d/c", "d/e")); T(rename("d/e", "d/c")); T(symlink("x", "d/s")); T(unlink("d/s")); O(open("d/created", O_CREAT | O_EXCL | O_RDWR, 0600)); show_file("d/created"); T(unlink("d/created")); T(mknod("d/fifo", S_IFIFO | 0600, 0)); T(unlink("d/fifo")); T(mknod("d/null", S_IFCHR | 0600, makedev(1, 3))); T(unlink("d/null")); T(chdir("d")); T(chdir("..")); T(access("d/b", F_OK));
    T(unlink("sticky/theirs")); T(rename("sticky/theirs", "sticky/mine")); O(open("sticky/own", O_CREAT | O_RDWR, 0600)); T(unlink("sticky/own")); T(execl("d/b", "b", NULL));
}

static void all_rights(void) {
    static const int modes[] = {0, 0111, 0222, 0444, 0700, 0070, 0007, 0640, 0755};
    for (unsigned at = 0; at < sizeof modes / sizeof *modes; at++) { char name[20]; sprintf(name, "r/f%o", modes[at]); rights(name); sprintf(name, "r/d%o", modes[at]); rights(name); sprintf(name, "r/d%o/in", modes[at]); rights(name); }
}

int main(void) {
    struct stat st;
    setfsuid(-1); chdir("/work"); umask(022); signal(SIGPIPE, SIG_IGN);
    put("a", "text"); show_file("a"); T(chown("a", 33, 34)); show_file("a"); T(chown("a", -1, 50)); show_file("a"); T(chown("a", 70000, -1)); show_file("a");
    T(chmod("a", 06755)); show_file("a"); T(chown("a", 1, 2)); show_file("a"); T(chmod("a", 02645)); T(chown("a", 3, -1)); show_file("a"); T(chmod("a", 01777)); show_file("a"); T(chmod("a", 0)); show_file("a"); O(open("a", O_RDWR)); T(chmod("a", 07777)); show_file("a"); T(truncate("a", 1));
    int fd = open("a", O_RDONLY); T(fchown(fd, 8, 9)); T(fchmod(fd, 0421)); show_file("a"); T(fchownat(fd, "", 10, 11, AT_EMPTY_PATH)); show_file("a"); T(syscall(452, fd, "", 0604, AT_EMPTY_PATH)); show_file("a"); close(fd);
    T(fchown(99, 1, 1)); T(fchmod(99, 0)); T(fstat(99, &st)); T(chown("none", 1, 1)); T(chmod("none", 1)); T(chown("a/x", 1, 1));
    T(symlink("a", "l")); T(lchown("l", 12, 13)); show_file("l"); T(chown("l", 14, 15)); show_file("a"); T(fchownat(AT_FDCWD, "l", 16, 17, AT_SYMLINK_NOFOLLOW)); show_file("l"); T(syscall(452, AT_FDCWD, "l", 0600, AT_SYMLINK_NOFOLLOW)); T(chmod("l", 0640)); show_file("a");
    T(link("a", "hard")); show_file("hard"); T(unlink("a")); show_file("hard"); T(rename("hard", "b")); show_file("b"); put("c", ""); show_file("c"); T(chown("c", 20, 21)); T(rename("c", "b")); show_file("b"); put("c", ""); show_file("c"); T(unlink("c")); put("c", ""); show_file("c"); T(syscall(SYS_renameat2, AT_FDCWD, "b", AT_FDCWD, "c", 2)); show_file("b"); show_file("c");
    fd = open("gone", O_CREAT | O_RDWR, 0644); unlink("gone"); T(fchown(fd, 5, 5)); T(fstat(fd, &st)); close(fd); put("next", ""); show_file("next");
    int pipes[2]; pipe(pipes); T(fchown(pipes[0], 1, 1)); T(fchmod(pipes[0], 0600));

    /* Made here: by mkdir, mknod, open, symlink, under masks and set-group-ID directories. */
    T(mkdir("d", 0555)); show_file("d"); put("d/b", "#!/bin/none\n"); put("d/c", ""); T(mkdir("d/sub", 0)); put("d/sub/x", ""); show_file("d/sub/x"); show_file("d/sub"); umask(0); T(mkdir("d/m", 07777)); show_file("d/m"); O(open("d/o", O_CREAT | O_RDWR, 06777)); show_file("d/o"); umask(027); O(open("d/p", O_CREAT | O_RDWR, 0666)); show_file("d/p"); umask(022);
    T(mkdir("g", 0755)); T(chown("g", 40, 41)); T(chmod("g", 02755)); show_file("g"); put("g/f", ""); show_file("g/f"); T(mkdir("g/d", 0700)); show_file("g/d"); T(mkdir("g/d/e", 0700)); show_file("g/d/e"); T(symlink("x", "g/l")); show_file("g/l"); T(mknod("g/n", S_IFIFO | 0666, 0)); show_file("g/n"); T(mknod("g/r", S_IFREG | 0666, 0)); show_file("g/r");
    CHILD(become(40, 41); T(chmod("g", 02700)); show_file("g"); T(chmod("g/f", 02755))); CHILD(become(40, 99); T(chmod("g", 02755)); show_file("g")); CHILD(setfsuid(60); setfsgid(61); T(mkdir("g/x", 0777)); T(mkdir("mine", 0777)));
    T(chmod("g", 0777)); T(chown("g", 0, 0)); CHILD(setfsgid(61); setfsuid(60); T(mkdir("g/x", 0777)); show_file("g/x"); put("g/y", ""); show_file("g/y"); T(symlink("z", "g/z")); show_file("g/z"); T(mkdir("mine", 0777)); int s = socket(AF_UNIX, SOCK_STREAM, 0); struct sockaddr_un at = {AF_UNIX, "g/socket"}; T(bind(s, (void *)&at, sizeof at)); show_file("g/socket"));

    /* Devices. */
    T(mknod("null", S_IFCHR | 0666, makedev(1, 3))); show_file("null"); O(open("null", O_RDWR)); T(chmod("null", 0600)); show_file("null"); T(chown("null", 1, 2)); show_file("null"); T(mknod("disk", S_IFBLK | 0660, makedev(259, 300))); show_file("disk"); T(rename("disk", "disk2")); show_file("disk2"); T(link("disk2", "disk3")); show_file("disk3"); T(mknod("null", S_IFCHR, 0)); T(mknod("none/null", S_IFCHR, 0)); T(mknod("white", S_IFCHR, 0)); show_file("white"); T(unlink("null")); put("null", "plain"); show_file("null"); T(mknodat(AT_FDCWD, "fifo", S_IFIFO | 0600, 0)); show_file("fifo"); T(mknod("bad", 0120000, 0)); T(mkdir("bad", 0)); T(rmdir("bad"));
    fd = open("disk2", O_PATH); T(fstat(fd, &st)); T(unlink("disk2")); T(unlink("disk3")); close(fd); put("zero", ""); show_file("zero");

    /* Rights: of root, owner, group, others. */
    T(mkdir("r", 0755));
    static const int modes[] = {0, 0111, 0222, 0444, 0700, 0070, 0007, 0640, 0755};
    for (unsigned at = 0; at < sizeof modes / sizeof *modes; at++) { char name[20]; sprintf(name, "r/f%o", modes[at]); put(name, ""); chown(name, 100, 200); chmod(name, modes[at]); sprintf(name, "r/d%o", modes[at]); mkdir(name, 0755); sprintf(name, "r/d%o/in", modes[at]); put(name, ""); chmod(name, 0666); sprintf(name, "r/d%o", modes[at]); chown(name, 100, 200); chmod(name, modes[at]); }
    all_rights(); as(100, 1, all_rights); as(1, 200, all_rights); as(1, 1, all_rights);
    CHILD(gid_t more = 200; setgroups(1, &more); setgid(1); setuid(1); all_rights()); CHILD(setresuid(1, 0, 0); all_rights()); CHILD(setresuid(0, 1, 0); all_rights()); CHILD(setresuid(0, 1, 0); T(faccessat(AT_FDCWD, "r/f0", R_OK, AT_EACCESS)); T(syscall(439, AT_FDCWD, "r/f0", R_OK, AT_EACCESS)); T(syscall(439, AT_FDCWD, "r/f0", R_OK, 0)));
    CHILD(T(setfsuid(1)); O(open("r/f0", O_RDONLY)); T(access("r/f0", R_OK)); T(chmod("r/f0", 0)); T(chown("r/f0", 1, 1)));

    /* What somebody may change. */
    put("a", "x"); T(chmod("d", 0755)); T(mkdir("sticky", 0777)); T(chmod("sticky", 01777)); put("sticky/theirs", "");
    as(1, 1, change); T(chown("a", 1, 1)); as(1, 1, change); T(chown("d", 1, 1)); T(chmod("d", 0700)); as(1, 1, change); as(2, 2, change); T(chown("sticky/theirs", 2, 2)); as(2, 2, change); change();

    /* The same by openat2. */
    put("closed", ""); T(chown("closed", 7, 7)); T(chmod("closed", 0600)); O(open2("closed", O_RDWR, 0));
    CHILD(become(7, 7); O(open2("closed", O_RDWR, 0)); O(open2("sticky/new", O_CREAT | O_WRONLY, 0640)); show_file("sticky/new"); O(open2("r/new", O_CREAT | O_WRONLY, 0640)));
    CHILD(become(8, 8); O(open2("closed", O_RDONLY, 0)); O(open2("sticky/new", O_RDONLY, 0)); O(open2("closed", O_PATH, 0)));
    O(open2("disk4", O_RDWR, 0)); T(mknod("disk4", S_IFCHR | 0666, makedev(1, 3))); fd = open2("disk4", O_RDWR, 0); T(fstat(fd, &st)); T(S_ISCHR(st.st_mode)); T(read(fd, &st, 1)); close(fd);
    return 0;
}
