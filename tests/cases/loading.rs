//! Libraries are those of the image, wherever they lie, however they are asked for, and wherever the image was unpacked.
//!
//! The tree has the host's C library and little more; everything in it is made here. The host's `/tmp`, where the cache
//! is, is hidden from the guest: loaders are told host paths, which then mean nothing inside.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use harness::{Output, Sandbox, coracle, skip, user};

use crate::probes;

const ENGINES: [&str; 5] = ["namespaces", "P1", "P2", "F1", "F3"];

/// Loads libraries by the names that it is given, and tells what they say and where they are.
const LOAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    for (int at = 1; at < argc; at++) {
        void *library = dlopen(argv[at], RTLD_NOW);
        const char *(*who)(void) = library ? (const char *(*)(void))dlsym(library, "who") : 0;
        Dl_info info = { 0 };
        if (who)
            dladdr((void *)who, &info);
        printf("%s: %s, %s\n", argv[at], who ? who() : dlerror(), who ? info.dli_fname : "");
    }
    return 0;
}
"#;

/// Is linked with one.
const LINKED: &str = r#"
#include <stdio.h>
const char *who(void);
int main(void) { return puts(who()) < 0; }
"#;

/// A library that needs another one, and what is linked with the first alone.
const BETWEEN: &str = "const char *who(void);\nconst char *between(void) { return who(); }\n";
const THROUGH: &str = r#"
#include <stdio.h>
const char *between(void);
int main(void) { return puts(between()) < 0; }
"#;

/// Has the note of Go's programs, and reads a file as they do: by instructions of its own, past the C library.
const OWN_CALLS: &str = r#"
__asm__(".section .note.go.buildid,\"a\",@note\n.long 4, 4, 4\n.asciz \"Go\\0\"\n.long 0\n.text\n");
static long call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
int main(void)
{
    char text[64];
    long file = call(257, -100, (long)"/marker", 0, 0);
    long length = call(0, file, (long)text, sizeof text, 0);
    return length < 0 || call(1, 1, (long)text, length, 0) != length;
}
"#;

/// Executes its arguments.
const EXECUTE: &str = "#include <unistd.h>\nint main(int argc, char **argv) { execv(argv[1], argv + 1); return 9; }\n";

/// Is larger than what is edited, and tells who it is.
const LARGE: &str = r#"
#include <stdio.h>
#include <unistd.h>
char filler[3 << 20] = { 1 };
int main(void)
{
    char name[64] = "";
    return readlink("/proc/self/exe", name, sizeof name - 1) < 0 || puts(name) < 0;
}
"#;

struct World {
    sandbox: Sandbox,
    bundle: PathBuf,
    /// Where the tree's loader looks first.
    directory: String,
    /// What building it said.
    built: Output,
}

fn gcc(args: &[&str], source: &str, output: &Path) {
    let input = output.with_extension("c");
    fs::write(&input, source).unwrap();
    let done = Command::new("gcc").arg("-w").arg("-o").arg(output).arg(&input).args(args).status().unwrap();
    assert!(done.success(), "{}", output.display());
    fs::remove_file(input).unwrap();
}

fn library(path: &Path, says: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    gcc(&["-shared", "-fPIC"], &format!("const char *who(void) {{ return \"{says}\"; }}\n"), path);
}

fn prepare() -> World {
    let sandbox = Sandbox::kept();
    let root = sandbox.make_dir("work/tree");
    for dir in ["bin", "etc/alternatives", "opt/far", "proc", "dev", "tmp", "vol"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let load = root.join("bin/load");
    gcc(&["-ldl"], LOAD, &load);
    probes::libraries(&root, &load);
    let text = String::from_utf8(Command::new("ldd").arg(&load).output().unwrap().stdout).unwrap();
    let libc = text.split_whitespace().find(|word| word.starts_with('/') && word.contains("libc.so")).unwrap();
    let directory = Path::new(libc).parent().unwrap().to_str().unwrap().to_owned();
    let inside = root.join(directory.strip_prefix('/').unwrap());
    // As Debian's alternatives are made.
    library(&root.join("opt/far/libfar.so.1"), "far");
    symlink("/etc/alternatives/libfar", inside.join("libfar.so")).unwrap();
    symlink("/opt/far/libfar.so.1", root.join("etc/alternatives/libfar")).unwrap();
    library(&root.join("opt/own/libown.so"), "own");
    let own = root.join("opt/own").display().to_string();
    gcc(&["-L", &own, "-lown", "-Wl,-rpath,/opt/own"], LINKED, &root.join("bin/own"));
    // Only the library between says where the other one lies.
    gcc(&["-shared", "-fPIC", "-L", &own, "-lown", "-Wl,-rpath,/opt/own"], BETWEEN, &inside.join("libbetween.so"));
    let (there, theirs) = (inside.display().to_string(), format!("-Wl,-rpath-link,{own}"));
    gcc(&["-L", &there, "-lbetween", &theirs], THROUGH, &root.join("bin/through"));
    // Is needed by its whole path, which a loader opens as it is.
    let placed = root.join("opt/far/libplaced.so");
    let says = r#"const char *who(void) { return "placed"; }"#;
    gcc(&["-shared", "-fPIC", "-Wl,-soname,/opt/far/libplaced.so"], says, &placed);
    gcc(&[placed.to_str().unwrap()], LINKED, &root.join("bin/placed"));
    gcc(&["-static"], "int main(void) { return 0; }\n", &root.join("bin/static"));
    gcc(&[], OWN_CALLS, &root.join("bin/go"));
    gcc(&[], EXECUTE, &root.join("bin/execute"));
    gcc(&[], LARGE, &root.join("bin/large"));
    fs::write(root.join("marker"), "of the image").unwrap();
    // Cut off in the middle.
    let whole = fs::read(root.join("bin/own")).unwrap();
    fs::write(root.join("bin/odd"), &whole[..whole.len() / 2]).unwrap();
    fs::set_permissions(root.join("bin/odd"), fs::Permissions::from_mode(0o755)).unwrap();
    let vol = sandbox.make_dir("work/vol");
    library(&vol.join("lib/libvol.so"), "vol");
    fs::create_dir(vol.join("links")).unwrap();
    symlink("/vol/lib/libvol.so", vol.join("links/liblink.so")).unwrap();
    for dir in [&root, &vol] {
        let owner = format!("{}:{}", user::ordinary().uid, user::ordinary().gid);
        assert!(Command::new("chown").args(["-hR", &owner]).arg(dir).status().unwrap().success());
    }
    let bundle = sandbox.work("loading.run");
    let source = format!("rootfs:{}", root.display());
    let cmd = r#"["/bin/load"]"#;
    let built = sandbox.run(coracle(), ["build", &source, "--report", "--cmd", cmd, "-o", bundle.to_str().unwrap()]);
    built.ok();
    World { sandbox, bundle, directory, built }
}

fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    if skip::lacks(&["gcc", "ldd"]) || skip::unless_root() {
        return None;
    }
    WORLD.get_or_init(|| Some(prepare())).as_ref()
}

impl World {
    /// A program under an engine, with the volume, and with nothing in `/tmp`.
    fn run(&self, engine: &str, cache: &Path, path: &str, program: &[&str]) -> Output {
        let mut command = self.sandbox.command(&self.bundle);
        command.arg(format!("--coracle-engine={engine}")).env("CORACLE_CACHE", cache).env("LD_LIBRARY_PATH", path);
        command.arg(format!("--coracle-volume={}:/tmp", self.sandbox.path().join("tmp").display()));
        command.arg(format!("--coracle-volume={}:/vol", self.sandbox.work("vol").display()));
        command.args(["--coracle-env=LD_LIBRARY_PATH", "--coracle-workdir=/"]).args(program);
        Output::of(command)
    }

    fn engines(&self) -> impl Iterator<Item = &'static str> {
        let explained = self.sandbox.run(&self.bundle, ["--coracle-explain"]).stdout;
        ENGINES.into_iter().filter(move |engine| {
            let name = match *engine {
                "P1" | "P2" => "ptrace",
                "F1" | "F3" => "preload",
                engine => engine,
            };
            let accepted = explained.contains(&format!("{name}: accepted"));
            if !accepted {
                skip::because(&format!("this node refuses {name}"));
            }
            accepted
        })
    }

    /// All ways of asking, each with its answer.
    fn is_whole(&self, engine: &str, cache: &Path) {
        let run = |path: &str, program: &[&str]| self.run(engine, cache, path, program).ok().to_owned();
        assert_eq!(run("", &["/bin/own"]), "own", "{engine}");
        assert_eq!(run("", &["/bin/through"]), "own", "{engine}");
        assert_eq!(run("/vol/links", &["/bin/load", "libvol.so"]).lines().count(), 1, "{engine}");
        assert_eq!(run("/vol/none:/vol/lib", &["/bin/load", "libvol.so"]), "libvol.so: vol, /vol/lib/libvol.so");
        assert_eq!(run("/vol/links", &["/bin/load", "liblink.so"]), "liblink.so: vol, /vol/links/liblink.so");
        assert_eq!(run("", &["/bin/load", "/opt/own/libown.so"]), "/opt/own/libown.so: own, /opt/own/libown.so");
        let far = run("", &["/bin/load", "libfar.so"]);
        assert!(far.starts_with("libfar.so: far, /"), "{engine}: {far}");
    }
}

#[test]
fn libraries_are_the_images_own() {
    let Some(world) = world() else { return };
    assert!(!Path::new(&world.directory).join("libfar.so").exists(), "the host has nothing of that name");
    for engine in world.engines() {
        world.is_whole(engine, &world.sandbox.path().join("cache"));
    }
}

#[test]
fn a_library_that_is_needed_by_its_whole_path_is_the_images() {
    let Some(world) = world() else { return };
    let cache = world.sandbox.path().join("cache");
    assert!(!Path::new("/opt/far").exists(), "the host has nothing there");
    for engine in world.engines() {
        for program in [&["/bin/placed"][..], &["/bin/execute", "/bin/placed"]] {
            assert_eq!(world.run(engine, &cache, "", program).ok(), "placed", "{engine}");
        }
    }
}

#[test]
fn copies_of_edited_programs_run_when_the_view_has_gone_and_when_they_are_stripped() {
    let Some(world) = world() else { return };
    // The kernel itself takes no other name than the one that was written last.
    let engines: Vec<_> = world.engines().filter(|engine| *engine != "namespaces").collect();
    if !engines.contains(&"F3") || skip::lacks(&["strip"]) {
        return;
    }
    let cache = world.sandbox.make_dir("places/gone");
    world.run("F3", &cache, "", &["/bin/load", "libfar.so"]).ok();
    let found = Command::new("find").arg(&cache).args(["-path", "*/bin/load"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let is_edited = |path: &&str| {
        let (bytes, place) = (fs::read(path).unwrap(), cache.as_os_str().as_encoded_bytes());
        bytes.windows(place.len()).any(|window| window == place)
    };
    let (copy, stripped) = (world.sandbox.work("vol/copy"), world.sandbox.work("vol/stripped"));
    fs::copy(found.lines().find(is_edited).expect("an edited copy"), &copy).unwrap();
    assert!(Command::new("strip").arg("-o").args([&stripped, &copy]).status().unwrap().success());
    fs::rename(&cache, world.sandbox.path().join("places/elsewhere")).unwrap();
    for engine in engines {
        for program in ["/vol/copy", "/vol/stripped"] {
            for before in [&[][..], &["/bin/execute"]] {
                let said = world.run(engine, &cache, "", &[before, &[program, "libfar.so"]].concat());
                assert!(said.ok().starts_with("libfar.so: far, /"), "{engine}: {before:?} {program}: {said:?}");
            }
        }
    }
    for file in [copy, stripped] {
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn large_programs_are_not_copied_and_run_all_the_same() {
    let Some(world) = world() else { return };
    assert!(world.built.stdout.contains("left /bin/large: it is large"), "{}", world.built.stdout);
    let cache = world.sandbox.make_dir("places/large");
    for engine in world.engines() {
        for program in [&["/bin/large"][..], &["/bin/execute", "/bin/large"]] {
            assert_eq!(world.run(engine, &cache, "", program).ok(), "/bin/large", "{engine}");
        }
    }
    if !world.engines().any(|engine| engine == "F3") {
        return;
    }
    let found =
        Command::new("find").arg(&cache).args(["-path", "*/root-*/bin/l*", "-printf", "%f %n\n"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let mut found: Vec<_> = found.lines().collect();
    found.sort_unstable();
    // Each in the tree and in the view.
    assert_eq!(found, ["large 2", "large 2", "load 1", "load 1"]);
}

#[test]
fn programs_that_make_their_own_calls_are_given_to_who_sees_them() {
    let Some(world) = world() else { return };
    let cache = world.sandbox.path().join("cache");
    for engine in world.engines() {
        let run = |program: &[&str]| world.run(engine, &cache, "", program);
        assert_eq!(run(&["/bin/execute", "/bin/go"]).ok(), "of the image", "{engine}");
        if ENGINES[..3].contains(&engine) {
            assert_eq!(run(&["/bin/go"]).ok(), "of the image", "{engine}");
        } else {
            run(&["/bin/go"]).fails_with(&["the program to begin with is a Go program", "use `ptrace`"]);
        }
    }
}

#[test]
fn a_tree_may_lie_anywhere_and_be_moved() {
    let Some(world) = world() else { return };
    let at = |name: &str| world.sandbox.make_dir(&format!("places/{name}"));
    // A slot for a loader's path has 1,024 bytes.
    let long = "x".repeat(200);
    let deep = at(&[&*long; 3].join("/"));
    let deeper = at(&[&*long; 5].join("/"));
    for engine in ["F3", "F1"] {
        for place in [&at("one"), &at("two"), &at("with a blank: and a colon"), &deep] {
            world.is_whole(engine, place);
        }
    }
    let why = ["bytes are too long a path for the preload engine", "name a shorter directory in CORACLE_CACHE"];
    world.run("F3", &deeper, "", &["/bin/own"]).fails_with(&why);
    world.is_whole("F1", &deeper);
    let (from, to) = (at("one"), world.sandbox.path().join("places/moved"));
    fs::rename(from, &to).unwrap();
    for engine in ["F3", "F1"] {
        world.is_whole(engine, &to);
    }
}

#[test]
fn who_asks_is_told_how_programs_are_started_and_what_was_edited() {
    let Some(world) = world() else { return };
    let Output { stdout: report, stderr: said, .. } = &world.built;
    for (word, path) in [("edited", "/bin/load"), ("edited", "/bin/own"), ("left", "/bin/static"), ("left", "/bin/odd")]
    {
        let line = report.lines().find_map(|line| line.strip_prefix(&format!("{word} {path}: ")));
        assert!(line.is_some_and(|why| !why.is_empty()), "{word} {path}: {report}");
    }
    assert!(report.contains("libfar.so: link made relative"), "{report}");
    let (edited, left) = (report.matches("edited /").count(), report.matches("left /").count());
    let how = format!("preload: F3 (programs are edited): {edited} files edited, {left} left as they are");
    assert!(said.contains(&how), "{said}");
    assert!(said.contains("1 static program, which the preload engine cannot run by itself: /bin/static"), "{said}");
    let explained = |options: &[&str]| {
        let output = world.sandbox.run(&world.bundle, [options, &["--coracle-explain"]].concat()).stdout;
        assert!(output.contains("static program: /bin/static"), "{output}");
        output.lines().find(|line| line.trim_start().starts_with("preload: ")).unwrap_or_default().to_owned()
    };
    for (options, way) in [
        (&[][..], "; F3: "),
        (&["--coracle-engine=F3"], "would run; F3: "),
        (&["--coracle-engine=F1"], "would run; F1: programs are started by their loader, as asked"),
        (&["--coracle-engine=F3", "--coracle-writable"], "F1: programs are started by their loader, for its files can"),
    ] {
        let line = explained(options);
        assert!(line.contains(way), "{options:?}: {line}");
    }
}
