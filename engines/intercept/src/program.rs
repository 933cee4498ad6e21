//! What kind of program a file is, from its first bytes: as the kernel judges in execve(2).

use coracle_elf::Elf;

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

/// Judges a file by its head (as much as there is, up to [`HEAD`]).
///
/// # Errors
/// `ENOEXEC`.
pub fn judge(head: &[u8]) -> Result<Kind<'_>, Errno> {
    if let Some(line) = head.strip_prefix(b"#!") {
        return judge_script(&line[..line.len().min(LINE - 2)], head.len() >= LINE);
    }
    Elf::parse(head).map(Kind::Elf).ok_or(ENOEXEC)
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
