//! Views: a tree of the cache with the files edited that an engine needs edited, beside the tree and as lasting.
//!
//! ```text
//! DIGEST/view-ENGINE-PLACE/      canary, lease, index, names, truths, root, trust: as a tree of its own
//! DIGEST/view-ENGINE-PLACE.lock  who makes it
//! ```
//!
//! The edits hold absolute paths of the view, so PLACE is a digest of the path of DIGEST: a cache that was moved, or that
//! another node mounts elsewhere, has no view under its name and gets one. Views of other places go when nobody uses
//! them. Everything else is as with trees (`fill`): made beside, renamed when whole, trusted by boot, found without
//! reading anything. A job in a view holds the leases of both.

use std::{
    fs,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use coracle_format::{FixupSet, Index, hex, sha256};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::Mode,
    unistd::linkat,
};

use super::{
    CacheError, CacheOptions, Cached, Event,
    base::Base,
    fill::{Filler, Found, NoFill, Parts},
    limit, roots, trust, unused,
};
use crate::{
    open::Bundle,
    unpack::{self, UnpackError, ViewOf, edited_len},
};

/// There is no view. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The bundle has no edits for this engine.
    #[error(
        "the bundle has no edits for the {engine} engine: the image has no loader that they could be made for, or an older version built it: build it again"
    )]
    NoEdits {
        /// The engine's name.
        engine: String,
    },
    /// Paths of the view would not fit into the files.
    #[error(
        "{}: {len} bytes are too long a path for the {engine} engine, which has room for {most}: name a shorter directory in CORACLE_CACHE",
        path.display()
    )]
    TooLong {
        /// The view's directory.
        path: PathBuf,
        /// Its length.
        len: usize,
        /// The most.
        most: usize,
        /// The engine's name.
        engine: String,
    },
    /// It cannot be made beside the tree.
    #[error("{}: no view for the {engine} engine can be made there: {why}: name another directory in CORACLE_CACHE", dir.display())]
    Place {
        /// The tree's directory.
        dir: PathBuf,
        /// The engine's name.
        engine: String,
        /// In words.
        why: String,
    },
    /// The bundle, or a signal.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What a view is made of.
pub(super) struct ViewFiller<'a> {
    pub(super) tree: &'a Cached,
    pub(super) engine: &'a str,
    /// The bundle's index, once a view has to be made.
    pub(super) index: Option<&'a Index>,
}

/// Finds the view of a cached tree for an engine, or makes it. The tree's own lease must be kept as well.
///
/// Called in a process with one thread, and returns in one.
///
/// # Errors
/// [`ViewError`] says why there is none; the tree is as it was.
pub fn view(
    bundle: &Bundle,
    options: &CacheOptions,
    tree: &Cached,
    engine: &str,
    report: &mut dyn FnMut(Event),
) -> Result<Cached, ViewError> {
    let boot = trust::boot_id();
    let place = hex(&sha256(tree.dir.as_os_str().as_bytes()));
    let prefix = format!("view-{engine}-");
    let name = format!("{prefix}{}", &place[..12]);
    // Beside a private tree it is as private, and goes with it.
    let options = CacheOptions { private: false, limit: None, ..options.clone() };
    let filler = |index| {
        let view = Some(ViewFiller { tree, engine, index });
        Filler { bundle, options: &options, boot: &boot, name: &name, view }
    };
    let failed = |why: String| ViewError::Place { dir: tree.dir.clone(), engine: engine.to_owned(), why };
    let base = Base::at(&tree.dir).map_err(|errno| failed(errno.desc().to_owned()))?;
    if let Found::Whole(cached) = filler(None).find(&base) {
        return Ok(cached);
    }
    let read;
    let index = match &tree.decoded {
        Some(index) => index,
        None => {
            read = bundle.index().map_err(CacheError::from)?;
            &read
        }
    };
    let fixups = fixups(index, engine).ok_or_else(|| ViewError::NoEdits { engine: engine.to_owned() })?;
    let path = roots::like(&tree.dir.join(&name), filler(None).up());
    let len = path.as_os_str().len();
    if let Some(most) = fixups.longest_view().filter(|most| len > *most) {
        return Err(ViewError::TooLong { path, len, most, engine: engine.to_owned() });
    }
    remove_others(&base, &prefix, &name);
    filler(Some(index)).fill(&base, report).map_err(|no| match no {
        NoFill::Place(why) => failed(why),
        NoFill::Fatal(error) => ViewError::Cache(error),
    })
}

/// What the views in a tree's directory take.
pub(super) fn weight(dir: &Path) -> u64 {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let views = names.filter(|entry| entry.file_name().as_bytes().starts_with(b"view-"));
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = views.filter_map(|entry| nix::fcntl::open(&entry.path(), flags, Mode::empty()).ok());
    opened.filter_map(|view| trust::weight(view.as_fd())).sum()
}

/// The edits of an engine.
pub(super) fn fixups<'i>(index: &'i Index, engine: &str) -> Option<&'i FixupSet> {
    index.fixups.iter().find(|set| set.engine == engine)
}

/// Removes views that were made under another path, unless a job is in them.
fn remove_others(base: &Base, prefix: &str, name: &str) {
    let Ok(path) = base.path() else { return };
    let names = fs::read_dir(&path).into_iter().flatten().flatten();
    for other in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        if other.starts_with(prefix) && !other.starts_with(name) && !other.contains(".lock") {
            unused::remove_unused(base, &other);
        }
    }
}

impl ViewFiller<'_> {
    /// Bytes and inodes that the view takes.
    pub(super) fn needs(&self) -> (u64, u64) {
        let Some(index) = self.index else { return (0, 0) };
        let Some(set) = fixups(index, self.engine) else { return (0, 0) };
        let edited = set.files().filter_map(|(number, fixups)| match &index.entries.get(number as usize)?.kind {
            kind @ coracle_format::Kind::File { size, .. } => Some(edited_len(*size, kind, fixups)),
            _ => Some(0),
        });
        let (bytes, files) = edited.fold((0_u64, 0), |(bytes, files), len| (bytes.saturating_add(len), files + 1));
        let directories = index.entries.iter().filter(|entry| entry.kind == coracle_format::Kind::Directory).count();
        (bytes, files + directories as u64)
    }

    /// Everything inside the temporary directory but canary and lease, and in the root.
    pub(super) fn write(&self, filler: &Filler<'_>, parts: &Parts<'_>) -> Result<(), NoFill> {
        let Parts { dir, root, root_path } = parts;
        let Some((index, fixups)) = self.index.and_then(|index| Some((index, fixups(index, self.engine)?))) else {
            return Err(NoFill::Place("the bundle has no edits for it".to_owned()));
        };
        let of = ViewOf {
            bundle: filler.bundle,
            index,
            fixups,
            tree: &self.tree.root,
            path: root_path,
            threads: filler.options.threads,
        };
        unpack::make_view(&of, root_path).map_err(|error| match (&error, error.errno()) {
            (UnpackError::Step { .. }, Some(_)) => NoFill::Place(error.to_string()),
            _ => NoFill::Fatal(error.into()),
        })?;
        // The same for the same names; older trees lack some.
        for (name, from) in
            [(trust::INDEX, &self.tree.index), (trust::NAMES, &self.tree.names), (trust::TRUTHS, &self.tree.truths)]
        {
            match linkat(nix::fcntl::AT_FDCWD, from.as_path(), dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(_) => {
                    let bytes = fs::read(from).map_err(|error| NoFill::Place(error.to_string()))?;
                    trust::write(dir.as_fd(), name, &bytes)?;
                }
            }
        }
        let (bytes, inodes) = self.needs();
        let weight = limit::estimate(bytes, inodes);
        Ok(trust::write_trust(dir.as_fd(), root.as_fd(), index, filler.boot, weight)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd as _, unix::fs::MetadataExt as _};

    use coracle_format::Edit;

    use super::*;
    use crate::{
        cache::{Settings, acquire, lock},
        testing::{Folder, Sample},
    };

    const SLOT: u32 = 512;

    fn sample() -> Sample {
        let mut sample = Sample::tree(120);
        sample
            .edit("bin/large", 10, Edit::Bytes(b"edited".to_vec()))
            .edit("bin/large", 300_016, Edit::Path { slot: SLOT, suffix: b"/bin/sh".to_vec() })
            .edit("etc/link", 0, Edit::Bytes(b"../bin/sh".to_vec()));
        sample
    }

    struct Cache {
        folder: Folder,
        bundle: Bundle,
        options: CacheOptions,
    }

    fn cache(name: &str, sample: &Sample) -> Cache {
        let folder = Folder::new(name);
        sample.write(&folder.path("bundle"));
        fs::create_dir(folder.path("cache")).unwrap();
        let settings = Settings { cache: Some(folder.path("cache")), ..Settings::default() };
        let options = CacheOptions { settings, threads: Some(2), ..CacheOptions::default() };
        Cache { bundle: Bundle::open(&folder.path("bundle")).unwrap(), folder, options }
    }

    impl Cache {
        fn tree(&self) -> Cached {
            acquire(&self.bundle, &self.options, &mut |_| ()).unwrap()
        }

        fn view(&self, tree: &Cached) -> (Result<Cached, ViewError>, Vec<Event>) {
            let mut events = Vec::new();
            let view = view(&self.bundle, &self.options, tree, "test", &mut |event| events.push(event));
            (view, events)
        }
    }

    #[test]
    fn edited_files_are_copies_and_all_others_the_tree_s_own() {
        let cache = cache("view", &sample());
        let tree = cache.tree();
        let (view, events) = cache.view(&tree);
        let view = view.unwrap();
        assert!(matches!(&events[..], [Event::Editing { .. }]) && !events[0].is_notable(), "{events:?}");
        let index = cache.bundle.index().unwrap();
        for entry in &index.entries {
            let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
            let (Ok(one), Ok(other)) =
                (fs::symlink_metadata(tree.root.join(path)), fs::symlink_metadata(view.root.join(path)))
            else {
                assert!(matches!(entry.kind, coracle_format::Kind::CharDevice { .. }), "{entry:?}");
                continue;
            };
            let edited = [&b"bin/large"[..], b"etc/again", b"etc/link"].contains(&&entry.path[..]);
            let same = one.ino() == other.ino();
            let own = one.is_dir() || entry.kind == coracle_format::Kind::Fifo;
            assert_eq!(same, !edited && !own, "{entry:?}");
            assert_eq!((one.mode(), one.mtime()), (other.mode(), other.mtime()), "{entry:?}");
        }
        let (old, new) = (tree.root.join("bin/large"), fs::read(view.root.join("bin/large")).unwrap());
        let old = fs::read(old).unwrap();
        assert_eq!((&new[..10], &new[10..16], &new[16..300_000]), (&old[..10], &b"edited"[..], &old[16..]));
        let path = view.root.join("bin/sh");
        let slot = &new[300_016..];
        assert_eq!(new[300_000..300_016], [0; 16]);
        assert_eq!((slot.len(), slot.split(|byte| *byte == 0).next()), (512, Some(path.as_os_str().as_bytes())));
        assert_eq!(fs::read_link(view.root.join("etc/link")).unwrap(), Path::new("../bin/sh"));
        assert_eq!(
            fs::metadata(view.root.join("etc/again")).unwrap().ino(),
            fs::metadata(view.root.join("bin/large")).unwrap().ino()
        );
        for (one, other) in [(&tree.index, &view.index), (&tree.names, &view.names), (&tree.truths, &view.truths)] {
            assert_eq!(fs::read(one).unwrap(), fs::read(other).unwrap());
        }
        // Found the next time, also when another boot looks closer.
        let (again, events) = cache.view(&tree);
        assert!(events.is_empty() && again.unwrap().root == view.root, "{events:?}");
        let root = fs::File::open(&view.root).unwrap();
        trust::compare(root.as_fd(), &index, fixups(&index, "test")).unwrap();
        assert!(trust::compare(root.as_fd(), &index, None).is_err());
    }

    #[test]
    fn a_moved_cache_gets_another_view_and_loses_the_old_one() {
        let mut cache = cache("view-moved", &sample());
        let first = {
            let tree = cache.tree();
            cache.view(&tree).0.unwrap().dir
        };
        fs::rename(cache.folder.path("cache"), cache.folder.path("moved")).unwrap();
        cache.options.settings.cache = Some(cache.folder.path("moved"));
        let tree = cache.tree();
        assert!(tree.hit);
        // A child that another test makes at this moment holds whatever was open.
        let lease = fs::File::open(tree.dir.join(first.file_name().unwrap()).join("lease")).unwrap();
        let began = std::time::Instant::now();
        while lock::flock(lease.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB).is_err() {
            assert!(began.elapsed().as_secs() < 60, "somebody is in it");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(lease);
        let view = cache.view(&tree).0.unwrap();
        assert_ne!(first.file_name(), view.dir.file_name());
        assert!(!tree.dir.join(first.file_name().unwrap()).exists(), "nobody was in it");
        let path = view.root.join("bin/sh");
        let large = fs::read(view.root.join("bin/large")).unwrap();
        assert!(large[300_016..].starts_with(path.as_os_str().as_bytes()));
    }

    #[test]
    fn a_damaged_or_half_made_view_is_made_again() {
        let cache = cache("view-damaged", &sample());
        let tree = cache.tree();
        let dir = {
            let view = cache.view(&tree).0.unwrap();
            fs::remove_file(view.root.join("bin/sh")).unwrap();
            view.dir
        };
        let (view, events) = cache.view(&tree);
        assert!(events.iter().any(|event| matches!(event, Event::Damaged { .. })), "{events:?}");
        assert!(view.unwrap().root.join("bin/sh").exists());
        assert!(tree.root.join("bin/sh").exists(), "the tree has its own names");
        // What a killed process left is taken for nothing.
        fs::remove_dir_all(&dir).unwrap();
        let half = tree.dir.join(".new-999999999-x");
        fs::create_dir(&half).unwrap();
        std::os::unix::fs::symlink("../../root-half000000", half.join("root")).unwrap();
        fs::create_dir(tree.dir.with_file_name("root-half000000")).unwrap();
        let view = cache.view(&tree).0.unwrap();
        assert!(view.root.join("bin/large").exists());
        assert!(!half.exists() && !tree.dir.with_file_name("root-half000000").exists());
    }

    #[test]
    fn a_view_s_root_lies_beside_its_tree_s_or_within_what_one_run_has() {
        let mut cache = cache("view-place", &sample());
        let tree = cache.tree();
        let view = cache.view(&tree).0.unwrap();
        assert_eq!(view.root.parent(), tree.root.parent());
        assert_eq!(fs::canonicalize(view.dir.join("root")).unwrap(), view.root);
        // Both go with the tree.
        let (base, roots) = (Base::at(tree.dir.parent().unwrap()).unwrap(), [tree.root.clone(), view.root.clone()]);
        drop((tree, view));
        let began = std::time::Instant::now();
        while !unused::remove_trees(&base).iter().all(|one| one.removed) {
            assert!(began.elapsed().as_secs() < 60, "somebody is in it");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(roots.iter().all(|root| !root.exists()));
        cache.options.private = true;
        cache.options.settings.scratch = cache.options.settings.cache.clone();
        let tree = cache.tree();
        let view = cache.view(&tree).0.unwrap();
        assert!(tree.private && view.root.starts_with(&tree.dir) && view.root.join("bin/sh").exists());
        let dir = tree.dir.clone();
        tree.remove().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let mut small = sample();
        small.edit("usr/000/00001", 0, Edit::Path { slot: 40, suffix: b"/bin/sh".to_vec() });
        let cache = self::cache("view-long", &small);
        let tree = cache.tree();
        let error = cache.view(&tree).0.unwrap_err();
        assert!(matches!(error, ViewError::TooLong { most: 32, .. }), "{error}");
        let error = view(&cache.bundle, &cache.options, &tree, "other", &mut |_| ()).unwrap_err();
        assert!(matches!(error, ViewError::NoEdits { .. }), "{error}");
        let left: Vec<_> = fs::read_dir(&tree.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.as_bytes().starts_with(b"view")), "{left:?}");
    }
}
