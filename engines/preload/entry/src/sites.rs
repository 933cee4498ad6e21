//! System calls in the text of a C library: just enough of the processor's instructions to find them, and what sets their
//! numbers.
//!
//! A site is `mov eax, NUMBER`, perhaps instructions that move other registers, `syscall`. musl keeps the number of
//! open(2) in another register where it opens files for name lookups, so there `mov esi, FLAGS` stands for it. Looking
//! for them takes longer than all else that a process of a run does at its start; so whoever describes a run looks
//! once, and each process looks only whether they are there ([`Site::is_in`]).

/// Bytes of other instructions that a site may have.
pub const ROOM: usize = 32;

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Where its number is set, in its text, or its flags are ([`Site::is_open_by_flags`]).
    pub at: usize,
    /// Bytes of other instructions between that and the call.
    pub len: usize,
    /// Its number.
    pub number: u32,
}

/// Length of the instruction that sets the number.
const MOV: usize = 5;
/// Its first byte: `mov eax`; and `mov esi`.
const TO_EAX: u8 = 0xb8;
const TO_ESI: u8 = 0xbe;
/// open(2), and `O_CLOEXEC` without and with `O_LARGEFILE`: flags that no call has but those which open files.
const OPEN: u32 = 2;
const OPEN_FLAGS: [u32; 2] = [0x8_0000, 0x8_8000];
const SYSCALL: [u8; 2] = [0x0f, 0x05];

impl Site {
    /// Where the call itself is.
    #[must_use]
    pub fn call(&self) -> usize {
        self.at.saturating_add(MOV).saturating_add(self.len)
    }

    /// What is to be done in another place before the call: the other instructions, and what sets the flags.
    #[must_use]
    pub fn between<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        let flags = if self.is_open_by_flags(text) { 0 } else { MOV };
        text.get(self.at.checked_add(flags)?..self.call())
    }

    /// Whether it is told by its flags: the number of the call is in rax when it is made, by another register's way, and
    /// presumably that of open(2).
    #[must_use]
    pub fn is_open_by_flags(&self, text: &[u8]) -> bool {
        text.get(self.at) == Some(&TO_ESI)
    }

    /// Whether it is in a text. Each process asks this of all sites: nothing is looked at but what this one says.
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        let call = self.call();
        let is_call = call.checked_add(2).and_then(|end| text.get(call..end)) == Some(&SYSCALL);
        let by_number = || site_behind(text, call, self.len, TO_EAX);
        let by_flags = || site_behind(text, call, self.len, TO_ESI).and_then(opening);
        is_call && self.len <= ROOM && (by_number() == Some(*self) || by_flags() == Some(*self))
    }
}

/// Finds each site in a text. (Compiled here, for speed, whatever whoever calls is compiled for.)
pub fn sites(text: &[u8], found: &mut dyn FnMut(Site)) {
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

/// Finds each `syscall`: they are rare, so a whole block is asked first whether it has one, which the processor does in
/// a few steps.
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
    let found = |first: u8| (0..=ROOM).find_map(|len| site_behind(text, call, len, first));
    found(TO_EAX).or_else(|| found(TO_ESI).and_then(opening))
}

/// The site of the call at `call`, if `len` bytes before that an instruction begins with `first`.
fn site_behind(text: &[u8], call: usize, len: usize, first: u8) -> Option<Site> {
    let at = call.checked_sub(len + MOV)?;
    let [byte, number @ ..] = text.get(at..at + MOV)? else { return None };
    // With a prefix it is another register's.
    if *byte != first || at.checked_sub(1).is_some_and(|before| matches!(text[before], 0x40..=0x4f)) {
        return None;
    }
    let number = u32::from_le_bytes(number.try_into().ok()?);
    let mut rest = text.get(at + MOV..call)?;
    while !rest.is_empty() {
        let (written, len) = moved(rest)?;
        // What sets the flags leaves rax to another.
        if written == RAX && first == TO_EAX {
            return None;
        }
        rest = rest.get(len..)?;
    }
    Some(Site { at, len, number })
}

/// The call that a site makes whose flags are set last.
fn opening(site: Site) -> Option<Site> {
    let opens = site.len + MOV <= ROOM && OPEN_FLAGS.contains(&site.number);
    opens.then_some(Site { number: OPEN, ..site })
}

const RAX: u8 = 0;
const RSP: u8 = 4;

/// The register that is written, and the length, of an instruction that only moves or computes registers, or pushes
/// them, and whose meaning is the same at any address.
fn moved(code: &[u8]) -> Option<(u8, usize)> {
    let (prefix, rest) = match code {
        [prefix @ 0x40..=0x4f, rest @ ..] => (*prefix, rest),
        rest => (0x40, rest),
    };
    let lead = code.len() - rest.len();
    let (wide, more_reg, more_rm) = (prefix & 8 != 0, (prefix & 4) << 1, (prefix & 1) << 3);
    // Both operands registers: the first (reg), the second (rm).
    let pair = |byte: u8| (byte >= 0xc0).then_some(((byte >> 3 & 7) | more_reg, (byte & 7) | more_rm));
    let (written, len) = match rest {
        // push.
        [0x50..=0x57, ..] => (RSP, 1),
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
    (rest.len() >= len).then_some((written, lead + len))
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
            // What musl looks up names by, and what maps its time zones; the same with other flags.
            &[0xbe, 0x00, 0x80, 0x08, 0x00, 0x4c, 0x89, 0xf0, 0x4c, 0x89, 0xef, 0x0f, 0x05],
            &[
                0xb8, 0x02, 0, 0, 0, 0x55, 0xbe, 0x00, 0x88, 0x08, 0x00, 0x53, 0x48, 0x81, 0xec, 0x90, 0, 0, 0, 0x0f,
                0x05,
            ],
            &[0xbe, 0x00, 0x08, 0x00, 0x00, 0x4c, 0x89, 0xf0, 0x4c, 0x89, 0xef, 0x0f, 0x05],
            &[0x90; 17],
        ]
        .concat();
        let mut found = Vec::new();
        sites(&text, &mut |site| found.push(site));
        let by_flags = Site { at: 68, len: 6, number: 2 };
        let with_pushes = Site { at: 81, len: 14, number: 2 };
        let plain = [Site { at: 16, len: 11, number: 257 }, Site { at: 61, len: 0, number: 2 }];
        assert_eq!(found, [plain[0], plain[1], by_flags, with_pushes]);
        assert!(by_flags.is_open_by_flags(&text) && !with_pushes.is_open_by_flags(&text));
        for site in found {
            assert!(site.is_in(&text));
            let flags = if site == by_flags { MOV } else { 0 };
            assert_eq!(site.between(&text).map(<[u8]>::len), Some(site.len + flags));
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
