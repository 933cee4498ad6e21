//! What is wrong with an option, in words for the user.

use std::{fmt, path::PathBuf};

/// Where a setting came from; a later layer wins over an earlier one, lists are joined in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Fixed in the bundle when it was built.
    Bundle,
    /// A configuration file.
    Config(PathBuf),
    /// The environment form.
    Environment,
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle => f.write_str("fixed when the bundle was built"),
            Self::Config(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// An option that cannot be obeyed. Prints as `what: why: what to do`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error("--coracle-{name}: no such option: {}", nearest(.name))]
    Unknown {
        /// As typed.
        name: String,
    },
    /// A name of the design that this version does not have.
    #[error("{name}: not in this version of Coracle: leave it out")]
    Later {
        /// As the user would type it.
        name: String,
    },
    /// A value is missing.
    #[error("{name}: it needs a value: write {name}={word}")]
    NoValue {
        /// As the user would type it.
        name: String,
        /// What the value is.
        word: &'static str,
    },
    /// A value that cannot be used.
    #[error("{name}: {value:?}: {why}: {hint}")]
    Value {
        /// As the user would type it.
        name: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What to do.
        hint: String,
    },
    /// Two actions at once.
    #[error("--coracle-{first} and --coracle-{second}: only one of them can be done at a time: choose one")]
    TwoActions {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A configuration file that cannot be read.
    #[error("{}: {why}: correct the file, or name another with CORACLE_CONFIG", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

fn nearest(name: &str) -> String {
    let help = "--coracle-help lists the options";
    super::table::nearest(name.split('=').next().unwrap_or(name))
        .map_or_else(|| help.to_owned(), |near| format!("did you mean --coracle-{near}? {help}"))
}
