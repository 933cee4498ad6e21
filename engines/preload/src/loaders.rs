//! The tree's own loaders, and what they understand when they are executed themselves.
//!
//! Not told by version numbers, which distributions patch over, but by the names of options in their files.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use coracle_api as api;
use coracle_entry::{Family, Loader, TOLD};
use coracle_layout::Layout;

use crate::{
    libraries::directories,
    links::{self, Directory},
    mapped::{self, Mapped},
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

/// Where loaders are looked for, and what is known before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) layout: &'a Layout,
    /// What the build saw, which need not be looked for.
    pub(crate) known: &'a [api::Loader],
    /// Whether the build has made the tree's links to libraries lead where they should.
    pub(crate) edited: bool,
    /// Whether the tree may have changed since.
    pub(crate) changes: bool,
    /// Host path of the tree.
    pub(crate) root: &'a Path,
    pub(crate) tree: &'a Safe,
    pub(crate) place: &'a Safe,
}

/// The loaders that the guest's file system has, by the names that programs are built with and by that of `also`.
pub(crate) fn find(search: &Search<'_>, also: Option<&CStr>) -> io::Result<Vec<Owned>> {
    let mut found: Vec<_> =
        NAMES.into_iter().filter_map(|name| look(search, name).transpose()).collect::<io::Result<_>>()?;
    // An edited program names one of them by its host path.
    let known = |name: &&CStr| found.iter().any(|loader| search.edited && loader.host.as_c_str() == *name);
    if let Some(name) = also.filter(|name| !NAMES.contains(name) && !known(name)) {
        found.extend(look(search, name)?);
    }
    Ok(found)
}

fn look(search: &Search<'_>, name: &CStr) -> io::Result<Option<Owned>> {
    let layout = search.layout;
    let Ok((guest, host)) = layout.find(name.to_bytes()) else { return Ok(None) };
    let Some(file) = fs::File::open(&host).ok().and_then(|file| Mapped::new(&file)) else { return Ok(None) };
    let has = |option: &[u8]| mapped::has(file.bytes(), option);
    let musl = has(b"musl libc") || name.to_bytes().windows(7).any(|part| part == b"ld-musl");
    let family = if musl { Family::Musl } else { Family::Glibc };
    let mut dirs: Vec<Directory> = match search.known.iter().find(|loader| loader.path.as_bytes() == guest) {
        Some(loader) => {
            // What files as they are say of the host's directories, edited ones say of the tree's.
            let named = loader.named.iter().filter(|_| !search.edited);
            let known = loader.directories.iter().chain(named);
            let mut dirs: Vec<Directory> = known.filter_map(|dir| layout.find(dir.as_bytes()).ok()).collect();
            // A tree that its guests change may have got more.
            let more = if search.changes { directories(layout, family) } else { Vec::new() };
            for dir in more {
                if !dirs.contains(&dir) {
                    dirs.push(dir);
                }
            }
            dirs
        }
        None => directories(layout, family),
    };
    if !search.changes {
        // Of a tree that stays as it is: a loader looks in each directory for each library, under a dozen names.
        dirs.retain(|(_, dir)| !dir.starts_with(search.root) || may_have_libraries(dir));
    }
    let trusted = search.edited && !search.changes;
    let links = if trusted { None } else { links::directory(layout, &dirs, search.place)? };
    let links = links.map(|links| [TOLD, links.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default()].concat());
    let dirs = dirs.iter().filter_map(|(_, dir)| search.tree.name(dir));
    let list: Vec<Vec<u8>> = links.into_iter().chain(dirs.map(|dir| dir.into_os_string().into_vec())).collect();
    Ok(Some(Owned {
        guest: name.to_owned(),
        host: CString::new(host.into_os_string().into_vec())?,
        libraries: CString::new(list.join(&b':'))?,
        family,
        preload: has(if musl { b"preload\0" } else { b"--preload\0" }),
        argv0: has(if musl { b"argv0\0" } else { b"--argv0\0" }),
        inhibit_cache: !musl && has(b"--inhibit-cache\0"),
    }))
}

/// Whether a directory has a file that can be a library, or a directory in which a loader looks for those of a kind of
/// processor; it has if it cannot be read.
fn may_have_libraries(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return true };
    entries.into_iter().any(|entry| {
        let Ok(entry) = entry else { return true };
        let name = entry.file_name();
        let kinds: [&[u8]; 6] = [b"glibc-hwcaps", b"tls", b"x86_64", b"haswell", b"xeon_phi", b"avx512_1"];
        kinds.contains(&name.as_bytes()) || mapped::has(name.as_bytes(), b".so")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_without_libraries_are_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let make = |name: &str| {
            let made = dir.path().join(name);
            fs::create_dir_all(made.parent().expect("inside")).expect("made");
            fs::write(made, "").expect("written");
        };
        for (file, has) in [
            ("a/python3/x.so", false),
            ("b/libx.so.6", true),
            ("c/plugin.so", true),
            ("d/glibc-hwcaps/y", true),
            ("e/tls/y", true),
            ("f/README", false),
        ] {
            make(file);
            assert_eq!(may_have_libraries(&dir.path().join(&file[..1])), has, "{file}");
        }
        assert!(may_have_libraries(&dir.path().join("none")));
    }
}
