//! What C libraries export, name by name: each is one that the shim has, or is known to need none.
//!
//! `names/caught.txt` has those that have to do with files and take another way, each below its reason;
//! `names/other.txt` those that take no path and tell none. A C library with a name that is in none of the three fails:
//! somebody has to look at it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use coracle_preload::shim_bytes;
use goblin::elf::{Elf, sym::STT_FUNC, sym::STT_GNU_IFUNC};
use harness::{images, skip};

/// What has names of glibc's: it was in several libraries once.
const GLIBC: [&str; 6] = ["libc.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libanl.so.1"];
const PLACES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Names of functions that a library has for others.
fn exported(bytes: &[u8]) -> BTreeSet<String> {
    let elf = Elf::parse(bytes).expect("a library");
    let functions = elf.dynsyms.iter().filter(|symbol| {
        symbol.st_shndx != 0 && !symbol.is_import() && matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC)
    });
    functions.filter_map(|symbol| elf.dynstrtab.get_at(symbol.st_name)).map(str::to_owned).collect()
}

/// The lists, by the reason that stands above each part.
fn listed(file: &str) -> BTreeMap<String, Vec<String>> {
    let path = images::workspace().join("engines/preload/tests/names").join(file);
    let text = fs::read_to_string(path).expect("the list");
    let mut parts = BTreeMap::<String, Vec<String>>::new();
    let mut reason = String::new();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(why) => reason = why.to_owned(),
            None => parts.entry(reason.clone()).or_default().push(line.to_owned()),
        }
    }
    parts
}

struct Known {
    shim: BTreeSet<String>,
    listed: BTreeSet<String>,
}

fn known() -> Known {
    let shim = exported(&shim_bytes().expect("the shim decompresses"));
    let lists = [listed("caught.txt"), listed("other.txt")];
    let mut all = BTreeSet::new();
    for (reason, names) in lists.into_iter().flatten() {
        assert!(reason.len() > 20, "names without a reason: {names:?}");
        for name in names {
            assert!(!shim.contains(&name), "{name} is the shim's and in a list");
            assert!(all.insert(name.clone()), "{name} is there twice");
        }
    }
    Known { shim, listed: all }
}

impl Known {
    fn has_all(&self, library: &Path, bytes: &[u8]) {
        let names = exported(bytes);
        assert!(!names.is_empty(), "{} has no names", library.display());
        let new: Vec<_> =
            names.iter().filter(|name| !self.shim.contains(*name) && !self.listed.contains(*name)).collect();
        assert!(new.is_empty(), "{}: new names, which belong to the shim or to a list: {new:?}", library.display());
    }

    /// The libraries of a tree of glibc's.
    fn has_all_of(&self, root: &Path) {
        let mut seen = 0;
        for library in GLIBC {
            let found = PLACES.iter().map(|place| root.join(place).join(library)).find(|path| path.exists());
            if let Some(path) = found {
                self.has_all(&path, &fs::read(&path).expect("a library"));
                seen += 1;
            }
        }
        assert!(seen > 0, "{} has no glibc", root.display());
    }
}

/// Takes some files out of an archive.
fn unpack(tar: &Path, patterns: &[String]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("tar");
    command.arg("-xf").arg(tar).arg("-C").arg(dir.path()).args(["--wildcards", "--no-anchored"]).args(patterns);
    // What an archive has not is no matter here.
    command.stderr(std::process::Stdio::null()).status().expect("tar");
    dir
}

#[test]
fn names_of_this_nodes_glibc_are_known() {
    if !PLACES.iter().any(|place| Path::new("/").join(place).join("libc.so.6").exists()) {
        return skip::because("this node has no glibc in Debian's places");
    }
    known().has_all_of(Path::new("/"));
}

#[test]
fn names_of_old_and_new_musl_are_known() {
    let known = known();
    for image in [images::ALPINE_OLD, images::ALPINE] {
        let Some(tar) = images::find(image) else { continue };
        let library: PathBuf = "lib/ld-musl-x86_64.so.1".into();
        let dir = unpack(&tar, &[library.display().to_string()]);
        known.has_all(&library, &fs::read(dir.path().join(&library)).expect("musl"));
    }
}

#[test]
fn names_of_glibcs_releases_are_known() {
    let known = known();
    for release in ["bullseye", "bookworm", "trixie", "sid"] {
        let Some(tar) = images::debian(release) else { continue };
        // Older releases have links to files with a version.
        let patterns = GLIBC.iter().flat_map(|name| {
            let stem = name.split('.').next().unwrap_or(name);
            PLACES.map(|place| format!("{place}/{stem}[.-]*"))
        });
        let dir = unpack(&tar, &patterns.collect::<Vec<_>>());
        known.has_all_of(dir.path());
    }
}
