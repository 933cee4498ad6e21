/* The working directory: found, changed, removed under one's feet. */
#include "probe.h"

int main(void) {
    struct stat st; char small[2];
    T(chdir("/")); show_cwd(); T(chdir("..")); show_cwd(); T(chdir("/dir/sub")); show_cwd(); T(chdir("../../etc")); show_cwd();
    T(chdir("/none")); T(chdir("/etc/passwd")); T(chdir("")); show_cwd(); T(syscall(SYS_getcwd, small, 2)); T(syscall(SYS_getcwd, (char *)8, 100));
    T(syscall(SYS_getcwd, small, 0)); char text[64]; printf("result of getcwd: %ld\n", syscall(SYS_getcwd, text, 64));
    int dir = open("/dir/sub", O_RDONLY | O_DIRECTORY); T(fchdir(dir)); show_cwd(); int file = open("/etc/passwd", O_RDONLY); T(fchdir(file)); T(fchdir(999));
    T(chdir("/work")); T(mkdir("gone", 0755)); T(mkdir("gone/in", 0755)); T(chdir("gone/in")); show_cwd();
    pid_t child = fork();
    if (child == 0) { T(rmdir("/work/gone/in")); T(rmdir("/work/gone")); fflush(stdout); _exit(0); }
    waitpid(child, NULL, 0);
    show_cwd(); T(stat(".", &st)); T(stat("x", &st)); T(stat("./x", &st)); O(open(".", O_RDONLY)); O(open("new", O_CREAT | O_WRONLY, 0644)); T(mkdir("new", 0755)); T(chdir(".")); T(rmdir("."));
    show_link("/proc/self/cwd"); T(stat("/proc/self/cwd", &st)); T(stat("/proc/self/cwd/x", &st)); T(stat("/etc/passwd", &st));
    T(chdir("/work")); show_cwd();
    T(mkdir("old", 0755)); T(chdir("old")); T(rename("/work/old", "/work/new")); show_cwd(); put("here", "x"); T(stat("/work/new/here", &st));
    char deep[260]; memset(deep, 'd', 250); deep[250] = 0; T(chdir("/work")); int depth = 0;
    for (; depth < 20; depth++) if (mkdir(deep, 0755) || chdir(deep)) break;
    printf("depth %d\n", depth); put("bottom", "x"); T(stat("bottom", &st)); char whole[PATH_MAX]; printf("getcwd of a long path: %s\n", getcwd(whole, sizeof whole) ? "a name" : strerrorname_np(errno));
    T(stat("..", &st)); T(chdir("..")); T(chdir(deep)); T(stat("bottom", &st));
    return 0;
}
