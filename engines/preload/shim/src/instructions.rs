//! What one instruction of the processor finds out.

use core::arch::x86_64::{
    _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_setzero_si128, _mm_storeu_si128,
};

/// As many bytes are worked on at once.
pub(crate) const WORD: usize = 16;

/// Copies a word, wherever it lies; which of its bytes are NUL, and which are slashes.
///
/// # Safety
/// The word can be read there, and written there.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8) -> (u32, u32) {
    // SAFETY: the caller's promise; every x86_64 has SSE2.
    let (nuls, slashes) = unsafe {
        let word = _mm_loadu_si128(from.cast());
        _mm_storeu_si128(to.cast(), word);
        let which = |byte| _mm_movemask_epi8(_mm_cmpeq_epi8(word, byte));
        (which(_mm_setzero_si128()), which(_mm_set1_epi8(b'/'.cast_signed())))
    };
    (nuls.cast_unsigned(), slashes.cast_unsigned())
}
