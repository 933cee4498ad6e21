//! A run's description as its maker has it, and how it becomes bytes.

use alloc::{ffi::CString, vec::Vec};
use core::net::IpAddr;

use crate::{
    Site,
    run::{
        BINDS, Bind, Family, GROUPS, HEADER, LIBRARIES, LISTS_AT, LOADERS, Loader, MAGIC, PORTS, Port, RECORDS_AT,
        SITES, TEXTS_AT, Text, ability, flag, port,
    },
};

/// All that [`crate::Run`] tells, to be written.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// By [`Text`]; see [`Facts::set`].
    pub texts: [&'a [u8]; Text::COUNT],
    /// See [`crate::Run::root_read_only`].
    pub root_read_only: bool,
    /// See [`crate::Run::unlisted`].
    pub unlisted: bool,
    /// See [`crate::Run::edited`].
    pub edited: bool,
    /// See [`crate::Run::hostname`].
    pub hostname: Option<&'a [u8]>,
    /// See [`crate::Run::ids`].
    pub ids: (u32, u32),
    /// See [`crate::Run::host_ids`].
    pub host_ids: (u32, u32),
    /// See [`crate::Run::groups`].
    pub groups: Vec<u32>,
    /// As [`coracle_paths::arrange`] leaves them.
    pub binds: Vec<Bind<'a>>,
    /// See [`crate::Run::ports`].
    pub ports: Vec<Port>,
    /// See [`crate::Run::loaders`].
    pub loaders: Vec<Loader<'a>>,
    /// See [`crate::Run::sites`].
    pub sites: Vec<Sites>,
}

/// The system calls of one C library.
#[derive(Debug, Clone)]
pub struct Sites {
    /// Its [`build_id`](crate::build_id).
    pub id: u64,
    /// Length of its text.
    pub len: usize,
    /// In any order.
    pub sites: Vec<Site>,
}

impl<'a> Facts<'a> {
    /// Gives a string of the run its value.
    pub fn set(&mut self, text: Text, value: &'a [u8]) {
        self.texts[text as usize] = value;
    }

    /// The description's bytes; `None` if they are more than any run has (4 GiB), or a path has a NUL in it.
    #[must_use]
    pub fn write(&self) -> Option<Vec<u8>> {
        let mut texts = self.texts;
        if let Some(name) = self.hostname {
            texts[Text::Hostname as usize] = name;
        }
        let sites = self.sites.iter().map(|library| library.sites.len()).sum();
        let counts =
            [self.binds.len(), self.ports.len(), self.groups.len(), self.loaders.len(), self.sites.len(), sites];
        let records: usize = counts.iter().zip(crate::run::RECORD).map(|(count, record)| count * record).sum();
        let mut out = Words { words: Vec::new(), strings: Vec::new(), strings_at: 4 * (RECORDS_AT + records) };
        let flags = [
            (self.root_read_only, flag::READ_ONLY),
            (self.unlisted, flag::UNLISTED),
            (self.edited, flag::EDITED),
            (self.hostname.is_some(), flag::HOSTNAME),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag);
        // Magic and length, which is known at the end.
        out.words.extend([0, 0, 0, flags, self.ids.0, self.ids.1, self.host_ids.0, self.host_ids.1]);
        debug_assert_eq!(out.words.len(), HEADER);
        debug_assert_eq!(out.words.len(), TEXTS_AT);
        for text in texts {
            out.string(text)?;
        }
        debug_assert_eq!(out.words.len(), LISTS_AT);
        let mut at = RECORDS_AT;
        for (list, count) in counts.into_iter().enumerate() {
            out.words.extend([u32::try_from(at).ok()?, u32::try_from(count).ok()?]);
            at += count * crate::run::RECORD[list];
        }
        debug_assert_eq!([BINDS, PORTS, GROUPS, LOADERS, LIBRARIES, SITES], [0, 1, 2, 3, 4, 5]);
        for bind in &self.binds {
            out.path(bind.guest)?;
            out.path(bind.host)?;
            out.words.push(u32::from(bind.read_only));
        }
        for map in &self.ports {
            out.words.push(u32::from(map.host) | u32::from(map.guest) << 16);
            let flags = [(map.datagram, port::DATAGRAM), (map.address.is_some(), port::ADDRESS)];
            out.words.push(flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag));
            let bytes = match map.address {
                None => [0; 16],
                Some(IpAddr::V4(address)) => address.to_ipv6_mapped().octets(),
                Some(IpAddr::V6(address)) => address.octets(),
            };
            let words = bytes.as_chunks::<4>().0.iter();
            out.words.extend(words.map(|word| u32::from_le_bytes(*word)));
        }
        out.words.extend(&self.groups);
        for loader in &self.loaders {
            out.path(loader.guest.to_bytes())?;
            out.path(loader.host.to_bytes())?;
            out.path(loader.libraries.to_bytes())?;
            out.words.push(abilities(loader));
        }
        out.libraries(&self.sites)?;
        out.finish()
    }
}

fn abilities(loader: &Loader<'_>) -> u32 {
    let flags = [
        (loader.family == Family::Musl, ability::MUSL),
        (loader.preload, ability::PRELOAD),
        (loader.argv0, ability::ARGV0),
        (loader.inhibit_cache, ability::INHIBIT_CACHE),
    ];
    flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag)
}

/// A description that is being written.
struct Words {
    words: Vec<u32>,
    strings: Vec<u8>,
    strings_at: usize,
}

impl Words {
    fn string(&mut self, string: &[u8]) -> Option<()> {
        let at = self.strings_at + self.strings.len();
        self.words.extend([u32::try_from(at).ok()?, u32::try_from(string.len()).ok()?]);
        self.strings.extend_from_slice(string);
        self.strings.push(0);
        Some(())
    }

    fn path(&mut self, path: &[u8]) -> Option<()> {
        CString::new(path).ok()?;
        self.string(path)
    }

    fn libraries(&mut self, libraries: &[Sites]) -> Option<()> {
        let mut first = 0;
        for library in libraries {
            let [a, b, c, d, e, f, g, h] = library.id.to_le_bytes();
            self.words.extend([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]);
            let count = u32::try_from(library.sites.len()).ok()?;
            self.words.extend([u32::try_from(library.len).ok()?, first, count]);
            first += count;
        }
        for site in libraries.iter().flat_map(|library| &library.sites) {
            let len = u8::try_from(site.len).ok()?;
            // No system call's number has more than sixteen bits.
            let number = u16::try_from(site.number).unwrap_or(u16::MAX);
            self.words.extend([u32::try_from(site.at).ok()?, u32::from(len) | u32::from(number) << 8]);
        }
        Some(())
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        debug_assert_eq!(4 * self.words.len(), self.strings_at);
        let len = self.strings_at + self.strings.len();
        self.words[2] = u32::try_from(len).ok()?;
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        bytes.append(&mut self.strings);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::Run;

    fn facts() -> Facts<'static> {
        let mut facts = Facts {
            root_read_only: true,
            hostname: Some(b""),
            ids: (0, 0),
            host_ids: (1001, 1002),
            groups: vec![5, 6],
            binds: vec![
                Bind { guest: b"/dev", host: b"/dev", read_only: false },
                Bind { guest: b"/in", host: b"/data", read_only: true },
            ],
            ports: vec![
                Port { address: None, host: 8080, guest: 80, datagram: false },
                Port { address: "127.0.0.1".parse().ok(), host: 8081, guest: 81, datagram: false },
                Port { address: "fd00::7".parse().ok(), host: 5353, guest: 53, datagram: true },
            ],
            loaders: vec![Loader {
                guest: c"/lib/ld-musl-x86_64.so.1",
                host: c"/t/lib/ld-musl-x86_64.so.1",
                libraries: c"/t/lib",
                family: Family::Musl,
                preload: true,
                argv0: false,
                inhibit_cache: false,
            }],
            sites: vec![
                Sites { id: 7, len: 10, sites: vec![] },
                Sites {
                    id: 0x0123_4567_89ab_cdef,
                    len: 100,
                    sites: vec![Site { at: 3, len: 0, number: 257 }, Site { at: 70, len: 32, number: 1 }],
                },
            ],
            ..Facts::default()
        };
        facts.set(Text::Root, b"/t");
        facts.set(Text::Handover, b"/stub\0--run");
        facts
    }

    #[test]
    fn what_is_written_is_read() {
        let facts = facts();
        let bytes = facts.write().expect("it fits");
        let run = Run::new(&bytes).expect("it is whole");
        assert_eq!((run.text(Text::Root), run.c_text(Text::Root)), (&b"/t"[..], c"/t"));
        assert_eq!((run.text(Text::Handover), run.c_text(Text::Handover)), (&b"/stub\0--run"[..], c"/stub"));
        assert_eq!(run.text(Text::Names), b"");
        assert_eq!((run.root_read_only(), run.unlisted(), run.edited()), (true, false, false));
        assert_eq!(run.hostname(), Some(&b""[..]));
        assert_eq!((run.ids(), run.host_ids()), ((0, 0), (1001, 1002)));
        assert_eq!(run.binds().collect::<Vec<_>>(), facts.binds);
        assert_eq!(run.bind_count(), 2);
        assert_eq!(run.ports().collect::<Vec<_>>(), facts.ports);
        assert_eq!(run.groups().collect::<Vec<_>>(), facts.groups);
        assert_eq!(run.loaders().collect::<Vec<_>>(), facts.loaders);
        for library in &facts.sites {
            let read = run.sites(library.id, library.len).expect("its sites");
            assert_eq!(read.collect::<Vec<_>>(), library.sites);
            assert!(
                run.sites(library.id, library.len + 1).is_none() && run.sites(library.id + 1, library.len).is_none()
            );
        }
        let none = Facts::default().write().expect("it fits");
        assert_eq!(Run::new(&none).expect("whole").hostname(), None);
    }

    #[test]
    fn no_cut_and_no_flip_is_a_panic() {
        let bytes = facts().write().expect("it fits");
        for len in 0..bytes.len() {
            assert!(Run::new(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut copy = bytes.clone();
                copy[at] ^= flip;
                if let Ok(run) = Run::new(&copy) {
                    let _ = (run.binds().count(), run.loaders().count(), run.ports().count(), run.groups().count());
                    let _ = run.sites(7, 10).map(Iterator::count);
                    let _ = (run.text(Text::Shim), run.c_text(Text::Handover), run.hostname());
                }
            }
        }
        let nul = Bind { guest: b"/a\0b", host: b"/", read_only: false };
        assert!(Facts { binds: vec![nul], ..Facts::default() }.write().is_none());
    }
}
