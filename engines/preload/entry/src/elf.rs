//! What a program's file says of how it wants to be started: its interpreter, and where it looks for its libraries.
//!
//! The bytes are hostile. Nothing is believed that was not read, no arithmetic goes unchecked, and no loop is longer than
//! the number of headers says.

use coracle_elf::{Elf, Segment};
use coracle_paths::Errno;

/// A guest's file that is open for reading.
pub trait Source {
    /// pread(2): how many bytes there were, fewer than asked for at the file's end.
    ///
    /// # Errors
    /// The kernel's.
    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, Errno>;
}

/// Not a program.
const ENOEXEC: Errno = Errno(8);

const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
/// Notes of a segment that are looked at: real ones have one to three.
const MOST_NOTES: usize = 16;
/// Bytes of an interpreter's name that an edit moved: real ones have a few dozen.
const LONGEST_NAME: usize = 1024;
/// Entries of a dynamic section that are looked at: real ones have a few dozen.
const MOST_ENTRIES: u64 = 512;
/// Libraries that a program names of which each is looked at: real ones have up to a hundred or two.
const MOST_NEEDED: usize = 256;

/// A program's own wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linkage<'b> {
    /// PT_INTERP as written, without its NUL; `None` in a program that is linked statically.
    pub interpreter: Option<&'b [u8]>,
    /// The same where the program has it in memory, if that is another place of its file: what an edit of its
    /// interpreter left as it was. Empty if it is not.
    pub before: &'b [u8],
    /// DT_RUNPATH, or without one DT_RPATH; empty where there is neither.
    pub search: &'b [u8],
    /// It makes its system calls by instructions of its own, whatever libraries it has: Go's compiler made it, and said so.
    pub own_calls: bool,
}

/// Reads a program's wishes; `room` holds the strings and takes as many as fit (8 KiB fit any real ones; less is an error).
///
/// # Errors
/// `ENOEXEC` where the kernel would say so; the reader's.
pub fn linkage<'b>(elf: &Elf, file: &impl Source, room: &'b mut [u8]) -> Result<Linkage<'b>, Errno> {
    let mut interpreter = None;
    let (mut first, mut dynamic) = (None, None);
    let mut own_calls = false;
    let size = elf.header_size();
    for number in 0..u64::from(elf.headers) {
        let segment = header(elf, file, size, number)?;
        match segment.kind {
            Segment::INTERPRETER if interpreter.is_none() => interpreter = Some(segment),
            Segment::LOAD if first.is_none() => first = Some(segment),
            PT_DYNAMIC if dynamic.is_none() => dynamic = Some(segment),
            PT_NOTE => own_calls |= notes_say_go(file, &segment),
            _ => {}
        }
    }
    let Some(interpreter) = interpreter else {
        return Ok(Linkage { interpreter: None, before: b"", search: b"", own_calls });
    };
    let len = usize::try_from(interpreter.file_size).map_err(|_| ENOEXEC)?;
    let (before, room) = room.split_at_mut_checked(LONGEST_NAME).ok_or(ENOEXEC)?;
    if len > room.len() {
        return Err(ENOEXEC);
    }
    let moved = first.and_then(|first| moved(&first, &interpreter));
    let before = moved.and_then(|at| absolute(file, at, before)).unwrap_or_default();
    let (after, rest) = room.split_at_mut(len);
    let interpreter = if interpreter.file_size == 0 && !before.is_empty() {
        // strip(1) and its like take an edit for no content, and leave nothing of it.
        before
    } else {
        exactly(file, interpreter.offset, after)?;
        if len < 2 || after.last() != Some(&0) {
            return Err(ENOEXEC);
        }
        after.split(|byte| *byte == 0).next().unwrap_or_default()
    };
    let search = match dynamic {
        Some(dynamic) => search(elf, file, size, &dynamic, rest).unwrap_or(0),
        None => 0,
    };
    Ok(Linkage { interpreter: Some(interpreter), before, search: &rest[..search], own_calls })
}

/// Where in the file the interpreter's name in memory comes from, if that is not where the kernel reads it. It lies in
/// the first segment that is loaded, behind the headers.
fn moved(first: &Segment, interpreter: &Segment) -> Option<u64> {
    let within = interpreter.address.checked_sub(first.address).filter(|within| *within < first.file_size)?;
    first.offset.checked_add(within).filter(|at| *at != interpreter.offset)
}

/// An absolute path at a place of the file.
fn absolute<'n>(file: &impl Source, at: u64, room: &'n mut [u8]) -> Option<&'n [u8]> {
    let got = file.read_at(at, room).ok()?;
    let read = room.get(..got)?;
    let end = read.iter().position(|byte| *byte == 0)?;
    read.get(..end).filter(|name| name.starts_with(b"/"))
}

/// Whether one of the notes is the build id that Go's linker writes (`cmd/internal/buildid`): name `Go`, type 4. A note
/// is three numbers (length of the name, length of what follows it, type), the name and the rest, each filled up to
/// four bytes.
fn notes_say_go(file: &impl Source, segment: &Segment) -> bool {
    let go = |note: &[u8; 16]| note[..4] == [4, 0, 0, 0] && note[8..] == *b"\x04\0\0\0Go\0\0";
    let mut at = 0;
    for _ in 0..MOST_NOTES {
        let mut note = [0; 16];
        let Some(place) = segment.offset.checked_add(at) else { return false };
        if at >= segment.file_size || exactly(file, place, &mut note).is_err() {
            return false;
        }
        if go(&note) {
            return true;
        }
        let [name, rest] = [0, 4].map(|field| {
            let length = note[field..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            u64::from(length).next_multiple_of(4)
        });
        at += 12 + name + rest;
    }
    false
}

fn header(elf: &Elf, file: &impl Source, size: usize, number: u64) -> Result<Segment, Errno> {
    let mut bytes = [0; 56];
    let bytes = &mut bytes[..size];
    let at = number.checked_mul(size as u64).and_then(|at| at.checked_add(elf.headers_at)).ok_or(ENOEXEC)?;
    exactly(file, at, bytes)?;
    elf.segment(bytes).ok_or(ENOEXEC)
}

/// The length of the list of directories, which goes to `room`; `None` where it cannot be found.
fn search(elf: &Elf, file: &impl Source, size: usize, dynamic: &Segment, room: &mut [u8]) -> Option<usize> {
    if !elf.wide {
        return None;
    }
    let (mut strings, mut rpath, mut runpath) = (None, None, None);
    entries(file, dynamic, &mut |tag, value| match tag {
        DT_STRTAB => strings = Some(value),
        DT_RPATH => rpath = Some(value),
        DT_RUNPATH => runpath = Some(value),
        _ => {}
    })?;
    string(elf, file, size, strings?.checked_add(runpath.or(rpath)?)?, room)
}

/// Whether one of the libraries that a program needs is named by an absolute path that `is_elsewhere`: a loader opens
/// it as it is, before there is a shim, and so on the host. `room` holds one name after the other (one that does not
/// fit can be opened nowhere).
pub fn needs_elsewhere(
    elf: &Elf,
    file: &impl Source,
    room: &mut [u8],
    mut is_elsewhere: impl FnMut(&[u8]) -> bool,
) -> bool {
    let size = elf.header_size();
    let headers = (0..u64::from(elf.headers)).map_while(|number| header(elf, file, size, number).ok());
    let Some(dynamic) = headers.into_iter().find(|segment| segment.kind == PT_DYNAMIC) else { return false };
    let (mut strings, mut needed, mut count) = (None, [0; MOST_NEEDED], 0);
    let read = entries(file, &dynamic, &mut |tag, value| match tag {
        DT_STRTAB => strings = Some(value),
        DT_NEEDED if count < MOST_NEEDED => {
            needed[count] = value;
            count += 1;
        }
        _ => {}
    });
    let (Some(()), Some(strings)) = (read, strings) else { return false };
    needed[..count].iter().any(|value| {
        let address = strings.checked_add(*value);
        let len = address.and_then(|address| string(elf, file, size, address, room));
        len.is_some_and(|len| room[..len].first() == Some(&b'/') && is_elsewhere(&room[..len]))
    })
}

/// Tags and values of a dynamic section.
fn entries(file: &impl Source, dynamic: &Segment, each: &mut impl FnMut(u64, u64)) -> Option<()> {
    let mut chunk = [0; 32 * 16];
    let entries = (dynamic.file_size / 16).min(MOST_ENTRIES);
    let mut done = 0;
    while done < entries {
        let at = dynamic.offset.checked_add(done * 16)?;
        let got = file.read_at(at, &mut chunk).ok()?;
        let whole = chunk.get(..got)?.as_chunks::<16>().0;
        if whole.is_empty() {
            break;
        }
        for entry in whole {
            let [tag, value] = [word(&entry[..8])?, word(&entry[8..])?];
            if tag == DT_NULL || done == entries {
                return Some(());
            }
            each(tag, value);
            done += 1;
        }
    }
    Some(())
}

/// The length of the string at an address of the program's, which goes to `room`.
fn string(elf: &Elf, file: &impl Source, size: usize, address: u64, room: &mut [u8]) -> Option<usize> {
    let mut offset = None;
    for number in 0..u64::from(elf.headers) {
        let segment = header(elf, file, size, number).ok()?;
        let end = segment.address.checked_add(segment.file_size)?;
        if segment.kind == Segment::LOAD && (segment.address..end).contains(&address) {
            offset = segment.offset.checked_add(address - segment.address);
            break;
        }
    }
    let got = file.read_at(offset?, room).ok()?;
    room.get(..got)?.iter().position(|byte| *byte == 0)
}

fn word(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<8>().map(|eight| u64::from_le_bytes(*eight))
}

fn exactly(file: &impl Source, at: u64, into: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(at.checked_add(done as u64).ok_or(ENOEXEC)?, &mut into[done..])? {
            0 => return Err(ENOEXEC),
            more => done += more,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{fs, vec::Vec};

    use super::*;

    impl Source for Vec<u8> {
        fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
            let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
            let len = rest.len().min(into.len());
            into[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        let bytes = fs::read("/bin/sh").unwrap();
        let elf = Elf::parse(&bytes).expect("a program");
        let mut room = [0; 8192];
        let linkage = linkage(&elf, &bytes, &mut room).expect("sound");
        assert!(linkage.interpreter.expect("it is dynamic").starts_with(b"/lib"));
    }

    #[test]
    fn a_program_of_gos_is_known_by_its_note() {
        let mut bytes = fs::read("/bin/sh").unwrap();
        let own_calls = |bytes: &Vec<u8>| {
            let elf = Elf::parse(bytes).expect("a program");
            linkage(&elf, bytes, &mut [0; 8192]).expect("sound").own_calls
        };
        assert!(!own_calls(&bytes));
        // The build id of GNU's linker, its type and name changed: whatever notes stand before it.
        let gnu = b"\x03\0\0\0GNU\0";
        let at = bytes.windows(gnu.len()).position(|window| window == gnu).expect("distributions have build ids");
        bytes[at..at + gnu.len()].copy_from_slice(b"\x04\0\0\0Go\0\0");
        assert!(own_calls(&bytes));
    }

    #[test]
    fn an_edited_interpreter_is_told_from_what_it_was() {
        let mut bytes = fs::read("/bin/true").unwrap();
        let said = |bytes: &Vec<u8>| {
            let elf = Elf::parse(bytes).expect("a program");
            let mut room = [0; 8192];
            let found = linkage(&elf, bytes, &mut room)
                .map(|found| (found.interpreter.map(<[u8]>::to_vec), found.before.to_vec()));
            found.map(|(interpreter, before)| (interpreter.expect("it is dynamic"), before))
        };
        let (own, before) = said(&bytes).unwrap();
        assert!(own.starts_with(b"/lib") && before.is_empty());
        let elf = Elf::parse(&bytes).unwrap();
        let table = usize::try_from(elf.headers_at).unwrap();
        let at = (0..usize::from(elf.headers)).map(|number| table + 56 * number).find(|at| bytes[*at] == 3).unwrap();
        let set = |bytes: &mut Vec<u8>, field: usize, value: u64| {
            bytes[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
        };
        // What strip makes of an edited one.
        set(&mut bytes, 8, 0);
        set(&mut bytes, 32, 0);
        assert_eq!(said(&bytes), Ok((own.clone(), own.clone())));
        let end = bytes.len() as u64;
        bytes.extend(b"/view/ld.so\0\0\0");
        set(&mut bytes, 8, end);
        set(&mut bytes, 32, 14);
        assert_eq!(said(&bytes), Ok((b"/view/ld.so".to_vec(), own)));
        // Nothing is left to go by.
        set(&mut bytes, 16, u64::MAX);
        set(&mut bytes, 32, 0);
        assert_eq!(said(&bytes), Err(ENOEXEC));
    }

    #[test]
    fn libraries_that_are_named_by_whole_paths() {
        let mut bytes = fs::read("/bin/true").unwrap();
        let needs = |bytes: &Vec<u8>, named: &[u8]| {
            let elf = Elf::parse(bytes).expect("a program");
            needs_elsewhere(&elf, bytes, &mut [0; 4096], |name| name == named)
        };
        assert!(!needs(&bytes, b"/ibc.so.6"));
        let name = b"libc.so.6\0";
        let at = bytes.windows(name.len()).position(|window| window == name).expect("it needs the C library");
        bytes[at] = b'/';
        assert!(needs(&bytes, b"/ibc.so.6") && !needs(&bytes, b"/ibc.so.7"));
    }

    #[test]
    fn no_flip_is_a_panic() {
        let bytes = fs::read("/bin/true").unwrap();
        let elf = Elf::parse(&bytes).expect("a program");
        let mut room = [0; 8192];
        let table = usize::try_from(elf.headers_at).unwrap();
        for at in 0..table + elf.header_size() * usize::from(elf.headers) {
            for flip in [1, 0x80, 0xff] {
                let mut copy = bytes.clone();
                copy[at] ^= flip;
                if let Some(elf) = Elf::parse(&copy) {
                    let _ = linkage(&elf, &copy, &mut room);
                    let _ = needs_elsewhere(&elf, &copy, &mut room, |_| false);
                }
            }
        }
    }
}
