/* Probes: small static programs that make system calls and print what came back. What one prints in a real chroot it must
 * print under every engine. So nothing is printed that differs from run to run (process numbers, inodes, times of now).
 * Each runs in an empty directory of its own, /work, that it may fill; the tree around it is read-only:
 *   /etc/passwd a file, /links/{abs,rel,loop,dangling,up,dir,chain} links, /dir/{file,sub/deep}. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

/* Where the probes of this word size are, unless the compiler was told. */
#ifdef PROBES
#elif defined __x86_64__
#define PROBES "/probes"
#else
#define PROBES "/probes32"
#endif

/* Errors have names in glibc since 2.32; elsewhere their numbers do, for what is compared was said by the same library. */
#ifdef __GLIBC__
#define NAMES_ERRORS __GLIBC_PREREQ(2, 32)
#else
#define NAMES_ERRORS 0
#endif
#if !NAMES_ERRORS
static inline const char *strerrorname_np(int error) {
    static char name[16];
    snprintf(name, sizeof name, "error %d", error);
    return name;
}
#endif

/* Prints the call and its result: a number, or the name of its error. */
#define T(call)                                                                    \
    do {                                                                           \
        errno = 0;                                                                 \
        long result_ = (long)(call);                                               \
        if (result_ == -1 && errno) printf("%s: %s\n", #call, strerrorname_np(errno)); \
        else printf("%s: %ld\n", #call, result_);                                  \
    } while (0)

/* As T, for calls that give a descriptor: closed again, its number not printed. */
#define O(call)                                                                    \
    do {                                                                           \
        int fd_ = (int)(call);                                                     \
        if (fd_ < 0) printf("%s: %s\n", #call, strerrorname_np(errno));            \
        else { printf("%s: opened\n", #call); close(fd_); }                        \
    } while (0)

/* A text that a call wrote. */
static inline void show(const char *what, const char *text, long len) {
    if (len < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %.*s\n", what, (int)len, text);
}

static inline void show_link(const char *path) {
    char text[PATH_MAX];
    show(path, text, readlink(path, text, sizeof text));
}

static inline void show_cwd(void) {
    char text[PATH_MAX];
    char *got = getcwd(text, sizeof text);
    show("getcwd", text, got ? (long)strlen(text) : -1);
}

/* openat2(2) once more while it says EAGAIN: the kernel cannot tell what `..` is below a bound (RESOLVE_BENEATH, RESOLVE_IN_ROOT)
 * while anything is renamed or mounted, anywhere on the machine, which is no answer about the path. RESOLVE_CACHED's EAGAIN is
 * one. `how` is a struct open_how, which older headers lack. */
static inline long opened(int dir, const char *path, const void *how, size_t size) {
    const uint64_t cached = 32, resolve = ((const uint64_t *)how)[2];
    for (int turns = 100000;; turns--) {
        long fd = syscall(SYS_openat2, dir, path, how, size);
        if (fd >= 0 || errno != EAGAIN || resolve & cached || !turns) return fd;
    }
}

static inline void put(const char *path, const char *text) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (long)strlen(text)) { perror(path); exit(1); }
    close(fd);
}
