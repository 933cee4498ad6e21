//! The tree's loaders hold absolute paths of their own: caches and system directories, which would be the host's. They are
//! replaced, in place and byte for byte, by names that no host has; what lies in those places of the tree is found by the
//! library path that the engine sets.
//!
//! Slashes, colons and lengths stay (glibc's directories have their lengths beside them, and must begin with a slash);
//! every other byte becomes [`NOBODY`].

use std::io;

use coracle_api::Libc;
use coracle_format::Edit;

use super::bytes::Bytes;

/// A byte that no distribution uses in a name. Only root could make such names in `/`.
const NOBODY: u8 = 1;

/// Most bytes of a loader's constants: real ones have some 100 kB.
const MOST: u64 = 16 << 20;

/// Most strings of them that name something of the host: real ones have ten.
const MOST_NAMES: usize = 1000;

/// Files that loaders open.
const FILES: [&[u8]; 3] = [b"/etc/ld.so.cache", b"/etc/ld.so.preload", b"/etc/ld-nix.so.preload"];

/// What musl's loader looks into unless it is told otherwise, and what tells it. `%.*s` stays for its own use.
const MUSL_DIRECTORIES: &[u8] = b"/lib:/usr/local/lib:/usr/lib";
const MUSL_FILE: (&[u8], &[u8]) = (b"%.*s", b"/etc/ld-musl-");

/// What a loader would use of the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) edits: Vec<(u64, Edit)>,
    /// Its built-in directories.
    pub(super) directories: Vec<Vec<u8>>,
}

/// Looks through a loader's constants. Nothing is found in one that has absurdly many.
pub(super) fn find(file: Bytes<'_>, runs: impl Iterator<Item = (u64, u64)>, libc: Libc) -> io::Result<Found> {
    let mut found = Found::default();
    let mut most = MOST;
    for (offset, len) in runs {
        let Some(bytes) = file.get_most(offset, len, most)? else { return Ok(Found::default()) };
        most -= len;
        let mut at = 0;
        // Whether the string before was a directory: these lie one after the other.
        for string in bytes.split(|byte| *byte == 0) {
            let start = at;
            at += string.len() + 1;
            let Some((from, directories)) = of_host(string, libc) else { continue };
            let hidden: Vec<u8> =
                string[from..].iter().map(|byte| if matches!(byte, b'/' | b':') { *byte } else { NOBODY }).collect();
            if found.edits.len() == MOST_NAMES {
                return Ok(Found::default());
            }
            found.edits.push((offset + (start + from) as u64, Edit::Bytes(hidden)));
            for directory in directories {
                if !found.directories.contains(&directory) {
                    found.directories.push(directory);
                }
            }
        }
    }
    Ok(found)
}

/// Where in a constant a path of the host begins, and the directories that it names.
fn of_host(string: &[u8], libc: Libc) -> Option<(usize, Vec<Vec<u8>>)> {
    match libc {
        Libc::Musl => {
            if string == MUSL_DIRECTORIES {
                return Some((0, string.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect()));
            }
            let (before, name) = MUSL_FILE;
            let rest = string.strip_prefix(before)?;
            rest.starts_with(name).then(|| (before.len(), Vec::new()))
        }
        Libc::Glibc => {
            // The first of an array may follow what is no string at all.
            if let Some(name) = FILES.iter().find(|name| string.ends_with(name)) {
                return Some((string.len() - name.len(), Vec::new()));
            }
            let start = string.iter().position(|byte| *byte == b'/').filter(|at| is_binary(&string[..*at]))?;
            let path = &string[start..];
            let inner = path.strip_prefix(b"/")?.strip_suffix(b"/")?;
            let is_directory = inner.split(|byte| *byte == b'/').any(|part| part.starts_with(b"lib"))
                && inner.iter().all(|byte| byte.is_ascii_graphic());
            is_directory.then(|| (start, vec![path.to_vec()]))
        }
    }
}

/// Bytes of something else than text.
fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| !byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flatten::Data;

    fn hide(content: &[u8], libc: Libc) -> (Vec<u8>, Vec<String>) {
        let data = Data::Bytes(Arc::from(content));
        let file = Bytes { data: &data, size: content.len() as u64 };
        let found = find(file, [(0, content.len() as u64)].into_iter(), libc).unwrap();
        let mut edited = content.to_vec();
        for (offset, edit) in &found.edits {
            let Edit::Bytes(bytes) = edit else { panic!("{edit:?}") };
            let at = usize::try_from(*offset).unwrap();
            edited[at..at + bytes.len()].copy_from_slice(bytes);
        }
        (edited, found.directories.iter().map(|path| String::from_utf8(path.clone()).unwrap()).collect())
    }

    #[test]
    fn glibc_forgets_its_directories_and_keeps_its_programs_names() {
        let content =
            b"\x07\x80\0/lib/x86_64-linux-gnu/\0/usr/lib/\0/var/tmp\0/etc/ld.so.cache\0/lib64/ld-linux-x86-64.so.2\0";
        let (edited, directories) = hide(content, Libc::Glibc);
        assert_eq!(directories, ["/lib/x86_64-linux-gnu/", "/usr/lib/"]);
        assert_eq!(
            edited,
            b"\x07\x80\0/\x01\x01\x01/\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01/\0\
              /\x01\x01\x01/\x01\x01\x01/\0/var/tmp\0/\x01\x01\x01/\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\0\
              /lib64/ld-linux-x86-64.so.2\0"
        );
    }

    #[test]
    fn musl_forgets_its_directories_and_its_file() {
        let content = b"x\0/lib:/usr/local/lib:/usr/lib\0%.*s/etc/ld-musl-x86_64.path\0/etc/passwd\0";
        let (edited, directories) = hide(content, Libc::Musl);
        assert_eq!(directories, ["/lib", "/usr/local/lib", "/usr/lib"]);
        assert!(edited.starts_with(b"x\0/\x01\x01\x01:/\x01"), "{edited:?}");
        assert!(edited.ends_with(b"\x01\0/etc/passwd\0"), "{edited:?}");
        assert!(edited.windows(6).any(|six| six == b"%.*s/\x01"), "{edited:?}");
    }
}
