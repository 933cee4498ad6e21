//! Layers that mean no good.

use super::*;

#[test]
fn nothing_leads_out_of_the_tree() {
    assert_eq!(tells(vec![tar().file("/etc/x", "1").file("a/../y", "2")]), "/ etc/ etc/x=1 y=2");
    for name in ["../x", "a/../../x", "/../x", "./..", "a/../../a/.wh.b"] {
        let error = fails(vec![tar().file(name, "")]);
        assert!(error.contains("leads out of the tree") && error.contains(name), "{error}");
    }
    assert!(fails(vec![tar().link("a", "../../etc/passwd")]).contains("leads out of the tree"));
    assert!(fails(vec![tar().link("a", "etc/passwd")]).contains("is not there"));
    assert!(fails(vec![tar().dir("d").link("a", "d")]).contains("is a directory"));
    assert!(fails(vec![tar().dir("d").link("a", "/")]).contains("is a directory"));
    assert!(fails(vec![tar().dir("d").file("d/x", "").link("d", "d/x")]).contains("is replaced by it"));
    assert!(fails(vec![tar().symlink("", "/")]).contains("the root must be a directory"));
    assert!(fails(vec![tar().file("./", "")]).contains("the root must be a directory"));
    assert!(fails(vec![tar().file(".wh.", "")]).contains("a whiteout of nothing"));
    assert!(fails(vec![tar().file("d/.wh...", "")]).contains("a whiteout of nothing"));
    assert!(fails(vec![tar().raw(b"x", b'Z', 0, b"", b"")]).contains("its type 'Z'"));
    // A hard link to a symbolic link is not a way through it.
    let lower = tar().symlink("l", "/etc").link("m", "l").file("m/x", "1");
    assert_eq!(tells(vec![lower]), "/ etc/ etc/x=1 l->/etc#3 m->/etc#3");
}

#[test]
fn limits_name_the_flag_that_raises_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let fails = |tar: Tar, change: &dyn Fn(&mut Limits)| {
        let layer = layer(&directory, 0, &tar.end(), true);
        let mut options = options(&directory);
        change(&mut options.limits);
        flatten(Content::Layers(vec![layer]), &options).expect_err("too much").to_string()
    };
    let deep = (0..300).fold(tar(), |tar, depth| tar.pax(&[("path", "d/".repeat(depth).as_bytes())]).dir("d"));
    assert!(fails(deep, &|limits| limits.depth = 250).contains("--limit-depth"));
    let deep = tar().pax(&[("path", &b"d/".repeat(100_000))]).dir("d");
    assert!(fails(deep, &|_| ()).contains("--limit-path"));
    assert!(fails(tar().file("a", "1").file("b", "2"), &|limits| limits.entries = 1).contains("--limit-entries"));
    assert!(fails(tar().file("a", "12345"), &|limits| limits.size = 4).contains("--limit-size"));
    assert!(fails(tar().file("a", "1"), &|limits| limits.size = 100).contains("--limit-size"));
    let heavy = tar().pax(&[("SCHILY.xattr.user.a", &[b'x'; 1000])]).file("a", "");
    assert!(fails(heavy, &|limits| limits.metadata = 900).contains("--limit-metadata"));
    // A hole is no way around the limit.
    let hole = tar().pax(&[("GNU.sparse.size", b"9000000000000000000"), ("GNU.sparse.map", b"")]).file("a", "");
    assert!(fails(hole, &|_| ()).contains("--limit-size"));
    let huge = tar().raw(b"x", b'x', 0, b"", &vec![b'0'; (1 << 20) + 1]);
    assert!(fails(huge, &|_| ()).contains("an extended header of"));
}

#[test]
fn many_entries_and_a_bomb_come_to_an_end() {
    // Many empty files in one directory, within the default limits; then more than a GiB of zeros in a few bytes.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for number in 0..100_000 {
        encoder.write_all(&tar().file(&format!("d/{number}"), "").0).expect("memory takes all");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let layer_of = |bytes: Vec<u8>, compression| {
        let file = directory.path().join("blob");
        fs::write(&file, &bytes).expect("written");
        let blob = Blob { file, offset: 0, len: bytes.len() as u64 };
        Layer { digest: "sha256:x".into(), diff_id: None, compression, blob }
    };
    let many = layer_of(encoder.finish().expect("memory takes all"), Compression::Gzip);
    let tree = flatten(Content::Layers(vec![many]), &options(&directory)).expect("flattened");
    assert_eq!(tree.paths.len(), 100_002);

    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").expect("short");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(5 << 28);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).expect("memory takes all");
    let zeros = vec![0; 16 << 20];
    for _ in 0..80 {
        encoder.write_all(&zeros).expect("memory takes all");
    }
    let bomb = layer_of(encoder.finish().expect("memory takes all"), Compression::Zstd);
    let error = flatten(Content::Layers(vec![bomb]), &options(&directory)).expect_err("a bomb").to_string();
    assert!(error.contains("--limit-ratio"), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever the bytes are, the answer is a tree or an error.
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000),
        at in 0_usize..3000,
        kind in 0_usize..5,
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let compression =
            [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2][kind];
        // A valid tar with a run of other bytes in it, and its checksums made right where they can be.
        let mut tar = tar()
            .pax(&[("GNU.sparse.map", b"0,1,5,1"), ("GNU.sparse.size", b"9")])
            .file("a/b", "12").link("c", "a/b").symlink("d", "a").file("d/x", "3").file(".wh.c", "").end();
        let at = at.min(tar.len());
        let end = (at + bytes.len() % 40).min(tar.len());
        tar[at..end].copy_from_slice(&bytes[..end - at]);
        for block in tar.chunks_exact_mut(512).filter(|block| block.iter().any(|byte| *byte != 0)) {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        for (number, bytes) in [tar, bytes].into_iter().enumerate() {
            let file = directory.path().join("blob");
            fs::write(&file, &bytes).expect("written");
            let blob = Blob { file, offset: 0, len: bytes.len() as u64 };
            let compression = if number == 0 { Compression::None } else { compression };
            let layer = Layer { digest: "sha256:x".into(), diff_id: None, compression, blob };
            if let Ok(tree) = flatten(Content::Layers(vec![layer.clone(), layer]), &options(&directory)) {
                told(&tree);
            }
        }
    }
}
