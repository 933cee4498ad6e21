//! The layers as given: command line and environment, each a list of rows with their values.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use super::{
    error::{OptionError, Origin},
    table::{Kind, Row, Takes},
};

/// One option as some layer gave it.
#[derive(Debug, Clone)]
pub struct Given {
    /// Which.
    pub row: &'static Row,
    /// The value after `=`; none for a bare switch.
    pub value: Option<OsString>,
    /// The layer.
    pub origin: Origin,
}

impl Given {
    /// The option as its layer spells it, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::CommandLine => self.row.flag(),
            Origin::Environment => self.row.variable(),
            Origin::Config(path) => format!("{}: {}", path.display(), self.row.name),
            Origin::Bundle => format!("{} (fixed when the bundle was built)", self.row.name),
        }
    }

    /// An error about the value.
    pub(super) fn wrong(&self, why: impl Into<String>, hint: impl Into<String>) -> OptionError {
        let value = self.value.as_deref().unwrap_or_default().to_string_lossy().into_owned();
        OptionError::Value { name: self.name(), value, why: why.into(), hint: hint.into() }
    }

    /// Checks that the value's presence fits the row, and that this version has the option.
    fn checked(self) -> Result<Self, OptionError> {
        if self.row.kind == Kind::Later {
            return Err(OptionError::Later { name: self.name() });
        }
        match (self.row.takes, &self.value) {
            (Takes::Value(word) | Takes::List(word, _), None) => Err(OptionError::NoValue { name: self.name(), word }),
            _ => Ok(self),
        }
    }
}

/// Takes Coracle's options from the front of the arguments (without `argv[0]`); the rest is the application's.
///
/// `--coracle--` ends the options, for an application whose own first argument begins with `--coracle-`.
///
/// # Errors
/// [`OptionError`] for an option that does not exist, is not in this version, or lacks its value.
pub fn command_line(args: &[OsString]) -> Result<(Vec<Given>, &[OsString]), OptionError> {
    let mut given = Vec::new();
    for (i, arg) in args.iter().enumerate() {
        let Some(option) = arg.as_bytes().strip_prefix(b"--coracle-") else {
            return Ok((given, &args[i..]));
        };
        if option == b"-" {
            return Ok((given, &args[i + 1..]));
        }
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (&option[..at], Some(OsString::from_vec(option[at + 1..].to_vec()))),
            None => (option, None),
        };
        let row = Row::named(name)
            .ok_or_else(|| OptionError::Unknown { name: String::from_utf8_lossy(name).into_owned() })?;
        given.push(Given { row, value, origin: Origin::CommandLine }.checked()?);
    }
    Ok((given, &[]))
}

/// The environment forms. An empty variable says nothing.
///
/// # Errors
/// As [`command_line`].
pub fn environment(env: &[(OsString, OsString)]) -> Result<Vec<Given>, OptionError> {
    let mut given = Vec::new();
    for (key, value) in env {
        let Some(row) = Row::of_variable(key.as_bytes()) else { continue };
        if value.is_empty() {
            continue;
        }
        let one = |value: &[u8]| {
            Given { row, value: Some(OsStr::from_bytes(value).to_owned()), origin: Origin::Environment }.checked()
        };
        match row.takes {
            Takes::List(_, separators) => {
                let parts = value.as_bytes().split(|byte| separators.contains(byte)).filter(|part| !part.is_empty());
                for part in parts {
                    given.push(one(part)?);
                }
            }
            _ => given.push(one(value.as_bytes())?),
        }
    }
    Ok(given)
}

/// Yes, no, or neither.
#[must_use]
pub fn yes_or_no(value: &OsStr) -> Option<bool> {
    match value.as_bytes() {
        b"1" | b"yes" | b"true" | b"on" => Some(true),
        b"0" | b"no" | b"false" | b"off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn options_end_at_the_first_other_argument_and_the_rest_is_untouched() {
        let args = os(&["--coracle-verbose", "--coracle-env=A=1=2", "", "--coracle-quiet", "-x"]);
        let (given, rest) = command_line(&args).expect("these options exist");
        assert_eq!(given.iter().map(|given| given.row.name).collect::<Vec<_>>(), ["verbose", "env"]);
        assert_eq!(given[1].value.as_deref(), Some(OsStr::new("A=1=2")));
        assert_eq!(rest, os(&["", "--coracle-quiet", "-x"]));
    }

    #[test]
    fn the_end_mark_lets_an_application_have_such_an_argument_itself() {
        let args = os(&["--coracle--", "--coracle-help", "--"]);
        let (given, rest) = command_line(&args).expect("the mark is known");
        assert!(given.is_empty());
        assert_eq!(rest, os(&["--coracle-help", "--"]));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_with_advice() {
        for (arg, message) in [
            (
                "--coracle-voluem=/x",
                "--coracle-voluem: no such option: did you mean --coracle-volume? --coracle-help lists the options",
            ),
            ("--coracle-volume", "--coracle-volume: it needs a value: write --coracle-volume=HOST[:GUEST][:ro|rw]"),
            ("--coracle-export", "--coracle-export: it needs a value: write --coracle-export=docker|oci|bundle"),
            ("--coracle-", "--coracle-: no such option: --coracle-help lists the options"),
        ] {
            let error = command_line(&os(&[arg])).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), Some(message));
        }
    }

    #[test]
    fn lists_in_the_environment_are_split_and_others_are_not() {
        let env =
            [("CORACLE_VOLUME", "/a:ro,/b"), ("CORACLE_ENV", "A=1,2\nB"), ("CORACLE_DIR", "/x"), ("CORACLE_USER", "")]
                .map(|(key, value)| (OsString::from(key), OsString::from(value)));
        let given = environment(&env).expect("they are well-formed");
        let values: Vec<_> = given.iter().map(|given| given.value.clone().unwrap_or_default()).collect();
        assert_eq!(values, os(&["/a:ro", "/b", "A=1,2", "B"]));
    }
}
