/* Times, modes and owners set and read back. */
#include "probe.h"

static void show_time(const char *path) { struct stat st; if (lstat(path, &st)) printf("%s: %s\n", path, strerrorname_np(errno)); else printf("%s: %ld.%09ld %o\n", path, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_mode); }

int main(void) {
    struct timespec two[2] = {{1000000000, 5}, {1100000000, 7}}; struct timeval old[2] = {{1, 0}, {2, 3}}; struct utimbuf older = {5, 6}; chdir("/work"); put("file", "x"); chmod("file", 0644); symlink("file", "link");
    T(utimensat(AT_FDCWD, "file", two, 0)); show_time("file"); T(utimensat(AT_FDCWD, "link", old[0].tv_sec ? two : two, AT_SYMLINK_NOFOLLOW)); show_time("link"); T(utimes("link", old)); show_time("file"); T(lutimes("link", old)); show_time("link"); T(utime("/work/file", &older)); show_time("file");
    int fd = open("file", O_RDONLY); T(futimens(fd, two)); show_time("file"); T(syscall(SYS_utimensat, fd, NULL, two, 0)); T(utimensat(AT_FDCWD, "none", two, 0)); T(utimensat(AT_FDCWD, "/etc/passwd", two, 0)); T(utime("/etc/passwd", NULL)); T(utimensat(AT_FDCWD, "", two, 0)); T(futimens(999, two)); int tree = open("/etc/passwd", O_RDONLY); T(futimens(tree, two)); T(fchmod(tree, 0600));
    T(chmod("link", 0600)); show_time("file"); T(fchmodat(AT_FDCWD, "file", 04755, 0)); show_time("file"); T(fchmod(fd, 0640)); show_time("file"); T(chmod("/etc/passwd", 0666)); T(chmod("/none", 0666)); T(chmod("file/x", 0666)); T(chown("file", getuid(), getgid())); T(lchown("link", -1, -1)); T(chown("/none", -1, -1)); T(chown("/etc/passwd", -1, -1)); T(fchown(fd, -1, -1)); T(fchownat(fd, "", -1, -1, AT_EMPTY_PATH));
    T(truncate("file", 100)); T(truncate("/etc/passwd", 1)); T(truncate("/dir", 1)); struct stat st; T(stat("file", &st)); printf("size %ld\n", (long)st.st_size); struct statfs fs; T(statfs("/", &fs)); T(statfs("/none", &fs)); T(statfs("/etc/passwd/x", &fs)); umask(027); put("masked", ""); show_time("none"); T(stat("masked", &st)); printf("mode %o\n", st.st_mode);
    return 0;
}
