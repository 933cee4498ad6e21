//! Hostile programs and libraries: whatever their headers say, the builder neither fails nor edits outside of the file,
//! and the same tree gives the same edits.

mod common;

use std::{fs, sync::OnceLock};

use coracle::{
    artifacts,
    flatten::InodeKind,
    patch::{self, Analysis},
};
use coracle_format::{Edit, ImageConfig, MOST_GROWTH, Xattr};
use proptest::{collection::vec, prelude::*};

use common::Builder;

const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

fn real(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A tree with a loader, and `program` as a program and as a library.
fn analyse(program: &[u8], loader: &[u8]) -> Analysis {
    let mut tree = Builder::new();
    for directory in ["bin", "lib", "lib64", "usr", "usr/lib"] {
        tree.add(directory, 0o755, InodeKind::Directory);
    }
    tree.file(LOADER, loader).mode = 0o755;
    tree.file("bin/program", program).mode = 0o755;
    tree.file("usr/lib/libprogram.so", program);
    let config = ImageConfig { architecture: "amd64".into(), ..ImageConfig::default() };
    let analysis = patch::analyse(&tree.0, &config).unwrap();
    for file in analysis.edits.iter().flat_map(|set| &set.files) {
        let InodeKind::File { size, .. } = tree.0.get(&file.path).unwrap().kind else { panic!("{file:?}") };
        let mut end = 0;
        for (offset, edit) in &file.edits {
            assert!(*offset >= end && offset + edit.len() <= size + MOST_GROWTH, "{file:?}");
            // Only a path grows a file.
            assert!(offset + edit.len() <= size || matches!(edit, Edit::Path { .. }), "{file:?}");
            end = offset + edit.len();
        }
    }
    analysis
}

fn samples() -> &'static [Vec<u8>; 3] {
    static SAMPLES: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let loader = real("/lib64/ld-linux-x86-64.so.2");
        [real("/bin/true"), loader, artifacts::STUB.to_vec()]
    })
}

#[test]
fn a_real_program_is_edited_and_a_static_one_left() {
    let [program, loader, bundle] = samples();
    let analysis = analyse(program, loader);
    let report = &analysis.report;
    let edited: Vec<_> = report.edited.iter().map(|line| line.path.as_str()).collect();
    assert!(edited.contains(&"/bin/program") && edited.contains(&"/lib64/ld-linux-x86-64.so.2"), "{report:?}");
    assert_eq!(analysis.facts.loaders[0].path, format!("/{LOADER}"));
    assert_eq!(analysis.facts.edited_for, [patch::PRELOAD]);
    let of_static = analyse(bundle, loader).report;
    assert!(of_static.left.iter().any(|line| line.path == "/bin/program" && line.text.contains("static")));
}

#[test]
fn data_behind_a_program_is_not_moved() {
    let [program, loader, _] = samples();
    let with_data = [&program[..], b"PK\x05\x06 an archive found from its end"].concat();
    let report = analyse(&with_data, loader).report;
    let why = &report.left.iter().find(|line| line.path == "/bin/program").unwrap().text;
    assert!(why.contains("data of its own"), "{why}");
    assert!(report.edited.iter().all(|line| line.path != "/bin/program"), "{report:?}");
}

/// What is said of `bin/program`, which is not edited.
fn left(program: &[u8], attribute: Option<&str>) -> String {
    let [good, loader, _] = samples();
    let mut tree = Builder::new();
    for directory in ["bin", "lib64"] {
        tree.add(directory, 0o755, InodeKind::Directory);
    }
    tree.file(LOADER, loader.clone()).mode = 0o755;
    // For a loader that no program names nothing is edited at all.
    tree.file("bin/good", good.clone()).mode = 0o755;
    let inode = tree.file("bin/program", program);
    inode.mode = 0o755;
    inode.xattrs.extend(attribute.map(|name| Xattr { name: name.into(), value: b"\x03\x02 a signature".to_vec() }));
    let config = ImageConfig { architecture: "amd64".into(), ..ImageConfig::default() };
    let analysis = patch::analyse(&tree.0, &config).unwrap();
    let files = analysis.edits.iter().flat_map(|set| &set.files);
    assert!(files.into_iter().all(|file| file.path != b"bin/program"), "{:?}", analysis.report);
    analysis.report.left.into_iter().filter(|line| line.path == "/bin/program").map(|line| line.text).collect()
}

#[test]
fn signed_packed_and_oddly_laid_out_programs_are_left_and_named() {
    let [program, _, bundle] = samples();
    assert_eq!(left(program, Some("security.ima")), "it is signed");
    // A packer's program is static, and has its mark behind the headers.
    let mut packed = bundle.clone();
    let headers = 64 + 56 * usize::from(u16::from_le_bytes([packed[56], packed[57]]));
    packed[headers + 4..headers + 8].copy_from_slice(b"UPX!");
    assert_eq!(left(&packed, None), "it is packed with UPX");
    // Its interpreter's name is nowhere, or not a name.
    let number = |at: usize| usize::try_from(u64::from_le_bytes(program[at..at + 8].try_into().unwrap())).unwrap();
    let segments = usize::from(u16::from_le_bytes([program[56], program[57]]));
    let interpreter = (0..segments).map(|segment| 64 + 56 * segment).find(|at| program[*at] == 3).unwrap();
    let mut odd = program.clone();
    odd[interpreter + 8..interpreter + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(left(&odd, None), "a segment lies outside of it");
    let mut odd = program.clone();
    odd[number(interpreter + 8)] = b'x';
    assert_eq!(left(&odd, None), "its loader's name makes no sense");
    // Of a size between that of two program headers, as no linker makes them.
    let mut odd = program.clone();
    odd[54] = 57;
    assert_eq!(left(&odd, None), "its program headers have another size than the ABI's");
}

/// Offsets, addresses, lengths and alignments that no linker writes: at the ends of what a number holds, odd, in the
/// middle of pages, behind the file's end; of each segment, and of the tables and sections that the headers lead to.
#[test]
fn any_number_of_the_headers_may_be_any() {
    let [program, loader, _] = samples();
    let size = program.len() as u64;
    let odd =
        [0, 1, 3, 0x7FF, 0x1001, 1 << 47, 1 << 63, u64::MAX, u64::MAX - 4095, u64::MAX - 7, size, size - 1, size + 1];
    let with = |at: usize, value: u64| {
        let mut bytes = program.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let number = |at: usize| usize::try_from(u64::from_le_bytes(program[at..at + 8].try_into().unwrap())).unwrap();
    let segments = usize::from(u16::from_le_bytes([program[56], program[57]]));
    let sections = number(40);
    let count = usize::from(u16::from_le_bytes([program[60], program[61]]));
    // e_phoff and e_shoff; p_offset to p_align; sh_flags to sh_entsize, of those that hold strings or what is loaded
    // dynamically.
    let fields = [32, 40].into_iter();
    let fields = fields.chain((0..segments).flat_map(|segment| (1..7).map(move |field| 64 + 56 * segment + 8 * field)));
    let fields =
        fields.chain((0..count).flat_map(|section| (2..5).map(move |field| sections + 64 * section + 8 * field)));
    for at in fields {
        for value in odd {
            analyse(&with(at, value), loader);
        }
    }
    // Two segments in one place, and each in place of another.
    for (from, to) in (0..segments).flat_map(|from| (0..segments).map(move |to| (from, to))) {
        let mut bytes = program.clone();
        bytes.copy_within(64 + 56 * from..64 + 56 * (from + 1), 64 + 56 * to);
        analyse(&bytes, loader);
    }
    let dynamic = (0..segments).map(|segment| 64 + 56 * segment).find(|at| program[*at] == 2).unwrap();
    for entry in 0..number(dynamic + 32) / 16 {
        for value in odd {
            analyse(&with(number(dynamic + 8) + 16 * entry + 8, value), loader);
        }
    }
}

#[test]
fn two_loaders_are_one_too_many_and_a_file_may_end_anywhere() {
    let [program, loader, _] = samples();
    let segments = usize::from(u16::from_le_bytes([program[56], program[57]]));
    let interpreter = (0..segments).map(|segment| 64 + 56 * segment).find(|at| program[*at] == 3).unwrap();
    let note = (0..segments).map(|segment| 64 + 56 * segment).find(|at| program[*at] == 4).unwrap();
    let mut two = program.clone();
    two.copy_within(interpreter..interpreter + 56, note);
    assert_eq!(left(&two, None), "it names two loaders");
    for len in (0..program.len()).step_by(211).chain(0..1024) {
        analyse(&program[..len], loader);
    }
}

#[test]
fn any_byte_of_the_headers_may_be_wrong() {
    let [program, loader, _] = samples();
    for at in 0..64 + 14 * 56 {
        for value in [0, 0x7F, 0xFF] {
            let mut bytes = program.clone();
            bytes[at] = value;
            analyse(&bytes, loader);
        }
    }
    for at in (0..64 + 10 * 56).step_by(3) {
        let mut bytes = loader.clone();
        bytes[at] ^= 0xFF;
        analyse(program, &bytes);
    }
}

/// Offsets that matter: the headers' and the dynamic section's.
fn interesting(bytes: &[u8]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..64 + 14 * 56).collect();
    let number = |at: usize| usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    let segments = u16::from_le_bytes([bytes[56], bytes[57]]);
    for segment in (0..usize::from(segments)).map(|segment| 64 + 56 * segment) {
        if bytes[segment] == 2 {
            places.extend(number(segment + 8)..number(segment + 8) + number(segment + 32));
        }
    }
    // The section headers.
    places.extend(number(40)..bytes.len());
    places
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn many_bytes_may_be_wrong(
        which in 0_usize..2,
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut files = [samples()[0].clone(), samples()[1].clone()];
        let places = interesting(&files[which]);
        for (at, byte) in damage {
            files[which][places[at.index(places.len())]] = byte;
        }
        if let Some(cut) = cut {
            let len = cut.index(files[which].len());
            files[which].truncate(len);
        }
        let one = analyse(&files[0], &files[1]);
        let other = analyse(&files[0], &files[1]);
        prop_assert_eq!(one.edits, other.edits);
        prop_assert_eq!(one.report, other.report);
    }

    #[test]
    fn noise_is_no_program(bytes in vec(any::<u8>(), 0..3000)) {
        analyse(&[b"\x7fELF\x02\x01\x01", &bytes[..]].concat(), &samples()[1]);
    }
}
