/* What a program asks the kernel about itself, and asks of it that an engine might have an opinion of. */
#include "probe.h"
#include <sys/mount.h>
#include <sys/swap.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>

static void status_line(const char *key) {
    FILE *status = fopen("/proc/self/status", "r"); char line[512];
    while (fgets(line, sizeof line, status)) if (!strncmp(line, key, strlen(key))) printf("%s", line);
    fclose(status);
}

int main(void) {
    char text[256]; struct utsname names; chdir("/work");
    T(uname(&names)); printf("%s %s\n", names.sysname, names.machine); T(gethostname(text, 256)); printf("same name %d\n", !strcmp(text, names.nodename)); T(sethostname("x", 1)); T(setdomainname("x", 1)); T(uname((struct utsname *)8)); T(syscall(SYS_uname, &names));
    printf("personality %x\n", personality(0xffffffff)); T(personality(ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC)); printf("personality %x\n", personality(0xffffffff)); T(personality(0));
    /* prctl. */
    T(prctl(PR_GET_DUMPABLE)); T(prctl(PR_SET_DUMPABLE, 0)); T(prctl(PR_GET_DUMPABLE)); struct stat st; T(stat("/etc/passwd", &st)); show_link("/proc/self/cwd"); T(prctl(PR_SET_DUMPABLE, 1)); T(prctl(PR_SET_DUMPABLE, 2)); T(prctl(PR_GET_KEEPCAPS)); T(prctl(PR_GET_SECUREBITS)); T(prctl(PR_GET_TIMERSLACK) > 0); T(prctl(PR_SET_TIMERSLACK, 70000)); T(prctl(PR_GET_TIMERSLACK)); T(prctl(PR_SET_PTRACER, -1)); T(prctl(PR_SET_PTRACER, 0)); int signal_ = 0; T(prctl(PR_SET_PDEATHSIG, 15)); T(prctl(PR_GET_PDEATHSIG, &signal_)); printf("death %d\n", signal_); T(prctl(PR_CAPBSET_READ, 0)); T(prctl(PR_SET_NAME, "a name that is much too long")); T(prctl(PR_GET_NAME, text)); printf("%s\n", text); status_line("Name"); T(prctl(PR_SET_NAME, (char *)8)); T(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)); T(prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, 0, 0, 0)); T(prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0)); T(prctl(9999)); T(prctl(PR_GET_TSC, &signal_)); T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0); T(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); T(prctl(PR_GET_CHILD_SUBREAPER, &signal_)); T(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    int fd = open("/proc/self/comm", O_WRONLY); T(write(fd, "by comm", 7)); T(prctl(PR_GET_NAME, text)); printf("%s\n", text);
    /* Memory files. */
    int memory = (int)syscall(SYS_memfd_create, "a memory", 0); T(memory >= 0); dup2(memory, 60); show_link("/proc/self/fd/60"); T(fchmod(memory, 0600)); T(fstat(memory, &st)); printf("mode %o links %d\n", st.st_mode, (int)st.st_nlink); O(open("/proc/self/fd/60", O_RDWR)); T(syscall(SYS_memfd_create, "x", 0xffff0000)); T(syscall(SYS_memfd_create, (char *)8, 0)); memset(text, 'm', 255); text[255] = 0; T(syscall(SYS_memfd_create, text, 0)); T(ftruncate(memory, 4096)); char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0); T(mapped != MAP_FAILED); T(syscall(SYS_memfd_secret, 0) >= -1);
    /* Limits, times, affinity. */
    cpu_set_t before, after; T(sched_getaffinity(0, sizeof before, &before) >= 0); sched_yield(); usleep(1000); for (int at = 0; at < 100; at++) stat("/etc/passwd", &st); sched_getaffinity(0, sizeof after, &after); printf("processors as before %d\n", CPU_EQUAL(&before, &after)); printf("processors %d\n", CPU_COUNT(&before) == sysconf(_SC_NPROCESSORS_ONLN)); struct rusage usage; T(getrusage(RUSAGE_SELF, &usage)); struct tms times_; T(times(&times_) != -1); struct sysinfo info; T(sysinfo(&info)); T(getpriority(PRIO_PROCESS, 0)); struct rlimit limit; T(getrlimit(RLIMIT_STACK, &limit)); T(prlimit(0, RLIMIT_CORE, NULL, &limit)); T(sched_getscheduler(0)); T(mlock(text, 10)); T(mlockall(8)); T(munlockall());
    /* What may not be. */
    T(syscall(SYS_mount, "none", "/work", "tmpfs", 0, NULL)); T(umount("/work")); T(syscall(SYS_pivot_root, "/work", "/work")); T(chroot("/work")); T(unshare(CLONE_NEWUTS)); T(setuid(0)); T(setgid(0)); T(swapon("/etc/passwd", 0)); T(syscall(SYS_reboot, 0, 0, 0, NULL)); T(syscall(SYS_init_module, NULL, 0, "")); T(acct("/etc/passwd")); T(syscall(SYS_kexec_load, 0, 0, NULL, 0)); T(syscall(SYS_bpf, 99, NULL, 0)); T(mknod("device", S_IFCHR | 0600, 0x103)); T(mknod("plain", S_IFREG | 0600, 0)); T(stat("plain", &st)); T(settimeofday(&(struct timeval){0, 0}, NULL)); T(setpriority(PRIO_PROCESS, 0, -5)); T(kill(1, 0)); T(kill(1, SIGKILL)); T(syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0)); T(syscall(9999)); T(syscall(-1)); T(syscall(SYS_uselib, "/etc/passwd"));
    T(syscall(SYS_landlock_create_ruleset, NULL, 0, 1) > 0 || errno); T(syscall(SYS_landlock_add_rule, -1, 1, NULL, 0)); T(syscall(SYS_add_key, "user", "probe", NULL, 0, -5) == -1); T(syscall(SYS_getrandom, text, 16, 0)); T(syscall(SYS_membarrier, 0, 0, 0) > 0); T(syscall(SYS_rseq, NULL, 0, 0, 0)); T(syscall(SYS_seccomp, 9, 0, NULL)); T(syscall(SYS_seccomp, 1, 0, NULL)); T(syscall(SYS_close_range, 200, 300, 0)); T(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0)); T(syscall(SYS_sync)); T(syscall(SYS_syncfs, fd)); T(syscall(SYS_userfaultfd, 0xffff)); T(syscall(SYS_set_tid_address, text) == getpid()); T(syscall(SYS_process_madvise, -1, NULL, 0, 0, 0)); T(syscall(451, -1, NULL, NULL, 0));
    return 0;
}
