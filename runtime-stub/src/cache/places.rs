//! Where a tree or a run's own files may go: the candidates, in order, each with the reason for being one.

use std::{fmt, path::PathBuf};

/// What `launch` read from options, environment and configuration; nothing here reads them itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--coracle-cache=DIR` or `$CORACLE_CACHE`.
    pub cache: Option<PathBuf>,
    /// `cache` of the configuration file.
    pub cache_config: Option<PathBuf>,
    /// `--coracle-scratch=DIR` or `$CORACLE_SCRATCH`.
    pub scratch: Option<PathBuf>,
    /// `scratch` of the configuration file.
    pub scratch_config: Option<PathBuf>,
    /// `$SLURM_TMPDIR`.
    pub slurm_tmpdir: Option<PathBuf>,
    /// `$_CONDOR_SCRATCH_DIR`.
    pub condor_scratch: Option<PathBuf>,
    /// `$TMPDIR`.
    pub tmpdir: Option<PathBuf>,
}

/// A directory that was considered, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory, which must exist; Coracle makes `coracle-<uid>` in it.
    pub path: PathBuf,
    /// `--coracle-cache or $CORACLE_CACHE`, `the configuration file`, `default`…
    pub origin: &'static str,
    /// The user named it for this very purpose, so it keeps its rank even on tmpfs.
    pub chosen: bool,
}

impl Settings {
    /// Candidates for the cache, best first.
    #[must_use]
    pub fn cache_places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        add(&mut places, self.cache.as_ref(), "--coracle-cache or $CORACLE_CACHE", true);
        add(&mut places, self.cache_config.as_ref(), "the configuration file", true);
        add(&mut places, Some(&"/var/tmp".into()), "default", false);
        add(&mut places, Some(&"/tmp".into()), "default", false);
        self.add_job(&mut places);
        places
    }

    /// Candidates for scratch, best first.
    #[must_use]
    pub fn scratch_places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        add(&mut places, self.scratch.as_ref(), "--coracle-scratch or $CORACLE_SCRATCH", true);
        add(&mut places, self.scratch_config.as_ref(), "the configuration file", true);
        self.add_job(&mut places);
        for place in self.cache_places() {
            add(&mut places, Some(&place.path), place.origin, place.chosen);
        }
        places
    }

    /// The job's own directory, as the batch system names it.
    fn add_job(&self, places: &mut Vec<Place>) {
        add(places, self.slurm_tmpdir.as_ref(), "$SLURM_TMPDIR", false);
        add(places, self.condor_scratch.as_ref(), "$_CONDOR_SCRATCH_DIR", false);
        add(places, self.tmpdir.as_ref(), "$TMPDIR", false);
    }
}

/// Relative values are ignored as the XDG specification has it: they mean something else in every directory.
fn add(places: &mut Vec<Place>, path: Option<&PathBuf>, origin: &'static str, chosen: bool) {
    if let Some(path) = path.filter(|path| path.is_absolute())
        && !places.iter().any(|place| place.path == *path)
    {
        places.push(Place { path: path.clone(), origin, chosen });
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.origin)
    }
}

/// A place that was passed over, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The place.
    pub place: Place,
    /// Why it could not be used, in words.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_in_the_documented_order_and_once() {
        let settings = Settings {
            cache: Some("/c".into()),
            slurm_tmpdir: Some("/job".into()),
            tmpdir: Some("/tmp".into()),
            condor_scratch: Some("relative".into()),
            ..Settings::default()
        };
        let paths = |places: Vec<Place>| places.into_iter().map(|place| place.path).collect::<Vec<_>>();
        assert_eq!(paths(settings.cache_places()), ["/c", "/var/tmp", "/tmp", "/job"].map(PathBuf::from));
        assert_eq!(paths(settings.scratch_places()), ["/job", "/tmp", "/c", "/var/tmp"].map(PathBuf::from));
    }
}
