//! Makes a [`Table`](super::Table) out of a list of names.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use super::{HEADER, Kind, MAGIC, RECORD, SLOT, hash, sum};
use crate::{NAME_MAX, PATH_MAX};

/// Why a list of names is no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// The entry of this number has no directory before it that could hold it, or an empty or too long name.
    Path(usize),
    /// The entry of this number was there before.
    Twice(usize),
    /// The link of this number has no target, or one longer than the kernel allows.
    Target(usize),
    /// More names than a table can number.
    TooMany,
}

/// The table of a tree.
///
/// `entries` are its files in any order that has a directory before what is in it: paths below the root without leading
/// slash, the root itself (empty) left out or first. Leave out what the tree on disk does not have (device nodes).
///
/// # Errors
/// [`BuildError`], with the number of the entry.
pub fn build<'a>(entries: impl IntoIterator<Item = (&'a [u8], Kind<'a>)>) -> Result<Vec<u8>, BuildError> {
    let mut directories = BTreeMap::from([(&b""[..], 0_u32)]);
    let mut records = Vec::from([0; RECORD]);
    records[15] = b'd';
    let mut strings = Vec::new();
    let mut root_named = false;
    let mut keys = vec![(0_u32, &b""[..])];
    for (number, (path, kind)) in entries.into_iter().enumerate() {
        if path.is_empty() && number == 0 {
            root_named = true;
            continue;
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let parent = *directories.get(parent).ok_or(BuildError::Path(number))?;
        let name_len = u8::try_from(name.len())
            .ok()
            .filter(|len| *len > 0 && name.len() <= NAME_MAX)
            .ok_or(BuildError::Path(number))?;
        let node = u32::try_from(keys.len()).map_err(|_| BuildError::TooMany)?;
        let (tag, target) = match kind {
            Kind::Directory => (b'd', &b""[..]),
            Kind::Symlink(target) if target.is_empty() || target.len() >= PATH_MAX => {
                return Err(BuildError::Target(number));
            }
            Kind::Symlink(target) => (b'l', target),
            Kind::File => (b'f', &b""[..]),
        };
        if tag == b'd' && directories.insert(path, node).is_some() {
            return Err(BuildError::Twice(number));
        }
        let target_len = u16::try_from(target.len()).map_err(|_| BuildError::Target(number))?;
        records.extend_from_slice(&parent.to_le_bytes());
        for text in [name, target] {
            records.extend_from_slice(&u32::try_from(strings.len()).map_err(|_| BuildError::TooMany)?.to_le_bytes());
            strings.extend_from_slice(text);
        }
        records.extend_from_slice(&target_len.to_le_bytes());
        records.extend_from_slice(&[name_len, tag]);
        keys.push((parent, name));
    }
    // Node n is entry n - 1, or n if the root was one too.
    let slots = slots(&keys).map_err(|error| match error {
        BuildError::Twice(node) if !root_named => BuildError::Twice(node - 1),
        other => other,
    })?;
    let mut out = Vec::with_capacity(HEADER + records.len() + slots.len() * SLOT + strings.len());
    out.extend_from_slice(&MAGIC);
    for count in [keys.len(), slots.len(), strings.len()] {
        out.extend_from_slice(&u32::try_from(count).map_err(|_| BuildError::TooMany)?.to_le_bytes());
    }
    // Four zeros, and eight for the sum of what comes now.
    out.resize(HEADER, 0);
    out.extend_from_slice(&records);
    for slot in slots {
        out.extend_from_slice(&slot.to_le_bytes());
    }
    out.extend_from_slice(&strings);
    let sum = sum(&out[HEADER..]);
    out[HEADER - 8..HEADER].copy_from_slice(&sum.to_le_bytes());
    Ok(out)
}

/// The hash table: at most half full, the root in no slot. Errors name the node.
fn slots(keys: &[(u32, &[u8])]) -> Result<Vec<u32>, BuildError> {
    let mut slots = vec![0_u32; (keys.len() * 2).next_power_of_two()];
    let mask = slots.len() - 1;
    for (number, (parent, name)) in keys.iter().enumerate().skip(1) {
        let mut at = hash(*parent, name) & mask;
        while slots[at] != 0 {
            if keys[slots[at] as usize] == (*parent, *name) {
                return Err(BuildError::Twice(number));
            }
            at = (at + 1) & mask;
        }
        slots[at] = u32::try_from(number).map_err(|_| BuildError::TooMany)?;
    }
    Ok(slots)
}
