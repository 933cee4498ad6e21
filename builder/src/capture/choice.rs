//! What of a run's files goes into its bundle, as the user chose.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{CaptureError, secrets};

/// The user's choice.
#[derive(Debug)]
pub struct Choice {
    /// Taken whole, used or not; absolute.
    pub include: Vec<PathBuf>,
    /// Unchanged files of more bytes are referred to.
    pub reference_larger: Option<u64>,
    /// The files of listed directories are taken, used or not.
    pub listed: bool,
    /// What is included, by its canonical name too.
    named: Vec<PathBuf>,
    exclude: GlobSet,
    secret: GlobSet,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes in.
    Taken,
    /// The user wants it left out.
    Excluded,
    /// It is left out because it looks like a secret.
    Secret,
}

impl Choice {
    /// Excludes what matches these patterns: a path in which `*` and `?` stand for parts of a name and `**` for any number
    /// of directories; without a slash it means that name anywhere. What lies in an excluded directory goes with it.
    ///
    /// # Errors
    /// [`CaptureError::Pattern`].
    pub fn new(include: Vec<PathBuf>, exclude: &[impl AsRef<OsStr>]) -> Result<Self, CaptureError> {
        let given: Vec<String> =
            exclude.iter().map(|pattern| pattern.as_ref().to_string_lossy().into_owned()).collect();
        let canonical = include.iter().filter_map(|path| std::fs::canonicalize(path).ok());
        let named = canonical.chain(include.iter().cloned()).collect();
        Ok(Self {
            named,
            include,
            reference_larger: None,
            listed: false,
            exclude: globs(&given)?,
            secret: globs(&secrets::FILES)?,
        })
    }

    /// What becomes of the file at an absolute path. What was asked for by name is no secret.
    #[must_use]
    pub fn fate(&self, path: &[u8]) -> Fate {
        let path = Path::new(OsStr::from_bytes(path));
        if path.ancestors().any(|path| self.exclude.is_match(path)) {
            Fate::Excluded
        } else if path.ancestors().any(|path| self.secret.is_match(path))
            && !self.named.iter().any(|included| path.starts_with(included))
        {
            Fate::Secret
        } else {
            Fate::Taken
        }
    }
}

/// A set of patterns for absolute paths.
fn globs(patterns: &[impl AsRef<str>]) -> Result<GlobSet, CaptureError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let text = pattern.as_ref();
        let wrong = |why: String| CaptureError::Pattern { pattern: text.to_owned(), why };
        let path = text.trim_end_matches('/');
        if path.is_empty() {
            return Err(wrong("nothing would be left".to_owned()));
        }
        let anchored = match path.as_bytes()[0] {
            b'/' => path.to_owned(),
            _ => format!("/**/{path}"),
        };
        let glob = GlobBuilder::new(&anchored).literal_separator(true).backslash_escape(true).build();
        set.add(glob.map_err(|error| wrong(error.kind().to_string()))?);
    }
    set.build().map_err(|error| CaptureError::Pattern { pattern: String::new(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_secrets_and_what_was_asked_for() {
        let choice = Choice::new(vec!["/home/u/.ssh/id_mine".into()], &["*.log", "/data/**/raw", "/opt/x/"]);
        let choice = choice.expect("well-formed");
        for (path, fate) in [
            ("/home/u/a.txt", Fate::Taken),
            ("/home/u/a.log", Fate::Excluded),
            ("/a.log", Fate::Excluded),
            ("/a.log/b", Fate::Excluded),
            ("/data/x/y/raw/1", Fate::Excluded),
            ("/data/raw", Fate::Excluded),
            ("/opt/x/y", Fate::Excluded),
            ("/opt/xy", Fate::Taken),
            ("/home/u/.ssh/id_ed25519", Fate::Secret),
            ("/home/u/.ssh/id_mine", Fate::Taken),
            ("/root/.aws/credentials", Fate::Secret),
            ("/etc/shadow", Fate::Secret),
            ("/home/u/.netrc", Fate::Secret),
            ("/tmp/krb5cc_1000", Fate::Secret),
            ("/etc/passwd", Fate::Taken),
        ] {
            assert_eq!(choice.fate(path.as_bytes()), fate, "{path}");
        }
        assert!(Choice::new(Vec::new(), &["/"]).is_err());
        assert!(Choice::new(Vec::new(), &["a["]).is_err());
    }
}
