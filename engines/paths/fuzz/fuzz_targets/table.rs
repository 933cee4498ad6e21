//! The table of a tree, whole or damaged: a walk through it ends without a panic, and inside the tree.
//!
//! Bytes taken for a table from nothing hardly ever pass for one, so the input says which tree the table is of, and which of
//! its bytes are changed then.
#![no_main]

use std::{collections::BTreeMap, ffi::CStr};

use coracle_paths::{Base, Buffers, Caller, Ending, Errno, Host, Last, Request, Table, View, resolve, table};
use libfuzzer_sys::fuzz_target;

struct Nobody;

impl Host for Nobody {
    fn readlink(&self, path: &CStr, _target: &mut [u8]) -> Result<usize, Errno> {
        unreachable!("with a table and no binds nobody is asked, not even of {path:?}")
    }

    fn caller(&self) -> Caller {
        Caller { pid: 1, tid: 1 }
    }

    fn root_of(&self, _pid: u32, _root: &mut [u8]) -> Option<usize> {
        None
    }
}

/// Where the next name goes (into which of the directories so far), the name's number, and a link's target.
type Entry = (u8, u8, Option<Vec<u8>>);

/// The names of a tree: each in the order in which they were thought of, so a directory before what is in it.
fn tree(entries: &[Entry]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut directories = vec![Vec::new()];
    let mut seen = BTreeMap::new();
    let mut names = Vec::new();
    for (into, name, target) in entries.iter().take(60) {
        let mut path = directories[usize::from(*into) % directories.len()].clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.push(b'a' + name % 8);
        if seen.insert(path.clone(), ()).is_some() {
            continue;
        }
        let target = target.as_ref().map(|text| text.iter().copied().filter(|byte| *byte != 0).take(200).collect());
        let target = target.filter(|text: &Vec<u8>| !text.is_empty());
        if target.is_none() {
            directories.push(path.clone());
        }
        names.push((path, target));
    }
    names
}

fuzz_target!(|input: (Vec<Entry>, Vec<u8>, Vec<(u16, u8)>, u8)| {
    let (entries, path, damage, how) = input;
    let names = tree(&entries);
    let kinds = names.iter().map(|(path, target)| {
        let kind = target.as_deref().map_or(table::Kind::Directory, table::Kind::Symlink);
        (path.as_slice(), kind)
    });
    let mut bytes = table::build(kinds).expect("a table of names in order");
    assert!(Table::is_whole(&bytes));
    for (at, byte) in damage {
        let at = usize::from(at) % bytes.len();
        bytes[at] = byte;
    }
    let Ok(table) = Table::new(&bytes) else { return };
    let view = View::new(b"/tree", true, &[]).expect("a view").with_table(table);
    let path: Vec<u8> = path.iter().copied().filter(|byte| *byte != 0).collect();
    let base = Base { guest: b"/a", deleted: false };
    let last = [Last::Follow, Last::NoFollow, Last::Parent, Last::Create][usize::from(how % 4)];
    let mut buffers = Box::new(Buffers::new());
    if let Ok(found) = resolve(&view, &Nobody, &Request { root: b"/", base, path: &path, last }, &mut buffers) {
        // What cannot be done to a root is asked of the host's.
        let bare_root = found.host.to_bytes() == b"/" && found.ending == Ending::Root;
        assert!(found.host.to_bytes().starts_with(b"/tree") || bare_root, "{:?} leaves the tree", found.host);
        // Names that cannot be are the kernel's to judge: only as the last may it be told to climb.
        let mut parts = found.host.to_bytes().split(|byte| *byte == b'/').rev();
        let climbs = parts.by_ref().skip(usize::from(last == Last::Parent)).any(|part| part == b"..");
        assert!(!climbs, "{:?} climbs", found.host);
    }
});
