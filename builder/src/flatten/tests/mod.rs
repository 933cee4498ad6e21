//! Each rule of layers, on small synthetic ones.

mod formats;
mod hostile;
mod layers;

use std::{fs, io::Write as _, num::NonZero};

use tempfile::TempDir;

use super::*;
use crate::source::{Blob, Compression};

/// A tar under construction.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, name: &[u8], kind: u8, mode: u32, link: &[u8], data: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        header.as_mut_bytes()[156] = kind;
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.raw(name.as_bytes(), b'0', 0o644, b"", data.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(name.as_bytes(), b'5', 0o700, b"", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', 0o777, target.as_bytes(), b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'1', 0o644, target.as_bytes(), b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            data.extend_from_slice(format!("{len} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b"pax", b'x', 0o644, b"", &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn options(directory: &TempDir) -> Options {
    Options {
        limits: Limits::default(),
        spool: directory.path().into(),
        threads: NonZero::new(2).expect("not zero"),
        apart: false,
    }
}

/// Flattens tars, every other one compressed.
fn flattened(tars: Vec<Vec<u8>>) -> Result<Tree, FlattenError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let layers = tars.into_iter().enumerate().map(|(n, tar)| layer(&directory, n, &tar, n % 2 == 0)).collect();
    flatten(Content::Layers(layers), &options(&directory))
}

fn layer(directory: &TempDir, number: usize, tar: &[u8], compressed: bool) -> Layer {
    let file = directory.path().join(number.to_string());
    let bytes = if compressed { gzip(tar) } else { tar.to_vec() };
    fs::write(&file, &bytes).expect("written");
    Layer {
        digest: format!("sha256:{number}"),
        diff_id: Some(format!("sha256:{}", coracle_format::hex(&coracle_format::sha256(tar)))),
        compression: if compressed { Compression::Gzip } else { Compression::None },
        blob: Blob { file, offset: 0, len: bytes.len() as u64 },
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes all")
}

/// The tree in words: `path` then what it is, sorted by path; names of one inode share a letter.
fn told(tree: &Tree) -> String {
    let mut names = std::collections::BTreeMap::<InodeId, usize>::new();
    for id in tree.paths.values() {
        *names.entry(*id).or_default() += 1;
    }
    let mut lines = Vec::new();
    for (path, id) in &tree.paths {
        let inode = tree.inode(*id);
        let what = match &inode.kind {
            InodeKind::Directory => "/".to_owned(),
            InodeKind::File { size, data } => {
                let mut bytes = vec![0; usize::try_from(*size).expect("small")];
                data.read_exact_at(&mut bytes, 0).expect("the data is there");
                format!("={}", String::from_utf8_lossy(&bytes))
            }
            InodeKind::Symlink(target) => format!("->{}", String::from_utf8_lossy(target)),
            InodeKind::Fifo => "|".to_owned(),
            InodeKind::CharDevice(major, minor) => format!(" c{major}:{minor}"),
            InodeKind::BlockDevice(major, minor) => format!(" b{major}:{minor}"),
        };
        let shared = if names[id] > 1 { format!("#{}", id.0) } else { String::new() };
        lines.push(format!("{}{what}{shared}", String::from_utf8_lossy(path)));
    }
    lines.join(" ")
}

fn tells(tars: Vec<Tar>) -> String {
    told(&flattened(tars.into_iter().map(Tar::end).collect()).unwrap_or_else(|error| panic!("{error}")))
}

fn fails(tars: Vec<Tar>) -> String {
    match flattened(tars.into_iter().map(Tar::end).collect()) {
        Ok(tree) => panic!("accepted: {}", told(&tree)),
        Err(error) => error.to_string(),
    }
}

fn tar() -> Tar {
    Tar::default()
}
