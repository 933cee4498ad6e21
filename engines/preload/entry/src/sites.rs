//! System calls in the text of a C library: just enough of the processor's instructions to find them, and what sets their
//! numbers.
//!
//! A site is `mov eax, NUMBER`, perhaps instructions that move other registers, `syscall`. Looking for them takes longer than
//! all else that a process of a run does at its start; so whoever describes a run looks once, and each process looks only
//! whether they are there ([`Site::is_in`]).

/// Bytes of other instructions that a site may have.
pub const ROOM: usize = 32;

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Where its number is set, in its text.
    pub at: usize,
    /// Bytes of other instructions between that and the call.
    pub len: usize,
    /// Its number.
    pub number: u32,
}

/// Length of the instruction that sets the number.
const MOV: usize = 5;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

impl Site {
    /// Where the call itself is.
    #[must_use]
    pub fn call(&self) -> usize {
        self.at.saturating_add(MOV).saturating_add(self.len)
    }

    /// The other instructions.
    #[must_use]
    pub fn between<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        text.get(self.at.checked_add(MOV)?..self.call())
    }

    /// Whether it is in a text.
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        let call = self.call();
        call.checked_add(2).and_then(|end| text.get(call..end)) == Some(&SYSCALL) && site(text, call) == Some(*self)
    }
}

/// Finds each site in a text.
pub fn sites(text: &[u8], mut found: impl FnMut(Site)) {
    find(text, |call| {
        if let Some(site) = site(text, call) {
            found(site);
        }
    });
}

/// What tells a library from all others, in a segment of notes: the first bytes of its build-id.
#[must_use]
pub fn build_id(mut notes: &[u8]) -> Option<u64> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let word = |at: usize| notes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word));
        let (name, len, kind) = (word(0)?, word(4)?, word(8)?);
        let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
        let start = padded(name)?.checked_add(12)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" && len >= 8 {
            return notes.get(start..)?.first_chunk().map(|id| u64::from_le_bytes(*id));
        }
        notes = notes.get(start.checked_add(padded(len)?)?..)?;
    }
}

/// Finds each `syscall`: they are rare, so a whole block is asked first whether it has one, which the processor does in a few
/// steps.
fn find(text: &[u8], mut found: impl FnMut(usize)) {
    const BLOCK: usize = 64;
    let is_call = |(first, second): (&u8, &u8)| (*first == SYSCALL[0]) & (*second == SYSCALL[1]);
    let (firsts, seconds) = (text, text.get(1..).unwrap_or_default());
    for (number, (firsts, seconds)) in firsts.chunks(BLOCK).zip(seconds.chunks(BLOCK)).enumerate() {
        if firsts.iter().zip(seconds).fold(false, |any, pair| any | is_call(pair)) {
            let calls = firsts.iter().zip(seconds).enumerate().filter(|(_, pair)| is_call(*pair));
            calls.for_each(|(at, _)| found(number * BLOCK + at));
        }
    }
}

/// The site of the call at `call`, if all between that and its number can be moved.
fn site(text: &[u8], call: usize) -> Option<Site> {
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
        Some(Site { at, len, number })
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

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::{vec, vec::Vec};

    use super::*;

    /// openat of glibc 2.36, and beside it what is none: another register, an instruction that compares, rax between.
    #[test]
    fn sites_are_found_and_told_from_what_is_none() {
        let text = [
            &[0x90; 16][..],
            &[0xb8, 0x01, 0x01, 0, 0, 0x44, 0x89, 0xe2, 0x48, 0x89, 0xee, 0xbf, 0x9c, 0xff, 0xff, 0xff, 0x0f, 0x05],
            &[0x41, 0xb8, 0x02, 0, 0, 0, 0x0f, 0x05],
            &[0xb8, 0x02, 0, 0, 0, 0x83, 0xf8, 0x01, 0x0f, 0x05],
            &[0xb8, 0x02, 0, 0, 0, 0x31, 0xc0, 0x0f, 0x05],
            &[0xb8, 0x02, 0, 0, 0, 0x0f, 0x05],
            &[0x90; 17],
        ]
        .concat();
        let mut found = Vec::new();
        sites(&text, |site| found.push(site));
        assert_eq!(found, [Site { at: 16, len: 11, number: 257 }, Site { at: 61, len: 0, number: 2 }]);
        for site in found {
            assert!(site.is_in(&text));
            assert_eq!(site.between(&text).map(<[u8]>::len), Some(site.len));
            for wrong in [
                Site { at: site.at + 1, ..site },
                Site { len: site.len + 1, ..site },
                Site { number: site.number + 1, ..site },
                Site { at: usize::MAX, ..site },
                Site { at: text.len(), ..site },
            ] {
                assert!(!wrong.is_in(&text), "{wrong:?}");
            }
        }
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes() {
        let note = |kind: u8, name: &[u8], text: &[u8]| {
            let mut note = vec![u8::try_from(name.len()).unwrap(), 0, 0, 0, u8::try_from(text.len()).unwrap(), 0, 0, 0];
            note.extend([kind, 0, 0, 0]);
            note.extend(name);
            note.extend(text);
            note
        };
        let id = note(3, b"GNU\0", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]);
        let notes = [note(1, b"GNU\0", &[0; 16]), note(3, b"ABC\0", &[0; 8]), id].concat();
        assert_eq!(build_id(&notes), Some(0x0807_0605_0403_0201));
        for len in 0..notes.len() - 4 {
            assert_eq!(build_id(&notes[..len]), None, "{len}");
        }
        assert_eq!(build_id(&[0xff; 64]), None);
    }
}
