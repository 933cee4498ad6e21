//! Settings of a guest's environment as Docker reads them: `KEY=VALUE` or `KEY`, alone or one a line in a file.
//!
//! Pure functions over bytes: the stub and the command line read their own environments and files, and agree here on what
//! they mean.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

/// A variable and its value; without one it is to be unset.
pub type Setting = (OsString, Option<OsString>);

/// `KEY=VALUE`, or `KEY` for the value that `host` has: unset there means unset inside.
#[must_use]
pub fn setting(pair: &OsStr, host: impl Fn(&OsStr) -> Option<OsString>) -> Setting {
    let bytes = pair.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (OsStr::from_bytes(&bytes[..at]).to_owned(), Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
        None => (pair.to_owned(), host(pair)),
    }
}

/// A file of them. Blank lines and those beginning with `#` are passed over; leading white space is dropped; a value is
/// taken as it stands, quotes and spaces included. A name alone that `host` does not have is no setting.
///
/// # Errors
/// The line's number, from 1, and what is wrong with it.
pub fn settings(text: &[u8], host: impl Fn(&OsStr) -> Option<OsString>) -> Result<Vec<Setting>, (usize, &'static str)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut all = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let key = line.split(|byte| *byte == b'=').next().unwrap_or(line);
        if key.is_empty() {
            return Err((number + 1, "no variable name: write KEY=VALUE"));
        }
        if key.iter().any(u8::is_ascii_whitespace) {
            return Err((number + 1, "white space in the variable's name: write KEY=VALUE"));
        }
        if line.contains(&0) {
            return Err((number + 1, "a NUL byte: write plain text"));
        }
        let one = setting(OsStr::from_bytes(line), &host);
        if one.1.is_some() {
            all.push(one);
        }
    }
    Ok(all)
}
