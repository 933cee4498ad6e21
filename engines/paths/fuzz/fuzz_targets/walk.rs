//! A host whose every answer is arbitrary: the walk must end, inside the view.
#![no_main]

use std::{cell::RefCell, ffi::CStr};

use coracle_paths::{Base, Bind, Buffers, Caller, Errno, Host, Last, Request, View, resolve};
use libfuzzer_sys::fuzz_target;

struct Anything<'a>(RefCell<std::slice::Iter<'a, Vec<u8>>>);

impl Host for Anything<'_> {
    fn readlink(&self, _path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        let mut answers = self.0.borrow_mut();
        let Some(text) = answers.next() else { return Err(Errno::EINVAL) };
        let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).take(target.len()).collect();
        target[..text.len()].copy_from_slice(&text);
        if text.is_empty() { Err(Errno::EINVAL) } else { Ok(text.len()) }
    }

    fn meets_link(&self, path: &CStr) -> Option<bool> {
        path.to_bytes().last().map(|byte| byte & 1 == 0)
    }

    fn caller(&self) -> Caller {
        Caller { pid: 1, tid: 1 }
    }

    fn root_of(&self, _pid: u32, _root: &mut [u8]) -> Option<usize> {
        None
    }
}

fuzz_target!(|input: (Vec<u8>, Vec<Vec<u8>>, u8)| {
    let (path, answers, how) = input;
    let binds = [
        Bind { guest: b"/a/b", host: b"/bound", read_only: true },
        Bind { guest: b"/proc", host: b"/proc", read_only: false },
    ];
    let view = View::new(b"/tree", false, &binds).expect("a view");
    let path: Vec<u8> = path.into_iter().filter(|byte| *byte != 0).collect();
    let last = [Last::Follow, Last::NoFollow, Last::Parent, Last::Create][usize::from(how % 4)];
    let base = Base { guest: b"/a", deleted: how >= 128 };
    let host = Anything(RefCell::new(answers.iter()));
    let mut buffers = Box::new(Buffers::new());
    if let Ok(found) = resolve(&view, &host, &Request { root: b"/", base, path: &path, last }, &mut buffers) {
        let text = found.host.to_bytes();
        let inside = [&b"/tree"[..], b"/bound", b"/proc"].iter().any(|top| text.starts_with(top));
        assert!(inside || found.at_base || text == b"/" && found.guest == b"/", "{:?} leaves the view", found.host);
    }
});
