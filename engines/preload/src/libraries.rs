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
/// Files of configuration that include each other: deeper is a circle. And how many files, patterns and directories are
/// followed.
const DEEPEST: u32 = 8;
const MOST: usize = 1000;

/// The directories by their canonical paths, each once.
pub(crate) fn directories(layout: &Layout, family: Family) -> Vec<Directory> {
    let mut found = Found { layout, dirs: Vec::new(), followed: 0 };
    match family {
        Family::Glibc => {
            found.configured(b"/etc/ld.so.conf", 0);
            found.followed = 0;
            if let Some(bytes) = read(layout, b"/etc/ld.so.cache") {
                for dir in cache::directories(&bytes) {
                    found.add(dir);
                }
            }
            found.followed = 0;
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
    /// Files, patterns and directories so far.
    followed: usize,
}

impl Found<'_> {
    fn add(&mut self, guest: &[u8]) {
        if !guest.starts_with(b"/") || !self.follows() {
            return;
        }
        let Ok((guest, host)) = self.layout.find(guest) else { return };
        if host.is_dir() && !self.dirs.iter().any(|(_, known)| *known == host) {
            self.dirs.push((guest, host));
        }
    }

    /// Counts one more thing to follow, if they are not too many.
    fn follows(&mut self) -> bool {
        self.followed += 1;
        self.followed <= MOST
    }

    /// ldconfig(8): one directory a line, `include PATTERN`, `hwcap` of old, and comments.
    fn configured(&mut self, file: &[u8], depth: u32) {
        if depth == DEEPEST || !self.follows() {
            return;
        }
        let Some(text) = read(self.layout, file) else { return };
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
        if !self.follows() {
            return;
        }
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
    if pattern.starts_with(b"*") && name.starts_with(b".") {
        return false;
    }
    let mut parts = pattern.split(|byte| *byte == b'*');
    let Some(mut rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    // Each part where it comes first: if the rest matches behind a later place, it does behind this one.
    for part in parts {
        let Some(at) = (0..=rest.len()).find(|at| rest[*at..].starts_with(part)) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
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
            ("*", "x", true),
            ("x*x", "x", false),
            ("x**y", "xy", true),
            ("a*b*c*c", "abcbcc", true),
            ("a*b*c*c", "abcbb", false),
            // Tried out at each place, this would take years.
            (&format!("{}b", "a*".repeat(40)), &"a".repeat(250), false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), is, "{pattern} {name}");
        }
    }

    #[test]
    fn configurations_without_end_are_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there");
        fs::create_dir_all(root.join("etc/all")).expect("made");
        fs::create_dir_all(root.join("lib")).expect("made");
        let many = "include /etc/all/*\n/lib\n".repeat(2000);
        for number in 0..20 {
            fs::write(root.join(format!("etc/all/{number}")), &many).expect("written");
        }
        fs::write(root.join("etc/ld.so.conf"), &many).expect("written");
        // Directories that are all different, and one string of a megabyte, from each of its bytes on.
        let entry = |value: u32| [0x0303, 0, value, 0, 0, 0].map(u32::to_le_bytes).concat();
        let names: Vec<u8> = (0..100_000).flat_map(|number| format!("/{number:07}/a\0").into_bytes()).collect();
        let long = [&b"/x".repeat(1 << 20)[..], b"\0"].concat();
        let start = std::time::Instant::now();
        for (count, step, strings_of) in [(100_000_u32, 11, names), (20_000, 2, long)] {
            let head = [&b"glibc-ld.so.cache1.1"[..], &count.to_le_bytes(), &[0; 24]].concat();
            let strings = 48 + 24 * count;
            let entries: Vec<u8> = (0..count).flat_map(|number| entry(strings + step * number)).collect();
            fs::write(root.join("etc/ld.so.cache"), [&head[..], &entries, &strings_of].concat()).expect("written");
            let mut spec = LaunchSpec::new(root.clone(), Identity::launcher(1, 1));
            spec.scratch = root.join("etc");
            let layout = Layout::new(&spec, &root).expect("laid out");
            directories(&layout, Family::Glibc);
        }
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
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
