/* Programs started: by name, link, script, descriptor; and what they are told of themselves. */
#include "probe.h"
#include <sys/auxv.h>
#include <sys/prctl.h>

static void run(const char *path, char *const argv[]) {
    fflush(stdout); char *env[] = {"PROBE=yes", NULL};
    pid_t child = fork(); int status;
    if (child == 0) { execve(path, argv, env); printf("execve %s: %s\n", path, strerrorname_np(errno)); fflush(stdout); _exit(77); }
    waitpid(child, &status, 0); if (WIFEXITED(status)) printf("exit %d\n", WEXITSTATUS(status)); else printf("signal %d\n", WTERMSIG(status));
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--tell")) {
        char comm[17] = {0}; prctl(PR_GET_NAME, comm); printf("told: argv0 %s argc %d comm %s execfn %s env %s\n", argv[0], argc, comm, (char *)getauxval(AT_EXECFN), getenv("PROBE") ? getenv("PROBE") : "none");
        for (int at = 2; at < argc; at++) printf("  %s\n", argv[at]);
        show_link("/proc/self/exe"); return 3;
    }
    chdir("/work");
    char *tell[] = {"a name", "--tell", "x y", "", NULL}; run(PROBES "/exec", tell); symlink(PROBES "/exec", "link"); run("link", tell); run("./link", tell); run("/work/link", tell); run("/proc/self/exe", tell);
    char *none[] = {"x", NULL}; run("/none", none); run("/etc/passwd", none); run("/dir", none); run("", none); run("/etc/passwd/x", none); run("/links/loop", none);
    put("script", "#!" PROBES "/exec --tell\n"); chmod("script", 0755); char *args[] = {"script", "one", "two", NULL}; run("script", args); run("/work/script", args);
    put("nested", "#!/work/script arg\n"); chmod("nested", 0755); run("/work/nested", args); put("missing", "#!/no/such\n"); chmod("missing", 0755); run("missing", args); put("empty", ""); chmod("empty", 0755); run("empty", args);
    put("text", "echo no\n"); chmod("text", 0755); run("text", args); put("relative", "#!link --tell\n"); chmod("relative", 0755); run("relative", args); put("locked", "#!" PROBES "/exec --tell\n"); run("locked", args); put("bare", "#!\n"); chmod("bare", 0755); run("bare", args);
    put("recursive", "#!/work/recursive\n"); chmod("recursive", 0755); run("recursive", args); put("garbage", "\177ELF garbage"); chmod("garbage", 0755); run("garbage", args);
    fflush(stdout); int status; pid_t child = fork();
    if (child == 0) { int fd = open(PROBES "/exec", O_RDONLY | O_CLOEXEC); char *env[] = {NULL}; syscall(SYS_execveat, fd, "", tell, env, AT_EMPTY_PATH); printf("execveat: %s\n", strerrorname_np(errno)); fflush(stdout); _exit(77); }
    waitpid(child, &status, 0); printf("execveat: exit %d\n", WEXITSTATUS(status)); fflush(stdout);
    child = fork(); if (child == 0) { int fd = open(PROBES, O_PATH); char *env[] = {NULL}; syscall(SYS_execveat, fd, "exec", tell, env, 0); _exit(77); } waitpid(child, &status, 0); printf("execveat in a directory: exit %d\n", WEXITSTATUS(status)); fflush(stdout);
    child = vfork(); if (child == 0) { char *env[] = {NULL}; execve(PROBES "/exec", tell, env); _exit(77); } waitpid(child, &status, 0); printf("vfork: exit %d\n", WEXITSTATUS(status));
    return 0;
}
