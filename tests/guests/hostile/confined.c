/* Whether a program can confine itself (landlock): what a tracer does in its stead would not be confined, nor could it
 * reach what the tracer holds for it, so it is told that the kernel knows no such thing. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    uint64_t rules[3] = {2};
    long version = syscall(444, NULL, 0, 1);
    printf("version: %s\n", version < 0 ? strerrorname_np(errno) : "told");
    long set = syscall(444, rules, 8, 0);
    printf("rules: %s\n", set < 0 ? strerrorname_np(errno) : "made");
    return 0;
}
