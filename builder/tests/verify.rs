//! Damage is seen wherever it is, and told apart.

mod common;

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use coracle_format::{SKIPPABLE_HEADER_LEN, SLOT_LEN, Slot, TRAILER_LEN, hex, sha256};
use coracle_open::{Bundle, OpenError, verify};

use common::{Builder, difficult, sh, write};

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// Bytes in each part of a bundle, with what the message must say of them.
fn regions(bundle: &Bundle) -> Vec<(&'static str, u64)> {
    let (trailer, stub) = (bundle.trailer(), &bundle.manifest().stub);
    let tail = trailer.index.offset + trailer.index.len;
    let mut regions = vec![
        ("the stub", 0x40),
        ("the stub", stub.len / 3),
        ("the stub", stub.len - 1),
        ("slot", stub.slot),
        ("slot", stub.slot + 20),
        ("slot", stub.slot + 24),
        ("slot", stub.slot + SLOT_LEN as u64 - 1),
        ("skippable", trailer.manifest.offset - 4),
        ("manifest", trailer.manifest.offset),
        ("manifest", trailer.manifest.offset + trailer.manifest.len - 1),
        ("index", trailer.index.offset + trailer.index.len / 2),
        ("trailer", tail),
        ("trailer", tail + 50),
        ("trailer", tail + TRAILER_LEN as u64 - 1),
    ];
    for frame in &bundle.index().unwrap().frames {
        regions.push(("frame", trailer.payload.offset + frame.offset));
        regions.push(("frame", trailer.payload.offset + frame.offset + u64::from(frame.stored) - 1));
    }
    regions
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn copy_of(path: &Path, name: &str) -> PathBuf {
    let to = path.with_file_name(name);
    fs::copy(path, &to).unwrap();
    to
}

#[test]
fn each_damaged_region_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.run");
    write(&difficult(), &path, 1, 2);
    let whole = verify(&path, TWO).unwrap();
    let bundle = Bundle::open(&path).unwrap();
    assert_eq!((whole.total, whole.frames), (fs::metadata(&path).unwrap().len(), bundle.index().unwrap().frames.len()));
    assert!(whole.frames > 4, "{whole:?}");
    for (part, at) in regions(&bundle) {
        let damaged = copy_of(&path, "damaged");
        flip(&damaged, at);
        let error = verify(&damaged, TWO).expect_err(part).to_string();
        assert!(error.contains(part), "byte {at} in {part}: {error}");
    }
}

#[test]
fn two_damaged_frames_are_both_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.run");
    write(&difficult(), &path, 1, 2);
    let bundle = Bundle::open(&path).unwrap();
    let frames = bundle.index().unwrap().frames;
    for frame in [&frames[1], &frames[3]] {
        flip(&path, bundle.payload_offset() + frame.offset + 10);
    }
    let error = verify(&path, TWO).unwrap_err().to_string();
    assert!(error.contains("frame 1 ") && error.contains("frame 3 ") && !error.contains("frame 2 "), "{error}");
}

#[test]
fn stripped_truncated_and_appended_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.run");
    write(&difficult(), &path, 1, 2);
    let len = fs::metadata(&path).unwrap().len();
    let payload = Bundle::open(&path).unwrap().payload_offset();
    let open = |path: &Path| Bundle::open(path).unwrap_err();

    let stripped = copy_of(&path, "stripped");
    sh(r#"strip "$1""#, &[stripped.as_os_str()]);
    assert!(matches!(open(&stripped), OpenError::Stripped { .. }), "{}", open(&stripped));
    for cut in [payload / 2, payload - 1, payload + 1, len / 2, len - TRAILER_LEN as u64, len - 1] {
        let short = copy_of(&path, "short");
        File::options().write(true).open(&short).unwrap().set_len(cut).unwrap();
        let error = open(&short);
        // Cut before the slot, nothing tells it from any other program.
        let before_slot = cut == payload / 2 && matches!(error, OpenError::NotABundle { .. });
        assert!(before_slot || matches!(error, OpenError::Truncated { .. }), "cut at {cut}: {error}");
    }
    let long = copy_of(&path, "long");
    File::options().write(true).open(&long).unwrap().write_all_at(b"more", len).unwrap();
    assert!(matches!(open(&long), OpenError::Appended { extra: 4, .. }), "{}", open(&long));
    let other = folder.path().join("other");
    fs::write(&other, "#!/bin/sh\n").unwrap();
    assert!(matches!(open(&other), OpenError::NotABundle { .. }), "{}", open(&other));
}

/// A bundle that is whole in every digest, whose tar says another thing than its index.
#[test]
fn headers_that_lie_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.run");
    let mut tree = Builder::new();
    tree.file("file", "same");
    write(&tree.0, &path, 1, 1);
    let bundle = Bundle::open(&path).unwrap();
    let mut index = bundle.index().unwrap();
    index.entries[1].mode = 0o777;
    let index = index.encode();
    let stored = zstd::bulk::compress(&index, 1).unwrap();
    let mut manifest = bundle.manifest().clone();
    manifest.index.sha256 = hex(&sha256(&index));
    let manifest = manifest.encode();
    let mut trailer = *bundle.trailer();
    trailer.manifest.len = manifest.len() as u64;
    trailer.manifest_digest = sha256(&manifest);
    trailer.index.offset = trailer.manifest.offset + trailer.manifest.len;
    trailer.index.len = stored.len() as u64;
    trailer.index_len = index.len() as u64;
    trailer.index_digest = sha256(&index);

    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(usize::try_from(trailer.manifest.offset).unwrap() - SKIPPABLE_HEADER_LEN);
    for part in [&trailer.skippable_header().unwrap()[..], &manifest, &stored, &trailer.encode()] {
        bytes.extend_from_slice(part);
    }
    let slot = Slot { payload: trailer.payload.offset, total: bytes.len() as u64 }.encode();
    let at = usize::try_from(bundle.manifest().stub.slot).unwrap();
    bytes[at..at + SLOT_LEN].copy_from_slice(&slot);
    let lying = folder.path().join("lying");
    fs::write(&lying, bytes).unwrap();
    let error = verify(&lying, NonZeroUsize::MIN).unwrap_err().to_string();
    assert!(error.contains("a tar header for /file"), "{error}");
}
