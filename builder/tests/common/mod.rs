//! Trees made in memory, and bundles of them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{ffi::OsStr, num::NonZeroUsize, path::Path, process::Command, sync::Arc};

use coracle::{
    flatten::{Data, Inode, InodeId, InodeKind, Tree},
    pack::{self, Contents, Options, Output, Summary},
};
use coracle_api::ImageFacts;
use coracle_format::{Defaults, ImageConfig, Provenance, Time, Xattr};

/// A tree under construction.
pub(crate) struct Builder(pub(crate) Tree);

impl Builder {
    pub(crate) fn new() -> Self {
        let mut builder = Self(Tree::default());
        builder.add("", 0o755, InodeKind::Directory);
        builder
    }

    pub(crate) fn add(&mut self, path: impl AsRef<[u8]>, mode: u16, kind: InodeKind) -> &mut Inode {
        let id = InodeId(u32::try_from(self.0.inodes.len()).unwrap());
        let mtime = Time { seconds: 1_500_000_000, nanoseconds: 0 };
        self.0.inodes.push(Inode { mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind });
        self.0.paths.insert(path.as_ref().to_vec(), id);
        self.0.inodes.last_mut().unwrap()
    }

    pub(crate) fn file(&mut self, path: impl AsRef<[u8]>, bytes: impl Into<Vec<u8>>) -> &mut Inode {
        let bytes = bytes.into();
        let kind = InodeKind::File { size: bytes.len() as u64, data: Data::Bytes(Arc::from(bytes)) };
        self.add(path, 0o644, kind)
    }

    pub(crate) fn link(&mut self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        let id = self.0.paths[to.as_ref()];
        self.0.paths.insert(path.as_ref().to_vec(), id);
    }
}

/// Bytes that do not compress to nothing, and are the same each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3] & 0x3F
    };
    (0..len).map(|_| next()).collect()
}

/// A tree with every kind of file and everything that ustar alone cannot hold.
pub(crate) fn difficult() -> Tree {
    let mut tree = Builder::new();
    for directory in ["bin", "dev", "etc", "var", "empty"] {
        tree.add(directory, 0o755, InodeKind::Directory);
    }
    tree.add("tmp", 0o1777, InodeKind::Directory);
    tree.file("bin/tool", noise(10_000)).mode = 0o4755;
    tree.link("bin/zz-same-tool", "bin/tool");
    tree.file("etc/empty", "");
    tree.file("etc/block", noise(512));
    tree.file("etc/owned", "x").uid = 3_000_000_000;
    tree.file("etc/nano", "n").mtime = Time { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
    tree.file("etc/ancient", "a").mtime = Time { seconds: -2, nanoseconds: 750_000_000 };
    let xattrs = &mut tree.file("etc/attributed", "b").xattrs;
    xattrs.push(Xattr { name: b"user.comment".to_vec(), value: b"two\nlines = \x00\xff".to_vec() });
    tree.file(b"etc/not-utf8-\xff\xfe", "raw");
    tree.add("etc/link", 0o777, InodeKind::Symlink(b"../bin/tool".to_vec()));
    tree.add("etc/link-far", 0o777, InodeKind::Symlink([b"/", &[b'y'; 300][..]].concat()));
    tree.add("etc/pipe", 0o600, InodeKind::Fifo);
    tree.add("dev/null", 0o666, InodeKind::CharDevice(1, 3));
    tree.add("dev/sda", 0o660, InodeKind::BlockDevice(8, 0));
    // Names around ustar's bounds of 100 and 155 + 100 bytes.
    for len in [99, 100, 101, 120, 200, 255] {
        tree.file(format!("var/{}", "n".repeat(len - 4)), format!("{len}"));
    }
    let deep = format!("var/{}", ["d".repeat(80), "e".repeat(80), "f".repeat(80)].join("/"));
    for (at, _) in deep.match_indices('/').skip(1) {
        tree.add(&deep[..at], 0o755, InodeKind::Directory);
    }
    tree.add(&deep, 0o755, InodeKind::Directory);
    tree.file(format!("{deep}/leaf"), "deep");
    tree.link(format!("{deep}/leaf-again"), format!("{deep}/leaf"));
    // Larger than a frame, with a tail that is no whole block, and small files on either side.
    tree.file("var/a-small", noise(100));
    tree.file("var/big", noise(9_000_001));
    tree.file("var/c-small", noise(3_000_000));
    tree.file("var/d-small", noise(3_000_000));
    tree.0
}

/// Packs a tree into a file.
pub(crate) fn write(tree: &Tree, path: &Path, level: i32, jobs: usize) -> Summary {
    let output = Output::create(path).unwrap();
    let contents = Contents {
        tree,
        config: ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() },
        defaults: Defaults::default(),
        provenance: Provenance { source: "test".into(), ..Provenance::default() },
        facts: ImageFacts::default(),
        edits: Vec::new(),
    };
    let options = Options { level, jobs: NonZeroUsize::new(jobs).unwrap() };
    let summary = pack::write_bundle(output.file(), contents, options, &|_, _| ()).unwrap();
    output.finish().unwrap();
    summary
}

/// Runs a script that must succeed in silence.
pub(crate) fn sh(script: &str, args: &[&OsStr]) {
    let script = format!("set -euo pipefail; {script}");
    let output = Command::new("bash").args(["-c", &script, "sh"]).args(args).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{script}: {output:?}");
}
