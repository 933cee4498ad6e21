/* Directories deeper than a path can be long, entered step by step; and paths of just the length that the kernel takes. */
#include "probe.h"

static char name[252];

static void down(int count) { for (int at = 0; at < count; at++) if (mkdir(name, 0755) || chdir(name)) { perror("down"); exit(1); } }

int main(void) {
    struct stat st; char text[PATH_MAX]; struct stat here;
    memset(name, 'd', 250); chdir("/work"); down(40); stat(".", &here);
    put("bottom", "x"); T(stat("bottom", &st)); T(stat("./bottom", &st)); T(stat("none", &st)); T(lstat("none/x", &st)); T(stat("bottom/x", &st)); T(access("bottom", R_OK)); O(open("bottom", O_RDWR)); O(open("new", O_CREAT | O_EXCL | O_WRONLY, 0600));
    T(rename("new", "newer")); T(link("newer", "other")); T(symlink("bottom", "l")); T(stat("l", &st)); show_link("l"); T(symlink("/etc/passwd", "a")); T(stat("a", &st)); O(open("a", O_RDONLY));
    T(chmod("other", 0640)); T(stat("other", &st)); printf("mode %o links %ld\n", st.st_mode, (long)st.st_nlink); T(truncate("other", 5)); T(unlink("other")); T(unlink("newer")); T(mkdir("in", 0755)); T(rmdir("in")); T(rmdir(".")); T(rmdir("..")); T(mknod("fifo", S_IFIFO | 0600, 0)); T(unlink("fifo"));
    printf("getcwd: %s\n", syscall(SYS_getcwd, text, sizeof text) < 0 ? strerrorname_np(errno) : "a name"); T(readlink("/proc/self/cwd", text, sizeof text)); T(stat("/proc/self/cwd", &st)); T(stat("/proc/self/cwd/bottom", &st)); T(stat("/etc/passwd", &st));
    char up[4096] = ""; for (int at = 0; at < 12; at++) strcat(up, "../"); char back[PATH_MAX]; snprintf(back, sizeof back, "%s%s", up, name); T(stat(back, &st));
    for (int at = 1; at < 12; at++) { strcat(back, "/"); strcat(back, name); } strcat(back, "/bottom"); T(stat(back, &st)); T(symlink(back, "far")); T(stat("far", &st)); printf("regular %d\n", S_ISREG(st.st_mode));
    char top[4096] = ""; for (int at = 0; at < 41; at++) strcat(top, "../"); strcat(top, "etc/passwd"); T(stat(top, &st)); char work[200] = ""; for (int at = 0; at < 40; at++) strcat(work, "../"); T(stat(work, &st)); T(access(work, W_OK)); strcat(work, "../work/"); strcat(work, name); T(stat(work, &st));
    int dir = open(".", O_RDONLY | O_DIRECTORY); T(chdir("/")); T(fstatat(dir, "bottom", &st, 0)); T(fstatat(dir, "../x", &st, 0)); T(fchdir(dir)); T(stat("bottom", &st)); printf("same %d\n", !fstat(dir, &st) && st.st_ino == here.st_ino); T(mkdirat(dir, "more", 0755)); T(chdir("more")); T(stat("../bottom", &st)); T(chdir("..")); T(unlinkat(dir, "more", AT_REMOVEDIR));
    DIR *list = fdopendir(dir); int names = 0; while (list && readdir(list)) names++; printf("entries %d\n", names); fflush(stdout); pid_t child = fork(); if (child == 0) { T(stat("bottom", &st)); T(chdir("..")); T(rmdir(name)); fflush(stdout); _exit(0); } waitpid(child, NULL, 0);
    T(unlink("bottom")); T(unlink("l")); T(unlink("a")); T(unlink("far")); int left = 0; for (; left < 40; left++) if (chdir("..") || rmdir(name)) break; printf("left %d\n", left); show_cwd();
    /* Just short enough, and one too long. */
    char path[PATH_MAX + 300]; int at = snprintf(path, sizeof path, "/work"); while (4095 - at - 1 > 255) { at += snprintf(path + at, sizeof path - at, "/%s", name); if (mkdir(path, 0755)) perror("mkdir"); }
    path[at] = '/'; memset(path + at + 1, 'f', 4095 - at - 1); path[4095] = 0; printf("length %zu\n", strlen(path)); O(open(path, O_CREAT | O_WRONLY, 0644)); T(stat(path, &st)); T(chmod(path, 0600)); T(access(path, R_OK | W_OK)); T(unlink(path)); T(stat(path, &st)); path[4095] = 'f'; path[4096] = 0; T(stat(path, &st));
    path[4095] = 0; path[at] = 0; T(chdir(path)); T(mkdir("e", 0755)); T(chdir("e")); printf("cwd of %zu\n", getcwd(text, sizeof text) ? strlen(text) : 0); put("file", "y"); T(stat("file", &st)); T(stat("../e/file", &st)); path[at] = '/'; strcpy(path + at + 1, "e/file"); T(stat(path, &st)); O(open(path, O_RDWR)); T(symlink(path, "/work/by")); T(stat("/work/by", &st)); T(rename(path, "/work/moved")); T(stat("/work/moved", &st));
    memset(name, 'g', 251 - 3); name[248] = 0; at = 0; while (mkdir(name, 0755) == 0 && chdir(name) == 0 && getcwd(text, sizeof text) && at < 5) at++; printf("names up to %d levels\n", at); put("file", "z"); T(stat("file", &st)); T(stat("../file", &st)); T(chdir("..")); T(stat("file", &st));
    return 0;
}
