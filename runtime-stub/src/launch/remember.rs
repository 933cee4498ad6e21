//! Which engine accepted here before, so that a warm start need not try namespaces in a child first.
//!
//! An answer holds for this boot, this program, this kind of run, and the place the process is in: its user and mount
//! namespaces and its security label. What may still change is a limit (`max_user_namespaces`); an engine meets that with
//! its first call, before anything lasting ([`Memory::is_here`]), and then all are asked again.

use std::{fs, path::Path};

use coracle_api::Request;

use super::files;

/// Names the place, the program and the kind of run; none where /proc does not tell.
fn key(bundle: &Path, request: &Request) -> Option<String> {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let user = fs::read_link("/proc/self/ns/user").ok()?;
    let mount = fs::read_link("/proc/self/ns/mnt").ok()?;
    // Absent without a security module.
    let label = fs::read("/proc/self/attr/current").unwrap_or_default();
    Some(files::digest_name(format!("{boot:?}{user:?}{mount:?}{label:?}{bundle:?}{request:?}").as_bytes()))
}

/// What was remembered for this run.
#[derive(Debug)]
pub struct Memory<'a> {
    dir: &'a Path,
    key: Option<String>,
    /// The engine that accepted.
    pub engine: Option<String>,
}

impl<'a> Memory<'a> {
    /// Looks the run up in the directory that all runs of the tree share.
    #[must_use]
    pub fn read(dir: &'a Path, bundle: &Path, request: &Request) -> Self {
        let key = key(bundle, request);
        let engine = fs::read_to_string(dir.join("engine")).ok().and_then(|text| {
            let (old, engine) = text.split_once(' ')?;
            (Some(old) == key.as_deref()).then(|| engine.to_owned())
        });
        Self { dir, key, engine }
    }

    /// Whether the process is still where it was when the memory was read: an engine that failed has done nothing lasting.
    #[must_use]
    pub fn is_here(&self, bundle: &Path, request: &Request) -> bool {
        self.key.is_some() && key(bundle, request) == self.key
    }

    /// Forgets what was remembered in a directory: the engine failed.
    pub fn forget(dir: &Path) {
        let _ = fs::remove_file(dir.join("engine"));
    }

    /// Remembers who accepted. Only the last kind of run is kept: a loop of starts is what has to be fast.
    pub fn write(&self, engine: &str) {
        if let Some(key) = &self.key
            && self.engine.as_deref() != Some(engine)
        {
            // Only a saving: without it the next start tries again.
            let _ = files::write_beside(self.dir, &self.dir.join("engine"), format!("{key} {engine}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_the_same_kind_of_run_only() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let request = Request::default();
        let memory = Memory::read(dir.path(), Path::new("/app.run"), &request);
        assert_eq!(memory.engine, None);
        memory.write("second");
        let again = |bundle: &str, request: &Request| Memory::read(dir.path(), Path::new(bundle), request).engine;
        assert_eq!(again("/app.run", &request).as_deref(), Some("second"));
        assert!(memory.is_here(Path::new("/app.run"), &request));
        assert_eq!(again("/other.run", &request), None);
        assert_eq!(again("/app.run", &Request { root: true, ..request }), None);
    }
}
