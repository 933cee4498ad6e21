/* Random calls on random paths, from a fixed seed: trees are made, linked, renamed and removed, and each result is printed. The
 * arguments are the first seed and how many (3 if none are given). */
#include "probe.h"
#include <linux/openat2.h>

static uint64_t state;
static unsigned below(unsigned limit) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return (unsigned)((state >> 20) % limit); }

static const char *names[] = {"a", "b", "c", "d", "l", "m", "n", "a", "b", "l", "..", "..", ".", "", "none", "work", "dir", "sub", "links", "etc", "x (deleted)"};
static const char *starts[] = {"", "", "", "", "", "/work/", "/work/", "/work/", "/", "//work/", "/dir/", "/links/", "../", "./", "/proc/self/cwd/", "/proc/self/root/", "/proc/self/root/work/", "/proc/self/fd/60/", "/proc/self/fd/61/", "/proc/thread-self/cwd/"};

static const char *path(char *out) {
    strcpy(out, starts[below(sizeof starts / sizeof *starts)]); int parts = (int)below(5);
    for (int at = 0; at <= parts; at++) { if (at) strcat(out, "/"); strcat(out, names[below(sizeof names / sizeof *names)]); }
    if (below(8) == 0) strcat(out, "/"); if (below(200) == 0) memset(out + strlen(out), 'y', 300), out[strlen(out) > 2000 ? 2000 : strlen(out)] = 0;
    return out;
}

static void say(int number, const char *what, const char *one, const char *other, long result) { printf("%d %s(%s%s%s): ", number, what, one, other ? ", " : "", other ? other : ""); if (result < 0) printf("%s", strerrorname_np(errno)); else printf("%ld", result); }
static void kind(const struct stat *st) { printf(" type %o", st->st_mode & S_IFMT); if (S_ISREG(st->st_mode)) printf(" size %ld links %ld", (long)st->st_size, (long)st->st_nlink); }

static int count(int fd, unsigned size, int *named) {
    char buffer[4096]; int entries = 0; long got; *named = 0;
    while ((got = syscall(SYS_getdents64, fd, buffer, size)) > 0) for (long at = 0; at < got; at += *(unsigned short *)(buffer + at + 16)) { entries++; *named += (int)strlen(buffer + at + 19); }
    return got < 0 ? -1 : entries;
}

static void round_of(uint64_t seed, int calls) {
    state = seed * 0x9e3779b97f4a7c15u + 1; char p[4096], q[4096], text[4096]; struct stat st; struct statx stx; chdir("/work");
    for (int at = 0; at < calls; at++) {
        memset(p, 0, sizeof p); memset(q, 0, sizeof q); path(p); path(q); int dir = below(3) ? AT_FDCWD : 60 + (int)below(3); const char *from = dir == AT_FDCWD ? "" : dir == 60 ? "60:" : dir == 61 ? "61:" : "62:"; long r; static const int opens[] = {O_RDONLY, O_RDWR, O_WRONLY, O_CREAT | O_RDWR, O_CREAT | O_EXCL | O_WRONLY, O_CREAT | O_RDONLY | O_NOFOLLOW, O_RDONLY | O_DIRECTORY, O_RDONLY | O_NOFOLLOW, O_PATH, O_PATH | O_NOFOLLOW, O_TMPFILE | O_RDWR, O_CREAT | O_WRONLY | O_TRUNC, O_RDONLY | O_DIRECTORY | O_NOFOLLOW};
        int flags = opens[below(sizeof opens / sizeof *opens)]; static const uint64_t ways[] = {0, 1, 2, 4, 8, 16, 5, 9, 18}; uint64_t way = ways[below(9)]; errno = 0; printf("%s", from);
        switch (below(34)) {
        case 0: case 1: r = fstatat(dir, p, &st, 0); say(at, "stat", p, NULL, r); if (!r) kind(&st); break;
        case 2: r = fstatat(dir, p, &st, AT_SYMLINK_NOFOLLOW); say(at, "lstat", p, NULL, r); if (!r) kind(&st); break;
        case 3: r = statx(dir, p, below(2) ? AT_SYMLINK_NOFOLLOW : 0, STATX_TYPE, &stx); say(at, "statx", p, NULL, r); if (!r) printf(" type %o", stx.stx_mode & S_IFMT); break;
        case 4: say(at, "access", p, NULL, faccessat(dir, p, (int)below(8), 0)); break;
        case 5: case 6: case 7: case 8: r = openat(dir, p, flags | O_NONBLOCK, 0644); say(at, "open", p, NULL, r < 0 ? r : 0); printf(" %o", flags); if (r >= 0) { if (!fstat((int)r, &st)) kind(&st); if ((flags & O_ACCMODE) && S_ISREG(st.st_mode)) printf(" wrote %ld", (long)write((int)r, "text", below(5))); close((int)r); } break;
        case 9: { struct open_how how = {.flags = ((uint64_t)flags & ~(uint64_t)O_TMPFILE) | (flags & O_PATH ? 0 : O_NONBLOCK), .resolve = way}; if (flags & O_CREAT) how.mode = 0644; r = opened(dir, p, &how, sizeof how); say(at, "openat2", p, NULL, r < 0 ? r : 0); printf(" %o %llx", flags, (long long)way); if (r >= 0) { if (!fstat((int)r, &st)) kind(&st); close((int)r); } break; }
        case 10: case 11: case 12: say(at, "mkdir", p, NULL, mkdirat(dir, p, 0755)); break;
        case 13: say(at, "rmdir", p, NULL, unlinkat(dir, p, AT_REMOVEDIR)); break;
        case 14: say(at, "unlink", p, NULL, unlinkat(dir, p, 0)); break;
        case 15: case 16: say(at, "rename", p, q, renameat(dir, p, AT_FDCWD, q)); break;
        case 17: { unsigned how = below(3); say(at, "renameat2", p, q, renameat2(AT_FDCWD, p, dir, q, how)); printf(" %u", how); break; }
        case 18: case 19: say(at, "link", p, q, linkat(dir, p, AT_FDCWD, q, below(2) ? AT_SYMLINK_FOLLOW : 0)); break;
        case 20: case 21: case 22: say(at, "symlink", q, p, symlinkat(q, dir, p)); break;
        case 23: r = readlinkat(dir, p, text, sizeof text - 1); say(at, "readlink", p, NULL, r); if (r >= 0) printf(" %.*s", (int)r, text); break;
        case 24: case 25: say(at, "chdir", p, NULL, chdir(p)); r = syscall(SYS_getcwd, text, sizeof text); printf(" %s", r < 0 ? strerrorname_np(errno) : text); break;
        case 26: say(at, "chmod", p, NULL, fchmodat(dir, p, 0700 + below(64), 0)); break;
        case 27: say(at, "truncate", p, NULL, truncate(p, below(9))); break;
        case 28: say(at, "mknod", p, NULL, mknodat(dir, p, S_IFIFO | 0644, 0)); break;
        case 29: say(at, "utimensat", p, NULL, utimensat(dir, p, NULL, below(2) ? AT_SYMLINK_NOFOLLOW : 0)); break;
        case 30: r = openat(dir, p, O_PATH | O_DIRECTORY); say(at, "hold", p, NULL, r < 0 ? r : 0); if (r >= 0) { int as = 60 + (int)below(3); printf(" as %d", as); dup2((int)r, as); close((int)r); } break;
        case 31: r = fchdir(60 + (int)below(3)); say(at, "fchdir", "", NULL, r); r = syscall(SYS_getcwd, text, sizeof text); printf(" %s", r < 0 ? strerrorname_np(errno) : text); break;
        case 32: r = openat(dir, p, O_RDONLY | O_DIRECTORY | O_NONBLOCK); say(at, "list", p, NULL, r < 0 ? r : 0); if (r >= 0) { int named, entries = strstr(p, "proc") || strstr(p, "root") ? 0 : 1; if (entries && !fstat((int)r, &st) && st.st_ino != 1) { entries = count((int)r, 300 + below(3000), &named); syscall(SYS_getcwd, text, sizeof text); if (access("/dir", F_OK)) named = 0; char whole[64], name[4096]; snprintf(whole, 64, "/proc/self/fd/%ld", r); long n = readlink(whole, name, sizeof name); if (n > 5 && !strncmp(name, "/work", 5)) printf(" entries %d %d", entries, named); } close((int)r); } break;
        default: if (below(12)) { chdir("/work"); printf("back"); } else { char tree[64]; snprintf(tree, 64, "/work/%c", 'a' + (int)below(3)); say(at, "chdir", tree, NULL, chdir(tree)); } break;
        }
        printf("\n");
    }
}

int main(int argc, char **argv) {
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1; int seeds = argc > 2 ? atoi(argv[2]) : 3;
    for (int at = 0; at < seeds; at++) { printf("seed %llu\n", (long long)(first + (uint64_t)at)); round_of(first + (uint64_t)at, 4000); }
    return 0;
}
