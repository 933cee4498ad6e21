//! The tables of mounts in `/proc`, as the guest is to read them.
//!
//! They are as long as the host has mounts, so they are made in mappings of their own, which go when the file is made.

use core::{ffi::CStr, slice};

use coracle_intercept::mounts::{Mount, Seen, rooms, table};
use coracle_paths::View;
use coracle_sys::{
    self as sys, Fd,
    kernel::{MAP_ANONYMOUS, MAP_PRIVATE, O_CLOEXEC, O_RDONLY, PROT_READ, PROT_WRITE},
};

use crate::{
    files::{Held, Short},
    shown::{memory_file, put},
};

/// Bytes of a table at first.
const FIRST: usize = 1 << 16;

/// Memory that is given back.
struct Mapped {
    at: usize,
    len: usize,
}

impl Mapped {
    fn new(len: usize) -> Option<Self> {
        let len = len.max(1).next_multiple_of(4096);
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe { sys::map(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, None, 0) };
        Some(Self { at: at.ok()?, len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: our own mapping, borrowed with us; it was made of zeros.
        unsafe { slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(self.at), self.len) }
    }

    /// As many values as there are to be, all of them the same at first.
    fn filled<T: Copy>(&mut self, count: usize, with: T) -> &mut [T] {
        let first = core::ptr::with_exposed_provenance_mut::<T>(self.at);
        let count = count.min(self.len / size_of::<T>());
        for at in 0..count {
            // SAFETY: inside our own mapping, which is aligned to a page.
            unsafe { first.add(at).write(with) };
        }
        // SAFETY: they were written, and the mapping is borrowed with us.
        unsafe { slice::from_raw_parts_mut(first, count) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which nothing points any more; that it stays if the kernel refuses does no harm.
        let _ = unsafe { sys::unmap(self.at, self.len) };
    }
}

/// The file that shows `/proc/PID/mounts` or `mountinfo`.
pub(crate) fn make(view: &View<'_>, host: &CStr) -> Option<Held> {
    let host = host.to_bytes();
    let slash = host.iter().rposition(|byte| *byte == b'/')?;
    let long = &host[slash..] == b"/mountinfo";
    let (mut text, len) = read(Short::<64>::new().put(&host[..slash]).put(b"/mountinfo").as_c_str())?;
    let text = text.bytes().get(..len)?;
    let (hosts, seen) = rooms(view, text);
    let mut memory = (Mapped::new(hosts * size_of::<Mount<'_>>())?, Mapped::new(seen * size_of::<Seen<'_>>())?);
    let memory = (memory.0.filled(hosts, Mount::default()), memory.1.filled(seen, Seen::default()));
    let shown = memory_file()?;
    // Pieces are short; the kernel is asked for many at once.
    let (mut buffer, mut have) = ([0; 1024], 0);
    table(view, text, long, memory, |piece| {
        if have + piece.len() > buffer.len() {
            put(shown.0, &buffer[..have])?;
            have = 0;
        }
        match buffer.get_mut(have..have + piece.len()) {
            Some(room) => {
                room.copy_from_slice(piece);
                have += piece.len();
                Some(())
            }
            None => put(shown.0, piece),
        }
    })?;
    put(shown.0, &buffer[..have])?;
    Some(shown)
}

/// A whole file, and how long it is.
fn read(path: &CStr) -> Option<(Mapped, usize)> {
    let file = Held(sys::open(Fd::CWD, path, O_RDONLY | O_CLOEXEC, 0).ok()?);
    let (mut text, mut have) = (Mapped::new(FIRST)?, 0);
    loop {
        match sys::read(file.0, text.bytes().get_mut(have..)?).ok()? {
            0 => return Some((text, have)),
            more => have += more,
        }
        if have == text.len {
            let mut longer = Mapped::new(2 * text.len)?;
            longer.bytes().get_mut(..have)?.copy_from_slice(text.bytes());
            text = longer;
        }
    }
}
