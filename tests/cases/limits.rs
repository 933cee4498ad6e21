//! What an engine inside the process cannot do, or does otherwise: each of `preload`'s limits, so that a change is
//! noticed. What goes past the names of a C library and is caught all the same is here, too.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use harness::{Output, Sandbox, coracle, images, skip, user};

use crate::probes;

/// Opens a file by instructions of its own, and by the C library.
const OWN_CALLS: &str = r#"
#include <fcntl.h>
#include <stdio.h>
int main(void)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(2L), "D"("/marker"), "S"(0L), "d"(0L) : "rcx", "r11", "memory");
    printf("%ld %d\n", result < 0 ? result : 0, open("/marker", O_RDONLY) >= 0);
    return 0;
}
"#;

/// What /proc says of the process, before and after it writes its state over its arguments, and how long its program is.
const ITSELF: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
static void show(void)
{
    char text[4096];
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    for (size_t at = 0; at < length; at++)
        putchar(text[at] ? text[at] : '|');
    printf(", ");
}
int main(int argc, char **argv)
{
    char *end = argv[argc - 1] + strlen(argv[argc - 1]) + 1;
    show();
    for (int at = 1; at < argc; at++)
        if (argv[at] != argv[at - 1] + strlen(argv[at - 1]) + 1)
            printf("torn, ");
    memset(argv[0], 0, (size_t)(end - argv[0]));
    strcpy(argv[0], "at work");
    show();
    struct stat st;
    stat("/proc/self/exe", &st);
    printf("%ld bytes\n", (long)st.st_size);
    return 0;
}
"#;

/// A filter of its own that looks at the path of each open.
const FILTER: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
static char seen[4096];
static void caught(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    strncpy(seen, (char *)(info->si_syscall == SYS_open ? registers[REG_RDI] : registers[REG_RSI]), sizeof seen - 1);
    registers[REG_RAX] = -ENOENT;
}
int main(void)
{
    struct sigaction action = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO };
    sigaction(SIGSYS, &action, 0);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { 5, code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 1;
    int file = open("/marker", O_RDONLY), length = strlen(seen);
    printf("%d %s %s\n", file < 0 ? errno : 0, strcmp(seen, "/marker") ? "another" : "its own", length > 7 ? seen + length - 7 : seen);
    return 0;
}
"#;

/// Memory that was there when a path in it was used, and is not any more.
const GONE: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
    struct stat st;
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(page, "/marker");
    int there = stat(page, &st);
    munmap(page, 4096);
    pid_t child = fork();
    if (!child)
        _exit(stat(page, &st) && errno == EFAULT ? 14 : 1);
    int status;
    waitpid(child, &status, 0);
    printf("%d, then %s %d\n", there, WIFSIGNALED(status) ? "signal" : "error", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return 0;
}
"#;

/// Names of hosts, services, users and time zones, as a C library finds them by itself.
const LOOKUPS: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
int main(void)
{
    struct addrinfo *found = 0, wish = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
    if (getaddrinfo("guest-only", "guestserv", &wish, &found))
        return 1;
    struct sockaddr_in *address = (struct sockaddr_in *)found->ai_addr;
    printf("%s %d, ", inet_ntoa(address->sin_addr), ntohs(address->sin_port));
    struct servent *service = getservbyname("guestserv", "tcp");
    struct hostent *host = gethostbyname("guest-only"), *back = gethostbyaddr(&address->sin_addr, 4, AF_INET);
    printf("%d %s %s, ", service ? ntohs(service->s_port) : -1, host ? host->h_name : "none", back ? back->h_name : "none");
    printf("%s, ", getpwnam("guest") ? getpwnam("guest")->pw_dir : "none");
    setenv("TZ", ":/etc/zone", 1);
    time_t zero = 0;
    printf("%d\n", localtime(&zero)->tm_hour);
    return 0;
}
"#;

const PROGRAMS: [(&str, &str); 4] = [("own", OWN_CALLS), ("itself", ITSELF), ("filter", FILTER), ("gone", GONE)];

struct World {
    sandbox: Sandbox,
    bundle: PathBuf,
}

/// A bundle of a tree that is made here.
fn bundle(sandbox: Sandbox, make: impl FnOnce(&std::path::Path)) -> World {
    let root = sandbox.make_dir("work/tree");
    for dir in ["bin", "etc", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    make(&root);
    let owner = format!("{}:{}", user::ordinary().uid, user::ordinary().gid);
    assert!(Command::new("chown").args(["-hR", &owner]).arg(&root).status().unwrap().success());
    let bundle = sandbox.work("limits.run");
    let source = format!("rootfs:{}", root.display());
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/bin/own"]"#, "-o", bundle.to_str().unwrap()]).ok();
    World { sandbox, bundle }
}

fn compile(compiler: &str, source: &str, output: &std::path::Path) {
    let input = output.with_extension("c");
    fs::write(&input, source).unwrap();
    let done = Command::new(compiler).args(["-w", "-O1", "-o"]).arg(output).arg(&input).status().unwrap();
    assert!(done.success(), "{}", output.display());
    fs::remove_file(input).unwrap();
}

fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    if skip::lacks(&["gcc", "ldd"]) || skip::unless_root() {
        return None;
    }
    let make = |root: &std::path::Path| {
        for (name, source) in PROGRAMS {
            compile("gcc", source, &root.join("bin").join(name));
        }
        probes::libraries(root, &root.join("bin/own"));
        fs::write(root.join("marker"), "of the image").unwrap();
    };
    WORLD.get_or_init(|| Some(bundle(Sandbox::kept(), make))).as_ref()
}

impl World {
    fn says(&self, engine: &str, program: &str) -> String {
        let mut command = self.sandbox.command(&self.bundle);
        command.args([&format!("--coracle-engine={engine}"), "--coracle-workdir=/"]).args(program.split(' '));
        Output::of(command).ok().to_owned()
    }

    /// What each engine that this node allows says.
    fn each(&self, program: &str, expected: &[(&str, &str)]) {
        let explained = self.sandbox.run(&self.bundle, ["--coracle-explain"]).stdout;
        for (engine, expected) in expected {
            let name = if engine.starts_with('F') { "preload" } else { engine };
            if explained.contains(&format!("{name}: accepted")) {
                assert_eq!(self.says(engine, program), *expected, "{program} under {engine}");
            } else {
                skip::because(&format!("this node refuses {name}"));
            }
        }
    }
}

#[test]
fn calls_of_a_programs_own_instructions_see_the_host() {
    let Some(world) = world() else { return };
    world.each("/bin/own", &[("namespaces", "0 1"), ("ptrace", "0 1"), ("F1", "-2 1"), ("F3", "-2 1")]);
}

#[test]
fn a_guests_own_filter_is_shown_host_paths() {
    let Some(world) = world() else { return };
    let (own, other) = ("2 its own /marker", "2 another /marker");
    world.each("/bin/filter", &[("namespaces", own), ("F1", other), ("F3", other)]);
}

#[test]
fn memory_that_went_away_is_a_fault_where_the_kernel_has_an_error() {
    let Some(world) = world() else { return };
    let error = "0, then error 14";
    world.each("/bin/gone", &[("namespaces", error), ("F1", "0, then signal 11"), ("F3", "0, then signal 11")]);
}

#[test]
fn the_kernels_words_of_a_program_are_its_arguments_and_its_own_or_an_edited_file() {
    let Some(world) = world() else { return };
    let length = fs::metadata(world.sandbox.work("tree/bin/itself")).unwrap().len();
    // What is written over the arguments ends where they did: the kernel looks for no end of a longer one there.
    let nothing = "|".repeat("/bin/itself one two ".len() - "at work".len());
    let words = format!("/bin/itself|one|two|, at work{nothing}, ");
    let plain = format!("{words}{length} bytes");
    let command = "/bin/itself one two";
    world.each(command, &[("namespaces", &plain), ("F1", &plain)]);
    // It has a slot for the loader's path.
    let edited = world.says("F3", command);
    assert!(edited.starts_with(&words) && edited != plain, "{edited}");
}

/// Of old and new musl, which open such files without any of their functions that have names.
#[test]
fn a_c_librarys_own_lookups_find_what_the_image_has() {
    let expected = "10.9.8.7 4242, 4242 guest-only guest-only, /home/of/guest, 9";
    let zone = fs::read("/usr/share/zoneinfo/Asia/Tokyo");
    let Ok(zone) = zone else { return skip::because("the host has no /usr/share/zoneinfo/Asia/Tokyo") };
    if skip::lacks(&["musl-gcc", "gcc", "ldd"]) || skip::unless_root() {
        return;
    }
    for archive in [Some(images::ALPINE), Some(images::ALPINE_OLD), None] {
        let make = |root: &std::path::Path| {
            let program = root.join("bin/own");
            match archive.and_then(images::find) {
                Some(tar) => {
                    compile("musl-gcc", LOOKUPS, &program);
                    let done = Command::new("tar").arg("-xzf").arg(tar).arg("-C").arg(root).args(["./lib"]).status();
                    assert!(done.unwrap().success());
                }
                None => {
                    compile("gcc", LOOKUPS, &program);
                    probes::libraries(root, &program);
                }
            }
            for (name, text) in [
                ("hosts", "127.0.0.1 localhost\n10.9.8.7 guest-only\n"),
                ("services", "guestserv 4242/tcp\n"),
                ("passwd", "guest:x:1234:1234::/home/of/guest:/bin/sh\n"),
                ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"),
                ("nsswitch.conf", "hosts: files\nservices: files\npasswd: files\n"),
            ] {
                fs::write(root.join("etc").join(name), text).unwrap();
            }
            fs::write(root.join("etc/zone"), &zone).unwrap();
        };
        let world = bundle(Sandbox::new(), make);
        // Docker's own hosts file would stand over the image's.
        for engine in ["F1", "F3"] {
            let mut command = world.sandbox.command(&world.bundle);
            let hosts = format!("--coracle-volume={}:/etc/hosts", world.sandbox.work("tree/etc/hosts").display());
            command.args([&format!("--coracle-engine={engine}"), "--coracle-workdir=/", &hosts, "/bin/own"]);
            assert_eq!(Output::of(command).ok(), expected, "{archive:?} under {engine}");
        }
    }
}
