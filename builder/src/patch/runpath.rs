//! Libraries and programs that name places of libraries: `DT_RPATH`, `DT_RUNPATH`, and `DT_NEEDED` with a path.
//!
//! - Absolute places become relative to the object itself (`$ORIGIN/../lib`), so that they need no path of the node. The
//!   longer string goes into the room behind a read-only segment ([`Object::rooms`]). Where there is none, the entry
//!   is emptied, and its directories join those of the loader.
//! - The engine shows the loader's own directories by `LD_LIBRARY_PATH`, which glibc asks before `DT_RUNPATH`. Where
//!   that would find another library than the run path does, the tag becomes `DT_RPATH`, which comes first.
//! - A place that is not in the tree, below a directory of the root that is empty there, is where something of the host is
//!   shown: it stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use coracle_api::Libc;
use coracle_format::Edit;
use goblin::elf::dynamic::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, DT_VERNEED, DT_VERNEEDNUM};

use super::{
    bytes::{Bytes, MOST, number},
    links::is_library,
    object::{Dynamic, Object, Odd, Room},
    paths::{name, parent, relative, resolve},
};
use crate::flatten::Tree;

/// Records of needed versions that are read.
const MOST_VERSIONS: u64 = 4096;

/// Places that an object names: paths of libraries, and elements of its search paths. The longest lists that are known (of
/// Nix) have some hundred.
const MOST_PLACES: usize = 1000;

/// What an object's places come to.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) edits: Vec<(u64, Edit)>,
    /// What was done, in words.
    pub(super) how: Vec<String>,
    /// Directories that the loader must be told of, as the object cannot say it any more.
    pub(super) directories: Vec<Vec<u8>>,
    /// Directories that absolute run paths name.
    pub(super) named: Vec<Vec<u8>>,
    /// Links that lead out of the tree on the way to these places.
    pub(super) leaving: BTreeSet<Vec<u8>>,
}

/// The tree around an object.
pub(super) struct Around<'a> {
    pub(super) tree: &'a Tree,
    pub(super) libc: Libc,
    /// The loader's libraries by name: the file that each leads to.
    pub(super) libraries: &'a BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Edits one object, whose file is at `path`.
struct Editor<'a> {
    around: &'a Around<'a>,
    object: &'a Object,
    file: Bytes<'a>,
    path: &'a [u8],
    rooms: Vec<Room>,
    /// Lengths that segments grow by, by number.
    grown: BTreeMap<usize, u64>,
    /// Where the string table ends now.
    table_end: u64,
    /// What [`versions`] says, once somebody has asked.
    versions: Option<BTreeMap<u64, Vec<u64>>>,
    places: Places,
}

/// A place as it is to be.
enum Place {
    Same,
    Changed(Vec<u8>),
}

/// Looks at the places of an object.
pub(super) fn places(
    around: &Around<'_>,
    object: &Object,
    file: Bytes<'_>,
    path: &[u8],
) -> io::Result<Result<Places, Odd>> {
    let named = |entry: &&Dynamic| matches!(entry.tag, DT_RPATH | DT_RUNPATH | DT_NEEDED);
    if !object.dynamic.iter().any(|entry| named(&entry)) {
        return Ok(Ok(Places::default()));
    }
    let (Some(table), Some(len)) = (object.value(DT_STRTAB), object.value(DT_STRSZ)) else {
        return Ok(Err(Odd("it has no string table")));
    };
    if object.string(file, 0)?.is_none_or(|first| !first.is_empty()) {
        return Ok(Err(Odd("its string table makes no sense")));
    }
    let mut rooms = object.rooms(file, table)?;
    // Best where offsets in the file and addresses are as far apart as the table's, so that it is one run in both.
    let apart = object.offset_of(table).map(|offset| table.wrapping_sub(offset));
    rooms.sort_by_key(|room| Some(room.address.wrapping_sub(room.offset)) != apart);
    let mut editor = Editor {
        around,
        object,
        file,
        path,
        rooms,
        grown: BTreeMap::new(),
        table_end: len,
        versions: None,
        places: Places::default(),
    };
    let entries: Vec<Dynamic> = object.dynamic.iter().filter(named).copied().collect();
    let (mut count, mut len) = (0, 0);
    for entry in entries {
        let Some(string) = object.string(file, entry.value)? else {
            return Ok(Err(Odd("its string table makes no sense")));
        };
        if entry.tag == DT_NEEDED && !string.contains(&b'/') {
            continue;
        }
        count += string.iter().filter(|byte| **byte == b':').count() + 1;
        len += string.len() as u64;
        if count > MOST_PLACES || len > MOST {
            return Ok(Err(Odd("the places that it names are absurdly many or long")));
        }
        if entry.tag == DT_NEEDED {
            if !string.starts_with(b"$") {
                editor.needed(entry, &string)?;
            }
        } else {
            editor.search_path(entry, &string);
        }
    }
    Ok(Ok(editor.finish()))
}

impl Editor<'_> {
    /// `DT_RPATH` or `DT_RUNPATH`.
    fn search_path(&mut self, entry: Dynamic, string: &[u8]) {
        let mut parts = Vec::new();
        let mut changed = false;
        let mut directories = Vec::new();
        for part in string.split(|byte| *byte == b':') {
            let guest = self.guest(part);
            self.places.named.extend(guest.clone().filter(|_| part.starts_with(b"/")));
            match self.place(part, guest.as_deref()) {
                Place::Same => parts.push(part.to_vec()),
                Place::Changed(new) => {
                    changed = true;
                    parts.push(new);
                }
            }
            directories.extend(guest);
        }
        let text = String::from_utf8_lossy(string).into_owned();
        let word = if entry.tag == DT_RPATH { "RPATH" } else { "RUNPATH" };
        if changed {
            let new = parts.join(&b':');
            if let Some(value) = self.store(&new) {
                self.set(entry.at + 8, value);
                self.places.how.push(format!("{word} {text} to {}", String::from_utf8_lossy(&new)));
            } else {
                // The string table begins with an empty string, and loaders pass over an empty path.
                self.set(entry.at + 8, 0);
                self.places.how.push(format!("{word} {text} emptied: no room for a longer one"));
                self.places.directories.extend(directories);
                return;
            }
        }
        let alone = !self.object.dynamic.iter().any(|other| other.tag == DT_RPATH);
        if entry.tag == DT_RUNPATH && self.around.libc == Libc::Glibc && alone && self.hides(&directories) {
            self.set(entry.at, DT_RPATH);
            self.places.how.push("RUNPATH to RPATH: it has other libraries than the system's directories".to_owned());
        }
    }

    /// The guest path that an element of a search path means, if it can be known.
    fn guest(&self, part: &[u8]) -> Option<Vec<u8>> {
        if part.starts_with(b"/") && !part.contains(&b'$') {
            return Some(part.to_vec());
        }
        let rest = part.strip_prefix(b"$ORIGIN").or_else(|| part.strip_prefix(b"${ORIGIN}"))?;
        let plain = (rest.is_empty() || rest.starts_with(b"/")) && !rest.contains(&b'$');
        plain.then(|| [b"/", parent(self.path), rest].concat())
    }

    fn place(&mut self, part: &[u8], guest: Option<&[u8]>) -> Place {
        let Some(resolved) = guest.and_then(|guest| resolve(self.around.tree, guest)) else { return Place::Same };
        let from_origin = part.starts_with(b"$");
        if !resolved.exists && !from_origin && self.is_mount_point(&resolved.path) {
            return Place::Same;
        }
        if from_origin && !resolved.climbed {
            // It works as it is, once the links on the way do.
            self.places.leaving.extend(resolved.leaving);
            return Place::Same;
        }
        let way = relative(parent(self.path), &resolved.path);
        let mut new = b"$ORIGIN".to_vec();
        if !way.is_empty() {
            new.push(b'/');
            new.extend_from_slice(&way);
        }
        Place::Changed(new)
    }

    /// Whether the top-level directory of a path is missing or empty in the tree.
    fn is_mount_point(&self, path: &[u8]) -> bool {
        let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let below = [top, b"/"].concat();
        self.around.tree.paths.range(below.clone()..).next().is_none_or(|(path, _)| !path.starts_with(&below))
    }

    /// Whether a directory has a library whose name leads the loader to another file.
    fn hides(&self, directories: &[Vec<u8>]) -> bool {
        let tree = self.around.tree;
        let resolved = directories.iter().filter_map(|guest| resolve(tree, guest)).map(|resolved| resolved.path);
        resolved.collect::<BTreeSet<_>>().into_iter().any(|directory| {
            let below = [&directory[..], b"/"].concat();
            let inside = tree.paths.range(below.clone()..).map(|(path, _)| path);
            inside.take_while(|path| path.starts_with(&below)).any(|path| {
                let file = &path[below.len()..];
                !file.contains(&b'/')
                    && is_library(file)
                    && self
                        .around
                        .libraries
                        .get(file)
                        .is_some_and(|other| resolve(tree, path).is_some_and(|mine| mine.exists && mine.path != *other))
            })
        })
    }

    /// `DT_NEEDED` with a path.
    fn needed(&mut self, entry: Dynamic, string: &[u8]) -> io::Result<()> {
        let Some(resolved) = string.starts_with(b"/").then(|| resolve(self.around.tree, string)).flatten() else {
            // Relative to the working directory, inside as outside.
            return Ok(());
        };
        if !resolved.exists && self.is_mount_point(&resolved.path) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(string).into_owned();
        let new = [b"$ORIGIN/", &relative(parent(self.path), &resolved.path)[..]].concat();
        // glibc looks for the library whose versions are needed by that name, which it does not expand.
        if self.versions.is_none() {
            self.versions = Some(versions(self.object, self.file)?);
        }
        let versions = self.versions.as_mut().and_then(|all| all.remove(&entry.value)).unwrap_or_default();
        let expands = self.around.libc == Libc::Glibc && versions.is_empty();
        let stored = if expands { self.store(&new) } else { None };
        let value = if let Some(value) = stored {
            self.places.how.push(format!("needs {text} as {}", String::from_utf8_lossy(&new)));
            value
        } else {
            // The end of the same string, and its directory told to the loader.
            self.places.directories.push([b"/", parent(&resolved.path)].concat());
            self.places.how.push(format!("needs {text} as {}", String::from_utf8_lossy(name(string))));
            entry.value + (string.len() - name(string).len()) as u64
        };
        self.set(entry.at + 8, value);
        let Ok(short) = u32::try_from(value) else { return Ok(()) };
        let renamed = versions.into_iter().map(|at| (at, Edit::Bytes(short.to_le_bytes().to_vec())));
        self.places.edits.extend(renamed);
        Ok(())
    }

    /// Puts a string into a room, and gives its offset in the string table.
    fn store(&mut self, string: &[u8]) -> Option<u64> {
        let table = self.object.value(DT_STRTAB)?;
        let len = string.len() as u64 + 1;
        // At least one zero stays between the segment's own end and the string.
        let room = self.rooms.iter_mut().find(|room| room.len > len)?;
        let (offset, value) = (room.offset + 1, room.address + 1 - table);
        (room.offset, room.address, room.len) = (offset + len, room.address + 1 + len, room.len - 1 - len);
        *self.grown.entry(room.segment).or_default() += 1 + len;
        self.table_end = self.table_end.max(value + len);
        self.places.edits.push((offset, Edit::Bytes([string, b"\0"].concat())));
        Some(value)
    }

    fn set(&mut self, at: u64, value: u64) {
        self.places.edits.push((at, Edit::Bytes(value.to_le_bytes().to_vec())));
    }

    /// Segments and the string table's length grow by what was stored.
    fn finish(mut self) -> Places {
        for (number, len) in std::mem::take(&mut self.grown) {
            let (at, segment) = (self.object.segment_at(number), &self.object.segments[number]);
            // p_filesz and p_memsz, which are equal here.
            let size = segment.p_filesz + len;
            self.set(at + 32, size);
            self.set(at + 40, size);
        }
        if let Some(entry) = self.object.dynamic.iter().find(|entry| entry.tag == DT_STRSZ)
            && self.table_end > entry.value
        {
            self.set(entry.at + 8, self.table_end);
            // Who links with the object reads the table as a section, which has to reach as far.
            let section = self.object.value(DT_STRTAB).and_then(|table| self.object.string_section(table));
            if let Some((offset, len)) = section
                && offset.saturating_add(self.table_end) <= self.file.size
            {
                self.set(len, self.table_end);
            }
        }
        self.places
    }
}

/// Where versions that are needed of a library name it, by the string (the same as of `DT_NEEDED`).
fn versions(object: &Object, file: Bytes<'_>) -> io::Result<BTreeMap<u64, Vec<u64>>> {
    let mut found = BTreeMap::<u64, Vec<u64>>::new();
    let (Some(start), Some(count)) = (object.value(DT_VERNEED), object.value(DT_VERNEEDNUM)) else {
        return Ok(found);
    };
    let Some(mut at) = object.offset_of(start) else { return Ok(found) };
    for _ in 0..count.min(MOST_VERSIONS) {
        // Elf64_Verneed: version, count (2 bytes each), file, first, next (4 bytes each).
        let Some(record) = file.get(at, 16)? else { break };
        let field = |at| number(&record, at, 4).unwrap_or_default();
        found.entry(field(4)).or_default().push(at + 4);
        match field(12) {
            0 => break,
            next => at = at.saturating_add(next),
        }
    }
    Ok(found)
}
