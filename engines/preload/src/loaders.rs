//! The tree's own loaders, and what they understand when they are executed themselves.
//!
//! Not told by version numbers, which distributions patch over, but by the names of options in their files.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use coracle_api as api;
use coracle_entry::{Family, Loader};
use coracle_layout::Layout;

use crate::{
    libraries::{self, directories},
    place::Safe,
};

/// What programs for x86-64 call their loader.
const NAMES: [&CStr; 2] = [c"/lib64/ld-linux-x86-64.so.2", c"/lib/ld-musl-x86_64.so.1"];

/// A loader with its strings.
#[derive(Debug)]
pub(crate) struct Owned {
    guest: CString,
    host: CString,
    libraries: CString,
    family: Family,
    preload: bool,
    argv0: bool,
    inhibit_cache: bool,
}

impl Owned {
    pub(crate) fn borrow(&self) -> Loader<'_> {
        Loader {
            guest: &self.guest,
            host: &self.host,
            libraries: &self.libraries,
            family: self.family,
            preload: self.preload,
            argv0: self.argv0,
            inhibit_cache: self.inhibit_cache,
        }
    }
}

/// The loaders that the guest's file system has, by the names that programs are built with and by that of `also`. What the
/// build saw (`known`) need not be looked for, unless the tree may have changed since.
pub(crate) fn find(
    layout: &Layout,
    (known, changes): (&[api::Loader], bool),
    also: Option<&CStr>,
    safe: &Safe,
) -> Vec<Owned> {
    let also = also.filter(|name| !NAMES.contains(name));
    NAMES.into_iter().chain(also).filter_map(|name| look(layout, (known, changes), name, safe)).collect()
}

fn look(layout: &Layout, (known, changes): (&[api::Loader], bool), name: &CStr, safe: &Safe) -> Option<Owned> {
    let (guest, host) = layout.find(name.to_bytes()).ok()?;
    let bytes = libraries::read(layout, name.to_bytes())?;
    let has = |option: &[u8]| memory_has(&bytes, option);
    let musl = has(b"musl libc") || name.to_bytes().windows(7).any(|part| part == b"ld-musl");
    let family = if musl { Family::Musl } else { Family::Glibc };
    let dirs: Vec<PathBuf> = match known.iter().find(|loader| loader.path.as_bytes() == guest) {
        Some(loader) => {
            let mut dirs: Vec<PathBuf> =
                loader.directories.iter().filter_map(|dir| Some(layout.find(dir.as_bytes()).ok()?.1)).collect();
            // A tree that its guests change may have got more.
            let more = if changes { directories(layout, family) } else { Vec::new() };
            more.into_iter().for_each(|dir| {
                if !dirs.contains(&dir) {
                    dirs.push(dir)
                }
            });
            dirs
        }
        None => directories(layout, family),
    };
    let list = dirs.iter().filter_map(|dir| safe.name(dir)).map(|dir| dir.as_os_str().as_bytes().to_vec());
    Some(Owned {
        guest: name.to_owned(),
        host: CString::new(host.as_os_str().as_bytes()).ok()?,
        libraries: CString::new(list.collect::<Vec<_>>().join(&b':')).ok()?,
        family,
        preload: has(if musl { b"preload\0" } else { b"--preload\0" }),
        argv0: has(if musl { b"argv0\0" } else { b"--argv0\0" }),
        inhibit_cache: !musl && has(b"--inhibit-cache\0"),
    })
}

fn memory_has(bytes: &[u8], what: &[u8]) -> bool {
    // The first byte is rare enough in a loader for this to be quick.
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == what[0]) {
        if rest[at..].starts_with(what) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}
