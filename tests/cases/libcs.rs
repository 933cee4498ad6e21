//! The probes of `tests/guests` once more, each time by another C library: musl of 2019 and of today, and glibc of four
//! releases of Debian. The shim stands before the names of all of them, and has to answer as each would by itself.
//!
//! Programs for musl are made by the host's `musl-gcc`, and run by Alpine's loader; those for glibc by each release's
//! own gcc, since older ones call `__xstat` where newer ones call `stat`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Output, Sandbox, images, skip, user};

use crate::probes::{DYNAMIC, Difference, KNOWN, OF_PROCESSES, compare_with, compile, measured, plant};

/// What the kernel's headers have and musl's lack; where the former are, behind musl's own.
const FOR_MUSL: [&str; 6] = [
    "-D__O_TMPFILE=020000000",
    "-DSYS_memfd_secret=447",
    "-idirafter",
    "/usr/include",
    "-idirafter",
    "/usr/include/x86_64-linux-gnu",
];

/// These call statx(2) and renameat2(2), or walk by fts(3), for which musl of all ages has no names; the last two are
/// written for glibc's structures, and crash natively.
const NOT_FOR_MUSL: [&str; 7] = ["edges", "paths", "random", "order", "library", "ipc", "messages"];

/// What a program is linked with, and a program asks for while it runs.
const LIBRARIES: [&str; 8] = [
    "lib64/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libdl.so.2",
    "lib/x86_64-linux-gnu/libpthread.so.0",
    "lib/x86_64-linux-gnu/librt.so.1",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
    "lib/x86_64-linux-gnu/libnss_files.so.2",
    "lib/x86_64-linux-gnu/libutil.so.1",
];

/// These call names that musl did not have in 2019.
const NOT_FOR_OLD_MUSL: [&str; 3] = ["threads", "ways", "spawn"];

/// What the kernel's headers did not have in the oldest release.
const FOR_BULLSEYE: [&str; 8] = [
    "-DSYS_openat2=437",
    "-DSYS_pidfd_getfd=438",
    "-DSYS_close_range=436",
    "-DSYS_process_madvise=440",
    "-DSYS_landlock_create_ruleset=444",
    "-DSYS_landlock_add_rule=445",
    "-DSYS_memfd_secret=447",
    "-DP_PIDFD=3",
];

const NO_ROOM: &str = "musl asks the kernel for one byte when it is given no room for a link's text, and forgets it";

const NO_SHELL: &str = "musl takes for granted that there is a shell; the shim looks, as glibc does";

const KNOWN_OF_MUSL: &[Difference] = &[
    ("preload", "links", r#"readlink("abs", text, 0): 0"#, r#"readlink("abs", text, 0): error 22"#, NO_ROOM),
    ("preload", "names", "system(NULL) != 0: 1", "system(NULL) != 0: 0", NO_SHELL),
    ("preload", "names", "system: status ffffffff", "system: exit 127", NO_SHELL),
];

const OLDER: &str =
    "musl of that time refused flags that it takes today, and named descriptors by /proc; ours do as today's";

const KNOWN_OF_OLD_MUSL: [Difference; 2] = [
    (
        "preload",
        "names",
        r#"faccessat(AT_FDCWD, "/links/dangling", F_OK, AT_SYMLINK_NOFOLLOW): error 22"#,
        r#"faccessat(AT_FDCWD, "/links/dangling", F_OK, AT_SYMLINK_NOFOLLOW): 0"#,
        OLDER,
    ),
    (
        "preload",
        "names",
        "told: named [a b] execfn /proc/self/fd/4 env yes",
        "told: named [a b] execfn /dev/fd/4 env yes",
        OLDER,
    ),
];

const OLDER_LONG: &str = "as of newer ones; errors have no names there";

const OLDER_SHELL: &str =
    "glibc of that time answers that there is no shell; the shim, as newer ones, that it ended with 127";

const KNOWN_OF_BULLSEYE: [Difference; 2] = [
    ("preload", "cwd", "getcwd of a long path: error 34", "getcwd of a long path: error 36", OLDER_LONG),
    ("preload", "names", "system: status ffffffff", "system: exit 127", OLDER_SHELL),
];

/// Names and sources of the probes, but for those that this engine cannot play.
fn sources(but: &[&str]) -> Vec<(String, PathBuf)> {
    let all = fs::read_dir(images::workspace().join("tests/guests")).unwrap().map(|entry| entry.unwrap().path());
    let sources = all.filter(|path| path.extension().is_some_and(|extension| extension == "c"));
    let named = sources.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path));
    let cannot = |name: &str| OF_PROCESSES.contains(&name) || but.contains(&name);
    let mut named: Vec<_> = named.filter(|(name, _)| !cannot(name)).collect();
    named.sort();
    assert!(named.len() > 15, "{named:?}");
    named
}

/// An empty tree with what the probes look at.
fn tree() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let root = sandbox.make_dir("work/tree");
    plant(&root);
    (sandbox, root)
}

fn same(sandbox: Sandbox, root: &Path, names: Vec<String>, known: &[Difference]) {
    let prepared = measured(sandbox, root, names);
    for asked in ["F1", "F3"] {
        compare_with(&prepared, "preload", asked, known);
    }
}

fn musl(archive: &str) {
    let Some(tar) = images::find(archive) else { return };
    if skip::lacks(&["musl-gcc", "unshare", "chroot", "setfattr"]) || skip::unless_root() {
        return;
    }
    let (sandbox, root) = tree();
    let loader = "./lib/ld-musl-x86_64.so.1";
    Output::of({
        let mut unpack = Command::new("tar");
        unpack.arg("-xzf").arg(&tar).arg("-C").arg(&root).arg(loader);
        unpack
    })
    .ok();
    let (names, compilers) = sources(&NOT_FOR_MUSL)
        .into_iter()
        .filter(|(name, _)| archive != images::ALPINE_OLD || !NOT_FOR_OLD_MUSL.contains(&name.as_str()))
        .map(|(name, source)| {
            let name = format!("{DYNAMIC}/{name}");
            let mut compiler = Command::new("musl-gcc");
            compiler.args(["-O1", "-pthread", "-w", &format!(r#"-DPROBES="/{DYNAMIC}""#)]).args(FOR_MUSL);
            compiler.arg("-o").arg(root.join(&name)).arg(source);
            (name, compiler)
        })
        .unzip();
    compile(compilers);
    let older = KNOWN_OF_OLD_MUSL.iter().filter(|_| archive == images::ALPINE_OLD);
    let today = KNOWN_OF_MUSL.iter().filter(|known| archive != images::ALPINE_OLD || known.1 != "links");
    let known: Vec<Difference> = today.chain(older).copied().collect();
    same(sandbox, &root, names, &known);
}

fn glibc(release: &str) {
    let Some(tar) = images::debian(release) else { return };
    if skip::lacks(&["unshare", "chroot", "setfattr"]) {
        return;
    }
    let (sandbox, root) = tree();
    let whole = sandbox.make_dir("work/whole");
    let mut unpack = Command::new("tar");
    user::ordinary().apply(unpack.args(["--exclude=./dev", "-xf"]).arg(tar).arg("-C").arg(&whole));
    Output::of(unpack).ok();
    for library in LIBRARIES {
        // Older ones are links, some of them absolute; from one release to the next there are fewer.
        let file = match fs::read_link(whole.join(library)) {
            Ok(target) if target.is_absolute() => whole.join(target.strip_prefix("/").unwrap()),
            _ => whole.join(library),
        };
        if file.exists() {
            let inside = root.join(library);
            fs::create_dir_all(inside.parent().unwrap()).unwrap();
            fs::copy(file, inside).unwrap();
        }
    }
    let guests = images::workspace().join("tests/guests");
    Output::of({
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(guests).arg(whole.join("guests"));
        copy
    })
    .ok();
    fs::create_dir_all(whole.join("made")).unwrap();
    let (names, compilers): (Vec<String>, Vec<Command>) = sources(&[])
        .into_iter()
        .map(|(name, _)| {
            let mut compiler = Command::new("chroot");
            compiler.arg(&whole).args(["gcc", "-O1", "-pthread", "-w", &format!(r#"-DPROBES="/{DYNAMIC}""#)]);
            compiler.args(if release == "bullseye" { &FOR_BULLSEYE[..] } else { &[] });
            compiler.arg("-o").args([
                format!("/made/{name}"),
                format!("/guests/{name}.c"),
                "-ldl".to_owned(),
                "-lrt".to_owned(),
            ]);
            (format!("{DYNAMIC}/{name}"), compiler)
        })
        .unzip();
    compile(compilers);
    for name in &names {
        let made = whole.join("made").join(name.trim_start_matches(DYNAMIC).trim_start_matches('/'));
        fs::copy(made, root.join(name)).unwrap();
    }
    fs::remove_dir_all(whole).unwrap();
    // The others are of programs in another place than here.
    let old = release == "bullseye";
    let here = KNOWN.iter().filter(|known| known.1 == "messages" || known.1 == "cwd" && !old);
    let here = here.chain(KNOWN_OF_BULLSEYE.iter().filter(|_| old));
    let known: Vec<Difference> = here.copied().collect();
    same(sandbox, &root, names, &known);
}

#[test]
fn musl_of_today() {
    musl(images::ALPINE);
}

#[test]
fn musl_of_2019() {
    musl(images::ALPINE_OLD);
}

#[test]
fn glibc_of_bullseye() {
    glibc("bullseye");
}

#[test]
fn glibc_of_bookworm() {
    glibc("bookworm");
}

#[test]
fn glibc_of_trixie() {
    glibc("trixie");
}

#[test]
fn glibc_of_sid() {
    glibc("sid");
}
