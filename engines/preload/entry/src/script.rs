//! Scripts: what takes the place of a first argument when interpreters run them.

use core::ffi::CStr;

use coracle_paths::{Errno, PATH_MAX};

/// Argument list too long.
const E2BIG: Errno = Errno(7);

/// Room for the lines of as many scripts as the kernel follows, and the path of the first.
const ROOM: usize = PATH_MAX + 5 * 258;

/// The arguments that `#!` lines put in front: each interpreter, its argument, and last the path of the script that the
/// guest executed. They take the place of the guest's first argument.
#[derive(Debug)]
#[repr(C)]
pub struct Scripts {
    text: [u8; ROOM],
    len: usize,
}

impl Scripts {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { text: [0; ROOM], len: 0 }
    }

    /// None again. What was there stays, and means nothing: who works in memory that nobody has touched leaves it so.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Whether the program is no script.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more line was found: of the script that the guest calls `given`, or of the interpreter of the line before.
    ///
    /// # Errors
    /// `E2BIG`, which no line and path that the kernel takes can cause.
    pub fn push(&mut self, interpreter: &[u8], argument: Option<&[u8]>, given: &[u8]) -> Result<(), Errno> {
        if self.is_empty() {
            self.insert(given)?;
        }
        if let Some(argument) = argument {
            self.insert(argument)?;
        }
        self.insert(interpreter)
    }

    fn insert(&mut self, string: &[u8]) -> Result<(), Errno> {
        let more = string.len() + 1;
        if more > ROOM - self.len {
            return Err(E2BIG);
        }
        self.text.copy_within(..self.len, more);
        self.text[..string.len()].copy_from_slice(string);
        self.text[string.len()] = 0;
        self.len += more;
        Ok(())
    }

    /// The arguments in order; put those of the guest's behind them, without its first.
    pub fn arguments(&self) -> impl Iterator<Item = &CStr> {
        self.text[..self.len]
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|string| CStr::from_bytes_with_nul(string).ok())
    }
}

impl Default for Scripts {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::Scripts;

    #[test]
    fn a_script_of_a_script() {
        let mut scripts = Scripts::new();
        assert!(scripts.is_empty());
        scripts.push(b"/bin/one", Some(b"-x y"), b"./script").expect("room");
        scripts.push(b"/bin/sh", None, b"./script").expect("room");
        let arguments: Vec<_> = scripts.arguments().collect();
        assert_eq!(arguments, [c"/bin/sh", c"/bin/one", c"-x y", c"./script"]);
        assert!(scripts.push(&[b'x'; 9000], None, b"").is_err());
    }
}
