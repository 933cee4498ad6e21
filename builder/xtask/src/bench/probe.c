/* What one system call costs: `probe CALL COUNT` prints the nanoseconds of one, the mean of COUNT. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int argc, char **argv) {
    struct stat st;
    char text[4096];
    const char *call = argc > 1 ? argv[1] : "";
    long count = argc > 2 ? atol(argv[2]) : 1;
    double begin = now();
    for (long i = 0; i < count; i++) {
        if (!strcmp(call, "stat")) { if (stat("/usr/include/x86_64-linux-gnu/sys/stat.h", &st)) return 1; }
        else if (!strcmp(call, "open")) { int fd = open("/usr/include/x86_64-linux-gnu/sys/stat.h", O_RDONLY); if (fd < 0) return 1; close(fd); }
        else if (!strcmp(call, "missing")) { if (!access("/usr/include/x86_64-linux-gnu/sys/none.h", R_OK)) return 1; }
        else if (!strcmp(call, "getcwd")) { if (!getcwd(text, sizeof text)) return 1; }
        else if (!strcmp(call, "getppid")) syscall(SYS_getppid);
        else return 2;
    }
    printf("%.0f\n", (now() - begin) / (double)count);
    return 0;
}
