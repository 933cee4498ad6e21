//! Real trees, edited: every program still reads as it did but for what was meant, and runs, as an ordinary user from a
//! deep directory, with the tree's own loader and libraries and nothing of the host's.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use coracle::{
    flatten::Tree,
    patch::{self, Analysis},
    source,
};
use coracle_api::Libc;
use coracle_format::{Edit, ImageConfig};
use harness::{images, skip, user};

/// A tree unpacked twice: as it is, and edited in a deep directory.
struct Edited {
    _dir: tempfile::TempDir,
    pristine: PathBuf,
    view: PathBuf,
    analysis: Analysis,
}

fn unpack(tar: &Path, to: &Path) {
    let mut unpack = Command::new("tar");
    user::ordinary().apply(unpack.args(["--exclude=./dev", "-xf"]).arg(tar).arg("-C").arg(to));
    let output = unpack.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn edit(fill: &dyn Fn(&Path)) -> Edited {
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let pristine = dir.path().join("pristine");
    let view = dir.path().join(["deep-directory"; 20].join("/")).join("x".repeat(200)).join("view");
    for to in [&pristine, &view] {
        fs::create_dir_all(to).unwrap();
        std::os::unix::fs::chown(to, Some(user::ordinary().uid), Some(user::ordinary().gid)).unwrap();
        fill(to);
    }
    let tree = tree_of(&pristine);
    let config = ImageConfig { architecture: "amd64".into(), ..ImageConfig::default() };
    let analysis = patch::analyse(&tree, &config).unwrap();
    for set in &analysis.edits {
        for file in &set.files {
            let path = view.join(std::ffi::OsStr::from_bytes(&file.path));
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_symlink() {
                let [(0, Edit::Bytes(target))] = &file.edits[..] else { panic!("{file:?}") };
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(std::ffi::OsString::from_vec(target.clone()), &path).unwrap();
                continue;
            }
            let mode = kind.permissions();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            let opened = fs::File::options().write(true).open(&path).unwrap();
            for (offset, edit) in &file.edits {
                opened.write_all_at(&edit.bytes(view.as_os_str().as_bytes()).unwrap(), *offset).unwrap();
            }
            fs::set_permissions(&path, mode).unwrap();
        }
    }
    Edited { _dir: dir, pristine, view, analysis }
}

fn tree_of(dir: &Path) -> Tree {
    source::walk(dir, source::WalkOptions::default()).unwrap()
}

impl Edited {
    fn paths(&self) -> impl Iterator<Item = (&Path, &[(u64, Edit)])> {
        let files = self.analysis.edits.iter().flat_map(|set| &set.files);
        files.map(|file| (Path::new(std::ffi::OsStr::from_bytes(&file.path)), &file.edits[..]))
    }

    /// A program of the view, run with nothing but the library path.
    fn run(&self, program: &Path, args: &[&str], more: &[(&str, &str)]) -> Output {
        let loader = &self.analysis.facts.loaders[0];
        let path: Vec<String> =
            loader.directories.iter().map(|directory| format!("{}{directory}", self.view.display())).collect();
        let mut command = Command::new(self.view.join(program));
        user::ordinary().apply(command.args(args).env_clear().env("LD_LIBRARY_PATH", path.join(":")));
        command
            .envs(more.iter().copied())
            .current_dir("/")
            .output()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"))
    }

    fn is_inside(&self, path: &str) -> bool {
        path.starts_with(self.view.to_str().unwrap())
    }

    /// What is mapped from files when a program tells its own maps.
    fn maps(&self, program: &str, args: &[&str]) -> BTreeSet<String> {
        let output = self.run(Path::new(program), args, &[("LC_ALL", "C"), ("HOME", "/nonexistent")]);
        assert!(output.status.success(), "{program}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let files = text.lines().filter_map(|line| line.split_whitespace().nth(5));
        files.filter(|file| file.starts_with('/')).map(str::to_owned).collect()
    }
}

/// readelf's words about a file, less what an edit means to change.
fn read(path: &Path) -> (Vec<String>, Vec<u8>) {
    let output = Command::new("readelf").args(["-hlSdnVW"]).arg(path).env("LC_ALL", "C").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let meant = [
        "INTERP",
        "Requesting program interpreter",
        "(RPATH)",
        "(RUNPATH)",
        "(STRSZ)",
        ".interp",
        "(NEEDED)",
        ".dynstr",
    ];
    // The interpreter's segment holds no section any more.
    let lines = text.lines().filter(|line| !line.trim().bytes().all(|byte| byte.is_ascii_digit()));
    let lines = lines.filter(|line| !meant.iter().any(|word| line.contains(word)));
    // Sizes of segments that took a string.
    let lines = lines.map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["LOAD", offset, address, _, _, _, ref rest @ ..] => format!("LOAD {offset} {address} {rest:?}"),
        _ => line.to_owned(),
    });
    (lines.collect(), output.stderr)
}

fn check(tar: &Path, mappers: &[(&str, &[&str])], least: usize) {
    if skip::lacks(&["readelf"]) {
        return;
    }
    let edited = edit(&|to| unpack(tar, to));
    let loader = edited.analysis.facts.loaders.first().expect("a loader").clone();
    let mut programs = 0;
    for (path, edits) in edited.paths() {
        let (old, new) = (edited.pristine.join(path), edited.view.join(path));
        if fs::symlink_metadata(&old).unwrap().is_symlink() {
            let real = fs::canonicalize(&new).unwrap_or_else(|error| panic!("{new:?}: {error}"));
            assert!(real.starts_with(&edited.view), "{real:?}");
            continue;
        }
        let ((old_lines, old_errors), (new_lines, new_errors)) = (read(&old), read(&new));
        let different: Vec<_> = old_lines.iter().zip(&new_lines).filter(|(old, new)| old != new).collect();
        assert!(different.is_empty() && old_lines.len() == new_lines.len(), "{path:?}: {different:?}");
        assert_eq!(String::from_utf8_lossy(&old_errors), String::from_utf8_lossy(&new_errors), "{path:?}");
        // Nothing but the edits differs.
        let (old_bytes, mut new_bytes) = (fs::read(&old).unwrap(), fs::read(&new).unwrap());
        for (offset, edit) in edits {
            let at = usize::try_from(*offset).unwrap();
            let end = at + usize::try_from(edit.len()).unwrap();
            for (at, byte) in new_bytes.iter_mut().enumerate().take(end).skip(at) {
                *byte = old_bytes.get(at).copied().unwrap_or(0);
            }
        }
        let (same, grown) = new_bytes.split_at(old_bytes.len());
        assert!(same == old_bytes && grown.iter().all(|byte| *byte == 0), "{path:?}");
        assert_eq!(fs::metadata(&old).unwrap().mode(), fs::metadata(&new).unwrap().mode());

        let interpreted = edits.iter().any(|(_, edit)| matches!(edit, Edit::Path { .. }));
        if interpreted && loader.libc == Libc::Glibc {
            programs += 1;
            let output = edited.run(path, &[], &[("LD_TRACE_LOADED_OBJECTS", "1")]);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && output.stderr.is_empty(), "{path:?}: {output:?}");
            for line in text.lines() {
                let word = line.split(" => ").last().unwrap().split_whitespace().next().unwrap();
                // The loader is named as the program names it.
                let fine = edited.is_inside(word) || word.starts_with("linux-vdso") || word.contains("/ld-linux");
                assert!(fine || line.contains("statically linked"), "{path:?}: {line}");
            }
        } else if interpreted {
            programs += 1;
        }
    }
    assert!(programs >= least, "{programs} programs");
    for (program, args) in mappers {
        let maps = edited.maps(program, args);
        assert!(maps.iter().any(|path| path.ends_with(loader.path.rsplit('/').next().unwrap())), "{program}: {maps:?}");
        assert!(maps.iter().all(|path| edited.is_inside(path)), "{program}: {maps:?}");
    }
    // The loader knows no name of the host's; its help may.
    for path in edited.paths().map(|(path, _)| path).filter(|path| path.ends_with(&loader.path[1..])) {
        let bytes = fs::read(edited.view.join(path)).unwrap();
        for name in [&b"/etc/ld.so.cache\0"[..], b"/etc/ld.so.preload\0", b"/etc/ld-musl", b"/lib:/usr", b"\0/usr/lib/"]
        {
            assert!(!bytes.windows(name.len()).any(|window| window == name), "{}", String::from_utf8_lossy(name));
        }
    }
}

#[test]
fn an_edited_library_can_be_linked_with() {
    if skip::lacks(&["gcc"]) {
        return;
    }
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let run = |line: &str| {
        let output = Command::new("sh").args(["-ec", line]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    };
    run("mkdir -p tree/lib64 tree/lib/x86_64-linux-gnu tree/usr/lib/private tree/bin
         cp /lib64/ld-linux-x86-64.so.2 tree/lib64/
         cp /lib/x86_64-linux-gnu/libc.so.6 tree/lib/x86_64-linux-gnu/
         echo 'int x(void) { return 42; }' | gcc -shared -fPIC -x c - -o tree/usr/lib/private/libx.so \
             -Wl,--enable-new-dtags,-rpath,/usr/lib/private/that/is/far/away
         echo 'int x(void); int main(void) { return x(); }' > main.c
         gcc main.c tree/usr/lib/private/libx.so -o tree/bin/main
         tar cf tree.tar -C tree .");
    let edited = edit(&|to| unpack(&dir.path().join("tree.tar"), to));
    let library = Path::new("usr/lib/private/libx.so");
    assert!(edited.paths().any(|(path, _)| path == library), "{:?}", edited.analysis.report);
    let output = Command::new("gcc").arg("main.c").arg(edited.view.join(library)).current_dir(dir.path()).output();
    let output = output.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

const CAT: (&str, &[&str]) = ("bin/cat", &["/proc/self/maps"]);
const PERL: (&str, &[&str]) = ("usr/bin/perl", &["-ne", "print", "/proc/self/maps"]);
const PYTHON: (&str, &[&str]) = ("usr/bin/python3", &["-c", "print(open('/proc/self/maps').read())"]);
const GREP: (&str, &[&str]) = ("bin/grep", &["", "/proc/self/maps"]);
const BASH: (&str, &[&str]) = ("bin/bash", &["-c", "while read -r a; do echo \"$a\"; done < /proc/self/maps"]);
#[test]
fn alpine_of_today() {
    if let Some(tar) = images::find(images::ALPINE) {
        check(&tar, &[("bin/busybox", &["cat", "/proc/self/maps"])], 5);
    }
}

#[test]
fn alpine_of_2019() {
    if let Some(tar) = images::find(images::ALPINE_OLD) {
        check(&tar, &[("bin/busybox", &["cat", "/proc/self/maps"])], 5);
    }
}

fn debian(release: &str) {
    if let Some(tar) = images::debian(release) {
        check(&tar, &[CAT, GREP, BASH, PERL, PYTHON], 200);
    }
}

#[test]
fn debian_bullseye() {
    debian("bullseye");
}

#[test]
fn debian_bookworm() {
    debian("bookworm");
}

#[test]
fn debian_trixie() {
    debian("trixie");
}

#[test]
fn debian_sid() {
    debian("sid");
}

/// Links a program or library of a tree that is to be.
fn link(root: &Path, to: &str, code: &str, args: &[&str]) {
    let to = root.join(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let source = root.join("source.c");
    fs::write(&source, code).unwrap();
    let output = Command::new("gcc").arg("-o").arg(&to).arg(&source).args(args).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(source).unwrap();
}

/// A small tree with this node's C library, and libraries in all the places that programs may name.
fn places(root: &Path) {
    for file in ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"] {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::copy(Path::new("/").join(file), root.join(file)).unwrap();
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("mnt")).unwrap();
    let library = |to: &str, name: &str, value: u32| {
        let (soname, function) = (format!("-Wl,-soname,{to}"), format!("int {name}(void) {{ return {value}; }}"));
        let soname = if name == "by_path" { soname } else { format!("-Wl,-soname,lib{name}.so") };
        fs::write(root.join("versions"), format!("V1 {{ {name}; }};")).unwrap();
        link(
            root,
            to.trim_start_matches('/'),
            &function,
            &["-shared", "-fPIC", &soname, "-Wl,--version-script=versions"],
        );
    };
    library("opt/app/lib/libone.so", "one", 1);
    // The same name where the loader looks by itself.
    library("lib/x86_64-linux-gnu/libone.so", "one", 2);
    library("/opt/other/libby_path.so", "by_path", 3);
    link(
        root,
        "opt/plain/libplain.so",
        "int plain(void) { return 6; }",
        &["-shared", "-fPIC", "-Wl,-soname,/opt/plain/libplain.so"],
    );
    library("opt/more/libmore.so", "more", 4);
    // As Debian's alternatives: absolute links, one after the other.
    std::os::unix::fs::symlink("/etc/libchosen", root.join("lib/x86_64-linux-gnu/libchosen.so")).unwrap();
    std::os::unix::fs::symlink("/opt/more/libreal.so", root.join("etc/libchosen")).unwrap();
    library("opt/more/libreal.so", "chosen", 5);
    fs::remove_file(root.join("versions")).unwrap();
    let main = "int one(void), by_path(void), more(void), chosen(void), plain(void), printf(const char *, ...);
        int main(void) { printf(\"%d %d %d %d %d\\n\", one(), by_path(), more(), chosen(), plain()); return 0; }";
    let libraries = [
        "opt/app/lib/libone.so",
        "opt/other/libby_path.so",
        "opt/more/libmore.so",
        "opt/more/libreal.so",
        "opt/plain/libplain.so",
    ];
    let paths = "-Wl,-rpath,/opt/app/lib:/opt/more:/mnt/lib";
    // More than a page has room for.
    let endless = format!("{paths}:/opt/{}", "x".repeat(4096));
    for (to, paths, tags) in [
        ("opt/app/bin/run", paths, "-Wl,--enable-new-dtags"),
        ("opt/app/bin/rpath", paths, "-Wl,--disable-new-dtags"),
        ("opt/app/bin/cramped", &endless, "-Wl,--disable-new-dtags"),
    ] {
        link(root, to, main, &[&libraries[..], &[paths, tags, "-Wl,-z,separate-code"]].concat());
    }
}

#[test]
fn places_of_libraries_are_found_in_the_view() {
    if skip::lacks(&["gcc", "readelf"]) || !Path::new("/lib/x86_64-linux-gnu/libc.so.6").exists() {
        return;
    }
    let edited = edit(&places);
    let report = &edited.analysis.report;
    for (program, one) in [("run", 1), ("rpath", 1)] {
        let path = Path::new("opt/app/bin").join(program);
        let output = edited.run(&path, &[], &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, format!("{one} 3 4 5 6\n"), "{program}: {output:?} {report:#?}");
        let listed = edited.run(&path, &[], &[("LD_TRACE_LOADED_OBJECTS", "1")]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(listed.matches(edited.view.to_str().unwrap()).count(), 6, "{listed}");
    }
    // Emptied, so that its directories are the loader's, whose own come first.
    let output = edited.run(Path::new("opt/app/bin/cramped"), &[], &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 3 4 5 6\n", "{output:?} {report:#?}");
    let text = |name: &str| &report.edited.iter().find(|line| line.path.ends_with(name)).unwrap().text;
    assert!(text("/cramped").contains("emptied"), "{report:#?}");
    assert!(text("/run").contains("RUNPATH to RPATH"), "{report:#?}");
    // What is shown at /mnt comes from the host, and stays.
    assert!(text("/rpath").contains(":/mnt/lib"), "{report:#?}");
    assert!(text("/libchosen.so").contains("relative"), "{report:#?}");
    for (path, _) in edited.paths() {
        let new = edited.view.join(path);
        if !fs::symlink_metadata(&new).unwrap().is_symlink() {
            let (old, new) = (read(&edited.pristine.join(path)), read(&new));
            assert_eq!(old.1, new.1, "{path:?}: readelf complains");
        }
    }
}
