//! Libraries that the kernel would not find where the guest does: by symbolic links whose targets are absolute, in a tree
//! without edits; and those that are bound one by one into a directory (a driver's).
//!
//! A loader that is told where the tree's libraries are opens what it finds there before any of our code runs, and so the
//! kernel follows such a link on the host (Debian's alternatives are all made so). Therefore each gets a link of ours, to
//! the host path of what it leads to in the guest, in a directory that is searched before the tree's. A directory into which
//! libraries are bound is shown by one of ours with links in the place of the empty files that binds are laid on.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use coracle_api::{Bind, LaunchSpec};
use coracle_layout::Layout;

use crate::place::Safe;

/// A library directory: its guest path, and the host's.
pub(crate) type Directory = (Vec<u8>, PathBuf);

/// Links that are followed in one directory.
const MOST: usize = 8;

/// The names of libraries that the kernel would not find as the guest does, and where they are.
fn lost(layout: &Layout, directories: &[Directory]) -> BTreeMap<OsString, PathBuf> {
    let mut found = BTreeMap::new();
    for (number, (guest, host)) in directories.iter().enumerate() {
        for entry in fs::read_dir(host).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if !is_link || !is_library(name.as_bytes()) || !leaves(&entry.path()) {
                continue;
            }
            let earlier =
                directories[..number].iter().any(|(_, earlier)| earlier.join(&name).symlink_metadata().is_ok());
            let Ok((_, target)) = layout.find(&[guest, &b"/"[..], name.as_bytes()].concat()) else { continue };
            if !earlier && target.is_file() {
                found.insert(name, target);
            }
        }
    }
    found
}

fn is_library(name: &[u8]) -> bool {
    name.windows(3).any(|three| three == b".so")
}

/// Whether a link, or one that it leads to, has another target than a name in its own directory.
fn leaves(link: &Path) -> bool {
    let mut link = link.to_owned();
    for _ in 0..MOST {
        match fs::read_link(&link) {
            Ok(target) if target.as_os_str().as_bytes().contains(&b'/') => return true,
            Ok(target) => link.set_file_name(target),
            Err(_) => return false,
        }
    }
    true
}

/// A directory of links, if one is needed, made in `place` unless it is there: named by what is in it.
pub(crate) fn directory(layout: &Layout, directories: &[Directory], place: &Safe) -> io::Result<Option<PathBuf>> {
    let links = lost(layout, directories);
    if links.is_empty() { Ok(None) } else { of_links(&links, place.dir()).map(Some) }
}

/// The run with directories into which libraries are bound as loaders have to see them; `None` if there are none.
pub(crate) fn with_bound(spec: &LaunchSpec) -> io::Result<Option<LaunchSpec>> {
    let mut changed = None;
    for (number, bind) in spec.binds.iter().enumerate().filter(|(_, bind)| bind.host.is_dir()) {
        let inside = |one: &&Bind| one.guest.parent() == Some(&bind.guest) && one.host.is_file();
        let named = spec.binds.iter().filter(inside).filter_map(|one| Some((one.guest.file_name()?, &one.host)));
        let libraries = named.filter(|(name, _)| is_library(name.as_bytes()));
        let mut links: BTreeMap<OsString, PathBuf> =
            libraries.map(|(name, host)| (name.to_owned(), host.clone())).collect();
        if links.is_empty() {
            continue;
        }
        for entry in fs::read_dir(&bind.host)? {
            let path = entry?.path();
            let Some(name) = path.file_name() else { continue };
            if !links.contains_key(name) {
                let target = fs::read_link(&path).unwrap_or_else(|_| path.clone());
                links.insert(name.to_owned(), target);
            }
        }
        let shown = of_links(&links, &fs::canonicalize(&spec.scratch)?)?;
        changed.get_or_insert_with(|| spec.clone()).binds[number].host = shown;
    }
    Ok(changed)
}

/// A directory of these links in `place`, made unless it is there.
fn of_links(links: &BTreeMap<OsString, PathBuf>, place: &Path) -> io::Result<PathBuf> {
    let mut text = Vec::new();
    for (name, target) in links {
        text.extend_from_slice(&[name.as_bytes(), b"\0", target.as_os_str().as_bytes(), b"\0"].concat());
    }
    let path = place.join(format!("links-{:016x}", coracle_api::content_sum(&text)));
    if is_whole(&path, links) {
        return Ok(path);
    }
    let beside = place.join(format!(".new-links-{}", std::process::id()));
    let _ = fs::remove_dir_all(&beside);
    let made = make(&beside, &path, links);
    if made.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    match made {
        // Somebody else was quicker.
        Err(_) if is_whole(&path, links) => Ok(path),
        other => other.map(|()| path),
    }
}

fn make(beside: &Path, path: &Path, links: &BTreeMap<OsString, PathBuf>) -> io::Result<()> {
    fs::create_dir(beside)?;
    for (name, target) in links {
        symlink(target, beside.join(name))?;
    }
    // What is there and is not whole was damaged.
    let _ = fs::remove_dir_all(path);
    fs::rename(beside, path)
}

fn is_whole(path: &Path, links: &BTreeMap<OsString, PathBuf>) -> bool {
    links.iter().all(|(name, target)| fs::read_link(path.join(name)).is_ok_and(|found| found == *target))
}

#[cfg(test)]
mod tests {
    use coracle_api::Identity;

    use super::*;

    #[test]
    fn absolute_links_lead_where_they_lead_in_the_guest() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there").join("tree");
        for made in ["lib", "usr/lib", "etc/alternatives", "opt"] {
            fs::create_dir_all(root.join(made)).expect("made");
        }
        for file in ["opt/libfar.so.1", "lib/libown.so.1", "lib/libboth.so"] {
            fs::write(root.join(file), "").expect("written");
        }
        for (target, link) in [
            ("/etc/alternatives/libfar", "lib/libfar.so"),
            ("../../opt/libfar.so.1", "etc/alternatives/libfar"),
            ("libfar.so", "lib/libnear.so"),
            ("libown.so.1", "lib/libown.so"),
            ("/opt/none.so", "lib/libnone.so"),
            ("/opt/libfar.so.1", "lib/other"),
            ("/opt/libfar.so.1", "usr/lib/libboth.so"),
            ("libloop.so", "lib/libloop.so"),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        let scratch = dir.path().join("scratch");
        fs::create_dir(&scratch).expect("made");
        let mut spec = LaunchSpec::new(root.clone(), Identity::launcher(1, 1));
        spec.scratch.clone_from(&scratch);
        let layout = Layout::new(&spec, &root).expect("laid out");
        let directories = ["lib", "usr/lib"].map(|name| (format!("/{name}").into_bytes(), root.join(name)));
        let far = root.join("opt/libfar.so.1");
        let names = |links: &BTreeMap<OsString, PathBuf>| {
            assert!(links.values().all(|target| *target == far), "{links:?}");
            links.keys().map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&lost(&layout, &directories)), ["libfar.so", "libnear.so"]);
        // SAFETY: geteuid takes nothing and cannot fail.
        let place = Safe::of(&scratch.canonicalize().expect("there"), unsafe { libc::geteuid() }).expect("a name");
        let made = directory(&layout, &directories, &place).expect("made").expect("needed");
        assert_eq!(fs::read_link(made.join("libnear.so")).expect("a link"), far);
        fs::remove_file(made.join("libnear.so")).expect("removed");
        assert_eq!(directory(&layout, &directories, &place).expect("made again"), Some(made.clone()));
        assert_eq!(fs::read_link(made.join("libnear.so")).expect("a link"), far);
        assert_eq!(fs::read_dir(&scratch).expect("listed").count(), 1, "nothing temporary is left");
        assert_eq!(directory(&layout, &directories[1..], &place).expect("looked").map(|_| ()), Some(()));
        assert_eq!(directory(&layout, &[], &place).expect("looked"), None);
    }
}
