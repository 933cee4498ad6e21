//! A volume as typed: `HOST[:GUEST][:ro|rw]`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// A volume, its paths still as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Host file or directory; relative ones are the caller's.
    pub host: PathBuf,
    /// Where the guest sees it; without one, at the host's own path.
    pub guest: Option<PathBuf>,
    /// `:ro`.
    pub read_only: bool,
}

impl Volume {
    /// Reads `HOST[:GUEST][:ro|rw]`. A colon that belongs to a path is written `\:`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &OsStr) -> Result<Self, &'static str> {
        let mut parts = split(text.as_bytes());
        let read_only = match parts.last().map(|part| part.as_bytes()) {
            Some(b"ro") if parts.len() > 1 => Some(true),
            Some(b"rw") if parts.len() > 1 => Some(false),
            _ => None,
        };
        if read_only.is_some() {
            parts.pop();
        }
        let mut parts = parts.into_iter();
        let host = parts.next().filter(|host| !host.is_empty()).ok_or("it names no host path")?;
        let guest = parts.next().map(PathBuf::from);
        if parts.next().is_some() {
            return Err("it has too many parts, or an option other than ro and rw");
        }
        if let Some(guest) = &guest {
            if !guest.is_absolute() {
                return Err("the path inside must be absolute");
            }
            if guest == Path::new("/") {
                return Err("nothing can be put over the image's root");
            }
        }
        Ok(Self { host: host.into(), guest, read_only: read_only.unwrap_or(false) })
    }
}

/// Splits at colons that no backslash precedes.
fn split(text: &[u8]) -> Vec<OsString> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if bytes.peek() == Some(&b':') => {
                bytes.next();
                push(&mut parts, b':');
            }
            b':' => parts.push(Vec::new()),
            byte => push(&mut parts, byte),
        }
    }
    parts.into_iter().map(OsString::from_vec).collect()
}

fn push(parts: &mut [Vec<u8>], byte: u8) {
    if let Some(last) = parts.last_mut() {
        last.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(host: &str, guest: Option<&str>, read_only: bool) -> Result<Volume, &'static str> {
        Ok(Volume { host: host.into(), guest: guest.map(PathBuf::from), read_only })
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("/data", volume("/data", None, false)),
            ("/data:ro", volume("/data", None, true)),
            ("/data:/inside", volume("/data", Some("/inside"), false)),
            ("/data:/inside:ro", volume("/data", Some("/inside"), true)),
            ("./here:/inside:rw", volume("./here", Some("/inside"), false)),
            ("ro", volume("ro", None, false)),
            (r"/a\:b:/c", volume("/a:b", Some("/c"), false)),
            ("", Err("it names no host path")),
            (":/x", Err("it names no host path")),
            ("/a:b", Err("the path inside must be absolute")),
            ("/a:/", Err("nothing can be put over the image's root")),
            ("/a:/b:z", Err("it has too many parts, or an option other than ro and rw")),
        ] {
            assert_eq!(Volume::parse(OsStr::new(text)), expected, "{text}");
        }
    }
}
