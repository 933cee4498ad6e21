//! A run's description, as it lies in a file: mapped read-only by every process of the run.
//!
//! Little-endian words of 32 bits. A header ([`MAGIC`], length of all, flags, four ids), then for every [`Text`] where it is
//! and its length, then for each of the lists (binds, ports, groups, loaders, C libraries, their system calls) where it
//! is and how many it has, then the lists' records and the strings, each with a NUL behind it.
//!
//! Rules: its maker belongs to the same build as its reader, so nothing is converted; [`Run::new`] looks at every number
//! once, so that a file that was cut or damaged is an error and no panic afterwards.

use core::{ffi::CStr, net::IpAddr};

use coracle_paths as paths;

use crate::Site;

/// First bytes; the digits are the version.
pub(crate) const MAGIC: [u8; 8] = *b"CORRUN03";

/// Words of the header, with its magic.
pub(crate) const HEADER: usize = 8;
/// Where the list of texts begins, in words.
pub(crate) const TEXTS_AT: usize = HEADER;
/// Where the list of lists begins, in words.
pub(crate) const LISTS_AT: usize = TEXTS_AT + 2 * Text::COUNT;
/// Where records begin, in words.
pub(crate) const RECORDS_AT: usize = LISTS_AT + 2 * LISTS;
const LISTS: usize = 6;
pub(crate) const BINDS: usize = 0;
pub(crate) const PORTS: usize = 1;
pub(crate) const GROUPS: usize = 2;
pub(crate) const LOADERS: usize = 3;
pub(crate) const LIBRARIES: usize = 4;
pub(crate) const SITES: usize = 5;
/// Words of one record of each list.
pub(crate) const RECORD: [usize; LISTS] = [5, 6, 1, 7, 5, 2];

/// Flags of the header.
pub(crate) mod flag {
    pub(crate) const READ_ONLY: u32 = 1;
    pub(crate) const UNLISTED: u32 = 2;
    pub(crate) const EDITED: u32 = 4;
    pub(crate) const HOSTNAME: u32 = 8;
}

/// Flags of a port's record.
pub(crate) mod port {
    pub(crate) const DATAGRAM: u32 = 1;
    pub(crate) const ADDRESS: u32 = 2;
}

/// Flags of a loader's record.
pub(crate) mod ability {
    pub(crate) const MUSL: u32 = 1;
    pub(crate) const PRELOAD: u32 = 2;
    pub(crate) const ARGV0: u32 = 4;
    pub(crate) const INHIBIT_CACHE: u32 = 8;
}

/// The strings of a run. Empty where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Text {
    /// Canonical host path of the guest's tree: the pristine one, a view of it, or a container's own.
    Root,
    /// Another path of the root without the characters at which loaders split lists; the same where it has none.
    Alias,
    /// Host path of the table of the tree's names (`coracle_paths::table`); only for a tree that nobody changes.
    Names,
    /// Host path of the inode ledger, a file that all processes map shared.
    Ledger,
    /// Host path of a copy-on-write view's marks.
    Marks,
    /// Host path of the file that is locked while names of such a view are changed.
    Lock,
    /// Host path of the file that says which copy was made last of each of its shared files, which all processes map shared.
    Copies,
    /// Host path of the directory in which its copies are made.
    Temporary,
    /// Host path of the list of true modes and owners of the tree that it is of; empty if there is none.
    Truths,
    /// The node's name as the guest sees it; see [`Run::hostname`].
    Hostname,
    /// Host path of the shim, without the characters at which loaders split lists of libraries.
    Shim,
    /// Host path of the directory for generated files, which this description is in.
    Scratch,
    /// Canonical host path of the tree as other engines see it: without edits.
    Pristine,
    /// Host path of the files of a guest's own tree that edited ones have taken the place of, under their names; empty if
    /// there are none.
    Originals,
    /// What takes over programs that this engine cannot run: the host path of a program and its first arguments, each with
    /// a NUL behind it but the last.
    Handover,
}

impl Text {
    /// How many there are.
    pub const COUNT: usize = Self::Handover as usize + 1;
}

/// One host place inside the guest, as [`coracle_paths::arrange`] leaves them.
pub type Bind<'a> = paths::Bind<'a>;

/// A port that the host knows by another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The address of the host's where it is; otherwise all.
    pub address: Option<IpAddr>,
    /// The host's number.
    pub host: u16,
    /// The guest's number.
    pub guest: u16,
    /// Of UDP; otherwise of TCP.
    pub datagram: bool,
}

/// Whose loader it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The GNU C library's.
    Glibc,
    /// musl's, which is its C library too.
    Musl,
}

/// A program interpreter of the tree, and what it understands when it is executed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loader<'a> {
    /// What programs call it, in PT_INTERP: a guest path as written there.
    pub guest: &'a CStr,
    /// Its host path.
    pub host: &'a CStr,
    /// The directories that it searches by itself, in its order, as host paths joined by colons.
    pub libraries: &'a CStr,
    /// Whose it is.
    pub family: Family,
    /// `--preload LIST` (glibc since 2.30, musl in every version).
    pub preload: bool,
    /// `--argv0 STRING` (glibc since 2.33, musl at least since 1.1.20).
    pub argv0: bool,
    /// `--inhibit-cache` (glibc since 2.16).
    pub inhibit_cache: bool,
}

/// The bytes are no description of a run, or one of another version, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotARun;

/// A run's description.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    bytes: &'a [u8],
}

impl<'a> Run<'a> {
    /// Takes a description's bytes, and looks at each number in it.
    ///
    /// # Errors
    /// [`NotARun`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, NotARun> {
        let run = Self { bytes };
        if !bytes.starts_with(&MAGIC) || usize::try_from(run.word(2)?) != Ok(bytes.len()) {
            return Err(NotARun);
        }
        for text in 0..Text::COUNT {
            let at = TEXTS_AT + 2 * text;
            run.string(run.word(at)?, run.word(at + 1)?)?;
        }
        for (list, record) in RECORD.iter().enumerate() {
            let (at, count) = run.list(list)?;
            let words = count.checked_mul(*record).ok_or(NotARun)?;
            let end = at.checked_add(words).and_then(|words| words.checked_mul(4)).ok_or(NotARun)?;
            if at < RECORDS_AT || end > bytes.len() {
                return Err(NotARun);
            }
            // Their strings are in front.
            let strings = match list {
                BINDS => 2,
                LOADERS => 3,
                _ => 0,
            };
            for number in 0..count {
                for string in 0..strings {
                    let at = at + number * record + 2 * string;
                    c_str(run.string(run.word(at)?, run.word(at + 1)?)?)?;
                }
            }
        }
        Ok(run)
    }

    /// A string without its NUL; [`Text::Handover`] has others inside.
    #[must_use]
    pub fn text(&self, text: Text) -> &'a [u8] {
        let bytes = self.with_nul(text);
        &bytes[..bytes.len() - 1]
    }

    /// A string for system calls: up to its first NUL.
    #[must_use]
    pub fn c_text(&self, text: Text) -> &'a CStr {
        CStr::from_bytes_until_nul(self.with_nul(text)).unwrap_or(c"")
    }

    /// Whether writes to the tree answer `EROFS`.
    #[must_use]
    pub fn root_read_only(&self) -> bool {
        self.flag(flag::READ_ONLY)
    }

    /// Whether some bind's mount point has no name in its directory, so that listings lack it.
    #[must_use]
    pub fn unlisted(&self) -> bool {
        self.flag(flag::UNLISTED)
    }

    /// Whether programs of the tree name its loader by its host path in PT_INTERP, so that the kernel can execute them;
    /// others, which came later, name a loader of [`Run::loaders`].
    #[must_use]
    pub fn edited(&self) -> bool {
        self.flag(flag::EDITED)
    }

    /// Whether another engine takes over programs that this one cannot run.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        !self.text(Text::Handover).is_empty()
    }

    /// The node's name as the guest sees it; `None`: the host's.
    #[must_use]
    pub fn hostname(&self) -> Option<&'a [u8]> {
        self.flag(flag::HOSTNAME).then(|| self.text(Text::Hostname))
    }

    /// User and group id inside.
    #[must_use]
    pub fn ids(&self) -> (u32, u32) {
        (self.number(4), self.number(5))
    }

    /// User and group id on the host.
    #[must_use]
    pub fn host_ids(&self) -> (u32, u32) {
        (self.number(6), self.number(7))
    }

    /// How many binds there are.
    #[must_use]
    pub fn bind_count(&self) -> usize {
        self.count(BINDS)
    }

    /// The binds, in the order that [`coracle_paths::View::new`] wants.
    pub fn binds(&self) -> impl ExactSizeIterator<Item = Bind<'a>> + use<'a> {
        let run = *self;
        (0..self.count(BINDS)).map(move |number| {
            let at = run.record(BINDS, number);
            Bind {
                guest: run.c_string(at).to_bytes(),
                host: run.c_string(at + 2).to_bytes(),
                read_only: run.number(at + 4) != 0,
            }
        })
    }

    /// The ports that have two numbers.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = Port> + use<'a> {
        let run = *self;
        (0..self.count(PORTS)).map(move |number| {
            let at = run.record(PORTS, number);
            let [h0, h1, g0, g1] = run.number(at).to_le_bytes();
            let (host, guest) = (u16::from_le_bytes([h0, h1]), u16::from_le_bytes([g0, g1]));
            let flags = run.number(at + 1);
            let mut bytes = [0; 16];
            for (word, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&run.number(at + 2 + word).to_le_bytes());
            }
            let address = (flags & port::ADDRESS != 0).then(|| IpAddr::from(bytes).to_canonical());
            Port { address, host, guest, datagram: flags & port::DATAGRAM != 0 }
        })
    }

    /// Supplementary groups that the guest sees, where it takes itself for somebody else.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let run = *self;
        (0..self.count(GROUPS)).map(move |number| run.number(run.record(GROUPS, number)))
    }

    /// The tree's program interpreters.
    pub fn loaders(&self) -> impl ExactSizeIterator<Item = Loader<'a>> + use<'a> {
        let run = *self;
        (0..self.count(LOADERS)).map(move |number| {
            let at = run.record(LOADERS, number);
            let flags = run.number(at + 6);
            Loader {
                guest: run.c_string(at),
                host: run.c_string(at + 2),
                libraries: run.c_string(at + 4),
                family: if flags & ability::MUSL != 0 { Family::Musl } else { Family::Glibc },
                preload: flags & ability::PRELOAD != 0,
                argv0: flags & ability::ARGV0 != 0,
                inhibit_cache: flags & ability::INHIBIT_CACHE != 0,
            }
        })
    }

    /// The system calls in the text of a C library with this [`build_id`](crate::build_id), whose text is so long; `None` if
    /// nobody has looked. They are to be looked at again.
    #[must_use]
    pub fn sites(&self, id: u64, len: usize) -> Option<impl Iterator<Item = Site> + use<'a>> {
        let run = *self;
        let half = |number: usize, word: usize| u64::from(run.number(run.record(LIBRARIES, number) + word));
        let found = (0..self.count(LIBRARIES))
            .find(|number| half(*number, 0) | half(*number, 1) << 32 == id && half(*number, 2) == len as u64)?;
        let at = run.record(LIBRARIES, found);
        let [first, count] = [run.number(at + 3), run.number(at + 4)].map(|word| usize::try_from(word).unwrap_or(0));
        let last = first.saturating_add(count).min(self.count(SITES));
        Some((first.min(last)..last).map(move |number| {
            let at = run.record(SITES, number);
            let [len, rest @ ..] = run.number(at + 1).to_le_bytes();
            let number = u32::from_le_bytes([rest[0], rest[1], rest[2], 0]);
            Site { at: usize::try_from(run.number(at)).unwrap_or(usize::MAX), len: len.into(), number }
        }))
    }

    fn flag(&self, flag: u32) -> bool {
        self.number(3) & flag != 0
    }

    pub(crate) fn with_nul(&self, text: Text) -> &'a [u8] {
        let at = TEXTS_AT + 2 * text as usize;
        self.string(self.number(at), self.number(at + 1)).unwrap_or(b"\0")
    }

    fn c_string(&self, at: usize) -> &'a CStr {
        self.string(self.number(at), self.number(at + 1)).and_then(c_str).unwrap_or(c"")
    }

    fn list(&self, list: usize) -> Result<(usize, usize), NotARun> {
        let number = |at| self.word(at).and_then(|word| usize::try_from(word).map_err(|_| NotARun));
        Ok((number(LISTS_AT + 2 * list)?, number(LISTS_AT + 2 * list + 1)?))
    }

    fn count(&self, list: usize) -> usize {
        self.list(list).map_or(0, |(_, count)| count)
    }

    fn record(&self, list: usize, number: usize) -> usize {
        self.list(list).map_or(0, |(at, _)| at + number * RECORD[list])
    }

    /// A number that [`Run::new`] has looked at.
    fn number(&self, at: usize) -> u32 {
        self.word(at).unwrap_or(0)
    }

    fn word(&self, at: usize) -> Result<u32, NotARun> {
        let at = at.checked_mul(4).ok_or(NotARun)?;
        let four = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(NotARun)?;
        Ok(u32::from_le_bytes(*four))
    }

    /// A string of this length at this place, with the NUL behind it.
    fn string(&self, at: u32, len: u32) -> Result<&'a [u8], NotARun> {
        let (at, len) = (usize::try_from(at).map_err(|_| NotARun)?, usize::try_from(len).map_err(|_| NotARun)?);
        let end = at.checked_add(len).and_then(|end| end.checked_add(1)).ok_or(NotARun)?;
        self.bytes.get(at..end).filter(|string| string.ends_with(b"\0")).ok_or(NotARun)
    }
}

fn c_str(bytes: &[u8]) -> Result<&CStr, NotARun> {
    CStr::from_bytes_with_nul(bytes).map_err(|_| NotARun)
}
