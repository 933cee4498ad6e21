//! What runs in a process before its `main`, and what its loader tells: constructors, functions that choose functions,
//! libraries that a guest has loaded first, names of files in traces. Engines say the same as namespaces do, which are
//! the kernel's own.

use std::{fs, path::Path, process::Command, sync::OnceLock};

use harness::{Output, Sandbox, coracle, skip, user};

use crate::probes;

/// Tells what a call finds, from wherever it is made.
const SAY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static void say(const char *when)
{
    char text[300], here[100] = "none", got[32] = "none";
    struct stat st;
    int file = open("/marker", O_RDONLY), length = file < 0 ? 0 : read(file, got, 31);
    got[length > 0 ? length : 4] = 0;
    close(file);
    write(1, text, snprintf(text, sizeof text, "%s %s: %s %d %s %s %s\n", NAME, when, got, stat("dir/../marker", &st),
        getcwd(here, sizeof here) ? here : "nowhere", getenv("CORACLE_RUN") ? "seen" : "unseen", getenv("OWN") ? getenv("OWN") : "none"));
}
"#;

/// Constructors that open, execute and load; what they load is found by the library's own RUNPATH.
const EARLY: &str = r#"
__attribute__((constructor(200))) static void first(void)
{
    int status;
    say("first");
    if (!fork()) {
        execl("/bin/tell", "tell", "/marker", (char *)0);
        _exit(9);
    }
    wait(&status);
    void *library = dlopen("libdeep.so", RTLD_NOW);
    const char *(*deep)(void) = library ? (const char *(*)(void))dlsym(library, "deep") : 0;
    char text[100];
    write(1, text, snprintf(text, sizeof text, "%x %s\n", status, deep ? deep() : "not loaded"));
}
static void at_exit(void) { say("at exit"); }
__attribute__((constructor)) static void then(void) { say("then"); atexit(at_exit); }
__attribute__((destructor)) static void last(void) { say("last"); }
int chosen(void) { return 1; }
"#;

/// Runs before the C library's own constructor.
const FIRST: &str = r#"
__attribute__((constructor)) static void first(void) { say("before all"); }
int chosen(void) { return 2; }
"#;

/// Has the loader choose functions, before it has relocated what it loaded first.
const CHOOSING: &str = r#"
static int yes(void) { return 4; }
static int no(void) { return 5; }
static void *choose(void)
{
    struct stat st;
    return stat("/marker", &st) == 0 && st.st_size == 12 && getauxval(AT_PAGESZ) == 4096 ? (void *)yes : (void *)no;
}
static int inner(void) __attribute__((ifunc("choose")));
int (*pointer)(void) = inner;
int chosen(void) { say("chosen"); return inner() * 10 + pointer() + (getauxval(AT_PAGESZ) == 4096 ? 100 : 0); }
"#;

const MAIN: &str = r#"
int chosen(void);
int main(void) { printf("%d\n", chosen()); return fflush(stdout); }
"#;

const TELL: &str = r#"
int main(int argc, char **argv)
{
    say("started");
    if (getenv("LD_AUDIT"))
        puts(getenv("LD_AUDIT"));
    return fflush(stdout);
}
"#;

/// What the loader calls the files of libraries, and what traces of calls do.
const NAMES: &str = r#"
#include <execinfo.h>
#include <link.h>
int main(int argc, char **argv)
{
    setbuf(stdout, 0);
    for (int at = 1; at < argc; at++) {
        void *library = dlopen(argv[at], RTLD_NOW), *addresses[2] = { dlsym(library, "deep"), (void *)main };
        struct link_map *map = 0, *other = 0;
        char origin[4096] = "none", **lines = backtrace_symbols(addresses, 2);
        Dl_info info = { 0 };
        dladdr(addresses[0], &info);
        printf("%s %d", info.dli_fname, dlinfo(library, RTLD_DI_LINKMAP, &map));
        dlinfo(library, RTLD_DI_ORIGIN, origin);
        dladdr1(addresses[0], &info, (void **)&other, RTLD_DL_LINKMAP);
        printf(" %s %s %s\n", map->l_name, origin, other->l_name);
        dladdr(addresses[0], &info);
        printf("%s\n", info.dli_fname);
        for (int line = 0; line < 2; line++)
            printf("%.*s\n", (int)strcspn(lines[line], "["), lines[line]);
        fflush(stdout);
        int both[2];
        pipe(both);
        backtrace_symbols_fd(addresses, 2, both[1]);
        char text[1000] = "";
        read(both[0], text, sizeof text - 1);
        for (char *line = strtok(text, "\n"); line; line = strtok(0, "\n"))
            printf("%.*s\n", (int)strcspn(line, "["), line);
        free(lines);
        // Where the next library's name will be.
        printf("%d\n", dlclose(library));
    }
    return 0;
}
"#;

/// Asks a library in a namespace of the loader's that is its own, where the shim is not.
const APART: &str = r#"
int main(void)
{
    void *library = dlmopen(-1, "/lib/libapart.so", RTLD_NOW);
    int (*looks)(void) = library ? (int (*)(void))dlsym(library, "looks") : 0;
    struct stat st;
    printf("%d %s\n", stat("/marker", &st), looks ? looks() ? "not there" : "there" : dlerror());
    return 0;
}
"#;

struct World {
    sandbox: Sandbox,
    bundle: std::path::PathBuf,
}

fn gcc(root: &Path, name: &str, defines: &str, source: &str, args: &[&str]) {
    let output = root.join(name);
    fs::create_dir_all(output.parent().unwrap()).unwrap();
    let input = output.with_extension("c");
    fs::write(&input, format!("#define NAME \"{defines}\"\n{SAY}{source}")).unwrap();
    let libraries = format!("-L{}", root.join("lib").display());
    let mut gcc = Command::new("gcc");
    gcc.args(["-w", "-O1", "-o"]).arg(&output).arg(&input).arg(libraries).args(args).arg("-ldl");
    assert!(gcc.status().unwrap().success(), "{name}");
    fs::remove_file(input).unwrap();
}

fn prepare() -> World {
    let sandbox = Sandbox::kept();
    let root = sandbox.make_dir("work/tree");
    for dir in ["bin", "etc", "proc", "dev", "tmp", "dir"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("marker"), "of the image").unwrap();
    let shared = ["-shared", "-fPIC"];
    let library = |name: &str, says: &str, source: &str, args: &[&str]| {
        gcc(&root, &format!("lib/lib{name}.so"), says, source, &[&shared[..], args].concat());
    };
    gcc(&root, "lib/deep/libdeep.so", "", "const char *deep(void) { return \"deep\"; }\n", &shared);
    gcc(&root, "lib/deep/libpeed.so", "", "const char *deep(void) { return \"peed\"; }\n", &shared);
    library("early", "early", EARLY, &["-Wl,--enable-new-dtags,-rpath,$ORIGIN/deep"]);
    library("first", "first", FIRST, &["-Wl,-z,initfirst"]);
    library("choosing", "choosing", CHOOSING, &["-Wl,-z,now"]);
    library("apart", "apart", "int looks(void) { struct stat st; return stat(\"/marker\", &st); }\n", &[]);
    gcc(&root, "bin/apart", "apart", APART, &[]);
    for name in ["one", "two"] {
        let says = "__attribute__((constructor)) static void begin(void) { say(\"loaded\"); }\n";
        library(name, name, says, &[]);
    }
    for name in ["early", "first", "choosing"] {
        gcc(&root, &format!("bin/{name}"), name, MAIN, &["-Wl,-rpath,/lib", &format!("-l{name}")]);
    }
    gcc(&root, "bin/tell", "tell", TELL, &[]);
    gcc(&root, "bin/names", "names", NAMES, &["-rdynamic"]);
    probes::libraries(&root, &root.join("bin/tell"));
    let owner = format!("{}:{}", user::ordinary().uid, user::ordinary().gid);
    assert!(Command::new("chown").args(["-hR", &owner]).arg(&root).status().unwrap().success());
    let bundle = sandbox.work("early.run");
    let source = format!("rootfs:{}", root.display());
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/bin/tell"]"#, "-o", bundle.to_str().unwrap()]).ok();
    World { sandbox, bundle }
}

fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    if skip::lacks(&["gcc", "ldd"]) || skip::unless_root() {
        return None;
    }
    WORLD.get_or_init(|| Some(prepare())).as_ref()
}

impl World {
    fn run(&self, engine: &str, variables: &[&str], program: &[&str]) -> Output {
        let mut command = self.sandbox.command(&self.bundle);
        // The host's is where this test is.
        let tmp = format!("--coracle-volume={}:/tmp", self.sandbox.path().join("tmp").display());
        command.args([&format!("--coracle-engine={engine}"), "--coracle-workdir=/", &tmp]);
        command.args(variables.iter().map(|variable| format!("--coracle-env={variable}"))).args(program);
        Output::of(command)
    }

    /// Whether this node allows what engine this is a way of.
    fn allows(&self, engine: &str) -> bool {
        let name = if engine.starts_with('F') { "preload" } else { engine };
        let explained = self.sandbox.run(&self.bundle, ["--coracle-explain"]).stdout;
        let allowed = explained.contains(&format!("{name}: accepted"));
        if !allowed {
            skip::because(&format!("this node refuses {name}"));
        }
        allowed
    }

    /// What namespaces and both of preload's ways say.
    fn same(&self, variables: &[&str], program: &[&str], expected: &str) {
        for engine in ["namespaces", "F1", "F3"].into_iter().filter(|engine| self.allows(engine)) {
            assert_eq!(self.run(engine, variables, program).ok(), expected.trim(), "{program:?} under {engine}");
        }
    }
}

#[test]
fn constructors_see_the_guest_whenever_they_run() {
    let Some(world) = world() else { return };
    let all = "
early first: of the image 0 / unseen here
tell started: of the image 0 / unseen here
0 deep
early then: of the image 0 / unseen here
1
early last: of the image 0 / unseen here
early at exit: of the image 0 / unseen here";
    world.same(&["OWN=here"], &["/bin/early"], all);
    // Then there is no environment yet.
    world.same(&["OWN=here"], &["/bin/first"], "first before all: of the image 0 / unseen none\n2");
}

#[test]
fn functions_are_chosen_by_the_guests_files() {
    let Some(world) = world() else { return };
    world.same(&[], &["/bin/choosing"], "choosing chosen: of the image 0 / unseen none\n144");
}

#[test]
fn what_a_guest_has_loaded_first_is_its_own() {
    let Some(world) = world() else { return };
    let two = "two loaded: of the image 0 / unseen none\none loaded: of the image 0 / unseen none";
    let told = format!("{two}\ntell started: of the image 0 / unseen none");
    let run = |variable: &str| {
        for engine in ["F1", "F3", "namespaces"].into_iter().filter(|engine| world.allows(engine)) {
            let output = world.run(engine, &[variable, "LD_LIBRARY_PATH=/lib"], &["/bin/tell"]);
            assert_eq!(output.stdout.trim(), told, "{variable} under {engine}: {output}");
        }
    };
    run("LD_PRELOAD=/lib/libone.so:/lib/libtwo.so");
    run("LD_PRELOAD=libone.so  libtwo.so");
    // What only the host has is not there.
    let host = world.sandbox.make_dir("work/host").join("libhost.so");
    fs::copy(world.sandbox.work("tree/lib/libone.so"), &host).unwrap();
    let output = world.run("F3", &[&format!("LD_PRELOAD={}", host.display())], &["/bin/tell"]);
    assert_eq!(output.stdout.trim(), "tell started: of the image 0 / unseen none", "{output}");
    assert!(output.stderr.contains("cannot be preloaded"), "{output}");
}

#[test]
fn an_auditor_is_not_loaded_and_stays_in_the_environment() {
    let Some(world) = world() else { return };
    let told = "tell started: of the image 0 / unseen none\n/lib/libone.so";
    for engine in ["F1", "F3"] {
        let output = world.run(engine, &["LD_AUDIT=/lib/libone.so"], &["/bin/tell"]);
        assert_eq!(output.stdout.trim(), told, "{engine}: {output}");
    }
}

#[test]
fn traces_and_link_maps_have_the_guests_names() {
    let Some(world) = world() else { return };
    let of = |name: &str| {
        let file = format!("/lib/deep/lib{name}.so");
        format!(
            "{file} 0 {file} /lib/deep {file}\n{file}\n{file}(deep+0) \n/bin/names(main+0) \n{file}(deep+0x0)\n/bin/names(main+0x0)\n0\n"
        )
    };
    let libraries = ["/bin/names", "/lib/deep/libdeep.so", "/lib/deep/libpeed.so"];
    world.same(&[], &libraries, &[of("deep"), of("peed")].concat());
}

#[test]
fn a_library_in_a_namespace_of_its_own_sees_the_host() {
    let Some(world) = world() else { return };
    // Its own C library and loader are searched for there.
    let path = "LD_LIBRARY_PATH=/lib64:/lib/x86_64-linux-gnu:/usr/lib64:/lib";
    for (engine, expected) in [("namespaces", "0 there"), ("F1", "0 not there"), ("F3", "0 not there")] {
        if !world.allows(engine) {
            continue;
        }
        let output = world.run(engine, &[path], &["/bin/apart"]);
        assert_eq!(output.stdout.trim(), expected, "{engine}: {output}");
    }
}
