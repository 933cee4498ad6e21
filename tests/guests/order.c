/* Of several reasons to refuse a change of names, the one that the kernel gives: in a read-only tree, at mount points, at the root. */
#include "probe.h"

static void each(const char *path) {
    char other[300]; snprintf(other, sizeof other, "%s", path); printf("-- %s\n", path);
    T(mkdir(path, 0755)); T(mknod(path, S_IFREG | 0644, 0)); T(symlink("x", path)); T(link("/dir/file", path)); T(link("/work/file", path)); T(link(path, "/work/linked")); unlink("/work/linked"); T(link(path, "/dir/linked"));
    T(truncate(path, 0)); T(chmod(path, 0755)); T(utimes(path, NULL)); O(open(path, O_WRONLY)); O(open(path, O_RDWR | O_TRUNC)); O(open(path, O_CREAT | O_WRONLY, 0644)); O(open(path, O_CREAT | O_EXCL | O_RDONLY, 0644)); O(open(path, O_CREAT | O_RDONLY | O_NOFOLLOW, 0644)); O(open(path, O_TMPFILE | O_RDWR, 0600)); O(creat(path, 0644)); T(access(path, W_OK)); T(setxattr(path, "user.x", "y", 1, 0) ? errno == ENOTSUP ? 0 : -1 : 0); T(removexattr(path, "user.none") ? errno == ENOTSUP || errno == ENODATA ? 0 : -1 : 0); T(chown(path, -1, -1)); T(lchown(path, -1, -1));
    T(rename(path, "/work/renamed")); rename("/work/renamed", path); T(rename(path, "/dir/renamed")); T(rename("/work/file", path)); rename(path, "/work/file"); T(rename("/dir/file", path)); T(rename("/dir", path)); T(renameat2(AT_FDCWD, "/work/file", AT_FDCWD, path, RENAME_NOREPLACE)); T(renameat2(AT_FDCWD, "/dir/file", AT_FDCWD, path, RENAME_NOREPLACE)); T(renameat2(AT_FDCWD, path, AT_FDCWD, "/work/empty", RENAME_EXCHANGE)); renameat2(AT_FDCWD, path, AT_FDCWD, "/work/empty", RENAME_EXCHANGE);
    T(unlinkat(AT_FDCWD, path, AT_REMOVEDIR)); mkdir("/work/empty", 0755); T(unlink(path)); put("/work/file", "x");
}

int main(void) {
    chdir("/work"); put("file", "x"); mkdir("empty", 0755); mkdir("full", 0755); put("full/x", "y"); symlink("none", "dangling"); char longest[300]; memset(longest, 'l', 299); longest[299] = 0; longest[0] = '/';
    const char *paths[] = {"/", "/..", "/.", "/dir", "/dir/", "/dir/.", "/dir/..", "/dir/file", "/dir/file/", "/dir/file/x", "/none", "/none/", "/none/x", "/none/.", "/none/..", "/links/abs", "/links/dangling", "/links/dangling/", "/links/loop", "/links/dir", "/links/dir/", longest,
        "/work", "/work/", "/work/.", "/work/..", "/work/../work", "/proc", "/proc/..", "/work/none", "/work/none/", "/work/empty", "/work/empty/.", "/work/empty/..", "/work/full", "/work/dangling", "/work/file/", "", ".", "..", "./.."};
    for (unsigned at = 0; at < sizeof paths / sizeof *paths; at++) each(paths[at]);
    int fd = open("/dir/file", O_RDONLY), tmp = open("/work", O_TMPFILE | O_RDWR, 0600); char link[64]; snprintf(link, 64, "/proc/self/fd/%d", tmp); T(linkat(AT_FDCWD, link, AT_FDCWD, "/work/was-tmp", AT_SYMLINK_FOLLOW)); T(linkat(AT_FDCWD, link, AT_FDCWD, "/dir/was-tmp", AT_SYMLINK_FOLLOW)); T(access("/work/was-tmp", F_OK)); T(linkat(AT_FDCWD, link, AT_FDCWD, "/work/a-link", 0));
    snprintf(link, 64, "/proc/self/fd/%d", fd); T(linkat(AT_FDCWD, link, AT_FDCWD, "/work/stolen", AT_SYMLINK_FOLLOW)); T(linkat(fd, "", AT_FDCWD, "/dir/stolen", AT_EMPTY_PATH) ? errno == EROFS || errno == ENOENT ? 0 : -1 : 0); T(access("/work/stolen", F_OK)); T(linkat(fd, "x", AT_FDCWD, "/work/x", 0)); T(linkat(999, "x", AT_FDCWD, "/none/x", 0)); T(renameat(999, "x", AT_FDCWD, "/work/x")); T(renameat(AT_FDCWD, "file", 999, "x")); T(rename((char *)8, "/x")); T(rename("/work/file", (char *)8));
    return 0;
}
