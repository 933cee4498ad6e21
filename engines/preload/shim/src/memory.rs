//! The guest's memory as arguments of calls name it: pointers that lead nowhere are answered `EFAULT`, as by the kernel.
//!
//! Here such a pointer would be a fault, so a page is looked at only when it is known to be there. The kernel says so
//! once, by a call that reads or writes it and does nothing else; after that the page is remembered, and costs a
//! comparison. What was there may go away, and a pointer to it be used all the same: that is a fault, as it would be in
//! a C library.

use core::{
    arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_setzero_si128},
    slice,
    sync::atomic::{AtomicUsize, Ordering},
};

use coracle_intercept::{Errno, errno::EFAULT};
use coracle_sys::{
    self as sys,
    kernel::{__NR_process_vm_writev, __NR_rt_sigprocmask},
};

use crate::{
    call::raw,
    instructions::{self, WORD},
};

const PAGE: usize = 4096;
/// Nothing of a process's lies below, nor from there on.
const FIRST: usize = 4096;
const LAST: usize = 0x7fff_ffff_f000;

/// Pages that were seen, each at a place that its number says, as that number's complement: nothing is none.
struct Pages<const N: usize>([AtomicUsize; N]);

impl<const N: usize> Pages<N> {
    const fn new() -> Self {
        Self([const { AtomicUsize::new(0) }; N])
    }

    #[inline]
    fn place(&self, page: usize) -> &AtomicUsize {
        &self.0[(page ^ (page >> 9)) % N]
    }

    #[inline]
    fn has(&self, page: usize) -> bool {
        self.place(page).load(Ordering::Relaxed) == !page
    }

    fn keep(&self, page: usize) {
        self.place(page).store(!page, Ordering::Relaxed);
    }
}

static READ: Pages<1024> = Pages::new();
static WRITTEN: Pages<64> = Pages::new();

/// Whether the page that holds an address can be read.
#[inline]
fn can_read(address: usize) -> bool {
    READ.has(address / PAGE) || try_read(address)
}

#[cold]
fn try_read(address: usize) -> bool {
    /// No way of changing a mask: the kernel reads the new one, and refuses.
    const NONE: usize = 0x7fff_ffff;
    if !(FIRST..LAST).contains(&address) {
        return false;
    }
    let word = address & !7;
    let there = raw(__NR_rt_sigprocmask, [NONE, word, 0, 8, 0, 0]) != -isize::try_from(EFAULT.0).unwrap_or(14);
    if there {
        READ.keep(address / PAGE);
    }
    there
}

/// The addresses of the pages that this memory touches, each by one that lies in it; `None` if it leaves the address space.
#[inline]
fn pages(address: usize, len: usize) -> Option<impl Iterator<Item = usize>> {
    let last = address.checked_add(len.checked_sub(1)?)?;
    Some((address / PAGE..=last / PAGE).map(move |page| (page * PAGE).max(address)))
}

/// Copies memory of the guest's.
pub(crate) fn read(address: usize, into: &mut [u8]) -> Result<(), Errno> {
    if into.is_empty() {
        return Ok(());
    }
    if !pages(address, into.len()).ok_or(EFAULT)?.all(can_read) {
        return Err(EFAULT);
    }
    // SAFETY: every page is there; who unmaps it meanwhile breaks its own promise to its C library.
    unsafe { core::ptr::copy(core::ptr::with_exposed_provenance(address), into.as_mut_ptr(), into.len()) };
    Ok(())
}

/// A pointer in the guest's memory.
pub(crate) fn pointer(address: usize) -> Result<usize, Errno> {
    let mut bytes = [0; size_of::<usize>()];
    read(address, &mut bytes)?;
    Ok(usize::from_ne_bytes(bytes))
}

/// Writes to memory of the guest's.
pub(crate) fn write(address: usize, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.is_empty() {
        return Ok(());
    }
    if address < FIRST || address.checked_add(bytes.len()).is_none_or(|end| end > LAST) {
        return Err(EFAULT);
    }
    let all = || pages(address, bytes.len()).into_iter().flatten().map(|address| address / PAGE);
    if !all().all(|page| WRITTEN.has(page)) {
        let from = [bytes.as_ptr().expose_provenance(), bytes.len()];
        let to = [address, bytes.len()];
        let [from, to] = [&from, &to].map(|piece| core::ptr::from_ref(piece).expose_provenance());
        let written = raw(__NR_process_vm_writev, [sys::getpid() as usize, from, 1, to, 1, 0]);
        match usize::try_from(written) {
            Ok(written) if written == bytes.len() => {
                all().for_each(|page| WRITTEN.keep(page));
                return Ok(());
            }
            Ok(_) => return Err(EFAULT),
            Err(_) if written == -isize::try_from(EFAULT.0).unwrap_or(14) => return Err(EFAULT),
            // A node that refuses this call says nothing about the memory.
            Err(_) => {}
        }
    }
    // SAFETY: every page could be written; or nobody can say, and the guest promised so to its C library.
    unsafe { core::ptr::copy(bytes.as_ptr(), core::ptr::with_exposed_provenance_mut(address), bytes.len()) };
    Ok(())
}

/// A string of the guest's, with its NUL, of as many bytes at most.
///
/// # Errors
/// `EFAULT`: memory ends before it does; `ENAMETOOLONG`: it is longer.
#[inline]
pub(crate) fn string(address: usize, most: usize) -> Result<&'static [u8], Errno> {
    const STEP: usize = size_of::<__m128i>();
    let mut at = address & !(STEP - 1);
    if !can_read(address) {
        return Err(EFAULT);
    }
    let mut nuls = nuls(at) >> (address - at);
    let mut len = 0;
    loop {
        if nuls != 0 {
            len += nuls.trailing_zeros() as usize + 1;
            break;
        }
        at += STEP;
        len = at - address;
        if len >= most {
            return Err(Errno::ENAMETOOLONG);
        }
        if at.is_multiple_of(PAGE) && !can_read(at) {
            return Err(EFAULT);
        }
        nuls = self::nuls(at);
    }
    if len > most {
        return Err(Errno::ENAMETOOLONG);
    }
    // SAFETY: all of these bytes were just read. They are the guest's, which keeps them as they are while it makes the call.
    Ok(unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(address), len) })
}

/// A string of the guest's that was copied.
pub(crate) struct Copied {
    /// With its NUL.
    pub(crate) len: usize,
    /// Where its last slash is.
    pub(crate) slash: Option<usize>,
}

/// Copies a string of the guest's, with its NUL, and looks at it meanwhile. Whole words are written, so what is behind
/// the NUL to the end of its word is changed, too; no bytes behind `most`. `None`: as for [`string`].
#[inline]
pub(crate) fn copy_string(address: usize, to: *mut u8, most: usize) -> Option<Copied> {
    if !can_read(address) {
        return None;
    }
    // Words that cross no page, so that nothing is read where nothing may be.
    let upto = most.min(PAGE - address % PAGE);
    let from = core::ptr::with_exposed_provenance::<u8>(address);
    let (mut at, mut slash) = (0, None);
    while at + WORD <= upto {
        // SAFETY: the page was seen to be there, and there is as much room; see above.
        let (nuls, mut slashes) = unsafe { instructions::copy(from.add(at), to.add(at)) };
        // Those before the NUL.
        slashes &= nuls.wrapping_sub(1) & !nuls;
        if let Some(last) = slashes.checked_ilog2() {
            slash = Some(at + last as usize);
        }
        if nuls != 0 {
            return Some(Copied { len: at + nuls.trailing_zeros() as usize + 1, slash });
        }
        at += WORD;
    }
    copy_long_string(address, to, most)
}

/// The same of a string that lies in two pages, or is as long as there is room.
#[cold]
fn copy_long_string(address: usize, to: *mut u8, most: usize) -> Option<Copied> {
    let text = string(address, most).ok()?;
    let filled = text.len().next_multiple_of(WORD).min(most);
    // SAFETY: there is room for `most` bytes.
    unsafe {
        to.copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write_bytes(0, filled - text.len());
    }
    Some(Copied { len: text.len(), slash: text.iter().rposition(|byte| *byte == b'/') })
}

/// Which of the sixteen bytes at an address that is aligned so are NUL.
#[inline]
fn nuls(at: usize) -> u32 {
    // SAFETY: the page is there, as the caller has seen to, and sixteen aligned bytes lie in one; every x86_64 has SSE2.
    let mask = unsafe {
        let bytes = _mm_load_si128(core::ptr::with_exposed_provenance(at));
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128()))
    };
    mask.cast_unsigned()
}

/// Whether a string of the guest's begins so, or what can be read of it.
#[inline]
pub(crate) fn begins(address: usize, start: &[u8]) -> bool {
    can_read(address)
        && start.iter().enumerate().all(|(number, byte)| {
            let at = address + number;
            // SAFETY: the page was seen to be there; no byte behind a NUL is looked at, which is a difference.
            (!at.is_multiple_of(PAGE) || can_read(at))
                && unsafe { *core::ptr::with_exposed_provenance::<u8>(at) } == *byte
        })
}
