/* Names: what is found, made, removed and renamed, and what is refused. */
#include "probe.h"

int main(void) {
    struct stat st;
    struct statx stx;
    char longname[300], longpath[5000];
    memset(longname, 'n', 299); longname[299] = 0;
    memset(longpath, '/', 4999); longpath[4999] = 0;
    T(stat("/etc/passwd", &st)); T(stat("/etc/passwd/", &st)); T(stat("/etc/passwd/x", &st)); T(stat("/etc/passwd/..", &st));
    T(stat("", &st)); T(stat("/none", &st)); T(stat("/none/..", &st)); T(stat("/..", &st)); T(stat("/../../etc/passwd", &st));
    T(stat("//etc///passwd", &st)); T(stat("/etc/./passwd", &st)); T(stat("/dir/sub/../file", &st));
    T(stat(longname, &st)); T(stat(longpath, &st)); longpath[4095] = 0; T(stat(longpath, &st)); T(stat((char *)8, &st));
    T(access("/etc/passwd", R_OK)); T(access("/etc/passwd", W_OK)); T(access("/none", F_OK)); T(faccessat(AT_FDCWD, "/dir", X_OK, AT_EACCESS));
    T(statx(AT_FDCWD, "/etc/passwd", 0, STATX_BASIC_STATS, &stx)); T(statx(-1, "etc", 0, STATX_BASIC_STATS, &stx));
    O(open("/etc/passwd", O_WRONLY)); O(open("/etc/new", O_CREAT | O_WRONLY, 0644)); O(open("/etc/passwd", O_CREAT | O_EXCL | O_WRONLY, 0644));
    O(open("/etc", O_WRONLY)); O(open("/etc", O_RDONLY | O_DIRECTORY)); O(open("/etc/passwd", O_RDONLY | O_DIRECTORY));
    O(open("/etc/passwd", O_CREAT | O_RDONLY, 0644)); O(open("/etc/passwd", O_TRUNC | O_RDONLY)); O(open("/work/new/", O_CREAT | O_WRONLY, 0644));
    T(mkdir("/dir", 0755)); T(mkdir("/new", 0755)); T(rmdir("/dir")); T(unlink("/etc/passwd")); T(unlink("/none")); T(unlink("/dir"));
    T(rename("/etc/passwd", "/etc/other")); T(rename("/none", "/work/x")); T(chmod("/etc/passwd", 0600)); T(truncate("/etc/passwd", 0));
    T(rmdir("/work")); T(rename("/work", "/other")); T(rmdir("/")); T(mkdir("/", 0755)); T(unlink("/"));
    T(chdir("/work")); show_cwd();
    T(mkdir("a", 0755)); T(mkdir("a", 0755)); T(mkdir("a/b/", 0755)); T(mkdir("none/b", 0755)); T(mkdir("a/.", 0755)); T(mkdir("a/..", 0755));
    put("a/file", "text"); T(rename("a/file", "a/b/file")); T(rename("a", "a/b/c")); T(rename("a/b/file", "a/moved/")); T(rmdir("a")); T(rmdir("a/."));
    T(stat("a/b/file", &st)); printf("size %ld mode %o\n", (long)st.st_size, st.st_mode);
    T(link("a/b/file", "hard")); T(link("a", "harddir")); T(link("/etc/passwd", "across")); T(stat("hard", &st)); printf("links %ld\n", (long)st.st_nlink);
    int dir = open("a", O_PATH | O_DIRECTORY);
    T(fstatat(dir, "b/file", &st, 0)); T(fstatat(dir, "../hard", &st, 0)); T(fstatat(dir, "../../etc/passwd", &st, 0)); T(fstatat(dir, "", &st, 0));
    T(fstatat(dir, "", &st, AT_EMPTY_PATH)); T(mkdirat(dir, "c", 0700)); T(unlinkat(dir, "c", 0)); T(unlinkat(dir, "c", AT_REMOVEDIR));
    T(renameat(dir, "b/file", AT_FDCWD, "back")); O(openat(dir, "../back", O_RDWR)); O(openat(999, "x", O_RDONLY)); O(openat(999, "/etc/passwd", O_RDONLY));
    int file = open("back", O_RDWR); T(fstatat(file, "x", &st, 0)); T(fstatat(file, "..", &st, 0)); T(ftruncate(file, 2)); T(fstat(file, &st)); printf("size %ld\n", (long)st.st_size);
    T(mknod("fifo", S_IFIFO | 0600, 0)); T(stat("fifo", &st)); printf("mode %o\n", st.st_mode); T(mknod("/etc/fifo", S_IFIFO | 0600, 0));
    DIR *list = opendir("/dir"); struct dirent *entry; int names = 0;
    while (list && (entry = readdir(list))) names++;
    printf("entries of /dir: %d\n", names);
    return 0;
}
