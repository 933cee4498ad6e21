//! What one instruction of the processor finds out.

/// Where a byte is the last time, of sixteen.
#[inline]
pub(crate) fn last_of(text: &[u8; 16], byte: u8) -> Option<usize> {
    use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    // SAFETY: sixteen bytes are there; every x86_64 has SSE2.
    let hits = unsafe {
        let text = _mm_loadu_si128(text.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8(byte.cast_signed())))
    };
    usize::try_from(hits.checked_ilog2()?).ok()
}
