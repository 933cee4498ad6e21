/* Threads and processes that change the files below a directory in every way and at random, by names that others rename
 * meanwhile and by descriptors that are older than the names: `storm DIR SEED ROUNDS`. Whatever happens must happen to the
 * caller's own files. Each thread also has a file that others change attributes of but only it appends to: none of its
 * bytes may be lost. */
#include "../probe.h"

#include <pthread.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

enum { THREADS = 6, POOL = 24 };

static const char *dir;
static int rounds, pool[POOL], wrong;

static unsigned next(unsigned *state) { return *state = *state * 1664525u + 1013904223u, *state >> 8; }

/* A name that may be there. */
static const char *pick(unsigned *state, char *path) {
    unsigned n = next(state);
    const char *below[] = {"", "dir/", "dir/deep/", "locked/", "moved/", "moved/deep/"};
    if (n % 8 == 0) sprintf(path, "%s/own%u", dir, next(state) % THREADS);
    else sprintf(path, "%s/%s%02u", dir, below[n % 6], next(state) % 60);
    return path;
}

static void change(int fd) {
    if (fd < 0) return;
    if (write(fd, "storm", 5) < 0 && ftruncate(fd, 1)) {}
    close(fd);
}

static void one(unsigned *state) {
    char a[256], b[256], link_[64];
    struct timespec two[2] = {{next(state), 1}, {next(state), 2}};
    int own = !strncmp(strrchr(pick(state, a), '/'), "/own", 4), slot = (int)(next(state) % POOL), fd;
    unsigned way = next(state) % 32;
    sprintf(link_, "/proc/self/fd/%d", pool[slot]);
    do pick(state, b); while (!strncmp(strrchr(b, '/'), "/own", 4));
    /* Of another's file attributes only. */
    if (own && (way < 10 || (way >= 17 && way < 25))) way = 10 + way % 7;
    switch (way) {
        case 0: change(open(a, O_WRONLY)); break;
        case 1: change(open(a, O_RDWR | O_TRUNC)); break;
        case 2: change(open(a, O_WRONLY | O_APPEND | O_NOFOLLOW)); break;
        case 3: change(open(a, O_CREAT | O_WRONLY, 0600)); break;
        case 4: change(creat(a, 0644)); break;
        case 5: if (truncate(a, 3)) {} break;
        case 6: change(open(a, O_RDONLY | O_TRUNC)); break;
        case 7: { uint64_t how[3] = {O_RDWR, 0, 0}; change((int)syscall(437, AT_FDCWD, a, how, sizeof how)); break; }
        case 8: fd = open(a, O_PATH); sprintf(link_, "/proc/self/fd/%d", fd); change(open(link_, O_RDWR)); if (fd >= 0) close(fd); break;
        case 9: change(open(link_, O_WRONLY)); break;
        case 10: chmod(a, 0600 + next(state) % 0200); break;
        case 11: utimensat(AT_FDCWD, a, two, next(state) % 2 ? AT_SYMLINK_NOFOLLOW : 0); break;
        case 12: setxattr(a, "user.storm", "x", 1, 0); break;
        case 13: if (lchown(a, getuid(), getgid())) {} break;
        case 14: fd = open(a, O_RDONLY); fchmod(fd, 0644); futimens(fd, two); fsetxattr(fd, "user.note", "y", 1, 0); if (fd >= 0) close(fd); break;
        case 15: fd = open(a, O_PATH); sprintf(link_, "/proc/self/fd/%d", fd); chmod(link_, 0640); if (fd >= 0) close(fd); break;
        case 16: fd = open(a, O_RDONLY); if (fd >= 0) { int flags = 0; ioctl(fd, FS_IOC_SETFLAGS, &flags); close(fd); } break;
        case 17: case 18: rename(a, b); break;
        case 19: syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2); break;
        case 20: if (link(a, b)) {} break;
        case 21: if (next(state) % 8 == 0) unlink(a); break;
        case 22: sprintf(a, "%s/dir", dir); sprintf(b, "%s/moved", dir); rename(a, b); rename(b, a); break;
        case 23: if (linkat(AT_FDCWD, link_, AT_FDCWD, b, AT_SYMLINK_FOLLOW)) {} break;
        case 24: fd = open(dir, O_TMPFILE | O_RDWR, 0600); sprintf(link_, "/proc/self/fd/%d", fd); if (linkat(AT_FDCWD, link_, AT_FDCWD, b, AT_SYMLINK_FOLLOW)) {} if (fd >= 0) close(fd); break;
        case 25: fchmod(pool[slot], 0600 + next(state) % 0200); break;
        case 26: futimens(pool[slot], two); break;
        case 27: fsetxattr(pool[slot], "user.storm", "z", 1, 0); fremovexattr(pool[slot], "user.note"); break;
        case 28: chmod(link_, 0604); break;
        case 29: if (fchown(pool[slot], getuid(), getgid())) {} break;
        case 30: utimensat(AT_FDCWD, link_, two, 0); break;
        default: if (ftruncate(pool[slot], 0) == 0) wrong = 1; break;
    }
}

static void *run(void *which) {
    unsigned state = (unsigned)(size_t)which;
    int me = (int)(state % THREADS);
    char own[256];
    sprintf(own, "%s/own%d", dir, me);
    for (int round = 0; round < rounds; round++) {
        one(&state);
        if (round % 10 == 0) {
            int fd = open(own, O_WRONLY | O_APPEND);
            if (fd < 0) { chmod(own, 0600); fd = open(own, O_WRONLY | O_APPEND); }
            /* Somebody may take the permission away in between, again and again. */
            for (int tries = 0; fd < 0 && errno == EACCES && tries < 1000; tries++) { chmod(own, 0600); fd = open(own, O_WRONLY | O_APPEND); }
            if (fd < 0 || write(fd, "+", 1) != 1) { printf("%s: %s\n", own, strerrorname_np(errno)); wrong = 1; }
            if (fd >= 0) close(fd);
        }
    }
    return NULL;
}

int main(int count, char **args) {
    if (count != 4) return 2;
    dir = args[1];
    rounds = atoi(args[3]);
    unsigned seed = (unsigned)atoi(args[2]);
    char path[256];
    for (int slot = 0; slot < POOL; slot++) {
        sprintf(path, "%s/%02d", dir, slot * 2);
        pool[slot] = open(path, O_RDONLY);
    }
    pid_t child = fork();
    if (child == 0) {
        unsigned state = seed + 77;
        for (int round = 0; round < rounds; round++) one(&state);
        _exit(0);
    }
    pthread_t threads[THREADS];
    for (int at = 0; at < THREADS; at++) pthread_create(&threads[at], NULL, run, (void *)(size_t)(seed * THREADS + (unsigned)at));
    for (int at = 0; at < THREADS; at++) pthread_join(threads[at], NULL);
    int status;
    waitpid(child, &status, 0);
    for (int at = 0; at < THREADS; at++) {
        struct stat st;
        sprintf(path, "%s/own%d", dir, at);
        if (stat(path, &st) || st.st_size != 5 + (rounds + 9) / 10) { printf("%s: %ld bytes\n", path, (long)st.st_size); wrong = 1; }
    }
    printf("%s\n", wrong ? "wrong" : "right");
    return wrong || status;
}
