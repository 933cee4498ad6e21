//! What is to be edited in the tree of an image, found out once for all its containers.
//!
//! Reading all programs of a tree takes longer than all else that is done before a container's first run; but as long as a
//! container has changed nothing its tree is the image's. The plan lies beside the image's tree, goes with it, and is
//! nothing but saved work: one that is missing, damaged or another version's is made anew.

use std::{fs, path::Path};

use coracle_api::{Loader, content_sum};
use coracle_format::{Edit, ImageConfig};
use serde::{Deserialize, Serialize};

use super::ToEdit;
use crate::store::replace_fleeting;

/// Its name, beside `root`.
const PLAN: &str = "edits";
/// Number of its form, and of the rules by which files are edited: to be raised with every change of either.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " 1");

/// All that is to be done in a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The tree's loaders.
    pub loaders: Vec<Loader>,
    /// Its files that are to be edited.
    pub files: Vec<ToEdit>,
}

/// A plan as a file, behind the [`content_sum`] of what follows.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    version: String,
    /// Sum of the image's config, which has a say in what a tree's programs are.
    config: u64,
    loaders: Vec<Loader>,
    files: Vec<WrittenFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenFile {
    names: Vec<Vec<u8>>,
    edits: Vec<(u64, WrittenEdit)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum WrittenEdit {
    Bytes(Vec<u8>),
    Path(u32, Vec<u8>),
}

impl Plan {
    /// The plan for the image's tree at `lower`, if there is one.
    #[must_use]
    pub fn read(lower: &Path, config: &ImageConfig) -> Option<Self> {
        let bytes = fs::read(lower.with_file_name(PLAN)).ok()?;
        let (sum, json) = bytes.split_at_checked(16)?;
        if format!("{:016x}", content_sum(json)).as_bytes() != sum {
            return None;
        }
        let written: Written = serde_json::from_slice(json).ok()?;
        if written.version != VERSION || written.config != sum_of(config) {
            return None;
        }
        let edit = |edit| match edit {
            WrittenEdit::Bytes(bytes) => Edit::Bytes(bytes),
            WrittenEdit::Path(slot, suffix) => Edit::Path { slot, suffix },
        };
        let files = written.files.into_iter().map(|WrittenFile { names, edits }| ToEdit {
            names,
            edits: edits.into_iter().map(|(offset, what)| (offset, edit(what))).collect(),
        });
        Some(Self { loaders: written.loaders, files: files.collect() })
    }

    /// Keeps the plan beside the image's tree at `lower`. A store that cannot be written to has none.
    pub fn keep(&self, lower: &Path, config: &ImageConfig) {
        let edit = |edit: &Edit| match edit {
            Edit::Bytes(bytes) => WrittenEdit::Bytes(bytes.clone()),
            Edit::Path { slot, suffix } => WrittenEdit::Path(*slot, suffix.clone()),
        };
        let files = self.files.iter().map(|file| {
            let edits = file.edits.iter().map(|(offset, what)| (*offset, edit(what)));
            WrittenFile { names: file.names.clone(), edits: edits.collect() }
        });
        let written = Written {
            version: VERSION.to_owned(),
            config: sum_of(config),
            loaders: self.loaders.clone(),
            files: files.collect(),
        };
        let Ok(json) = serde_json::to_vec(&written) else { return };
        let bytes = [format!("{:016x}", content_sum(&json)).as_bytes(), &json].concat();
        let _ = replace_fleeting(&lower.with_file_name(PLAN), &bytes, 0o600);
    }
}

fn sum_of(config: &ImageConfig) -> u64 {
    content_sum(&serde_json::to_vec(config).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_kept_and_never_when_it_is_damaged() {
        let dir = tempfile::tempdir().expect("a directory");
        let (lower, config) = (dir.path().join("root"), ImageConfig::default());
        assert_eq!(Plan::read(&lower, &config), None);
        let edits = vec![
            (7, Edit::Bytes(vec![0, 255, b'"'])),
            (u64::MAX, Edit::Path { slot: 1024, suffix: b"/lib/ld\xff.so".to_vec() }),
        ];
        let plan = Plan {
            loaders: vec![Loader { path: "/lib/ld.so".to_owned(), ..Loader::default() }],
            files: vec![ToEdit { names: vec![b"bin/\xfe".to_vec(), b"bin/b".to_vec()], edits }],
        };
        plan.keep(&lower, &config);
        assert_eq!(Plan::read(&lower, &config), Some(plan));
        let other = ImageConfig { env: vec!["PATH=/opt".to_owned()], ..ImageConfig::default() };
        assert_eq!(Plan::read(&lower, &other), None, "another config's");
        let path = lower.with_file_name(PLAN);
        let whole = fs::read(&path).expect("read");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("damaged");
            assert_eq!(Plan::read(&lower, &config), None, "{at}");
        }
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).expect("cut");
            assert_eq!(Plan::read(&lower, &config), None, "{len}");
        }
    }
}
