//! Small bundles for this crate's tests: the builder's own writer is out of reach here (the stub imports no builder).

use std::path::{Path, PathBuf};

use coracle_format::{
    Content, Edit, Entry, FORMAT_VERSION, Fixup, FixupSet, Frame, Index, IndexInfo, Kind, Manifest, PayloadInfo,
    Region, SKIPPABLE_HEADER_LEN, Slot, StubInfo, Time, Trailer, hex, sha256,
};

/// A tree to be, and how to cut it.
pub(crate) struct Sample {
    entries: Vec<Entry>,
    payload: Vec<u8>,
    frame_len: usize,
    edits: Vec<(&'static str, u64, Edit)>,
}

impl Sample {
    /// A tree with a root directory only; frames of `frame_len` bytes.
    pub(crate) fn new(frame_len: usize) -> Self {
        let mut sample = Self { entries: Vec::new(), payload: Vec::new(), frame_len, edits: Vec::new() };
        sample.entry("", 0o755, Kind::Directory);
        sample
    }

    /// A tree with a bit of everything, of about `files` files.
    pub(crate) fn tree(files: usize) -> Self {
        let mut sample = Self::new(1 << 16);
        sample.directory("bin", 0o755).directory("etc", 0o700).directory("tmp", 0o1777);
        sample.file("bin/large", 0o4755, &noise(300_000)).file(
            "bin/sparse",
            0o644,
            &[vec![0; 400_000], vec![1]].concat(),
        );
        sample.file("bin/sh", 0o755, b"#!/bin/sh\n").file("etc/empty", 0o600, b"").file("etc/secret", 0, b"hidden");
        sample.entry("etc/again", 0o755, Kind::HardLink { entry: 0 });
        sample.entry("etc/link", 0o777, Kind::Symlink { target: b"/bin/sh".to_vec() });
        sample.entry("etc/null", 0o666, Kind::CharDevice { major: 1, minor: 3 });
        sample.entry("etc/pipe", 0o640, Kind::Fifo);
        sample.directory("usr", 0o555);
        for number in 0..files {
            let directory = format!("usr/{:03}", number / 50);
            if number % 50 == 0 {
                sample.directory(&directory, 0o755);
            }
            sample.file(&format!("{directory}/{number:05}"), 0o644, &noise(number % 3000));
        }
        sample
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u16) -> &mut Self {
        self.entry(path, mode, Kind::Directory)
    }

    pub(crate) fn file(&mut self, path: &str, mode: u16, content: &[u8]) -> &mut Self {
        let at = self.payload.len();
        let position = |at: usize| u32::try_from(at).unwrap();
        let start = Content { frame: position(at / self.frame_len), offset: position(at % self.frame_len) };
        self.payload.extend_from_slice(content);
        self.entry(path, mode, Kind::File { size: content.len() as u64, content: start })
    }

    pub(crate) fn entry(&mut self, path: &str, mode: u16, kind: Kind) -> &mut Self {
        let mtime = Time { seconds: 1_600_000_000 + i64::from(mode), nanoseconds: 5000 };
        self.entries.push(Entry { path: path.into(), mode, uid: 0, gid: 0, mtime, xattrs: vec![], kind });
        self
    }

    pub(crate) fn last(&mut self) -> &mut Entry {
        self.entries.last_mut().unwrap()
    }

    /// An edit for the engine `test`, in order of paths and offsets.
    pub(crate) fn edit(&mut self, path: &'static str, offset: u64, edit: Edit) -> &mut Self {
        self.edits.push((path, offset, edit));
        self
    }

    /// Writes the bundle to `path`, and returns its index.
    pub(crate) fn write(&self, path: &Path) -> Index {
        let mut entries = self.entries.clone();
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let first_file = entries.iter().position(|entry| matches!(entry.kind, Kind::File { .. })).unwrap_or(0);
        for entry in &mut entries {
            if let Kind::HardLink { entry } = &mut entry.kind {
                *entry = u32::try_from(first_file).unwrap();
            }
        }
        let mut file = vec![0x90; 4000];
        file[..4].copy_from_slice(b"\x7fELF");
        let stub_len = file.len() as u64;
        let mut frames = Vec::new();
        for chunk in self.payload.chunks(self.frame_len) {
            let stored = compress(chunk);
            let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
            let offset = file.len() as u64 - stub_len;
            frames.push(Frame { offset, stored: len(&stored), len: len(chunk), digest: sha256(&stored) });
            file.extend_from_slice(&stored);
        }
        let payload = Region { offset: stub_len, len: file.len() as u64 - stub_len };
        let fixup = |(path, offset, edit): &(&str, u64, Edit)| {
            let number = entries.iter().position(|entry| entry.path == path.as_bytes()).unwrap();
            Fixup { entry: u32::try_from(number).unwrap(), offset: *offset, edit: edit.clone() }
        };
        let fixups = self.edits.iter().map(fixup).collect::<Vec<_>>();
        let sets = if fixups.is_empty() { vec![] } else { vec![FixupSet { engine: "test".into(), fixups }] };
        let index = Index { frames, entries, fixups: sets };
        let (bytes, stored) = (index.encode(), compress(&index.encode()));
        let manifest = Manifest {
            format: FORMAT_VERSION,
            stub: StubInfo { target: "test".into(), len: stub_len, slot: 1000, sha256: String::new() },
            payload: PayloadInfo { stored: payload.len, unpacked: self.payload.len() as u64, inodes: 1 },
            index: IndexInfo { sha256: hex(&sha256(&bytes)), stored_sha256: hex(&sha256(&stored)) },
            ..Manifest::default()
        }
        .encode();
        let manifest_at = (file.len() + SKIPPABLE_HEADER_LEN) as u64;
        let manifest_region = Region { offset: manifest_at, len: manifest.len() as u64 };
        let index_region = Region { offset: manifest_at + manifest.len() as u64, len: stored.len() as u64 };
        let trailer = Trailer {
            payload,
            manifest: manifest_region,
            manifest_digest: sha256(&manifest),
            index: index_region,
            index_len: bytes.len() as u64,
            index_digest: sha256(&bytes),
            signatures_len: 0,
            signatures_digest: sha256(b""),
        };
        for part in [&trailer.skippable_header().unwrap()[..], &manifest, &stored, &trailer.encode()] {
            file.extend_from_slice(part);
        }
        let slot = Slot { payload: stub_len, total: file.len() as u64 };
        file[1000..1064].copy_from_slice(&slot.encode());
        std::fs::write(path, file).unwrap();
        index
    }
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut stored = vec![0; zstd_safe::compress_bound(bytes.len())];
    let len = zstd_safe::compress(&mut stored[..], bytes, 3).unwrap();
    stored.truncate(len);
    stored
}

/// Bytes without long runs, the same each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// A directory of one test, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coracle-stub-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
