//! What tars and compressed streams may look like.

use super::*;

#[test]
fn metadata_is_kept() {
    let layer = tar()
        .pax(&[("mtime", b"12.25"), ("uid", b"3000000"), ("SCHILY.xattr.security.capability", b"\x01\n=\x00")])
        .raw(b"s", b'0', 0o106_755, b"", b"x")
        .raw(b"c", b'3', 0o600, b"", b"")
        .pax(&[("path", b"long\n\xff/name"), ("linkpath", b"to\xfe")])
        .raw(b"short", b'2', 0o777, b"x", b"")
        .raw(b"f", b'6', 0o600, b"", b"");
    let tree = flattened(vec![layer.end()]).expect("flattened");
    let file = tree.get(b"s").expect("there");
    assert_eq!((file.mode, file.uid, file.gid), (0o6755, 3_000_000, 8));
    assert_eq!((file.mtime.seconds, file.mtime.nanoseconds), (12, 250_000_000));
    assert_eq!(file.xattrs[0].value, b"\x01\n=\x00");
    assert!(matches!(tree.get(b"c").expect("there").kind, InodeKind::CharDevice(0, 0)));
    assert!(matches!(&tree.get(b"long\n\xff/name").expect("there").kind, InodeKind::Symlink(to) if to == b"to\xfe"));
    assert!(matches!(tree.get(b"f").expect("there").kind, InodeKind::Fifo));
    // An upper layer's directory entry replaces all metadata of the lower one's.
    let lower = tar().pax(&[("SCHILY.xattr.user.a", b"1")]).dir("d");
    let tree = flattened(vec![lower.end(), tar().raw(b"d/", b'5', 0o1777, b"", b"").end()]).expect("flattened");
    let directory = tree.get(b"d").expect("there");
    assert_eq!((directory.mode, directory.xattrs.len()), (0o1777, 0));
}

#[test]
fn gnu_names_and_old_directories() {
    let long = "n".repeat(150);
    let layer = tar()
        .raw(b"././@LongLink", b'L', 0, b"", format!("d/{long}\0").as_bytes())
        .raw(b"cut", b'0', 0o644, b"", b"1")
        .raw(b"old/", 0, 0o755, b"", b"")
        .raw(b"pax_global_header", b'g', 0o644, b"", b"16 comment=none\n")
        .raw(b"label", b'V', 0, b"", b"");
    assert_eq!(tells(vec![layer]), format!("/ d/ d/{long}=1 old/"));
}

/// A file of 1 MiB + 3 with two runs of data: "head" at 0, "tail" at 1 MiB - 1.
const HOLES: [(u64, &[u8]); 2] = [(0, b"head"), ((1 << 20) - 1, b"tail")];

fn is_holed(tar: Tar) {
    for compressed in [true, false] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let layer = layer(&directory, 0, &Tar(tar.0.clone()).file("after", "x").end(), compressed);
        let tree =
            flatten(Content::Layers(vec![layer]), &options(&directory)).unwrap_or_else(|error| panic!("{error}"));
        let InodeKind::File { size, data } = &tree.get(b"holes").expect("there").kind else { panic!("a file") };
        assert_eq!(*size, (1 << 20) + 3);
        let mut bytes = vec![1; (1 << 20) + 3];
        data.read_exact_at(&mut bytes, 0).expect("read");
        let mut expected = vec![0; (1 << 20) + 3];
        for (at, run) in HOLES {
            let at = usize::try_from(at).expect("small");
            expected[at..at + run.len()].copy_from_slice(run);
        }
        assert!(bytes == expected);
        assert!(tree.get(b"after").is_some());
    }
}

#[test]
fn sparse_files_of_every_format() {
    let real = ((1_u64 << 20) + 3).to_string();
    let [(a, _), (b, _)] = HOLES.map(|(at, _)| (at.to_string(), ()));
    // 0.0: one record per number.
    is_holed(
        tar()
            .pax(&[
                ("GNU.sparse.size", real.as_bytes()),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", a.as_bytes()),
                ("GNU.sparse.numbytes", b"4"),
                ("GNU.sparse.offset", b.as_bytes()),
                ("GNU.sparse.numbytes", b"4"),
            ])
            .file("holes", "headtail"),
    );
    // 0.1: a map, and the name beside it.
    is_holed(
        tar()
            .pax(&[
                ("GNU.sparse.size", real.as_bytes()),
                ("GNU.sparse.name", b"holes"),
                ("GNU.sparse.map", format!("{a},4,{b},4").as_bytes()),
            ])
            .file("GNUSparseFile.1/holes", "headtail"),
    );
    // 1.0: the map before the data.
    let mut data = format!("2\n{a}\n4\n{b}\n4\n").into_bytes();
    data.resize(512, 0);
    data.extend_from_slice(b"headtail");
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", real.as_bytes()),
    ];
    is_holed(tar().pax(&records).raw(b"GNUSparseFile.1/holes", b'0', 0o644, b"", &data));
    // The old one: in the header, and (with room for four) in a block behind it.
    let mut header = tar::Header::new_gnu();
    header.set_path("holes").expect("short");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(8);
    header.set_entry_type(tar::EntryType::GNUSparse);
    let gnu = header.as_gnu_mut().expect("made so");
    gnu.set_real_size((1 << 20) + 3);
    gnu.set_is_extended(true);
    gnu.sparse[0].set_offset(HOLES[0].0);
    gnu.sparse[0].set_length(4);
    let mut extension = tar::GnuExtSparseHeader::new();
    extension.sparse_mut()[0].set_offset(HOLES[1].0);
    extension.sparse_mut()[0].set_length(4);
    header.set_cksum();
    is_holed(Tar([&header.as_bytes()[..], &extension.as_bytes()[..]].concat()).data(b"headtail"));
    // Maps that lie.
    for map in ["0,4,2,4", "0,4,9,4000000", "0,9", "0,4,5", "0,18446744073709551615,0,8"] {
        let records = [("GNU.sparse.size", real.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        assert!(fails(vec![tar().pax(&records).file("holes", "headtail")]).contains("map of holes"), "{map}");
    }
}

#[test]
fn sizes_beyond_8_gib() {
    // Announced in base 256 and cut short: the size is understood, and refused only because its bytes are not there.
    let mut header = tar::Header::new_gnu();
    header.set_path("big").expect("short");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(9 << 30);
    header.set_cksum();
    let error = fails(vec![Tar(header.as_bytes().to_vec())]);
    assert!(error.contains("ends in the middle of a file"), "{error}");
}

#[test]
fn the_end_of_an_archive() {
    // No end marks at all, and garbage behind the end.
    let bare = |tar: Tar| tar.0;
    assert_eq!(told(&flattened(vec![bare(tar().file("a", "1"))]).expect("flattened")), "/ a=1");
    let behind = [tar().file("a", "1").end(), b"garbage".repeat(1000)].concat();
    assert_eq!(told(&flattened(vec![behind]).expect("flattened")), "/ a=1");
    assert_eq!(told(&flattened(vec![Vec::new()]).expect("flattened")), "/");
    for cut in [100, 600] {
        let mut bytes = bare(tar().file("a", &"1".repeat(300)));
        bytes.truncate(cut);
        let error = flattened(vec![bytes]).expect_err("cut").to_string();
        assert!(error.contains("in the middle of"), "{error}");
    }
    let mut damaged = bare(tar().file("a", "1"));
    damaged[3] ^= 1;
    assert!(flattened(vec![damaged]).expect_err("damaged").to_string().contains("wrong checksum"));
    let announced = bare(tar().pax(&[("path", b"x")]));
    assert!(flattened(vec![announced]).expect_err("cut").to_string().contains("an entry's headers"));
}

#[test]
fn compressed_streams() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let plain = tar().file("a", "1").end();
    let with = |stored: Vec<u8>, compression| {
        let file = directory.path().join("blob");
        fs::write(&file, &stored).expect("written");
        let blob = Blob { file, offset: 3, len: stored.len() as u64 - 3 };
        let layer = Layer { digest: "sha256:x".into(), diff_id: None, compression, blob };
        flatten(Content::Layers(vec![layer]), &options(&directory))
            .map(|tree| told(&tree))
            .map_err(|error| error.to_string())
    };
    let at_three = |bytes: &[u8]| [b"...", bytes].concat();
    let members = [gzip(&plain[..700]), gzip(&plain[700..])].concat();
    assert_eq!(with(at_three(&members), Compression::Gzip).as_deref(), Ok("/ a=1"));
    assert_eq!(with(at_three(&[&members[..], &[0; 600]].concat()), Compression::Gzip).as_deref(), Ok("/ a=1"));
    assert_eq!(with(at_three(&plain), Compression::None).as_deref(), Ok("/ a=1"));
    let zstd = zstd::encode_all(&plain[..], 3).expect("encoded");
    assert_eq!(with(at_three(&zstd), Compression::Zstd).as_deref(), Ok("/ a=1"));
    let mut xz = Vec::new();
    std::io::Read::read_to_end(&mut liblzma::read::XzEncoder::new(&plain[..], 1), &mut xz).expect("encoded");
    assert_eq!(with(at_three(&xz), Compression::Xz).as_deref(), Ok("/ a=1"));
    let mut bzip2 = Vec::new();
    let mut encoder = bzip2::read::BzEncoder::new(&plain[..], bzip2::Compression::fast());
    std::io::Read::read_to_end(&mut encoder, &mut bzip2).expect("encoded");
    assert_eq!(with(at_three(&bzip2), Compression::Bzip2).as_deref(), Ok("/ a=1"));
    for (stored, compression) in [(&members, Compression::Gzip), (&zstd, Compression::Zstd), (&xz, Compression::Xz)] {
        let error = with(at_three(&stored[..stored.len() - 5]), compression).expect_err("cut");
        assert!(error.contains("cut short"), "{compression:?}: {error}");
        let mut damaged = stored.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        with(at_three(&damaged), compression).expect_err("damaged");
    }
    assert!(with(at_three(b"no gzip at all"), Compression::Gzip).expect_err("none").contains("cannot be decompressed"));
}

#[test]
fn digests_of_the_content_are_checked() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut layer = layer(&directory, 0, &tar().file("a", "1").end(), true);
    layer.diff_id = Some(format!("sha256:{}", "0".repeat(64)));
    let error = flatten(Content::Layers(vec![layer]), &options(&directory)).expect_err("another").to_string();
    assert!(error.contains("layer 1 of 1 (sha256:0)") && error.contains("the image is damaged"), "{error}");
}
