/* Links in /proc and what stands behind them. */
#include "probe.h"

static void own(const char *what) { char path[64]; snprintf(path, 64, "/proc/%d/%s", getpid(), what); char text[PATH_MAX]; printf("%s: ", what); show("by number", text, readlink(path, text, sizeof text)); }

static void tracer(const char *path) {
    char line[256]; FILE *status = fopen(path, "r");
    while (status && fgets(line, sizeof line, status)) if (!strncmp(line, "TracerPid", 9)) printf("%s: %s", path, line);
    if (status) fclose(status);
}

int main(void) {
    tracer("/proc/self/status"); tracer("/proc/thread-self/status");
    struct stat st; char text[64]; int fd;
    show_link("/proc/self/exe"); show_link("/proc/self/cwd"); show_link("/proc/self/root"); show_link("/proc/thread-self/cwd"); own("exe"); own("cwd"); own("root");
    snprintf(text, 64, "%d", getpid()); char self[64]; long len = readlink("/proc/self", self, 64); printf("self is me: %d\n", len == (long)strlen(text) && !memcmp(self, text, len));
    T(lstat("/proc/self/exe", &st)); printf("link %d\n", S_ISLNK(st.st_mode)); T(stat("/proc/self/exe", &st)); printf("file %d\n", S_ISREG(st.st_mode)); O(open("/proc/self/exe", O_RDONLY)); T(access("/proc/self/exe", X_OK));
    struct stat root, through; stat("/", &root); stat("/proc/self/root", &through); printf("same root: %d\n", root.st_ino == through.st_ino); T(stat("/proc/self/root/etc/passwd", &st)); T(stat("/proc/self/root/../etc/passwd", &st));
    T(chdir("/dir")); show_link("/proc/self/cwd"); T(stat("/proc/self/cwd/file", &st)); T(stat("/proc/self/cwd/../etc/passwd", &st)); T(chdir("/proc/self/cwd")); show_cwd();
    T(chdir("/proc/self/root/dir/sub")); show_cwd(); T(chdir("/proc")); T(stat("self/exe", &st)); T(stat("self/../self/root/etc", &st)); T(chdir("/work"));
    fd = open("/etc/passwd", O_RDONLY); dup2(fd, 50); show_link("/proc/self/fd/50"); show_link("/dev/fd/50"); T(stat("/proc/self/fd/50", &st)); T(stat("/proc/self/fd/50/x", &st)); O(open("/proc/self/fd/50", O_RDONLY)); O(open("/proc/self/fd/50", O_WRONLY)); O(open("/dev/fd/50", O_RDONLY));
    fd = open("/dir", O_RDONLY); dup2(fd, 51); show_link("/proc/self/fd/51"); T(stat("/proc/self/fd/51/file", &st)); T(stat("/proc/self/fd/51/../etc/passwd", &st)); T(chdir("/proc/self/fd/51")); show_cwd(); T(chdir("/work"));
    put("gone", "text"); fd = open("gone", O_RDWR); dup2(fd, 52); T(unlink("gone")); show_link("/proc/self/fd/52"); O(open("/proc/self/fd/52", O_RDONLY)); T(stat("/proc/self/fd/52", &st)); printf("size %ld links %ld\n", (long)st.st_size, (long)st.st_nlink);
    int pipes[2]; T(pipe(pipes)); dup2(pipes[0], 53); long n = readlink("/proc/self/fd/53", text, 64); printf("a pipe: %d\n", n > 5 && !memcmp(text, "pipe:", 5)); T(stat("/proc/self/fd/53", &st)); printf("fifo %d\n", S_ISFIFO(st.st_mode)); T(stat("/proc/self/fd/53/x", &st));
    fd = (int)syscall(SYS_memfd_create, "memory", 0); dup2(fd, 54); show_link("/proc/self/fd/54"); O(open("/proc/self/fd/54", O_RDWR)); show_link("/proc/self/fd/999"); O(open("/proc/self/fd/999", O_RDONLY));
    T(stat("/proc/self/task", &st)); T(stat("/proc/self/ns/uts", &st)); O(open("/proc/self/status", O_RDONLY)); O(open("/proc/self/none", O_RDONLY)); O(open("/proc/mounts", O_RDONLY)); T(mkdir("/proc/new", 0755));
    put("note", "12345"); T(symlink("/proc/self/fd/50", "by")); T(stat("by", &st)); T(symlink("/proc/self/cwd/note", "mine")); T(stat("mine", &st)); printf("size %ld\n", (long)st.st_size);
    pid_t child = fork(); if (child == 0) { pause(); _exit(0); }
    char path[64]; snprintf(path, 64, "/proc/%d/cwd", child); char out[PATH_MAX]; n = readlink(path, out, sizeof out); show("child's cwd", out, n); snprintf(path, 64, "/proc/%d/exe", child); n = readlink(path, out, sizeof out); show("child's exe", out, n); snprintf(path, 64, "/proc/%d/root/etc/passwd", child); printf("child's root: %d\n", stat(path, &st)); kill(child, SIGKILL); waitpid(child, NULL, 0);
    return 0;
}
