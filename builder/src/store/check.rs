//! Looking for damage in a store: every image, every blob, every container. Nothing is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    ImageRecord, Store, StoreError,
    containers::{Container, ContainerError},
    digest,
    trees::Owners,
};

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Damage, a line each, with what to do about it.
    pub problems: Vec<String>,
    /// Images looked at, by platform.
    pub images: usize,
    /// Blobs whose digest was computed.
    pub blobs: usize,
    /// Containers looked at.
    pub containers: usize,
    /// What killed commands left: no damage, but it takes room.
    pub leftovers: usize,
}

impl Store {
    /// Checks everything.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn check(&self, jobs: NonZero<usize>) -> Result<Findings, ContainerError> {
        let _using = self.use_blobs()?;
        let mut findings = Findings::default();
        let (records, damaged) = self.image_records()?;
        for path in damaged {
            findings.problems.push(format!(
                "{}: the record of an image is damaged: pull the image again; `coracle prune` removes the record",
                path.display()
            ));
        }
        self.check_images(&records, jobs, &mut findings)?;
        self.check_containers(&mut findings)?;
        findings.problems.sort();
        findings.problems.dedup();
        Ok(findings)
    }

    /// Checks the blobs of some images.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn check_images(
        &self,
        records: &[ImageRecord],
        jobs: NonZero<usize>,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        // Which images need a blob, to be named in a message.
        let mut needed: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for record in records {
            for pulled in record.platforms.values() {
                findings.images += 1;
                let name = record.reference.as_str();
                for digest in [&pulled.target, &pulled.manifest] {
                    needed.entry(digest.clone()).or_default().insert(name);
                }
                for digest in self.blobs_of(&pulled.manifest)?.unwrap_or_default() {
                    needed.entry(digest).or_default().insert(name);
                }
            }
        }
        let needed: Vec<(String, BTreeSet<&str>)> = needed.into_iter().collect();
        let next = AtomicUsize::new(0);
        let problems = Mutex::new(Vec::new());
        let work = || {
            while let Some((digest, names)) = needed.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(what) = self.is_damaged(digest) {
                    let names = names.iter().copied().collect::<Vec<_>>().join(", ");
                    let text = format!("{digest} of {names} {what}: pull or load the image again");
                    problems.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..jobs.get().min(needed.len()) {
                scope.spawn(work);
            }
            work();
        });
        findings.blobs += needed.len();
        findings.problems.extend(problems.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// What is wrong with a blob, if anything.
    fn is_damaged(&self, digest: &str) -> Option<String> {
        let Some(parsed) = digest::parse(digest) else { return Some("has an unknown kind of digest".to_owned()) };
        let path = self.blob_path(&parsed);
        let size = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some("is missing".to_owned()),
            Err(error) => return Some(format!("cannot be read ({error})")),
        };
        match digest::of_file(&path, 0, size, &parsed) {
            Ok(Some(found)) if found == digest => None,
            Ok(_) => Some("is damaged".to_owned()),
            Err(error) => Some(format!("cannot be read ({error})")),
        }
    }

    /// What is wrong with a container, if anything, but for its files.
    #[must_use]
    pub fn damage_of_container(&self, container: &Container) -> Option<String> {
        let id = container.short_id();
        let settings = match container.settings() {
            Ok(settings) => settings,
            Err(error) => return Some(error.to_string()),
        };
        let layers = container.stands_on(&settings);
        let of_it = match &layers {
            Some(layers) if !layers.lower.is_dir() => {
                return Some(format!(
                    "container {id} stands on the tree of {}, which is gone: pull or load that image again, and it is made anew",
                    settings.image
                ));
            }
            None if !container.root().is_dir() => {
                return Some(format!("container {id} has no tree: remove it with `coracle rm {id}`"));
            }
            _ => container
                .damage_of_settings()
                .or_else(|| container.damage_of_edits())
                .or_else(|| {
                    let path = container.owners();
                    let error = Owners::load(&path).err()?;
                    Some(format!(
                        "{error}: without it ({}) all files belong to root: remove it, or make the container anew",
                        path.display()
                    ))
                })
                .or_else(|| container.damage_of_ledger())
                .or_else(|| container.damage_of_runs())
                .or_else(|| container.damage_of_made()),
        };
        of_it.map(|what| format!("container {id}: {what}"))
    }

    fn check_containers(&self, findings: &mut Findings) -> Result<(), ContainerError> {
        let all = self.containers();
        for container in all.list()? {
            findings.containers += 1;
            let problem = self.damage_of_container(&container);
            // Removed meanwhile.
            if container.directory().is_dir() {
                findings.problems.extend(problem);
            }
        }
        for name in self.image_trees()? {
            findings.problems.extend(self.damage_of_tree(&name));
        }
        findings.leftovers = all.leftovers()?.len();
        for path in strangers(self.root()) {
            findings.problems.push(format!("{}: nobody knows what this is: move it elsewhere", path.display()));
        }
        Ok(())
    }
}

/// Directories among the containers that are none, as a copy that was broken off would leave.
fn strangers(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("containers")).into_iter().flatten().filter_map(Result::ok);
    let strange = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        !id && !name.starts_with('.')
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(strange).collect();
    found.sort();
    found
}
