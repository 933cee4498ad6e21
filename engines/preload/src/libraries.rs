//! Where the guest's own loaders would look for libraries, in their order.
//!
//! glibc's asks /etc/ld.so.cache, which follows /etc/ld.so.conf, and then its own directories; musl's reads
//! `/etc/ld-musl-ARCH.path`. All of them are read in the guest's file system: nothing of the host's is used.

use std::{fs, os::unix::ffi::OsStrExt, path::Path};

use coracle_entry::Family;
use coracle_layout::Layout;

use crate::{cache, links::Directory};

/// What glibc's loaders are built to search in distributions, in their order.
const GLIBC: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
const MUSL: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];
/// Files of configuration that include each other: deeper is a circle.
const DEEPEST: u32 = 8;

/// The directories by their canonical paths, each once.
pub(crate) fn directories(layout: &Layout, family: Family) -> Vec<Directory> {
    let mut found = Found { layout, dirs: Vec::new() };
    match family {
        Family::Glibc => {
            found.configured(b"/etc/ld.so.conf", 0);
            if let Some(bytes) = read(layout, b"/etc/ld.so.cache") {
                for dir in cache::directories(&bytes) {
                    found.add(dir);
                }
            }
            GLIBC.iter().for_each(|dir| found.add(dir.as_bytes()));
        }
        Family::Musl => match read(layout, b"/etc/ld-musl-x86_64.path") {
            Some(list) => list.split(|byte| matches!(byte, b'\n' | b':')).for_each(|dir| found.add(dir)),
            None => MUSL.iter().for_each(|dir| found.add(dir.as_bytes())),
        },
    }
    found.dirs
}

struct Found<'l> {
    layout: &'l Layout,
    dirs: Vec<Directory>,
}

impl Found<'_> {
    fn add(&mut self, guest: &[u8]) {
        if !guest.starts_with(b"/") {
            return;
        }
        let Ok((guest, host)) = self.layout.find(guest) else { return };
        if host.is_dir() && !self.dirs.iter().any(|(_, known)| *known == host) {
            self.dirs.push((guest, host));
        }
    }

    /// ldconfig(8): one directory a line, `include PATTERN`, `hwcap` of old, and comments.
    fn configured(&mut self, file: &[u8], depth: u32) {
        let Some(text) = read(self.layout, file).filter(|_| depth < DEEPEST) else { return };
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
            match words.next() {
                Some(b"include") => words.for_each(|pattern| self.include(file, pattern, depth)),
                Some(b"hwcap") | None => {}
                // An old way of naming the kind of the libraries behind it: `DIR=libc6`.
                Some(_) => self.add(line.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()),
            }
        }
    }

    /// Includes what matches, in the order of names; relative patterns start where the file is.
    fn include(&mut self, file: &[u8], pattern: &[u8], depth: u32) {
        let slash = file.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let full = if pattern.starts_with(b"/") { pattern.to_vec() } else { [&file[..=slash], pattern].concat() };
        let slash = full.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (dir, name) = (&full[..slash], &full[slash + 1..]);
        let Ok((_, host)) = self.layout.find(if dir.is_empty() { b"/" } else { dir }) else { return };
        let names = fs::read_dir(host).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
        let mut names: Vec<_> = names.filter(|found| matches(name, found.as_bytes())).collect();
        names.sort();
        for name in names {
            self.configured(&[dir, b"/", name.as_bytes()].concat(), depth + 1);
        }
    }
}

/// Whether a name is of a pattern with stars (and no hidden one of a pattern that does not say so).
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|byte| *byte == b'*') else { return pattern == name };
    let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
    let Some(rest) = name.strip_prefix(head) else { return false };
    (star > 0 || !name.starts_with(b".")) && (0..=rest.len()).any(|at| matches_on(tail, &rest[at..]))
}

fn matches_on(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|at| matches_on(rest, &name[at..])),
        Some((byte, rest)) => name.split_first().is_some_and(|(first, name)| first == byte && matches_on(rest, name)),
    }
}

/// A file of the guest's, if it is one and not absurdly large.
pub(crate) fn read(layout: &Layout, guest: &[u8]) -> Option<Vec<u8>> {
    const MOST: u64 = 16 << 20;
    let (_, host) = layout.find(guest).ok()?;
    let sound = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MOST);
    if sound(&host) { fs::read(host).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use coracle_api::{Identity, LaunchSpec};

    use super::*;

    #[test]
    fn patterns_of_names() {
        for (pattern, name, is) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.old", false),
            ("*.conf", ".conf", false),
            ("x*y*.conf", "xaybyc.conf", true),
            ("x", "x", true),
            ("x", "xx", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), is, "{pattern} {name}");
        }
    }

    #[test]
    fn the_guests_configuration_is_followed_inside_its_tree() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there");
        for made in ["etc/ld.so.conf.d", "usr/lib/x86_64-linux-gnu", "opt/a b", "opt/b", "usr/local/lib"] {
            fs::create_dir_all(root.join(made)).expect("made");
        }
        symlink("/usr/lib", root.join("lib")).expect("linked");
        let write = |name: &str, text: &str| fs::write(root.join(name), text).expect("written");
        write("etc/ld.so.conf", "# all\ninclude ld.so.conf.d/*.conf\ninclude /etc/ld.so.conf\n/none\n");
        write("etc/ld.so.conf.d/2.conf", "/usr/lib/x86_64-linux-gnu\n/opt/b=libc6 # old\n");
        write("etc/ld.so.conf.d/1.conf", "/usr/local/lib\n");
        write("etc/ld.so.conf.d/3.conf~", "/etc\n");
        let mut spec = LaunchSpec::new(root.clone(), Identity::launcher(1, 1));
        spec.scratch = root.join("opt");
        let layout = Layout::new(&spec, &root).expect("laid out");
        let names = ["usr/local/lib", "usr/lib/x86_64-linux-gnu", "opt/b", "usr/lib"].map(|name| root.join(name));
        let directories = |family| directories(&layout, family).into_iter().map(|(_, host)| host).collect::<Vec<_>>();
        assert_eq!(directories(Family::Glibc), names);
        let names = ["usr/lib", "usr/local/lib"].map(|name| root.join(name));
        assert_eq!(directories(Family::Musl), names);
        write("etc/ld-musl-x86_64.path", "/opt/b:/opt/a b\n");
        assert_eq!(directories(Family::Musl), [root.join("opt/b"), root.join("opt/a b")]);
    }
}
