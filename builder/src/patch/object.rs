//! An ELF object as far as its edits need it: 64 bits, little-endian, for the machine of its image.
//!
//! Everything in it is hostile. What does not hold together is [`Odd`], which says why the file is left alone.

use std::io;

use goblin::{
    container::{Container, Ctx, Endian},
    elf::{
        Elf,
        dynamic::{DT_NULL, DT_STRSZ, DT_STRTAB},
        header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_DYN, ET_EXEC, Header, SELFMAG},
        program_header::{PF_W, PT_DYNAMIC, PT_INTERP, PT_LOAD, ProgramHeader},
        section_header::{SHT_NOBITS, SHT_NULL, SHT_STRTAB},
    },
};

use super::bytes::{Bytes, number};

/// Size of the parts of a 64-bit object (System V ABI, chapter 4).
pub(super) const HEADER: u64 = 64;
const SEGMENT: u64 = 56;
const SECTION: u64 = 64;

/// Bytes of section headers that are read: 16,384 sections.
const MOST_SECTIONS: u64 = 1 << 20;

/// The smallest page of the machines that are edited for.
const PAGE: u64 = 4096;

/// Why a file is left alone, in words that follow its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Odd(pub(super) &'static str);

/// What came of reading a file.
pub(super) enum Read {
    /// No ELF file, or one of a kind that nobody executes or loads (core, relocatable).
    None,
    /// Of another class, byte order or machine, or it contradicts itself.
    Odd(Odd),
    Object(Box<Object>),
}

/// An object that can be executed or loaded.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) header: Header,
    pub(super) segments: Vec<ProgramHeader>,
    /// The dynamic section, without its end; empty if there is none.
    pub(super) dynamic: Vec<Dynamic>,
    /// Sections of strings that are loaded: their address, their offset, and where their header lies in the file.
    strings: Vec<(u64, u64, u64)>,
    /// Runs of the file that sections and tables take: start and end.
    taken: Vec<(u64, u64)>,
    /// The first byte that neither a segment, a section nor a table takes.
    pub(super) end: u64,
}

/// An entry of the dynamic section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dynamic {
    pub(super) tag: u64,
    pub(super) value: u64,
    /// Where the entry lies in the file.
    pub(super) at: u64,
}

/// Room behind a read-only segment, in its last page, which is mapped with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Number of the segment.
    pub(super) segment: usize,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) len: u64,
}

impl Object {
    /// Reads the object in a file; `machine` is the image's (`e_machine`).
    pub(super) fn read(file: Bytes<'_>, machine: u16) -> io::Result<Read> {
        let Some(ident) = file.get(0, HEADER)? else { return Ok(Read::None) };
        if &ident[..SELFMAG] != ELFMAG {
            return Ok(Read::None);
        }
        let odd = |why| Ok(Read::Odd(Odd(why)));
        if ident[EI_CLASS] != ELFCLASS64 || ident[EI_DATA] != ELFDATA2LSB {
            return odd("it is for another machine");
        }
        let Ok(header) = Elf::parse_header(&ident) else { return odd("its header makes no sense") };
        if !matches!(header.e_type, ET_EXEC | ET_DYN) {
            return Ok(Read::None);
        }
        if header.e_machine != machine {
            return odd("it is for another machine");
        }
        if u64::from(header.e_phentsize) != SEGMENT || header.e_phnum == u16::MAX {
            return odd("its program headers have another size than the ABI's");
        }
        let table = (header.e_phoff, SEGMENT * u64::from(header.e_phnum));
        if table.0 < HEADER {
            return odd("its headers overlap");
        }
        let Some(bytes) = file.get(table.0, table.1)? else { return odd("its program headers lie outside of it") };
        let context = Ctx::new(Container::Big, Endian::Little);
        let Ok(segments) = ProgramHeader::parse(&bytes, 0, usize::from(header.e_phnum), context) else {
            return odd("its program headers make no sense");
        };
        if segments
            .iter()
            .any(|s| s.p_filesz > 0 && s.p_offset.checked_add(s.p_filesz).is_none_or(|end| end > file.size))
        {
            return odd("a segment lies outside of it");
        }
        let mut object = Self { header, segments, dynamic: Vec::new(), strings: Vec::new(), taken: Vec::new(), end: 0 };
        object.taken.extend([(0, HEADER), (table.0, table.0 + table.1)]);
        if let Err(why) = object.read_sections(file)? {
            return Ok(Read::Odd(why));
        }
        object.taken.extend(object.segments.iter().map(|s| (s.p_offset, s.p_offset.saturating_add(s.p_filesz))));
        object.end = object.taken.iter().map(|run| run.1).max().unwrap_or_default();
        Ok(match object.read_dynamic(file)? {
            Ok(()) => Read::Object(Box::new(object)),
            Err(why) => Read::Odd(why),
        })
    }

    fn read_sections(&mut self, file: Bytes<'_>) -> io::Result<Result<(), Odd>> {
        let (at, count) = (self.header.e_shoff, u64::from(self.header.e_shnum));
        if at == 0 || count == 0 {
            return Ok(Ok(()));
        }
        if u64::from(self.header.e_shentsize) != SECTION {
            return Ok(Err(Odd("its section headers have another size than the ABI's")));
        }
        let len = SECTION * count;
        let Some(table) = file.get_most(at, len, MOST_SECTIONS)? else {
            return Ok(Err(Odd("its section headers lie outside of it")));
        };
        self.taken.push((at, at + len));
        for (section, header) in table.chunks_exact(64).zip((at..).step_by(64)) {
            let field = |at, len| number(section, at, len).unwrap_or_default();
            let (kind, offset, len) = (field(4, 4), field(24, 8), field(32, 8));
            if kind == u64::from(SHT_NULL) || kind == u64::from(SHT_NOBITS) {
                continue;
            }
            let Some(end) = offset.checked_add(len).filter(|end| *end <= file.size) else {
                return Ok(Err(Odd("a section lies outside of it")));
            };
            self.taken.push((offset, end));
            if kind == u64::from(SHT_STRTAB) && field(16, 8) > 0 {
                self.strings.push((field(16, 8), offset, header));
            }
        }
        Ok(Ok(()))
    }

    fn read_dynamic(&mut self, file: Bytes<'_>) -> io::Result<Result<(), Odd>> {
        let mut found = self.segments.iter().filter(|segment| segment.p_type == PT_DYNAMIC);
        let Some(segment) = found.next() else { return Ok(Ok(())) };
        if found.next().is_some() {
            return Ok(Err(Odd("it has two dynamic sections")));
        }
        // A debugger's half of a program has the headers of the whole.
        if self.offset_of(segment.p_vaddr) != Some(segment.p_offset) {
            return Ok(Err(Odd("its dynamic section is not where its segments say")));
        }
        let Some(bytes) = file.get(segment.p_offset, segment.p_filesz)? else {
            return Ok(Err(Odd("its dynamic section is absurdly long")));
        };
        let mut at = segment.p_offset;
        for entry in bytes.chunks_exact(16) {
            let (tag, value) = (number(entry, 0, 8).unwrap_or_default(), number(entry, 8, 8).unwrap_or_default());
            if tag == DT_NULL {
                break;
            }
            self.dynamic.push(Dynamic { tag, value, at });
            at += 16;
        }
        Ok(Ok(()))
    }

    /// The only value of a dynamic entry.
    pub(super) fn value(&self, tag: u64) -> Option<u64> {
        self.dynamic.iter().find(|entry| entry.tag == tag).map(|entry| entry.value)
    }

    /// Where the byte at an address is in the file.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        self.loaded().find_map(|(_, segment)| {
            let within = address.checked_sub(segment.p_vaddr)?;
            (within < segment.p_filesz).then(|| segment.p_offset.checked_add(within))?
        })
    }

    fn loaded(&self) -> impl Iterator<Item = (usize, &ProgramHeader)> {
        self.segments.iter().enumerate().filter(|(_, segment)| segment.p_type == PT_LOAD)
    }

    /// Number and header of the interpreter's segment.
    pub(super) fn interpreter(&self) -> Result<Option<(usize, &ProgramHeader)>, Odd> {
        let mut found = self.segments.iter().enumerate().filter(|(_, segment)| segment.p_type == PT_INTERP);
        let first = found.next();
        if found.next().is_some() { Err(Odd("it names two loaders")) } else { Ok(first) }
    }

    /// Where a program header lies in the file.
    pub(super) fn segment_at(&self, number: usize) -> u64 {
        self.header.e_phoff + SEGMENT * number as u64
    }

    /// The string of the dynamic string table that an entry's value leads to.
    pub(super) fn string(&self, file: Bytes<'_>, value: u64) -> io::Result<Option<Vec<u8>>> {
        let (Some(table), Some(len)) = (self.value(DT_STRTAB), self.value(DT_STRSZ)) else { return Ok(None) };
        let at = table.checked_add(value).filter(|_| value < len).and_then(|address| self.offset_of(address));
        at.map_or(Ok(None), |at| file.string(at))
    }

    /// Rooms at higher addresses than `above`, behind segments that nobody writes to.
    ///
    /// A segment is mapped in whole pages, so what the file has behind its end up to the page's end is mapped too. It is
    /// room if that is nothing but zeros, which no section, table or other segment claims, in the file and in memory.
    pub(super) fn rooms(&self, file: Bytes<'_>, above: u64) -> io::Result<Vec<Room>> {
        let mut rooms = Vec::new();
        for (number, segment) in self.loaded() {
            let (Some(address), Some(offset)) =
                (segment.p_vaddr.checked_add(segment.p_filesz), segment.p_offset.checked_add(segment.p_filesz))
            else {
                continue;
            };
            // The last page of all is none that a program has.
            let Some(page) = address.checked_next_multiple_of(PAGE) else { continue };
            let len = page - address;
            let congruent = segment.p_offset % PAGE == segment.p_vaddr % PAGE;
            let written = segment.p_flags & PF_W != 0 || segment.p_filesz != segment.p_memsz;
            let clash = |other: &ProgramHeader| {
                let start = other.p_vaddr - other.p_vaddr % PAGE;
                start < page && other.p_vaddr.saturating_add(other.p_memsz) > address
            };
            if len == 0 || !congruent || written || address < above || segment.p_filesz == 0 {
                continue;
            }
            if self.loaded().any(|(other, header)| other != number && clash(header)) {
                continue;
            }
            let mine = |run: &&(u64, u64)| run.1 > offset && run.0 < offset + len;
            let end = self.taken.iter().filter(mine).map(|run| run.0).min().unwrap_or(offset + len);
            let Some(len) = end.min(file.size).checked_sub(offset) else { continue };
            let Some(bytes) = file.get(offset, len)? else { continue };
            let len = bytes.iter().take_while(|byte| **byte == 0).count() as u64;
            rooms.push(Room { segment: number, offset, address, len });
        }
        Ok(rooms)
    }

    /// Offset of the section that has the string table at `address`, and where its length is kept: linkers read the strings
    /// by that, loaders do not look at it.
    pub(super) fn string_section(&self, address: u64) -> Option<(u64, u64)> {
        self.strings.iter().find(|section| section.0 == address).map(|section| (section.1, section.2 + 32))
    }

    /// Segments that are loaded and not written to, as runs of the file.
    pub(super) fn read_only(&self) -> impl Iterator<Item = (u64, u64)> {
        let constant = |segment: &&ProgramHeader| segment.p_flags & PF_W == 0;
        self.loaded().map(|(_, segment)| segment).filter(constant).map(|segment| (segment.p_offset, segment.p_filesz))
    }
}
