//! What kind of program a file is, from its first bytes: as the kernel judges in execve(2).

use crate::{Errno, errno::ENOEXEC};

/// How much of a file's beginning is needed to judge it.
pub const HEAD: usize = 2048;

/// The kernel looks at this much of a script's first line.
const LINE: usize = 256;

/// Scripts that run scripts: the kernel stops after five.
pub const MAX_SCRIPTS: usize = 5;

/// A file that can be executed.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'h> {
    /// `#!`: another program is to run it.
    Script {
        /// Guest path of the interpreter.
        interpreter: &'h [u8],
        /// The rest of the line, one argument.
        argument: Option<&'h [u8]>,
    },
    /// A program of one of the kernel's formats.
    Elf(Elf),
}

/// The header of an ELF file.
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
    /// How many there are.
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
    /// `PT_PHDR`.
    pub const HEADERS: u32 = 6;
}

/// Judges a file by its head (as much as there is, up to [`HEAD`]).
///
/// # Errors
/// `ENOEXEC`.
pub fn judge(head: &[u8]) -> Result<Kind<'_>, Errno> {
    if let Some(line) = head.strip_prefix(b"#!") {
        return judge_script(&line[..line.len().min(LINE - 2)], head.len() >= LINE);
    }
    let field = |at: usize, len: usize| number(head, at, len);
    if !head.starts_with(b"\x7fELF") || head.len() < 52 {
        return Err(ENOEXEC);
    }
    let (wide, machine) = (head[4] == 2, field(18, 2).ok_or(ENOEXEC)?);
    // EM_386 and EM_X86_64, in their own class.
    if head[5] != 1 || !matches!((wide, machine), (true, 62) | (false, 3)) {
        return Err(ENOEXEC);
    }
    let movable = match field(16, 2) {
        Some(2) => false,
        Some(3) => true,
        _ => return Err(ENOEXEC),
    };
    let (entry, headers_at, size, count) = if wide {
        (field(24, 8), field(32, 8), field(54, 2), field(56, 2))
    } else {
        (field(24, 4), field(28, 4), field(42, 2), field(44, 2))
    };
    if size != Some(Elf::header_size_of(wide)) {
        return Err(ENOEXEC);
    }
    let headers = count.and_then(|count| u16::try_from(count).ok()).filter(|count| *count > 0).ok_or(ENOEXEC)?;
    Ok(Kind::Elf(Elf { wide, movable, entry: entry.ok_or(ENOEXEC)?, headers_at: headers_at.ok_or(ENOEXEC)?, headers }))
}

fn judge_script(line: &[u8], cut: bool) -> Result<Kind<'_>, Errno> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let end = line.iter().position(|byte| *byte == b'\n');
    let text = &line[..end.unwrap_or(line.len())];
    let text = &text[text.iter().take_while(|byte| blank(byte)).count()..];
    let text = &text[..text.len() - text.iter().rev().take_while(|byte| blank(byte)).count()];
    let len = text.iter().position(|byte| blank(byte) || *byte == 0).unwrap_or(text.len());
    let interpreter = &text[..len];
    // A name that does not end within what the kernel looks at might be cut.
    if interpreter.is_empty() || (end.is_none() && cut && len == text.len()) {
        return Err(ENOEXEC);
    }
    let rest = &text[len..];
    let rest = &rest[..rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len())];
    let rest = &rest[rest.iter().take_while(|byte| blank(byte)).count()..];
    Ok(Kind::Script { interpreter, argument: (!rest.is_empty()).then_some(rest) })
}

impl Elf {
    /// Size of one program header.
    #[must_use]
    pub fn header_size(&self) -> usize {
        if self.wide { 56 } else { 32 }
    }

    const fn header_size_of(wide: bool) -> u64 {
        if wide { 56 } else { 32 }
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
    use super::{Kind, judge};

    fn script(head: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
        match judge(head) {
            Ok(Kind::Script { interpreter, argument }) => Some((interpreter, argument)),
            _ => None,
        }
    }

    #[test]
    fn first_lines_of_scripts() {
        assert_eq!(script(b"#!/bin/sh\necho"), Some((&b"/bin/sh"[..], None)));
        assert_eq!(script(b"#! /usr/bin/env  python3 -u \n"), Some((&b"/usr/bin/env"[..], Some(&b"python3 -u"[..]))));
        assert_eq!(script(b"#!/bin/sh"), Some((&b"/bin/sh"[..], None)));
        assert_eq!(script(b"#!  \n"), None);
        assert_eq!(script(b"#!"), None);
        let mut long = [b'a'; 300];
        long[..3].copy_from_slice(b"#!/");
        assert_eq!(script(&long), None, "a name that may be cut");
    }

    #[test]
    fn neither_script_nor_program() {
        assert!(judge(b"").is_err());
        assert!(judge(b"echo hello\n").is_err());
        assert!(judge(b"\x7fELF").is_err());
    }
}
