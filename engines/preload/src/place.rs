//! Files that the run leaves for its processes, and names for places that loaders can be told.
//!
//! Lists of libraries are split at colons, semicolons and blanks, and nothing in them can be quoted. A place whose path
//! has such a character gets a second name: a symbolic link in a directory of the user's own.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use coracle_api::content_sum;

/// Where links may be, if their own paths are without such characters; one that is not there is passed over.
const PLACES: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];

/// How long what belongs to a run is kept after its first process has gone.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Two names of one directory.
#[derive(Debug)]
pub(crate) struct Safe {
    real: PathBuf,
    name: PathBuf,
}

fn is_safe(path: &Path) -> bool {
    !path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b':' | b';' | b' ' | b'\t' | b'\n' | b'$'))
}

impl Safe {
    /// A name for `dir` (a canonical path) that can stand in a list, made if its own cannot.
    pub(crate) fn of(dir: &Path, uid: u32) -> io::Result<Self> {
        if is_safe(dir) {
            return Ok(Self { real: dir.to_owned(), name: dir.to_owned() });
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for place in PLACES {
            match link(Path::new(place), dir, uid) {
                Ok(name) => return Ok(Self { real: dir.to_owned(), name }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The directory's name.
    pub(crate) fn dir(&self) -> &Path {
        &self.name
    }

    /// The name of a place below the directory, or of another; none if it cannot stand in a list.
    pub(crate) fn name(&self, path: &Path) -> Option<PathBuf> {
        let named = match path.strip_prefix(&self.real) {
            Ok(rest) => self.name.join(rest),
            Err(_) => path.to_owned(),
        };
        Some(named).filter(|named| is_safe(named))
    }
}

/// A link to `dir` in a directory below `place` that only this user can write to.
fn link(place: &Path, dir: &Path, uid: u32) -> io::Result<PathBuf> {
    let own = place.join(format!("coracle-names-{uid}"));
    match DirBuilder::new().mode(0o700).create(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(&own)?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{} is somebody else's", own.display())));
    }
    let name = own.join(format!("{:016x}", content_sum(dir.as_os_str().as_bytes())));
    match symlink(dir, &name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if fs::read_link(&name)? == dir { Ok(name) } else { Err(io::Error::other("two names for one link")) }
}

/// The path of a file with this content in `dir`, written if it is not there: its name is made of its content.
pub(crate) fn kept(dir: &Path, kind: &str, content: &[u8]) -> io::Result<PathBuf> {
    kept_as(dir, &format!("{kind}-{:016x}", content_sum(content)), content)
}

/// [`kept`], under a name that follows from the content.
pub(crate) fn kept_as(dir: &Path, name: &str, content: &[u8]) -> io::Result<PathBuf> {
    let path = dir.join(name);
    // A name is no digest: what is there is compared.
    if fs::read(&path).is_ok_and(|found| found == content) {
        return Ok(path);
    }
    let beside = dir.join(format!(".new-{name}-{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
    let written = file.write_all(content).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map(|()| path)
}

/// A path in `dir` that is this run's alone, by the id of its first process, which this one becomes. Those that runs left
/// which ended long ago are removed.
pub(crate) fn of_run(dir: &Path, kind: &str) -> PathBuf {
    let prefix = format!("{kind}-");
    let own = std::process::id().to_string();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(&prefix)).filter(|id| id.parse::<u32>().is_ok());
        let Some(id) = id else { continue };
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        // A daemon may live longer than the process that the file is named after.
        let old = age.is_some_and(|age| age > KEPT) && !Path::new("/proc").join(id).exists();
        if id == own || old {
            let _ = fs::remove_file(entry.path());
        }
    }
    dir.join(prefix + &own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_would_be_split_at_gets_another_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let odd = dir.path().join("a b:c").canonicalize().unwrap_or_else(|_| {
            fs::create_dir_all(dir.path().join("a b:c/lib")).expect("made");
            dir.path().join("a b:c").canonicalize().expect("there")
        });
        // SAFETY: geteuid takes nothing and cannot fail.
        let uid = unsafe { libc::geteuid() };
        let safe = Safe::of(&odd, uid).expect("a name");
        let name = safe.name(&odd.join("lib")).expect("a name");
        assert!(is_safe(&name), "{}", name.display());
        assert_eq!(name.canonicalize().expect("it leads there"), odd.join("lib"));
        assert_eq!(Safe::of(&odd, uid).expect("a name").dir(), safe.dir(), "the same again");
        assert_eq!(safe.name(&odd.join("x:y")), None, "below it the tree's own names count");
        assert!(Safe::of(&odd, uid + 1).is_err(), "the directory is another user's");
        fs::remove_file(safe.dir()).expect("removed");
        let plain = Safe::of(Path::new("/usr"), uid).expect("as it is");
        assert_eq!(plain.name(Path::new("/usr/lib")).as_deref(), Some(Path::new("/usr/lib")));
    }

    #[test]
    fn a_file_is_written_once_and_again_when_it_was_damaged() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = kept(dir.path(), "run", b"one").expect("written");
        assert_eq!(kept(dir.path(), "run", b"one").expect("kept"), path);
        fs::write(&path, "o").expect("written");
        assert_eq!(kept(dir.path(), "run", b"one").expect("written"), path);
        assert_eq!(fs::read(&path).expect("read"), b"one");
        assert_ne!(kept(dir.path(), "run", b"two").expect("written"), path);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2, "nothing temporary is left");
    }
}
