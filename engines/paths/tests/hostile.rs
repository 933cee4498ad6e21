//! A walk among answers that mean nothing: whatever the host says, whatever is forbidden, from wherever it starts, it
//! ends, and inside the view.
//!
//! The slow tier makes a hundred times as many walks; `fuzz/` looks for them by coverage.

use std::{cell::RefCell, ffi::CStr};

use coracle_paths::{
    Ancestor, Anchor, Base, Bind, Bounds, Buffers, Caller, Errno, Host, Last, Magic, Manner, Request, Table, View,
    resolve_with, table,
};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bits") % limit
    }

    fn path(&mut self, parts: usize) -> Vec<u8> {
        const NAMES: [&str; 18] = [
            "a",
            "b",
            "c",
            "..",
            ".",
            "",
            "proc",
            "self",
            "fd",
            "3",
            "cwd",
            "root",
            "exe",
            "70",
            "task",
            "thread-self",
            "ns",
            "x (deleted)",
        ];
        let mut path = Vec::new();
        for _ in 0..=self.below(parts) {
            if self.below(3) > 0 || !path.is_empty() {
                path.push(b'/');
            }
            match self.below(60) {
                0 => path.extend(std::iter::repeat_n(b'n', self.below(300))),
                at => path.extend_from_slice(NAMES[at % NAMES.len()].as_bytes()),
            }
        }
        path
    }
}

/// Answers anything.
struct Anything(RefCell<Random>);

impl Anything {
    /// `plain`: as the kernel writes where a link of `/proc` leads.
    fn text(&self, into: &mut [u8], plain: bool) -> usize {
        let random = &mut *self.0.borrow_mut();
        let parts = if random.below(50) == 0 { 900 } else { 5 };
        let mut text = random.path(parts);
        if plain {
            let names = text.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"." | b".."));
            text = names.flat_map(|name| [b"/", name].concat()).collect();
        }
        let len = text.len().min(into.len());
        into[..len].copy_from_slice(&text[..len]);
        len
    }
}

impl Host for Anything {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        let kind = self.0.borrow_mut().below(9);
        match kind {
            0..4 => Err(Errno::EINVAL),
            4 => Err(Errno::ENAMETOOLONG),
            5 => Err(Errno::ENOENT),
            _ => Ok(self.text(target, Magic::of(path.to_bytes()).is_some())),
        }
    }

    fn meets_link(&self, _path: &CStr) -> Option<bool> {
        [None, Some(true), Some(false)][self.0.borrow_mut().below(3)]
    }

    fn leads_to(&self, _link: &CStr, _name: &[u8]) -> bool {
        self.0.borrow_mut().below(2) == 0
    }

    fn ancestor(&self, _link: &CStr, text: &mut [u8]) -> Result<Ancestor, Errno> {
        let len = self.text(text, true);
        Ok(Ancestor { len, levels: 1 + u32::try_from(self.0.borrow_mut().below(4)).expect("small") })
    }

    fn caller(&self) -> Caller {
        Caller { pid: 70, tid: 71 }
    }

    fn root_of(&self, pid: u32, root: &mut [u8]) -> Option<usize> {
        root[..2].copy_from_slice(b"/a");
        (pid == 3).then_some(2)
    }
}

#[test]
fn whatever_the_host_says_a_walk_ends_inside_the_view() {
    walk_all(1..=60_000);
}

#[test]
fn many_more_walks_end_inside_the_view() {
    if !harness::skip::unless_slow() {
        walk_all(60_001..=6_060_000);
    }
}

fn walk_all(seeds: std::ops::RangeInclusive<u64>) {
    let walks = seeds.clone().count();
    let binds = [
        Bind { guest: b"/a/b", host: b"/bound", read_only: true },
        Bind { guest: b"/proc", host: b"/proc", read_only: false },
    ];
    let names = table::build([
        (&b"a"[..], table::Kind::Directory),
        (b"a/a", table::Kind::Symlink(b"../../../..")),
        (b"b", table::Kind::Symlink(b"/proc/self/cwd")),
        (b"c", table::Kind::File),
    ])
    .expect("a table");
    let mut buffers = Box::new(Buffers::new());
    let mut resolved = 0;
    for seed in seeds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut damaged = names.clone();
        for _ in 0..random.below(4) {
            let at = random.below(damaged.len());
            damaged[at] = u8::try_from(random.below(256)).expect("a byte");
        }
        let mut view = View::new(b"/tree", true, &binds).expect("a view");
        if random.below(2) == 0
            && let Ok(table) = Table::new(&damaged)
        {
            view = view.with_table(table);
        }
        let parts = if random.below(40) == 0 { 700 } else { 6 };
        let path = random.path(parts);
        let root: &[u8] = [&b"/"[..], b"/a", b"/a/b/c"][random.below(3)];
        let guest: &[u8] = [&b"/"[..], b"/a", b"/a/b", b"/a/b/c/d", b"/proc"][random.below(5)];
        let last = [Last::Follow, Last::NoFollow, Last::Parent, Last::Create][random.below(4)];
        let levels = u32::try_from(random.below(3)).expect("small");
        let anchor = (levels > 0).then_some(Anchor { host: b"/proc/71/cwd", levels });
        let deleted = anchor.is_none() && random.below(6) == 0;
        let bounds = if random.below(3) == 0 { Bounds(random.below(32) as u64) } else { Bounds::default() };
        let request = Request { root, base: Base { guest, deleted }, path: &path, last };
        let host = Anything(RefCell::new(random));
        if let Ok(found) = resolve_with(&view, &host, &request, Manner { bounds, anchor }, &mut buffers) {
            resolved += 1;
            let text = found.host.to_bytes();
            let below = |top: &[u8]| text.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
            let inside = below(b"/tree") || below(b"/bound") || below(b"/proc");
            let bare_root = text == b"/" && found.ending == coracle_paths::Ending::Root;
            assert!(inside || found.at_base || bare_root, "seed {seed}: {found:?} leaves the view");
            // Only behind an anchor, or as the kernel's own last component, may it climb.
            let mut parts = text.split(|byte| *byte == b'/').rev();
            let last_may_climb = last == Last::Parent;
            let climbs = parts.by_ref().skip(usize::from(last_may_climb)).any(|part| part == b"..");
            assert!(!climbs || found.deep || found.at_base || deleted, "seed {seed}: {found:?} climbs");
        }
    }
    assert!(resolved > walks / 10, "{resolved} of {walks} walks led somewhere");
}
