/* A 64-bit program that makes 32-bit calls: those with paths are refused, for the kernel would read them past the tree. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static long narrow(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

int main(void) {
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    strcpy(low, "/proc/version");
    printf("open %ld, access %ld, getpid %d\n", narrow(5, (long)low, 0, 0), narrow(33, (long)low, 0, 0), narrow(20, 0, 0, 0) > 0);
    return 0;
}
