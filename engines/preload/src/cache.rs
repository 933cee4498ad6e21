//! What ldconfig(8) of the guest's found: its ld.so.cache, old format, new format, or the new one inside the old.
//!
//! Only the directories matter here, of libraries for this machine: a loader that is given them finds the rest itself, with
//! the variants for newer processors below them. The bytes are hostile: every offset is checked.

use std::collections::HashSet;

/// Directories that are taken from a cache: real ones have ten.
const MOST: usize = 1000;
/// Bytes of a path that the kernel takes (`PATH_MAX`).
const LONGEST: usize = 4096;
/// First bytes of the format before glibc 2.2, which was written until 2.32 with the new one behind it.
const OLD: &[u8] = b"ld.so-1.7.0";
const NEW: &[u8] = b"glibc-ld.so.cache1.1";
/// A library of glibc's kind for x86-64.
const KIND: u32 = 0x0303;
/// What tells kinds apart in an entry's flags.
const KIND_MASK: u32 = 0xffff;

/// The directories that a cache names, each once, in the order in which they come up; none where it is no cache.
pub(crate) fn directories(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    for path in paths(bytes).unwrap_or_default() {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { continue };
        let dir = without_variant(&path[..slash]);
        if found.len() < MOST && !dir.is_empty() && known.insert(dir) {
            found.push(dir);
        }
    }
    found
}

/// A library's directory without what names the processor that it is for.
fn without_variant(dir: &[u8]) -> &[u8] {
    let mut dir = dir;
    if let Some(at) = find(dir, b"/glibc-hwcaps/") {
        return &dir[..at];
    }
    // Before 2.33: `tls`, `x86_64`, `haswell`, `avx512_1` in any order.
    while let Some(at) = dir.iter().rposition(|byte| *byte == b'/') {
        match &dir[at + 1..] {
            b"tls" | b"x86_64" | b"haswell" | b"xeon_phi" | b"avx512_1" => dir = &dir[..at],
            _ => break,
        }
    }
    dir
}

/// The paths of libraries for this machine.
fn paths(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    if !bytes.starts_with(OLD) {
        return new_paths(bytes);
    }
    const HEADER: usize = 16;
    let count = usize::try_from(number(bytes, 12)?).ok()?;
    let end = count.checked_mul(12)?.checked_add(HEADER)?;
    // The new format begins at a multiple of its alignment.
    let inner = bytes.get(end.checked_next_multiple_of(8)?..);
    if let Some(inner) = inner.filter(|inner| inner.starts_with(NEW)) {
        return new_paths(inner);
    }
    let strings = bytes.get(end..)?;
    let entry = |at: usize| Some((number(bytes, at)?, number(bytes, at + 8)?));
    let entries = (0..count).map_while(|at| entry(HEADER + 12 * at));
    Some(entries.filter_map(|(flags, value)| path(flags, strings, value)).collect())
}

fn new_paths(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    const HEADER: usize = 48;
    if !bytes.starts_with(NEW) {
        return None;
    }
    let count = usize::try_from(number(bytes, 20)?).ok()?;
    let entry = |at: usize| Some((number(bytes, at)?, number(bytes, at + 8)?));
    let entries = (0..count).map_while(|at| entry(HEADER.checked_add(at.checked_mul(24)?)?));
    Some(entries.filter_map(|(flags, value)| path(flags, bytes, value)).collect())
}

/// The string at offset `value` of `strings`, if the entry is for this machine.
fn path(flags: u32, strings: &[u8], value: u32) -> Option<&[u8]> {
    if flags & KIND_MASK != KIND {
        return None;
    }
    let rest = strings.get(usize::try_from(value).ok()?..)?;
    let end = rest.iter().take(LONGEST).position(|byte| *byte == 0)?;
    Some(&rest[..end]).filter(|path| path.starts_with(b"/"))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| u32::from_le_bytes(*four))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(entries: &[(u32, &str)]) -> Vec<u8> {
        let mut bytes = NEW.to_vec();
        bytes.extend(u32::try_from(entries.len()).expect("few").to_le_bytes());
        bytes.resize(48, 0);
        let mut strings = Vec::new();
        let at = 48 + 24 * entries.len();
        for (flags, path) in entries {
            bytes.extend(flags.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(u32::try_from(at + strings.len()).expect("small").to_le_bytes());
            bytes.extend([0; 12]);
            strings.extend_from_slice(path.as_bytes());
            strings.push(0);
        }
        bytes.extend(strings);
        bytes
    }

    fn old(entries: &[(u32, &str)], inner: &[u8]) -> Vec<u8> {
        let mut bytes = OLD.to_vec();
        bytes.push(0);
        bytes.extend(u32::try_from(entries.len()).expect("few").to_le_bytes());
        let mut strings = Vec::new();
        for (flags, path) in entries {
            bytes.extend(flags.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(u32::try_from(strings.len()).expect("small").to_le_bytes());
            strings.extend_from_slice(path.as_bytes());
            strings.push(0);
        }
        if inner.is_empty() {
            bytes.extend(strings);
        } else {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend(inner);
        }
        bytes
    }

    fn text(bytes: &[u8]) -> Vec<String> {
        directories(bytes).into_iter().map(|dir| String::from_utf8_lossy(dir).into_owned()).collect()
    }

    const LIBRARIES: [(u32, &str); 5] = [
        (0x303, "/opt/lib/libz.so.1"),
        (0x003, "/lib/i386-linux-gnu/libc.so.6"),
        (0x303, "/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libc.so.6"),
        (0x303, "/lib/x86_64-linux-gnu/libc.so.6"),
        (0x303, "/usr/lib/tls/haswell/liba.so"),
    ];

    #[test]
    fn all_three_formats() {
        let dirs = ["/opt/lib", "/lib/x86_64-linux-gnu", "/usr/lib"];
        assert_eq!(text(&new(&LIBRARIES)), dirs);
        assert_eq!(text(&old(&LIBRARIES, b"")), dirs);
        assert_eq!(text(&old(&[(0x303, "/wrong/x.so")], &new(&LIBRARIES))), dirs);
        assert!(text(b"").is_empty());
        assert!(text(b"nonsense").is_empty());
    }

    #[test]
    fn no_cut_and_no_flip_is_a_panic() {
        for bytes in [new(&LIBRARIES), old(&LIBRARIES, b""), old(&[(0x303, "/x/y")], &new(&LIBRARIES))] {
            for len in 0..bytes.len() {
                text(&bytes[..len]);
            }
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut copy = bytes.clone();
                    copy[at] ^= flip;
                    text(&copy);
                }
            }
        }
    }
}
