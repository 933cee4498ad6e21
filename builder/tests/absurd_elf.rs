//! Trees that would keep the builder busy for hours or take all memory, if what they say of themselves were followed: lists
//! without end, each element of which is long, or costs a look through the tree.

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use coracle::{
    flatten::InodeKind,
    patch::{self, Analysis},
};
use coracle_format::ImageConfig;

use common::Builder;

const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// Far more than each takes, in the slowest build on a busy machine, and far less than what any of them took.
const LIMIT: Duration = Duration::from_secs(25);

const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// A library: one segment from the file's start at address 0, its dynamic section, its strings, and other segments.
fn library(dynamic: &[(u64, u64)], strings: &[u8], more: &[[u64; 6]]) -> Vec<u8> {
    let word = |value: u64| value.to_le_bytes();
    let count = 2 + more.len();
    let start = 64 + 56 * count as u64;
    let len = 16 * (dynamic.len() as u64 + 3);
    let size = start + len + strings.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3E\0\x01\0\0\0".to_vec();
    file.extend([word(0), word(64), word(0)].concat());
    file.extend([0, 0, 0, 0, 64, 0, 56, 0]);
    file.extend(u16::try_from(count).unwrap().to_le_bytes());
    file.extend([64, 0, 0, 0, 0, 0]);
    // The first word of a program header is its kind and its flags.
    let (load, loaded_dynamically) = (1 | 4 << 32, 2 | 6 << 32);
    let mut segment = |fields: [u64; 7]| file.extend(fields.map(word).concat());
    segment([load, 0, 0, 0, size, size, 4096]);
    segment([loaded_dynamically, start, start, start, len, len, 8]);
    for [offset, address, physical, in_file, in_memory, align] in more.iter().copied() {
        segment([load, offset, address, physical, in_file, in_memory, align]);
    }
    for (tag, value) in [(DT_STRTAB, start + len), (DT_STRSZ, strings.len() as u64)].iter().chain(dynamic) {
        file.extend([word(*tag), word(*value)].concat());
    }
    file.extend([0; 16]);
    file.extend(strings);
    file
}

/// What comes of a tree with a program, its loader, a directory of many files, and `files`.
fn analyse(files: &[(&str, &[u8])]) -> Analysis {
    let mut tree = Builder::new();
    for directory in ["bin", "etc", "lib64", "usr", "usr/lib", "usr/share"] {
        tree.add(directory, 0o755, InodeKind::Directory);
    }
    tree.file(LOADER, fs::read(format!("/{LOADER}")).unwrap()).mode = 0o755;
    tree.file("bin/program", fs::read("/bin/true").unwrap()).mode = 0o755;
    for number in 0..5000 {
        tree.file(format!("usr/share/{number}"), b"");
    }
    for (path, content) in files {
        tree.file(path, *content).mode = 0o755;
    }
    let config = ImageConfig { architecture: "amd64".into(), ..ImageConfig::default() };
    let start = Instant::now();
    let analysis = patch::analyse(&tree.0, &config).unwrap();
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    let edited: Vec<_> = analysis.report.edited.iter().map(|line| line.path.as_str()).collect();
    assert!(edited.contains(&"/bin/program"), "the rest is done as ever: {edited:?}");
    analysis
}

/// What is said of a library that is left.
fn left(library: &[u8]) -> String {
    let report = analyse(&[("usr/lib/libx.so", library)]).report;
    assert!(report.edited.iter().all(|line| line.path != "/usr/lib/libx.so"), "{report:?}");
    report.left.into_iter().filter(|line| line.path == "/usr/lib/libx.so").map(|line| line.text).collect()
}

fn strings(repeated: &str, count: usize) -> Vec<u8> {
    [b"\0", repeated.repeat(count).as_bytes(), b"\0"].concat()
}

#[test]
fn libraries_that_name_absurdly_many_places_are_left() {
    let why = "the places that it names are absurdly many or long";
    assert_eq!(left(&library(&[(DT_RPATH, 1); 4000], &strings("/usr:", 12_000), &[])), why);
    assert_eq!(left(&library(&[(DT_RUNPATH, 1)], &strings("$ORIGIN/..:", 5000), &[])), why);
    assert_eq!(left(&library(&[(DT_NEEDED, 1); 4000], &strings("/x", 30_000), &[])), why);
    // Of `/x/x…` in many lengths.
    let ends: Vec<(u64, u64)> = (0..4000).map(|at| (DT_NEEDED, 1 + 2 * at)).collect();
    assert_eq!(left(&library(&ends, &strings("/x", 5000), &[])), why);
}

#[test]
fn a_search_path_as_long_as_any_is_followed() {
    let names: Vec<_> = (0..500).map(|number| format!("/usr/share/{number}/lib")).collect();
    let file = library(&[(DT_RUNPATH, 1)], &strings(&names.join(":"), 1), &[]);
    let report = analyse(&[("usr/lib/libx.so", &file)]).report;
    assert!(report.edited.iter().any(|line| line.path == "/usr/lib/libx.so"), "{report:?}");
}

#[test]
fn a_segment_may_lie_at_the_end_of_all_addresses() {
    for end in [1, 8, 0xFFF] {
        let last = [0xF00, u64::MAX - end, 0, 1, 1, 4096];
        let file = library(&[(DT_RPATH, 1)], &[&b"\0/usr/share\0"[..], &[0; 8192]].concat(), &[last]);
        analyse(&[("usr/lib/libx.so", &file)]);
    }
}

#[test]
fn a_loader_of_many_overlapping_segments_is_none() {
    let body = strings("/lib/\0", 1 << 21);
    let size = body.len() as u64 - 4096;
    let segments: Vec<[u64; 6]> = (1..1000).map(|at| [0, at << 32, 0, size, size, 4096]).collect();
    let mut program = fs::read("/bin/true").unwrap();
    let name = b"/lib64/ld-linux-x86-64.so.2";
    let at = program.windows(name.len()).position(|window| window == name).unwrap();
    program[at..at + name.len()].copy_from_slice(b"/lib64/ld-linux-x86-99.so.9");
    for file in [library(&[], &body, &segments), library(&[], &body, &[])] {
        let files: [(&str, &[u8]); 2] = [("bin/other", &program), ("lib64/ld-linux-x86-99.so.9", &file)];
        let report = analyse(&files).report;
        let why: Vec<_> = report.left.iter().filter(|line| line.path.ends_with("99.so.9")).collect();
        assert!(why.len() == 1 && why[0].text.contains("neither"), "{report:?}");
    }
}

#[test]
fn caches_without_end_are_not_followed() {
    let cache = |count: u32, value: &dyn Fn(u32) -> u32, strings: &[u8]| {
        let mut file = [&b"glibc-ld.so.cache1.1"[..], &count.to_le_bytes(), &[0; 24]].concat();
        for entry in 0..count {
            let fields = [3, 0, 48 + 24 * count + value(entry), 0, 0, 0];
            file.extend(fields.map(u32::to_le_bytes).concat());
        }
        file.extend(strings);
        file
    };
    // One string of megabytes, from many of its places on; and many directories that are all different.
    let long = cache(300_000, &|entry| entry * 2, &strings("/x", 1 << 20));
    let many: String = (0..250_000).map(|number| format!("/{number:07}/a\0")).collect();
    let different = cache(250_000, &|entry| 11 * entry, many.as_bytes());
    for file in [long, different] {
        analyse(&[("etc/ld.so.cache", &file)]);
    }
}

#[test]
fn configurations_without_end_are_not_followed() {
    let lines = "/usr/share\n".repeat(5900);
    let deep = format!("include /etc/{}x{}\n", "{a,".repeat(2000), "}".repeat(2000));
    for content in [format!("include {}", "/* ".repeat(20_000)), deep, lines] {
        analyse(&[("etc/ld.so.conf", content.as_bytes())]);
    }
    // What a distribution has works as ever.
    let files: [(&str, &[u8]); 2] =
        [("etc/ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n"), ("etc/ld.so.conf.d/a.conf", b"/usr/share\n")];
    assert!(analyse(&files).facts.loaders[0].directories.contains(&"/usr/share".to_owned()));
}
