//! A tree of every kind of file, written and read back.

use std::{num::NonZero, sync::Arc};

use coracle_format::{Time, Xattr};

use super::*;
use crate::flatten::{Data, Inode, InodeKind, Tree};

fn inode(mode: u16, uid: u32, gid: u32, kind: InodeKind) -> Inode {
    let mtime = Time { seconds: 1_000_000_000, nanoseconds: 5 };
    Inode { mode, uid, gid, mtime, xattrs: Vec::new(), kind }
}

fn file(content: &[u8]) -> InodeKind {
    InodeKind::File { size: content.len() as u64, data: Data::Bytes(Arc::from(content)) }
}

fn sample() -> Tree {
    let mut tree = Tree::default();
    let mut add = |path: &[u8], inode: Inode| {
        let id = tree.add(inode);
        tree.paths.insert(path.to_vec(), id);
        id
    };
    add(b"", inode(0o755, 0, 0, InodeKind::Directory));
    add(b"closed", inode(0o500, 7, 8, InodeKind::Directory));
    add(b"closed/secret", inode(0, 0, 42, file(b"s")));
    let sudo = add(b"sudo", inode(0o4755, 0, 0, file(b"program")));
    add(b"plain", inode(0o644, 0, 0, file(b"")));
    add(b"zeros", inode(0o644, 0, 0, file(&vec![0; 3 << 20])));
    add(b"link", inode(0o777, 5, 5, InodeKind::Symlink(b"/etc/passwd".to_vec())));
    add(b"pipe", inode(0o622, 0, 0, InodeKind::Fifo));
    add(b"null", inode(0o666, 0, 0, InodeKind::CharDevice(1, 3)));
    add(b"odd \xff\n", inode(0o600, 0, 0, file(b"x")));
    let attributes = inode(0o644, 0, 0, file(b"a"));
    add(b"with", Inode { xattrs: vec![Xattr { name: b"user.x".to_vec(), value: b"y".to_vec() }], ..attributes });
    tree.paths.insert(b"closed/again".to_vec(), sudo);
    let deep = (0..20).map(|_| "d".repeat(250)).collect::<Vec<_>>();
    for depth in 1..=deep.len() {
        let id = tree.add(inode(0o755, 0, 0, InodeKind::Directory));
        tree.paths.insert(deep[..depth].join("/").into_bytes(), id);
    }
    tree
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut tree = sample();
    // Deeper than the walker's paths reach; removed again below.
    let deep: Vec<Vec<u8>> = tree.paths.keys().filter(|path| path.len() > 4000).cloned().collect();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).expect("made");
    let written = unpack(&tree, &root, NonZero::new(3).expect("three")).expect("written");
    crate::store::containers::remove_tree(&root.join("d".repeat(250))).expect("removed");
    tree.paths.retain(|path, _| !path.starts_with(b"ddd"));
    assert!(!deep.is_empty());
    let owners = Owners::decode(&written.owners.encode()).expect("decoded");
    assert_eq!(owners, written.owners);
    let back = read(&root, &owners).expect("read");
    assert_eq!(back.paths.keys().collect::<Vec<_>>(), tree.paths.keys().collect::<Vec<_>>());
    for (path, id) in &tree.paths {
        let (was, is) = (tree.inode(*id), back.get(path).expect("there"));
        let shown = String::from_utf8_lossy(path);
        assert_eq!((was.uid, was.gid, was.mode), (is.uid, is.gid, is.mode), "{shown}");
        assert_eq!(std::mem::discriminant(&was.kind), std::mem::discriminant(&is.kind), "{shown}");
        // What was removed above has changed the root; a device is a file made just now.
        let kept = !path.is_empty() && !matches!(was.kind, InodeKind::CharDevice(..));
        assert_eq!(was.mtime.seconds == is.mtime.seconds, kept, "{shown}");
        if was.xattrs != is.xattrs {
            harness::skip::because("the temporary directory has no attributes");
        }
    }
    assert_eq!(back.paths[&b"sudo"[..]], back.paths[&b"closed/again"[..]], "hard links stay");
    let zeros = std::fs::metadata(root.join("zeros")).expect("there");
    assert_eq!((zeros.len(), std::os::unix::fs::MetadataExt::blocks(&zeros)), (3 << 20, 0), "a hole");
}

#[test]
fn what_a_guest_changed_counts() {
    use std::os::unix::fs::PermissionsExt as _;
    if nix::unistd::geteuid().is_root() {
        harness::skip::because("root keeps true modes on disk");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let written = unpack(&sample(), dir.path(), NonZero::<usize>::MIN).expect("written");
    let change = |mode| std::fs::set_permissions(dir.path().join("sudo"), std::fs::Permissions::from_mode(mode));
    assert_eq!(written.owners.get(b"sudo").expect("listed").mode & 0o7777, 0o4755);
    crate::store::containers::remove_tree(&dir.path().join("d".repeat(250))).expect("removed");
    change(0o711).expect("changed");
    assert_eq!(read(dir.path(), &written.owners).expect("read").get(b"sudo").expect("there").mode, 0o711);
    let whole = written.owners.encode();
    for cut in 0..whole.len() {
        assert!(Owners::decode(&whole[..cut]).is_none(), "cut at {cut}");
    }
    assert!(Owners::decode(b"755 0 0 0:0 a\0end 2\0").is_none() && Owners::decode(b"end 0\0").is_some());
}
