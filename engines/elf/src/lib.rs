//! ELF facts: what a loader must know of a program, from its first bytes.
//!
//! Written after elf(5) and the System V ABI's object file chapter. `no_std`, no allocation, for 64-bit and 32-bit
//! little-endian files. The bytes are hostile: nothing is read without a check, no arithmetic wraps, and an [`Elf`] is
//! only made of a file whose header and program headers are inside the bytes given.
//!
//! It tells what programs are; it edits nothing and knows no engine.

#![no_std]

/// How many of a file's first bytes hold the header and program headers of any program a distribution ships.
pub const ENOUGH: usize = 4096;

/// Why bytes are no program that could be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfError {
    /// It does not begin with the ELF mark.
    NotElf,
    /// Big-endian, of unknown class, or not an executable or shared object.
    Unsupported,
    /// The header or the program headers lie outside the bytes, or contradict themselves.
    Malformed,
}

/// Word size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 32-bit.
    Elf32,
    /// 64-bit.
    Elf64,
}

/// `e_machine` of x86_64.
pub const EM_X86_64: u16 = 62;
/// `e_machine` of 32-bit x86.
pub const EM_386: u16 = 3;
/// `e_machine` of aarch64.
pub const EM_AARCH64: u16 = 183;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

/// `p_type` of a segment to map.
pub const PT_LOAD: u32 = 1;
/// `p_type` of the dynamic section.
pub const PT_DYNAMIC: u32 = 2;
/// `p_type` of the interpreter's path.
pub const PT_INTERP: u32 = 3;
/// `p_type` of the program headers themselves.
pub const PT_PHDR: u32 = 6;
/// `p_type` that says whether the stack is executable.
pub const PT_GNU_STACK: u32 = 0x6474_e551;

/// `p_flags`: executable.
pub const PF_X: u32 = 1;
/// `p_flags`: writable.
pub const PF_W: u32 = 2;
/// `p_flags`: readable.
pub const PF_R: u32 = 4;

/// A program's header, checked against the bytes it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    /// Word size.
    pub class: Class,
    /// `e_machine`, such as [`EM_X86_64`].
    pub machine: u16,
    /// Whether it may be loaded anywhere (`ET_DYN`: PIE programs, loaders, libraries).
    pub position_independent: bool,
    /// `e_entry`: first instruction, as a virtual address of the file.
    pub entry: u64,
    /// `e_phoff`: where the program headers are in the file.
    pub headers_offset: u64,
    /// `e_phentsize`.
    pub header_size: u16,
    /// `e_phnum`.
    pub header_count: u16,
}

/// One program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// `p_type`, such as [`PT_LOAD`].
    pub kind: u32,
    /// `p_flags`: [`PF_R`] and so on.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Virtual address.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory, at least `file_size`.
    pub memory_size: u64,
    /// Alignment; 0 or a power of two.
    pub align: u64,
}

impl<'a> Elf<'a> {
    /// Reads the header of the file that starts with `bytes` ([`ENOUGH`] of them, or all).
    ///
    /// # Errors
    /// [`ElfError`] for everything that is no little-endian program or shared object with its program headers in `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        let class = match bytes.get(4..6) {
            Some([1, 1]) => Class::Elf32,
            Some([2, 1]) => Class::Elf64,
            _ => return Err(ElfError::Unsupported),
        };
        let elf = match class {
            Class::Elf64 => Self {
                bytes,
                class,
                machine: u16_at(bytes, 18)?,
                position_independent: position_independent(u16_at(bytes, 16)?)?,
                entry: u64_at(bytes, 24)?,
                headers_offset: u64_at(bytes, 32)?,
                header_size: u16_at(bytes, 54)?,
                header_count: u16_at(bytes, 56)?,
            },
            Class::Elf32 => Self {
                bytes,
                class,
                machine: u16_at(bytes, 18)?,
                position_independent: position_independent(u16_at(bytes, 16)?)?,
                entry: u32_at(bytes, 24)?.into(),
                headers_offset: u32_at(bytes, 28)?.into(),
                header_size: u16_at(bytes, 42)?,
                header_count: u16_at(bytes, 44)?,
            },
        };
        let least = if class == Class::Elf64 { 56 } else { 32 };
        let table = u64::from(elf.header_size) * u64::from(elf.header_count);
        let end = elf.headers_offset.checked_add(table).ok_or(ElfError::Malformed)?;
        if elf.header_size < least || end > bytes.len() as u64 {
            return Err(ElfError::Malformed);
        }
        Ok(elf)
    }

    /// The program headers, in file order.
    ///
    /// Each is checked on its own: one whose memory is smaller than its file part, or whose ends wrap, comes as an error.
    pub fn segments(&self) -> impl Iterator<Item = Result<Segment, ElfError>> + 'a {
        let elf = *self;
        (0..u64::from(elf.header_count)).map(move |number| elf.segment(number))
    }

    /// The first segment of a kind.
    ///
    /// # Errors
    /// [`ElfError::Malformed`] if a header before it is.
    pub fn find(&self, kind: u32) -> Result<Option<Segment>, ElfError> {
        for segment in self.segments() {
            let segment = segment?;
            if segment.kind == kind {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// The lowest page and the end of the highest page that its `PT_LOAD` segments cover, as virtual addresses of the file.
    ///
    /// # Errors
    /// [`ElfError::Malformed`] without any, or if a header is.
    pub fn span(&self, page: u64) -> Result<(u64, u64), ElfError> {
        let (mut low, mut high) = (u64::MAX, 0);
        for segment in self.segments() {
            let segment = segment?;
            if segment.kind == PT_LOAD {
                low = low.min(segment.address & !(page - 1));
                let end = segment.address + segment.memory_size;
                high = high.max(end.checked_next_multiple_of(page).ok_or(ElfError::Malformed)?);
            }
        }
        if low < high { Ok((low, high)) } else { Err(ElfError::Malformed) }
    }

    fn segment(&self, number: u64) -> Result<Segment, ElfError> {
        let at = usize::try_from(self.headers_offset + number * u64::from(self.header_size))
            .map_err(|_| ElfError::Malformed)?;
        let header = self.bytes.get(at..).ok_or(ElfError::Malformed)?;
        let word = |offset| u32_at(header, offset).map(u64::from);
        let segment = match self.class {
            Class::Elf64 => Segment {
                kind: u32_at(header, 0)?,
                flags: u32_at(header, 4)?,
                offset: u64_at(header, 8)?,
                address: u64_at(header, 16)?,
                file_size: u64_at(header, 32)?,
                memory_size: u64_at(header, 40)?,
                align: u64_at(header, 48)?,
            },
            Class::Elf32 => Segment {
                kind: u32_at(header, 0)?,
                flags: u32_at(header, 24)?,
                offset: word(4)?,
                address: word(8)?,
                file_size: word(16)?,
                memory_size: word(20)?,
                align: word(28)?,
            },
        };
        let sound = segment.offset.checked_add(segment.file_size).is_some()
            && segment.address.checked_add(segment.memory_size).is_some()
            && (segment.kind != PT_LOAD || segment.memory_size >= segment.file_size);
        if sound { Ok(segment) } else { Err(ElfError::Malformed) }
    }
}

fn position_independent(kind: u16) -> Result<bool, ElfError> {
    match kind {
        ET_EXEC => Ok(false),
        ET_DYN => Ok(true),
        _ => Err(ElfError::Unsupported),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ElfError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(ElfError::Malformed)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, ElfError> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ElfError> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, ElfError> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{fs, vec::Vec};

    use super::*;

    #[test]
    fn a_dynamic_program_of_this_machine() {
        let bytes = fs::read("/bin/sh").unwrap();
        let elf = Elf::parse(&bytes[..ENOUGH]).unwrap();
        let interp = elf.find(PT_INTERP).unwrap().expect("a shell is dynamic");
        let at = usize::try_from(interp.offset).unwrap();
        assert!(bytes[at..].starts_with(b"/lib"));
        let (low, high) = elf.span(4096).unwrap();
        assert!(low == 0 && elf.entry < high);
    }

    #[test]
    fn no_cut_and_no_flip_is_a_panic() {
        let bytes = fs::read("/bin/sh").unwrap();
        let head = &bytes[..ENOUGH];
        for len in 0..ENOUGH {
            look_at(&head[..len]);
        }
        for at in 0..1024 {
            for flip in [0x01, 0x80, 0xff] {
                let mut copy: Vec<u8> = head.to_vec();
                copy[at] ^= flip;
                look_at(&copy);
            }
        }
    }

    /// Asks everything; that it returns is what is tested.
    fn look_at(bytes: &[u8]) {
        if let Ok(elf) = Elf::parse(bytes) {
            let _ = (elf.find(PT_INTERP), elf.span(4096), elf.segments().count());
        }
    }
}
