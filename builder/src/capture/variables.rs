//! The environment of a run, less what is secret or the session's own.

use std::ffi::OsString;

use globset::Glob;

use super::{CaptureError, secrets::is_secret};

/// Variables that say where and how somebody sits: they mean nothing elsewhere. A name that ends in `*` is a beginning.
const SESSION: [&str; 23] = [
    "TERM",
    "COLUMNS",
    "LINES",
    "WINDOWID",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_*",
    "XDG_SEAT",
    "XDG_VTNR",
    "SSH_*",
    "SUDO_*",
    "TMUX*",
    "STY",
    "SHLVL",
    "OLDPWD",
    "_",
    "MAIL",
    "PMI_*",
    "PMIX_*",
    "CORACLE_*",
];

/// An environment for a bundle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// `KEY=value`, in order.
    pub kept: Vec<String>,
    /// Names of those that look like secrets, sorted.
    pub secret: Vec<String>,
    /// Names of those that the user wanted out, sorted.
    pub redacted: Vec<String>,
    /// Names of those that are the session's own, or no UTF-8, sorted.
    pub session: Vec<String>,
}

impl Variables {
    /// Chooses. `redact` are names or patterns to leave out, `keep` such to take whatever they look like.
    ///
    /// # Errors
    /// [`CaptureError::Pattern`].
    pub fn choose(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        redact: &[String],
        keep: &[String],
    ) -> Result<Self, CaptureError> {
        let matchers = |patterns: &[String]| -> Result<Vec<globset::GlobMatcher>, CaptureError> {
            let matcher = |pattern: &String| match Glob::new(pattern) {
                Ok(glob) => Ok(glob.compile_matcher()),
                Err(error) => Err(CaptureError::Pattern { pattern: pattern.clone(), why: error.kind().to_string() }),
            };
            patterns.iter().map(matcher).collect()
        };
        let (redact, keep) = (matchers(redact)?, matchers(keep)?);
        let mut chosen = Self::default();
        for (name, value) in env {
            let (Some(key), Some(value)) = (name.to_str(), value.to_str()) else {
                chosen.session.push(name.to_string_lossy().into_owned());
                continue;
            };
            let key = key.to_owned();
            if redact.iter().any(|pattern| pattern.is_match(&key)) {
                chosen.redacted.push(key);
            } else if keep.iter().any(|pattern| pattern.is_match(&key)) {
                chosen.kept.push(format!("{key}={value}"));
            } else if is_session(&key) {
                chosen.session.push(key);
            } else if is_secret(&key, value) {
                chosen.secret.push(key);
            } else {
                chosen.kept.push(format!("{key}={value}"));
            }
        }
        for list in [&mut chosen.secret, &mut chosen.redacted, &mut chosen.session] {
            list.sort();
        }
        Ok(chosen)
    }

    /// All that are not in the bundle, sorted.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let mut all: Vec<String> =
            [&self.secret, &self.redacted, &self.session].into_iter().flatten().cloned().collect();
        all.sort();
        all
    }
}

fn is_session(name: &str) -> bool {
    SESSION.iter().any(|own| match own.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *own,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_kept_unless_secret_redacted_or_the_sessions() {
        let env = [("A", "1"), ("MY_TOKEN", "x"), ("OTHER_TOKEN", "y"), ("B_1", "2"), ("SSH_TTY", "/dev/pts/0")]
            .map(|(key, value)| (key.into(), value.into()));
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let chosen = Variables::choose(env, &words(&["B_*"]), &words(&["OTHER_TOKEN"])).expect("well-formed");
        assert_eq!(chosen.kept, ["A=1", "OTHER_TOKEN=y"]);
        assert_eq!(chosen.secret, ["MY_TOKEN"]);
        assert_eq!(chosen.redacted, ["B_1"]);
        assert_eq!(chosen.left_out(), ["B_1", "MY_TOKEN", "SSH_TTY"]);
        assert!(Variables::choose([], &words(&["["]), &[]).is_err());
    }
}
