//! Copy-on-write inside the guest's own process: it breaks a link itself before its call would change a shared file.
//!
//! What is to be done when is `coracle-intercept`'s matter; here is how. A copy is made beside, with nothing locked,
//! and takes the name in a [`Turn`], if the name still means the shared file then: so of many processes and threads
//! that do it at once one wins, and the others find it done. Calls that take a name away or give it to another file
//! wait for a turn, too. The layout, and the lock, are those of `coracle-view`: a tracer may work on the same view at
//! the same time.
//!
//! Rules: no allocation but one mapping for the time of a copy; all signals are blocked, so no handler of the guest's meets
//! a lock that its own thread holds; a lock that somebody keeps too long (stopped in its few microseconds) is gone
//! without, since locks save work and the look at the name decides.

mod copy;
mod turn;
mod unshare;

use core::{
    ffi::CStr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use coracle_entry::{Run, Text};
use coracle_intercept::{Errno, FileId, Marks, errno::EROFS};
use coracle_sys::kernel::{__NR_rename, __NR_renameat, __NR_renameat2, __NR_unlink, __NR_unlinkat};

use crate::{
    files::{self, link_of},
    start,
};

/// The view that a run's tree is.
#[derive(Debug)]
pub(crate) struct View {
    marks: Marks<'static>,
    lock: &'static CStr,
    temporary: &'static CStr,
    copies: &'static CStr,
    /// Where those are mapped; 0: not yet.
    mapped: AtomicUsize,
}

/// They cannot be.
const NOWHERE: usize = usize::MAX;

impl View {
    /// The view that a run's description tells of.
    pub(crate) fn new(run: &Run<'static>, marks: Marks<'static>) -> Self {
        Self {
            marks,
            lock: run.c_text(Text::Lock),
            temporary: run.c_text(Text::Temporary),
            copies: run.c_text(Text::Copies),
            mapped: AtomicUsize::new(0),
        }
    }

    /// Keeps names as they are while a call is made that changes some; none if this is no such call.
    pub(crate) fn turn(&self, number: u64) -> Option<turn::Turn> {
        const NUMBERS: [u32; 5] = [__NR_rename, __NR_renameat, __NR_renameat2, __NR_unlink, __NR_unlinkat];
        NUMBERS.iter().any(|changes| u64::from(*changes) == number).then(|| turn::Turn::wait(self.lock))
    }

    /// See [`coracle_intercept::Guest::unshare`].
    pub(crate) fn unshare(&self, host: &CStr, shared: &FileId, mode: u32) -> Result<Option<FileId>, Errno> {
        let new = unshare::unshare(self, host, shared, mode)?;
        if let (Some(new), Some(copy)) = (&new, self.copy_of(shared)) {
            copy.store(new.inode, Ordering::Relaxed);
        }
        Ok(new)
    }

    /// See [`coracle_intercept::Guest::successor`].
    pub(crate) fn successor(&self, shared: &FileId) -> Option<u64> {
        self.copy_of(shared).map(|copy| copy.load(Ordering::Relaxed)).filter(|inode| *inode != 0)
    }

    /// chmod(2), but never of a shared file that got the name since somebody looked: `EROFS`.
    pub(crate) fn set_mode(&self, host: &CStr, mode: u32) -> Result<(), Errno> {
        let file = files::open_place(host, 0)?;
        let link = link_of(Some(file.0.0));
        if self.marks.find(&files::file(link.as_c_str(), true)?.id).is_some() {
            return Err(EROFS);
        }
        files::set_mode(link.as_c_str(), mode)
    }

    /// The word that says which copy was made last of a shared file.
    fn copy_of(&self, shared: &FileId) -> Option<&'static AtomicU64> {
        let slot = self.marks.slot(shared)?;
        let at = match self.mapped.load(Ordering::Relaxed) {
            0 => {
                let found = start::map_shared(self.copies).filter(|bytes| bytes.len() / 8 >= self.marks.slots());
                let at = found.map_or(NOWHERE, |bytes| bytes.as_ptr().expose_provenance());
                // Another thread may have mapped it meanwhile: either will do.
                self.mapped.store(at, Ordering::Relaxed);
                at
            }
            at => at,
        };
        if at == NOWHERE {
            return None;
        }
        // SAFETY: mapped for good, aligned to a page, as many words as the marks have slots; all processes change it by
        // atomic operations alone.
        Some(unsafe { &*core::ptr::with_exposed_provenance::<AtomicU64>(at).add(slot) })
    }
}
