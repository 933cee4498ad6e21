/* Every call about ids, groups and capabilities, as root: from many states, to many, each in a child of its own. */
#include "../probe.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/auxv.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static const int all[] = {-1, 0, 1, 2};
static const int starts[][3] = {{0, 0, 0}, {0, 1, 1}, {1, 0, 0}, {0, 0, 1}, {0, 1, 0}, {1, 1, 1}, {1, 1, 2}, {1, 2, 1}, {1, 2, 0}, {0, 1, 2}};

static void caps(char *text) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {0};
    if (syscall(SYS_capget, &head, data)) { sprintf(text, "%s", strerrorname_np(errno)); return; }
    sprintf(text, "%x%08x/%x%08x/%x%08x", data[1].effective, data[0].effective, data[1].permitted, data[0].permitted, data[1].inheritable, data[0].inheritable);
}

/* Everything there is to say of who we are. */
static void who(long result, int error) {
    unsigned r = 0, e = 0, s = 0, gr = 0, ge = 0, gs = 0;
    char text[100];
    syscall(SYS_getresuid, &r, &e, &s);
    syscall(SYS_getresgid, &gr, &ge, &gs);
    caps(text);
    printf("%ld %s %d.%d.%d.%d %d.%d.%d.%d %s\n", result, error ? strerrorname_np(error) : "-", r, e, s, (int)setfsuid(-1), gr, ge, gs, (int)setfsgid(-1), text);
    fflush(stdout);
    if (r != syscall(SYS_getuid) || e != syscall(SYS_geteuid) || gr != syscall(SYS_getgid) || ge != syscall(SYS_getegid)) puts("getuid and its kin differ");
}

/* One call in a child. `group`: of groups, by a user who may or may not. */
static void one(const int *start, int group, int uid, long number, long a, long b, long c) {
    fflush(stdout);
    int child = fork();
    if (child == 0) {
        if (group) { syscall(SYS_setresgid, start[0], start[1], start[2]); if (uid) syscall(SYS_setresuid, uid, uid, uid); }
        else syscall(SYS_setresuid, start[0], start[1], start[2]);
        errno = 0;
        long result = syscall(number, a, b, c);
        who(result, errno);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (status) printf("status %x\n", status);
}

static void combine(int group, int uid) {
    for (unsigned at = 0; at < sizeof starts / sizeof *starts; at += 1 + group) {
        const int *start = starts[at];
        printf("from %d.%d.%d %s of %d\n", start[0], start[1], start[2], group ? "groups" : "users", uid);
        for (int i = 0; i < 4; i++) {
            one(start, group, uid, group ? SYS_setgid : SYS_setuid, all[i], 0, 0);
            one(start, group, uid, group ? SYS_setfsgid : SYS_setfsuid, all[i], 0, 0);
            for (int j = 0; j < 4; j++) {
                one(start, group, uid, group ? SYS_setregid : SYS_setreuid, all[i], all[j], 0);
                for (int k = (i + j + at) % 2; k < 4; k += 2) one(start, group, uid, group ? SYS_setresgid : SYS_setresuid, all[i], all[j], all[k]);
            }
        }
    }
}

static void show_groups(void) {
    gid_t groups[64];
    int count = getgroups(64, groups);
    printf("groups %d:", count);
    for (int i = 0; i < count; i++) printf(" %d", groups[i]);
    puts("");
}

static void set_caps(unsigned effective, unsigned permitted, unsigned inheritable) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{effective, permitted, inheritable}};
    T(syscall(SYS_capset, &head, data));
    char text[100];
    caps(text);
    puts(text);
}

#define CHILD(...) do { fflush(stdout); int child_ = fork(); if (!child_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(child_, NULL, 0); } while (0)
#define STATE "told"

int main(int argc, char **argv) {
    if (argc > 1) { who(0, 0); show_groups(); printf("secure %lu ids %lu.%lu %lu.%lu keep %d\n", getauxval(AT_SECURE), getauxval(AT_UID), getauxval(AT_EUID), getauxval(AT_GID), getauxval(AT_EGID), prctl(PR_GET_KEEPCAPS)); return 0; }
    chdir("/work");
    who(0, 0);
    combine(0, 0);
    combine(1, 0);
    combine(1, 1);

    gid_t many[] = {5, 6, 7, 5}, some[2];
    T(setgroups(4, many)); show_groups(); T(getgroups(0, NULL)); T(getgroups(2, some)); T(getgroups(-1, some)); T(setgroups(-1, many)); T(setgroups(70000, many)); T(setgroups(2, (void *)8)); T(setgroups(0, NULL)); show_groups();
    CHILD(setgroups(2, many); setuid(1); T(setgroups(0, NULL)); show_groups(); execl(PROBES "/ids", STATE, STATE, NULL));
    unsigned bad; T(syscall(SYS_getresuid, (void *)8, &bad, &bad)); CHILD(T(syscall(SYS_setuid, 70000)); T(syscall(SYS_getuid)); T(syscall(SYS_setresuid, 0, 0, 0)));
    CHILD(T(syscall(SYS_setresuid, 70000, 70001, 70002)); who(0, 0); T(syscall(SYS_setresuid, 0, -1, -1)));

    /* Capabilities. */
    struct __user_cap_header_struct head = {1, 0}; struct __user_cap_data_struct data[2];
    T(syscall(SYS_capget, &head, data)); printf("version %x\n", head.version); head.version = 1; T(syscall(SYS_capget, &head, NULL)); T(syscall(SYS_capset, &head, data));
    head.version = _LINUX_CAPABILITY_VERSION_1; T(syscall(SYS_capget, &head, data)); printf("%x\n", data[0].effective); head.pid = -1; T(syscall(SYS_capget, &head, data)); head.pid = getppid() + 100000; T(syscall(SYS_capget, &head, data)); T(syscall(SYS_capget, (void *)8, data)); head.pid = 0; T(syscall(SYS_capget, &head, (void *)8));
    CHILD(set_caps(1, 3, 2); set_caps(3, 3, 0); set_caps(4, 3, 0); set_caps(1, 1, 1); set_caps(1, 3, 0); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 1, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)); T(prctl(PR_CAP_AMBIENT, 9, 0, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 99, 0, 0)); T(prctl(PR_CAPBSET_DROP, 3)); T(setuid(1)));
    CHILD(set_caps(0xff, 0xff, 1); T(prctl(PR_SET_KEEPCAPS, 1)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0)); T(setuid(1)); who(0, 0); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0)); execl(PROBES "/ids", STATE, STATE, NULL));
    CHILD(T(prctl(PR_SET_SECUREBITS, 1)); T(prctl(PR_GET_SECUREBITS)); execl(PROBES "/ids", STATE, STATE, NULL));
    CHILD(T(prctl(PR_SET_SECUREBITS, 4)); T(setresuid(1, 1, 1)); who(0, 0); T(setuid(0)); T(prctl(PR_SET_SECUREBITS, 0)));
    CHILD(T(prctl(PR_SET_SECUREBITS, 3)); T(prctl(PR_SET_SECUREBITS, 2)); T(prctl(PR_SET_SECUREBITS, 1)); T(prctl(PR_SET_SECUREBITS, 3)); T(prctl(PR_SET_SECUREBITS, 0x1000)));
    for (int cap = 0; cap < 42; cap++) printf("%d", prctl(PR_CAPBSET_READ, cap));
    puts("");
    CHILD(T(prctl(PR_CAPBSET_DROP, 0)); T(prctl(PR_CAPBSET_READ, 0)); T(prctl(PR_CAPBSET_DROP, 63)); execl(PROBES "/ids", STATE, STATE, NULL));
    T(prctl(PR_GET_KEEPCAPS)); T(prctl(PR_SET_KEEPCAPS, 2)); T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); T(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));

    /* Programs with set-id bits, run by somebody. */
    for (int mode = 0; mode < 4; mode++) for (int nnp = 0; nnp < 2; nnp++) for (int id = 0; id < 3; id++) {
        char name[20];
        sprintf(name, "set%d%d%d", mode, nnp, id);
        int in = open(PROBES "/ids", O_RDONLY), out = open(name, O_CREAT | O_WRONLY, 0700), got; char buffer[65536];
        while ((got = read(in, buffer, sizeof buffer)) > 0) if (write(out, buffer, got) != got) exit(1);
        close(in); close(out);
        chown(name, id, id + 1); chmod(name, (mode & 1 ? 04000 : 0) | (mode & 2 ? 02000 : 0) | 0755);
        printf("mode %d nnp %d owner %d\n", mode, nnp, id);
        CHILD(setgroups(0, NULL); setgid(7); if (nnp) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); setuid(2); execl(name, STATE, STATE, NULL));
        CHILD(setgid(7); setresuid(5, 2, 0); execl(name, STATE, STATE, NULL));
        CHILD(setresgid(0, 7, 7); setresuid(0, 2, 2); execl(name, STATE, STATE, NULL));
        unlink(name);
    }
    CHILD(chmod("/work", 0755); int fd = open("script", O_CREAT | O_WRONLY, 0755); dprintf(fd, "#!%s/ids told\n", PROBES); close(fd); chmod("script", 06755); chown("script", 3, 3); chmod("script", 06755); setuid(5); execl("./script", STATE, NULL));
    return 0;
}
