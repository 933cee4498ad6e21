//! Bytes taken for a table: a walk through them must end, without a panic.
#![no_main]

use std::ffi::CStr;

use coracle_paths::{Base, Buffers, Caller, Errno, Host, Last, Request, Table, View, resolve};
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

fuzz_target!(|input: (&[u8], &[u8], bool)| {
    let (path, bytes, follow) = input;
    let Ok(table) = Table::new(bytes) else { return };
    let view = View::new(b"/tree", true, &[]).expect("a view").with_table(table);
    let path: Vec<u8> = path.iter().copied().filter(|byte| *byte != 0).collect();
    let base = Base { guest: b"/a", deleted: false };
    let last = if follow { Last::Follow } else { Last::NoFollow };
    let mut buffers = Box::new(Buffers::new());
    if let Ok(found) = resolve(&view, &Nobody, &Request { root: b"/", base, path: &path, last }, &mut buffers) {
        assert!(found.host.to_bytes().starts_with(b"/tree"), "{:?} leaves the tree", found.host);
        assert!(!found.host.to_bytes().split(|byte| *byte == b'/').any(|part| part == b".."));
    }
});
