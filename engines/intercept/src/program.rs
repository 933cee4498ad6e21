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
    if head.starts_with(b"#!") {
        return judge_script(&head[..head.len().min(LINE)]);
    }
    Elf::parse(head).map(Kind::Elf).ok_or(ENOEXEC)
}

/// The kernel reads into a buffer full of zeroes, so a file that ends early goes on with NULs, which end words but are no
/// blanks: what is left of a line without a newline is a word, if an empty one.
fn judge_script(start: &[u8]) -> Result<Kind<'_>, Errno> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let skip = |text: &[u8]| text.iter().take_while(|byte| blank(byte)).count();
    let ends_word = |byte: &u8| blank(byte) || *byte == 0;
    let ends_early = start.len() < LINE;
    let (text, nuls_follow) = match start.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let text = &start[2..end];
            (&text[..text.len() - text.iter().rev().take_while(|byte| blank(byte)).count()], false)
        }
        None if ends_early => (&start[2..], true),
        None => {
            let text = &start[2..LINE - 1];
            // A name that does not end within what the kernel looks at might be cut.
            if !text[skip(text)..].iter().any(ends_word) {
                return Err(ENOEXEC);
            }
            (text, false)
        }
    };
    let text = &text[skip(text)..];
    if text.is_empty() && !nuls_follow {
        return Err(ENOEXEC);
    }
    let len = text.iter().position(ends_word).unwrap_or(text.len());
    let (interpreter, rest) = text.split_at(len);
    let argument = rest.first().is_some_and(blank).then(|| &rest[skip(rest)..]);
    let argument = argument.filter(|argument| !argument.is_empty() || nuls_follow);
    let argument =
        argument.map(|argument| &argument[..argument.iter().position(|byte| *byte == 0).unwrap_or(argument.len())]);
    Ok(Kind::Script { interpreter, argument })
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
        assert_eq!(script(b"#!\n"), None);
        assert_eq!(script(b"#!"), Some((&b""[..], None)), "which no file has");
        assert_eq!(script(b"#!/bin/sh -e"), Some((&b"/bin/sh"[..], Some(&b"-e"[..]))));
        assert_eq!(script(b"#!/bin/sh "), Some((&b"/bin/sh"[..], Some(&b""[..]))));
        assert_eq!(script(b"#!/bin/sh \n"), Some((&b"/bin/sh"[..], None)));
        assert_eq!(script(b"#!/bin/sh a\0b\n"), Some((&b"/bin/sh"[..], Some(&b"a"[..]))));
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
