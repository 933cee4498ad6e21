//! Just enough of the processor's instructions to find a system call in text, and what sets its number; and a byte.

use crate::arch::sites::ROOM;

/// Finds each `syscall`.
pub(crate) fn find(text: &[u8], mut found: impl FnMut(usize)) {
    use core::arch::x86_64::{_mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    let mut at = 0;
    while at + 17 <= text.len() {
        // SAFETY: seventeen bytes are there; every x86_64 has SSE2.
        let mut hits = unsafe {
            let first = _mm_loadu_si128(text.as_ptr().add(at).cast());
            let second = _mm_loadu_si128(text.as_ptr().add(at + 1).cast());
            let first = _mm_cmpeq_epi8(first, _mm_set1_epi8(0x0f));
            let second = _mm_cmpeq_epi8(second, _mm_set1_epi8(0x05));
            _mm_movemask_epi8(_mm_and_si128(first, second))
        };
        while hits != 0 {
            found(at + usize::try_from(hits.trailing_zeros()).unwrap_or(0));
            hits &= hits - 1;
        }
        at += 16;
    }
}

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

/// Where the number of the call at `call` is set, and to what, if all between can be moved.
pub(crate) fn number_of(text: &[u8], call: usize) -> Option<(usize, u32)> {
    (0..=ROOM).find_map(|len| {
        let at = call.checked_sub(len + 5)?;
        let [0xb8, number @ ..] = &text[at..at + 5] else { return None };
        // With a prefix it is another register's.
        if at.checked_sub(1).is_some_and(|before| matches!(text[before], 0x40..=0x4f)) {
            return None;
        }
        let number = u32::from_le_bytes(number.try_into().ok()?);
        let mut rest = &text[at + 5..call];
        while !rest.is_empty() {
            rest = rest.get(moved(rest)?..)?;
        }
        Some((at, number))
    })
}

/// The length of an instruction that only moves or computes registers other than rax, whose meaning is the same at any
/// address.
fn moved(code: &[u8]) -> Option<usize> {
    const RAX: u8 = 0;
    let (prefix, rest) = match code {
        [prefix @ 0x40..=0x4f, rest @ ..] => (*prefix, rest),
        rest => (0x40, rest),
    };
    let lead = code.len() - rest.len();
    let (wide, more_reg, more_rm) = (prefix & 8 != 0, (prefix & 4) << 1, (prefix & 1) << 3);
    // Both operands registers: the first (reg), the second (rm).
    let pair = |byte: u8| (byte >= 0xc0).then_some(((byte >> 3 & 7) | more_reg, (byte & 7) | more_rm));
    let (written, len) = match rest {
        // mov, xor, and, or, add, sub rm, reg.
        [0x89 | 0x31 | 0x21 | 0x09 | 0x01 | 0x29, pairs, ..] => (pair(*pairs)?.1, 2),
        // mov, xor reg, rm; movsxd.
        [0x8b | 0x33 | 0x63, pairs, ..] => (pair(*pairs)?.0, 2),
        // mov reg, number.
        [number @ 0xb8..=0xbf, ..] if !wide => ((number & 7) | more_rm, 5),
        [0xc7, pairs, ..] if pairs & 0x38 == 0 => (pair(*pairs)?.1, 6),
        // and, or, add… rm, number; 7 would compare.
        [0x83, pairs, ..] if pairs >> 3 & 7 != 7 => (pair(*pairs)?.1, 3),
        [0x81, pairs, ..] if pairs >> 3 & 7 != 7 => (pair(*pairs)?.1, 6),
        // movzx, movsx.
        [0x0f, 0xb6 | 0xb7 | 0xbe | 0xbf, pairs, ..] => (pair(*pairs)?.0, 3),
        _ => return None,
    };
    (written != RAX && rest.len() >= len).then_some(lead + len)
}
