//! What a bundle does instead of running: its files out, its bytes checked, the cache tidied.

use std::{
    fs::{self, File},
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
};

use crate::{
    cache::{self, Settings},
    export::{self, Tree},
    open::{Bundle, OpenError, PublicKey, SignatureError, VerifyError, verify_open},
    unpack::{self, Modes, Stats, UnpackError},
};

/// An action that failed. Prints as `what: why: what to do`.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The bundle is damaged.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The bundle is not signed as it should be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The files could not be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The directory to extract to is in use.
    #[error("{}: is not empty: name a directory that does not exist yet, or an empty one", .0.display())]
    NotEmpty(PathBuf),
    /// The output cannot be written.
    #[error("{}: cannot be written: {source}: choose another place", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What a run has changed cannot be read.
    #[error("{}: {why}: end the run that writes there, and look who may read it", path.display())]
    Changes {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Files were changed between two looks at them.
    #[error("a run's changes: they changed while they were exported: end the run first")]
    Moving,
    /// No scratch directory.
    #[error("{0}")]
    Scratch(String),
    /// Packing a bundle.
    #[error("a bundle cannot be made: {0}")]
    Pack(&'static str),
    /// A frame of the payload cannot be had.
    #[error("{}: frame {frame} of the payload {why}: the file is damaged: copy or build it again", path.display())]
    Frame {
        /// The bundle.
        path: PathBuf,
        /// Its number.
        frame: usize,
        /// As [`crate::open::FrameError`] says it.
        why: String,
    },
}

/// `extract`: all files with the image's own modes, less set-id bits, into `dir`, which is new or empty. Without a name, it
/// is the bundle's with `.tree` for `.run`, in the current directory. Nothing stays behind after an error.
///
/// # Errors
/// [`ActionError`].
pub fn extract(bundle: &Bundle, dir: Option<&Path>) -> Result<(PathBuf, Stats), ActionError> {
    let dir = dir.map_or_else(|| default_directory(bundle), Path::to_owned);
    let write = |source| ActionError::Write { path: dir.clone(), source };
    let index = bundle.index()?;
    let made = match fs::create_dir(&dir) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(write(error)),
    };
    if !made && fs::read_dir(&dir).map_err(write)?.next().is_some() {
        return Err(ActionError::NotEmpty(dir));
    }
    let options = unpack::Options { threads: None, modes: Modes::True, progress: None };
    match unpack::unpack(bundle, &index, &dir, &options) {
        Ok(stats) => Ok((dir, stats)),
        Err(error) => {
            // What cannot be removed is named by the error that matters.
            let _ = if made { fs::remove_dir_all(&dir) } else { empty(&dir) };
            Err(error.into())
        }
    }
}

fn default_directory(bundle: &Bundle) -> PathBuf {
    let mut name = bundle.path().file_name().unwrap_or_default().to_owned();
    if bundle.path().extension().is_some_and(|extension| extension == "run") {
        name = bundle.path().file_stem().unwrap_or_default().to_owned();
    }
    name.push(".tree");
    name.into()
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// `tar`: the tree as a tar, to `file` (written beside and renamed) or to standard output.
///
/// # Errors
/// [`ActionError`]. Standard output may have got a part of it by then.
pub fn tar(bundle: &Bundle, tree: &Tree, file: Option<&Path>) -> Result<(), ActionError> {
    let Some(path) = file else {
        return export::tar(bundle, tree, &mut io::stdout().lock(), Path::new("standard output"));
    };
    let write = |source| ActionError::Write { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut out = File::create_new(&beside).map_err(write)?;
    let done = export::tar(bundle, tree, &mut out, path).and_then(|()| fs::rename(&beside, path).map_err(write));
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}

/// `verify`: every byte. Returns what was found whole, in words.
///
/// # Errors
/// [`ActionError::Verify`] names every damaged part.
pub fn verify(bundle: &Bundle) -> Result<String, ActionError> {
    let jobs = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let found = verify_open(bundle, jobs)?;
    Ok(format!(
        "{}: whole: stub, slot, trailer, manifest, index, {} frames, {} files, {} bytes",
        bundle.path().display(),
        found.frames,
        found.entries,
        found.total
    ))
}

/// `key`: whether the owner of that public key signed the bundle. Returns the signature's comment, for a terminal.
///
/// # Errors
/// [`ActionError::Signature`].
pub fn verify_signature(bundle: &Bundle, key: &Path) -> Result<String, ActionError> {
    let comment = crate::open::verify_signature(bundle, &PublicKey::read(key)?)?;
    Ok(comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

/// `cleanup`: removes every tree and temporary of this user's that no job uses, in all places, or as many as a limit asks
/// for. Returns a line for each.
#[must_use]
pub fn cleanup(settings: &Settings, limit: Option<u64>) -> Vec<String> {
    let cleaned = cache::cleanup(settings, limit);
    let lines = cleaned.iter().map(|one| match one.removed {
        true => format!("removed {}", one.path.display()),
        false => format!("kept {}: a job uses it", one.path.display()),
    });
    lines.collect()
}
