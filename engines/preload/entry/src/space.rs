//! Memory that the caller lends for a call's arguments: lists of pointers, and the strings that are new.

use core::{
    ffi::{CStr, c_char},
    ptr,
};

use crate::Command;

/// There is no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Room for pointers and text.
#[derive(Debug)]
pub struct Space<'m> {
    pointers: &'m mut [*const c_char],
    text: &'m mut [u8],
    /// Pointers used.
    pointed: usize,
    /// Where the list that is being made begins.
    list: usize,
    /// Bytes of text used.
    written: usize,
}

impl<'m> Space<'m> {
    /// Room in lent memory.
    #[must_use]
    pub fn new(pointers: &'m mut [*const c_char], text: &'m mut [u8]) -> Self {
        Self { pointers, text, pointed: 0, list: 0, written: 0 }
    }

    pub(crate) fn point(&mut self, string: &CStr) -> Result<(), Full> {
        self.push(string.as_ptr())
    }

    fn push(&mut self, pointer: *const c_char) -> Result<(), Full> {
        *self.pointers.get_mut(self.pointed).ok_or(Full)? = pointer;
        self.pointed += 1;
        Ok(())
    }

    /// Ends the list that is being made: where it begins and ends, with its null pointer.
    pub(crate) fn close(&mut self) -> Result<(usize, usize), Full> {
        self.push(ptr::null())?;
        let list = (self.list, self.pointed);
        self.list = self.pointed;
        Ok(list)
    }

    /// A new string, to be pointed to by the list.
    pub(crate) fn line<'s>(&'s mut self) -> Line<'s, 'm> {
        let start = self.written;
        Line { space: self, start, empty: true }
    }

    pub(crate) fn command(&self, path: &CStr, argv: (usize, usize), envp: (usize, usize)) -> Command<'_> {
        Command { path: path.as_ptr(), argv: &self.pointers[argv.0..argv.1], envp: &self.pointers[envp.0..envp.1] }
    }
}

/// A string that is being written.
#[derive(Debug)]
pub(crate) struct Line<'s, 'm> {
    space: &'s mut Space<'m>,
    start: usize,
    empty: bool,
}

impl Line<'_, '_> {
    /// Appends bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let at = self.space.written;
        let end = at.checked_add(bytes.len()).ok_or(Full)?;
        self.space.text.get_mut(at..end).ok_or(Full)?.copy_from_slice(bytes);
        self.space.written = end;
        self.empty &= bytes.is_empty() || bytes.ends_with(b"=");
        Ok(())
    }

    /// Appends one more of a list's items, behind a colon if it is not the first.
    pub(crate) fn item(&mut self, item: &[u8]) -> Result<(), Full> {
        self.item_of(item, b"")
    }

    /// An item of two parts.
    pub(crate) fn item_of(&mut self, item: &[u8], rest: &[u8]) -> Result<(), Full> {
        if !self.empty {
            self.put(b":")?;
        }
        self.put(item)?;
        self.put(rest)
    }

    /// Ends the string and points to it.
    pub(crate) fn end(mut self) -> Result<(), Full> {
        self.put(b"\0")?;
        let pointer = self.space.text[self.start..].as_ptr().cast();
        self.space.push(pointer)
    }
}
