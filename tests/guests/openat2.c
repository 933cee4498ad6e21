/* openat2: what its caller forbids of the walk, and how strict it is about flags. */
#include "probe.h"
#include <linux/openat2.h>

static int base = AT_FDCWD;

static void o(const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = flags, .resolve = resolve, .mode = flags & (O_CREAT | __O_TMPFILE) ? 0644 : 0};
    int fd = (int)opened(base, path, &how, sizeof how);
    printf("%s %llo %llx: %s\n", path, (long long)flags, (long long)resolve, fd < 0 ? strerrorname_np(errno) : "opened"); if (fd >= 0) close(fd);
}

int main(void) {
    const uint64_t ways[] = {0, RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_BENEATH | RESOLVE_NO_XDEV, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS};
    const char *paths[] = {"/dir/file", "dir/file", "links/dir/file", "links/dir/sub", "links/up/dir/file", "links/loop", "links/dangling", "links/dir/file", "dir/../dir/file", "dir/sub/../../dir/file", "..", ".", "../etc", "../../dir/file",
        "work", "work/..", "work/../etc", "/work/in", "proc/self/exe", "proc/self/root/dir/file", "proc/self/cwd/x", "/proc/self/fd/9", "proc/self/fd/8/sub", "none/..", "none", "dir/file/..", "dir/file/", "links/dir/", "work/to-tree", "work/to-work", "work/back/etc", "work/sub/../in", "work/sub/up"};
    chdir("/work"); put("in", "x"); mkdir("sub", 0755); symlink("/dir/file", "to-tree"); symlink("/work/in", "to-work"); symlink("..", "back"); symlink("../in", "sub/up"); int file = open("in", O_RDONLY), dir = open("/dir", O_PATH | O_DIRECTORY); dup2(file, 9); dup2(dir, 8);
    for (unsigned from = 0; from < 4; from++) {
        const char *at[] = {"/", "/work", "/dir", "/work/sub"}; chdir(at[from]); printf("from %s\n", at[from]); base = from & 1 ? open(at[from], O_PATH | O_DIRECTORY) : AT_FDCWD; if (from & 1) chdir("/etc");
        for (unsigned p = 0; p < sizeof paths / sizeof *paths; p++) for (unsigned w = 0; w < sizeof ways / sizeof *ways; w++) { o(paths[p], O_PATH, ways[w]); o(paths[p], O_RDONLY | O_NOFOLLOW, ways[w]); if (!strstr(paths[p], "proc")) o(paths[p], O_PATH | O_NOFOLLOW, ways[w]); }
    }
    base = AT_FDCWD; chdir("/work"); o("new", O_CREAT | O_RDWR, RESOLVE_BENEATH); o("../etc/new", O_CREAT | O_RDWR, RESOLVE_BENEATH); o("/new2", O_CREAT | O_RDWR, RESOLVE_IN_ROOT); T(access("/work/new2", F_OK)); symlink("/made", "dangle"); o("dangle", O_CREAT | O_RDWR, RESOLVE_IN_ROOT); T(access("/work/made", F_OK)); o("dangle", O_CREAT | O_EXCL | O_RDWR, RESOLVE_IN_ROOT); o("dangle", O_CREAT | O_RDWR, 0);
    o("in", O_PATH | O_RDWR, 0); o("in", O_PATH | O_CREAT, 0); o("in", 1 << 30, 0); o("in", 0, 1 << 10); o("in", 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT); o(".", O_TMPFILE | O_RDWR, 0); o(".", O_TMPFILE | O_RDONLY, 0); o("/", O_TMPFILE | O_RDWR, 0); o(".", __O_TMPFILE | O_RDWR, 0); o("in", 1ULL << 40, 0); o("in", O_CREAT | O_RDWR, 0x20);
    struct open_how how = {.mode = 0644}; T(syscall(SYS_openat2, AT_FDCWD, "in", &how, sizeof how)); how.mode = 0; T(syscall(SYS_openat2, AT_FDCWD, "in", &how, 8)); T(syscall(SYS_openat2, AT_FDCWD, "in", NULL, sizeof how)); T(syscall(SYS_openat2, AT_FDCWD, NULL, &how, sizeof how)); T(syscall(SYS_openat2, 999, "in", &how, sizeof how)); T(syscall(SYS_openat2, AT_FDCWD, "", &how, sizeof how));
    char large[128] = {0}; O(syscall(SYS_openat2, AT_FDCWD, "/dir/file", large, 128)); large[100] = 1; T(syscall(SYS_openat2, AT_FDCWD, "in", large, 128)); T(syscall(SYS_openat2, AT_FDCWD, "in", large, 5000)); T(syscall(SYS_openat2, AT_FDCWD, "in", large, 100));
    return 0;
}
