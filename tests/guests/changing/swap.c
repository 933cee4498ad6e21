/* One thread gives a name to one file after the other that nobody has changed yet; the others go on changing whatever has
 * that name: `swap DIR`. It means nothing, a symbolic link or a file of their own when they ask, and a shared file by the
 * time the call is made. All files may be written to, so no call may say that one may not be. */
#include "../probe.h"

#include <pthread.h>

enum { FILES = 60, CHANGERS = 3 };

static const char *dir;
static char target[256];
static volatile int done, wrong, creates;

static void swapped(const char *what, int fd) {
    if (fd < 0 && errno != ENOENT && errno != ELOOP) { printf("%s: %s\n", what, strerrorname_np(errno)); wrong = 1; }
    if (fd >= 0 && write(fd, "swap", 4) != 4) wrong = 1;
    if (fd >= 0) close(fd);
}

static void *change(void *which) {
    struct timespec two[2] = {{12345, 1}, {12345, 2}};
    for (unsigned way = (unsigned)(size_t)which; !done; way++) switch (creates ? 9 + way % 2 : way % 11) {
        case 0: utimensat(AT_FDCWD, target, two, 0); break;
        case 1: utimensat(AT_FDCWD, target, two, AT_SYMLINK_NOFOLLOW); break;
        case 2: setxattr(target, "user.swap", "x", 1, 0); break;
        case 3: lsetxattr(target, "user.note", "x", 1, 0); break;
        case 4: chmod(target, 0666); break;
        case 5: if (lchown(target, getuid(), getgid())) {} break;
        case 6: swapped("open", open(target, O_WRONLY)); break;
        case 7: swapped("open and truncate", open(target, O_RDWR | O_TRUNC | O_NOFOLLOW)); break;
        case 9: swapped("make", open(target, O_CREAT | O_WRONLY, 0600)); break;
        case 10: swapped("creat", creat(target, 0600)); break;
        case 8: if (truncate(target, 2) && errno != ENOENT) { printf("truncate: %s\n", strerrorname_np(errno)); wrong = 1; } break;
    }
    return NULL;
}

int main(int count, char **args) {
    if (count != 2) return 2;
    dir = args[1];
    sprintf(target, "%s/target", dir);
    pthread_t changers[CHANGERS];
    for (size_t at = 0; at < CHANGERS; at++) pthread_create(&changers[at], NULL, change, (void *)(at * 3));
    for (int at = 0; at < FILES; at++) {
        char path[256];
        sprintf(path, "%s/%02d", dir, at);
        creates = at >= FILES / 2;
        if (at % 3 != 2 || creates) unlink(target);
        if (at % 3 == 1 && symlink("nowhere", target)) {}
        if (!creates) usleep(200);
        if (rename(path, target)) { printf("%s: %s\n", path, strerrorname_np(errno)); wrong = 1; }
        usleep(500);
    }
    done = 1;
    for (int at = 0; at < CHANGERS; at++) pthread_join(changers[at], NULL);
    printf("%s\n", wrong ? "wrong" : "right");
    return wrong;
}
