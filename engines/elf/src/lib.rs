//! ELF facts: what a loader must know of a program, from its first bytes.
//!
//! Written after elf(5) and the System V ABI's chapter on object files. `no_std`, no allocation, for 64-bit and 32-bit
//! little-endian programs of x86. The bytes are hostile: nothing is read without a check, and no arithmetic is done on
//! what was read; whoever maps a [`Segment`] checks its ends.
//!
//! It tells what programs are; it edits nothing and knows no engine.

#![no_std]

/// The header of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elf {
    /// Of 64-bit class.
    pub wide: bool,
    /// May be loaded at any address (`ET_DYN`).
    pub movable: bool,
    /// Where it starts, before moving.
    pub entry: u64,
    /// Offset of the program headers in the file.
    pub headers_at: u64,
    /// How many there are, at least one.
    pub headers: u16,
}

/// A program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`: read 4, write 2, execute 1.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Address, before moving.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Alignment in memory.
    pub align: u64,
}

impl Segment {
    /// `PT_LOAD`.
    pub const LOAD: u32 = 1;
    /// `PT_INTERP`.
    pub const INTERPRETER: u32 = 3;
    /// `PT_GNU_STACK`.
    pub const STACK: u32 = 0x6474_e551;
    /// `PT_PHDR`.
    pub const HEADERS: u32 = 6;
}

const EM_386: u64 = 3;
const EM_X86_64: u64 = 62;
const ET_EXEC: u64 = 2;
const ET_DYN: u64 = 3;

impl Elf {
    /// Reads the header of the file that starts with `head`; `None` for what is no little-endian x86 program or shared
    /// object, in the class of its machine, with program headers.
    #[must_use]
    pub fn parse(head: &[u8]) -> Option<Self> {
        let field = |at: usize, len: usize| number(head, at, len);
        if !head.starts_with(b"\x7fELF") || head.len() < 52 {
            return None;
        }
        let wide = head[4] == 2;
        if head[5] != 1 || !matches!((wide, field(18, 2)?), (true, EM_X86_64) | (false, EM_386)) {
            return None;
        }
        let movable = match field(16, 2)? {
            ET_EXEC => false,
            ET_DYN => true,
            _ => return None,
        };
        let (entry, headers_at, size, count) = if wide {
            (field(24, 8)?, field(32, 8)?, field(54, 2)?, field(56, 2)?)
        } else {
            (field(24, 4)?, field(28, 4)?, field(42, 2)?, field(44, 2)?)
        };
        let elf = Self { wide, movable, entry, headers_at, headers: u16::try_from(count).ok()? };
        (elf.headers > 0 && usize::try_from(size) == Ok(elf.header_size())).then_some(elf)
    }

    /// Size of one program header.
    #[must_use]
    pub fn header_size(&self) -> usize {
        if self.wide { 56 } else { 32 }
    }

    /// The program header in these bytes, which hold [`header_size`](Self::header_size) of them.
    #[must_use]
    pub fn segment(&self, bytes: &[u8]) -> Option<Segment> {
        let field = |at: usize, len: usize| number(bytes, at, len);
        let narrow = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok());
        Some(if self.wide {
            Segment {
                kind: narrow(field(0, 4))?,
                flags: narrow(field(4, 4))?,
                offset: field(8, 8)?,
                address: field(16, 8)?,
                file_size: field(32, 8)?,
                memory_size: field(40, 8)?,
                align: field(48, 8)?,
            }
        } else {
            Segment {
                kind: narrow(field(0, 4))?,
                flags: narrow(field(24, 4))?,
                offset: field(4, 4)?,
                address: field(8, 4)?,
                file_size: field(16, 4)?,
                memory_size: field(20, 4)?,
                align: field(28, 4)?,
            }
        })
    }
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..len].copy_from_slice(bytes.get(at..at + len)?);
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{fs, vec::Vec};

    use super::{Elf, Segment};

    #[test]
    fn a_dynamic_program_of_this_machine() {
        let bytes = fs::read("/bin/sh").unwrap();
        let elf = Elf::parse(&bytes).expect("a shell is a program");
        let table = &bytes[usize::try_from(elf.headers_at).unwrap()..];
        let segments: Vec<Segment> = table
            .chunks(elf.header_size())
            .take(elf.headers.into())
            .map(|header| elf.segment(header).expect("the table is whole"))
            .collect();
        let interpreter = segments.iter().find(|segment| segment.kind == Segment::INTERPRETER).expect("it is dynamic");
        assert!(bytes[usize::try_from(interpreter.offset).unwrap()..].starts_with(b"/lib"));
        let holds_entry = |segment: &Segment| {
            segment.kind == Segment::LOAD
                && (segment.address..segment.address + segment.memory_size).contains(&elf.entry)
        };
        assert!(segments.iter().any(holds_entry));
    }

    #[test]
    fn no_cut_and_no_flip_is_a_panic() {
        let bytes = fs::read("/bin/sh").unwrap();
        let head = &bytes[..256];
        for len in 0..head.len() {
            assert_eq!(Elf::parse(&head[..len]).is_some(), len >= 58, "{len}");
        }
        for at in 0..64 {
            for flip in [0x01, 0x80, 0xff] {
                let mut copy: Vec<u8> = head.to_vec();
                copy[at] ^= flip;
                if let Some(elf) = Elf::parse(&copy) {
                    assert!(elf.headers > 0);
                    let _ = elf.segment(&copy[64..]);
                }
            }
        }
    }
}
