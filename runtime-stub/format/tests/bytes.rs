//! What is written comes back; what is damaged is refused or decodes to something that keeps the rules, and never panics.

use std::collections::{BTreeMap, BTreeSet};

use coracle_format::{
    Content, Defaults, Edit, Entry, Fixup, FixupSet, FormatError, Frame, Health, ImageConfig, Index, IndexInfo, Kind,
    MOST_GROWTH, MOST_SLOT, Manifest, PayloadInfo, Provenance, Region, SKIPPABLE_HEADER_LEN, SLOT_LEN, Slot, StubInfo,
    TRAILER_LEN, Time, Trailer, Xattr, hex, parse_hex, sha256,
};
use proptest::{collection::vec, prelude::*};

/// One level of a generated tree: a name, what it is, and which directory it goes to.
type Seed = (Vec<u8>, u8, prop::sample::Index, u64);

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..12)
        .prop_filter("plain names", |name| !name.contains(&0) && !name.contains(&b'/') && name != b"." && name != b"..")
}

/// Mode, owner, group, seconds, nanoseconds, extended attributes.
type Settings = (u16, u32, u32, i64, u32, Vec<(Vec<u8>, Vec<u8>)>);

fn any_entry_settings() -> impl Strategy<Value = Settings> {
    let xattrs = vec((vec(any::<u8>(), 1..8), vec(any::<u8>(), 0..40)), 0..3);
    (0_u16..0o10000, any::<u32>(), any::<u32>(), any::<i64>(), 0_u32..1_000_000_000, xattrs)
}

prop_compose! {
    /// A whole index that keeps the rules.
    fn any_index()(
        lens in vec(1_u32..5_000_000, 1..6),
        seeds in vec((any_name(), 0_u8..7, any::<prop::sample::Index>(), any::<u64>()), 0..30),
        settings in vec(any_entry_settings(), 31),
        edits in vec((any::<prop::sample::Index>(), any::<u64>(), any::<Option<u32>>(), vec(any::<u8>(), 0..20)), 0..5),
    ) -> Index {
        let mut offset = 0;
        let frames: Vec<Frame> = lens.iter().map(|&len| {
            let frame = Frame { offset, stored: len / 2 + 1, len, digest: sha256(&len.to_le_bytes()) };
            offset += u64::from(frame.stored);
            frame
        }).collect();
        let entries = tree(&seeds, &frames);
        let entries: Vec<Entry> = entries.into_iter().zip(settings).map(|((path, kind), setting)| {
            let (mode, uid, gid, seconds, nanoseconds, xattrs) = setting;
            let xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
            Entry { path, mode, uid, gid, mtime: Time { seconds, nanoseconds }, xattrs, kind }
        }).collect();
        let mut fixups: Vec<Fixup> = edits.into_iter().filter_map(|(entry, offset, slot, mut bytes)| {
            let number = entry.index(entries.len());
            let entry = u32::try_from(number).unwrap();
            bytes.retain(|byte| *byte != 0);
            let (offset, edit) = match (&entries[number].kind, slot) {
                (Kind::File { size, .. }, Some(slot)) => {
                    (offset % (size + MOST_GROWTH / 2), Edit::Path { slot: slot % MOST_SLOT, suffix: bytes })
                }
                (Kind::File { size, .. }, None) => (offset % (size + MOST_GROWTH / 2), Edit::Bytes(bytes)),
                (Kind::Symlink { .. }, _) if !bytes.is_empty() => (0, Edit::Bytes(bytes)),
                _ => return None,
            };
            Some(Fixup { entry, offset, edit })
        }).collect();
        fixups.sort_by_key(|fixup| (fixup.entry, fixup.offset));
        // One a file: so none overlap.
        fixups.dedup_by_key(|fixup| fixup.entry);
        Index { frames, entries, fixups: vec![FixupSet { engine: "preload".into(), fixups }] }
    }
}

fn tree(seeds: &[Seed], frames: &[Frame]) -> Vec<(Vec<u8>, Kind)> {
    let mut directories = vec![Vec::new()];
    let mut paths = BTreeMap::from([(Vec::new(), Kind::Directory)]);
    let mut files = BTreeSet::new();
    let total: u64 = frames.iter().map(|frame| u64::from(frame.len)).sum();
    for (name, kind, parent, number) in seeds {
        let parent = parent.get(&directories);
        let path = if parent.is_empty() { name.clone() } else { [parent, &b"/"[..], name].concat() };
        if paths.contains_key(&path) {
            continue;
        }
        let low = u32::try_from(number & 0xFFFF_FFFF).unwrap();
        let kind = match kind {
            0 => Kind::Directory,
            1 => {
                let offset = low % frames[0].len;
                let size = number % (total - u64::from(offset) + 1);
                Kind::File { size, content: Content { frame: 0, offset } }
            }
            2 => Kind::Symlink { target: name.clone() },
            3 => Kind::Fifo,
            4 => Kind::CharDevice { major: low, minor: 1 },
            5 => Kind::BlockDevice { major: 1, minor: low },
            _ => Kind::HardLink { entry: 0 },
        };
        if kind == Kind::Directory {
            directories.push(path.clone());
        }
        if matches!(kind, Kind::File { .. }) {
            files.insert(path.clone());
        }
        paths.insert(path, kind);
    }
    // Hard links name an earlier file, by its number, or are none.
    let numbers: BTreeMap<Vec<u8>, u32> =
        paths.keys().enumerate().map(|(at, path)| (path.clone(), u32::try_from(at).unwrap())).collect();
    let earlier = |path: &Vec<u8>| files.range::<Vec<u8>, _>(..path).next_back().map(|file| numbers[file]);
    paths
        .iter()
        .map(|(path, kind)| match kind {
            Kind::HardLink { .. } => (path.clone(), earlier(path).map_or(Kind::Fifo, |entry| Kind::HardLink { entry })),
            kind => (path.clone(), kind.clone()),
        })
        .collect()
}

fn trailer() -> (Trailer, u64) {
    let payload = Region { offset: 1000, len: 5 << 32 };
    let manifest = Region { offset: payload.offset + payload.len + SKIPPABLE_HEADER_LEN as u64, len: 300 };
    let index = Region { offset: manifest.offset + manifest.len, len: 70 };
    let trailer = Trailer {
        payload,
        manifest,
        manifest_digest: sha256(b"manifest"),
        index,
        index_len: 4000,
        index_digest: sha256(b"index"),
        signatures_len: 0,
        signatures_digest: sha256(b""),
    };
    (trailer, index.offset + index.len + TRAILER_LEN as u64)
}

fn manifest() -> Manifest {
    Manifest {
        format: coracle_format::FORMAT_VERSION,
        coracle: "0.1.0".into(),
        config: ImageConfig {
            architecture: "arm64".into(),
            os: "linux".into(),
            variant: Some("v8".into()),
            user: Some("1000:staff".into()),
            env: vec!["A=\"quoted\"\n".into()],
            entrypoint: Some(vec!["/bin/sh".into(), String::new()]),
            cmd: Some(Vec::new()),
            working_dir: Some("/srv".into()),
            volumes: vec!["/data".into()],
            exposed_ports: vec!["80/tcp".into()],
            labels: BTreeMap::from([("key".into(), "værdi".into())]),
            stop_signal: Some("SIGINT".into()),
            health: Some(Health { test: vec!["CMD".into(), "true".into()], interval: 30, ..Health::default() }),
        },
        facts: serde_json::json!({ "architecture": "arm64", "interpreters": ["/lib/ld.so"] }),
        defaults: Defaults {
            isolated: true,
            engine: Some("ptrace".into()),
            volumes: vec!["/data:/d:ro".into()],
            ..Defaults::default()
        },
        provenance: Provenance {
            source: "docker://alpine".into(),
            manifest: Some("sha256:00".into()),
            config: Some("sha256:01".into()),
            layers: vec!["sha256:02".into()],
            licences: vec!["MIT".into()],
            options: vec!["--isolated".into()],
            capture: None,
            changed: None,
        },
        stub: StubInfo { target: "x86_64-unknown-linux-musl".into(), len: 5, slot: 1, sha256: hex(&sha256(b"stub")) },
        payload: PayloadInfo { stored: 1, unpacked: u64::MAX, inodes: 3 },
        index: IndexInfo { sha256: hex(&sha256(b"index")), stored_sha256: hex(&sha256(b"stored index")) },
        notes: vec!["one note".into()],
    }
}

/// The rules that every reader relies on, however the index came about.
fn keeps_the_rules(index: &Index) {
    let plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    let total: u64 = index.frames.iter().map(|frame| u64::from(frame.len)).sum();
    for (number, entry) in index.entries.iter().enumerate() {
        assert!(number == 0 || entry.path.split(|byte| *byte == b'/').all(plain), "{:?}", entry.path);
        assert_eq!(index.find(&entry.path), Some(number));
        match entry.kind {
            Kind::File { size, content } if size > 0 => {
                let before: u64 = index.frames[..content.frame as usize].iter().map(|frame| u64::from(frame.len)).sum();
                assert!(before + u64::from(content.offset) + size <= total);
            }
            Kind::HardLink { entry } => {
                assert!((entry as usize) < number && matches!(index.entries[entry as usize].kind, Kind::File { .. }));
            }
            _ => {}
        }
    }
    for set in &index.fixups {
        for fixup in &set.fixups {
            match &index.entries[fixup.entry as usize].kind {
                Kind::File { size, .. } => assert!(fixup.offset + fixup.edit.len() <= size + MOST_GROWTH),
                Kind::Symlink { .. } => assert!(fixup.offset == 0 && matches!(fixup.edit, Edit::Bytes(_))),
                other => panic!("{other:?} is edited"),
            }
        }
        for (_, fixups) in set.files() {
            let apart = |two: &[Fixup]| two[0].offset + two[0].edit.len() <= two[1].offset;
            assert!(fixups.windows(2).all(apart));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn an_index_comes_back(index in any_index()) {
        prop_assert_eq!(Index::decode(&index.encode()).unwrap(), index);
    }

    #[test]
    fn a_damaged_index_keeps_the_rules_or_is_refused(
        index in any_index(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = index.encode();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(index) = Index::decode(&bytes) {
            keeps_the_rules(&index);
        }
    }

    #[test]
    fn noise_is_no_part_of_a_bundle(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(Index::decode(&bytes).is_err());
        prop_assert!(Manifest::decode(&bytes).is_err());
        prop_assert!(Slot::locate(&bytes).is_err());
        prop_assert!(Slot::find(&bytes).is_err());
    }

    #[test]
    fn a_digest_comes_back(digest in any::<[u8; 32]>()) {
        prop_assert_eq!(parse_hex(&hex(&digest)), Some(digest));
    }
}

/// One index with every kind of record, for trying each single damage.
fn small_index() -> Index {
    let frames = vec![
        Frame { offset: 0, stored: 10, len: 600, digest: sha256(b"a") },
        Frame { offset: 10, stored: 7, len: 600, digest: sha256(b"b") },
    ];
    let entry = |path: &str, kind| Entry {
        path: path.into(),
        mode: 0o755,
        uid: 1,
        gid: 2,
        mtime: Time { seconds: -1, nanoseconds: 5 },
        xattrs: vec![Xattr { name: b"user.a".to_vec(), value: b"v".to_vec() }],
        kind,
    };
    let entries = vec![
        entry("", Kind::Directory),
        entry("d", Kind::Directory),
        entry("d/f", Kind::File { size: 600, content: Content { frame: 0, offset: 512 } }),
        entry("d/h", Kind::HardLink { entry: 2 }),
        entry("p", Kind::Fifo),
        entry("s", Kind::Symlink { target: b"d/f".to_vec() }),
        entry("t", Kind::CharDevice { major: 1, minor: 3 }),
        entry("u", Kind::BlockDevice { major: 8, minor: 0 }),
    ];
    let fixups = vec![
        Fixup { entry: 2, offset: 4, edit: Edit::Bytes(b"new".to_vec()) },
        Fixup { entry: 2, offset: 9000, edit: Edit::Path { slot: 4096, suffix: b"/lib".to_vec() } },
    ];
    Index { frames, entries, fixups: vec![FixupSet { engine: "preload".into(), fixups }] }
}

fn each_flip(bytes: &[u8], mut look: impl FnMut(usize, &[u8])) {
    let mut bytes = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        look(bit, &bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn an_index_cut_anywhere_is_refused() {
    let bytes = small_index().encode();
    assert_eq!(Index::decode(&bytes), Ok(small_index()));
    for len in 0..bytes.len() {
        assert!(Index::decode(&bytes[..len]).is_err(), "cut to {len} bytes");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(Index::decode(&longer), Err(FormatError::Corrupt { .. })));
}

#[test]
fn an_index_with_any_bit_flipped_keeps_the_rules_or_is_refused() {
    let (index, mut refused) = (small_index(), 0);
    let bytes = index.encode();
    each_flip(&bytes, |bit, flipped| match Index::decode(flipped) {
        Ok(other) => {
            assert_ne!(other, index, "bit {bit} changes nothing");
            keeps_the_rules(&other);
        }
        Err(_) => refused += 1,
    });
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_trailer_with_any_bit_flipped_or_of_another_file_is_refused() {
    let (trailer, total) = trailer();
    let bytes = trailer.encode();
    assert_eq!(Trailer::decode(&bytes, total), Ok(trailer));
    assert!(Trailer::decode(&bytes, total + 1).is_err());
    each_flip(&bytes, |bit, flipped| {
        let flipped: &[u8; TRAILER_LEN] = flipped.try_into().unwrap();
        assert!(Trailer::decode(flipped, total).is_err(), "bit {bit}");
    });
}

#[test]
fn regions_whose_ends_exceed_all_files_are_refused() {
    let (mut trailer, total) = trailer();
    trailer.payload = Region { offset: u64::MAX, len: 2 };
    assert!(matches!(Trailer::decode(&trailer.encode(), total), Err(FormatError::Corrupt { .. })));
}

#[test]
fn a_slot_with_its_mark_or_version_damaged_is_refused() {
    let slot = Slot { payload: 7, total: 9 };
    let bytes = slot.encode();
    each_flip(&bytes, |bit, flipped| {
        let flipped: &[u8; SLOT_LEN] = flipped.try_into().unwrap();
        let decoded = Slot::decode(flipped);
        match bit / 8 {
            0..16 => assert_eq!(decoded, Err(FormatError::Missing { part: "slot" })),
            16..20 => assert!(matches!(decoded, Err(FormatError::Version { .. }))),
            24..40 => assert_ne!(decoded.unwrap(), slot),
            _ => {}
        }
    });
}

#[test]
fn a_manifest_comes_back_and_cut_or_flipped_never_panics() {
    let manifest = manifest();
    let bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    for len in 0..bytes.len() {
        assert!(Manifest::decode(&bytes[..len]).is_err(), "cut to {len} bytes");
    }
    each_flip(&bytes, |_, flipped| drop(Manifest::decode(flipped)));
}

#[test]
fn a_manifest_of_another_format_is_told_from_damage() {
    let other = Manifest { format: 99, ..manifest() };
    assert_eq!(
        Manifest::decode(&other.encode()),
        Err(FormatError::Version { found: 99, expected: coracle_format::FORMAT_VERSION })
    );
}

#[test]
fn counts_beyond_the_bytes_reserve_nothing() {
    // A header that promises four billion frames, entries and fix-up sets, and nothing behind it.
    let mut bytes = small_index().encode()[..8].to_vec();
    bytes.extend_from_slice(&[0xFF; 12]);
    assert!(matches!(Index::decode(&bytes), Err(FormatError::Short { .. })));
}
