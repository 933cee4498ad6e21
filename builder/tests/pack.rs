//! The packer against the world outside: what tar and zstd make of a payload, and that nothing but the tree decides.

mod common;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
};

use coracle::flatten::InodeKind;
use coracle_format::Kind;
use coracle_open::{Bundle, FrameReader};

use common::{difficult, sh, write};

#[test]
fn tar_and_zstd_recover_the_tree() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("app.run"), folder.path().join("out"));
    let tree = difficult();
    write(&tree, &path, 3, 2);
    fs::create_dir(&out).unwrap();
    let offset = Bundle::open(&path).unwrap().payload_offset();
    let script =
        r#"tail -c +$(($3+1)) "$1" | zstd -dc | tar -C "$2" --xattrs --warning=no-timestamp --no-same-owner -xpf -"#;
    sh(script, &[path.as_os_str(), out.as_os_str(), OsStr::new(&offset.to_string())]);

    let mut inodes = BTreeMap::new();
    for (name, id) in &tree.paths {
        let at = out.join(OsStr::from_bytes(name));
        let inode = &tree.inodes[id.0 as usize];
        if matches!(inode.kind, InodeKind::CharDevice(..) | InodeKind::BlockDevice(..)) {
            assert!(fs::symlink_metadata(&at).is_err(), "{at:?} is a device");
            continue;
        }
        let found = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        match &inode.kind {
            InodeKind::Directory => assert!(found.is_dir(), "{at:?}"),
            InodeKind::Fifo => assert!(found.file_type().is_fifo(), "{at:?}"),
            InodeKind::Symlink(target) => {
                assert_eq!(fs::read_link(&at).unwrap().as_os_str().as_bytes(), target, "{at:?}");
                continue;
            }
            InodeKind::File { size, data } => {
                let mut bytes = vec![0; usize::try_from(*size).unwrap()];
                data.read_exact_at(&mut bytes, 0).unwrap();
                assert!(fs::read(&at).unwrap() == bytes, "{at:?}: content");
                assert_eq!(*inodes.entry(id).or_insert(found.ino()), found.ino(), "{at:?}: hard link");
            }
            InodeKind::CharDevice(..) | InodeKind::BlockDevice(..) => unreachable!("left out above"),
        }
        // tar drops set-id bits of files that it cannot give to their owner.
        let mask = if inode.mode & 0o6000 == 0 { 0o7777 } else { 0o777 };
        assert_eq!(found.permissions().mode() & mask, u32::from(inode.mode) & mask, "{at:?}: mode");
        assert_eq!(
            (found.mtime(), found.mtime_nsec()),
            (inode.mtime.seconds, inode.mtime.nanoseconds.into()),
            "{at:?}"
        );
    }
    let attribute = xattr::get(out.join("etc/attributed"), "user.comment").unwrap();
    assert_eq!(attribute.as_deref(), Some(&b"two\nlines = \x00\xff"[..]));
}

#[test]
fn a_second_reader_of_tar_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.run");
    let tree = difficult();
    write(&tree, &path, 1, 1);
    let (bundle, mut plain) = (Bundle::open(&path).unwrap(), Vec::new());
    let index = bundle.index().unwrap();
    let mut reader = FrameReader::new(bundle.file(), bundle.payload_offset());
    for frame in &index.frames {
        plain.extend_from_slice(reader.plain(frame).unwrap());
    }
    let mut archive = tar::Archive::new(&plain[..]);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path_bytes().into_owned();
        let name = if name == b"./" { Vec::new() } else { name.strip_suffix(b"/").unwrap_or(&name).to_vec() };
        let records = entry.pax_extensions().unwrap();
        // This reader knows no values with line breaks; the other test has another one that does.
        let uid = records.and_then(|records| {
            let uid = records.flatten().find(|record| record.key() == Ok("uid"))?;
            Some(uid.value().unwrap().parse().unwrap())
        });
        let header = entry.header();
        found.insert(name, (header.entry_type(), uid.unwrap_or_else(|| header.uid().unwrap()), entry.size()));
    }
    for entry in &index.entries {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let (kind, size) = match entry.kind {
            Kind::Directory => (tar::EntryType::Directory, 0),
            Kind::File { size, .. } => (tar::EntryType::Regular, size),
            Kind::Symlink { .. } => (tar::EntryType::Symlink, 0),
            Kind::HardLink { .. } => (tar::EntryType::Link, 0),
            Kind::Fifo => (tar::EntryType::Fifo, 0),
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => continue,
        };
        assert_eq!(found.remove(&entry.path), Some((kind, u64::from(entry.uid), size)), "{shown}");
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn threads_change_no_byte_and_levels_do() {
    let folder = tempfile::tempdir().unwrap();
    let tree = difficult();
    let at = |name: &str| folder.path().join(name);
    write(&tree, &at("one"), 3, 1);
    write(&tree, &at("five"), 3, 5);
    let one = fs::read(at("one")).unwrap();
    assert!(one == fs::read(at("five")).unwrap());
    let total = write(&tree, &at("other"), 9, 2).total;
    assert_eq!(total, fs::metadata(at("other")).unwrap().len());
    assert!(one != fs::read(at("other")).unwrap());
    assert_eq!(fs::metadata(at("one")).unwrap().permissions().mode() & 0o7777, 0o755);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}
