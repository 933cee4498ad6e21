//! The table of mounts that a guest sees, made of the kernel's own: the tree, the binds, and the host's mounts below those:
//! what the same view would be if it had been mounted.
//!
//! The kernel writes blanks and such in paths as octal numbers (proc_pid_mountinfo(5)). Paths are compared as it writes
//! them, so that nothing has to be kept but slices of its text, in memory that the caller gives ([`rooms`]).

use coracle_paths::{PATH_MAX, View};

/// One line of the kernel's mountinfo; its texts as written there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mount<'t> {
    device: &'t [u8],
    /// The mount's root in its file system.
    root: &'t [u8],
    /// Where it is mounted.
    point: &'t [u8],
    options: &'t [u8],
    kind: &'t [u8],
    source: &'t [u8],
    /// Options of the file system.
    deeper: &'t [u8],
}

/// One line for the guest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'t> {
    /// Where it is mounted: the place that it belongs to, as the guest names it, and what is behind that, as the kernel
    /// writes.
    guest: &'t [u8],
    inside: &'t [u8],
    mount: Mount<'t>,
    /// What the place is in the mount, behind the mount's own root.
    below: &'t [u8],
    read_only: bool,
}

/// How many of each [`table`] needs room for, of a view and the kernel's text.
#[must_use]
pub fn rooms(view: &View<'_>, text: &[u8]) -> (usize, usize) {
    let lines = text.split(|byte| *byte == b'\n').count();
    (lines, (view.binds().len() + 1) * (lines + 1))
}

/// Writes the table of `/proc/PID/mountinfo` (`long`), or that of `/proc/PID/mounts`, from the text of the former; `None` if
/// there is no room, or `put` has none.
pub fn table<'t>(
    view: &View<'t>,
    text: &'t [u8],
    long: bool,
    (hosts, seen): (&mut [Mount<'t>], &mut [Seen<'t>]),
    mut put: impl FnMut(&[u8]) -> Option<()>,
) -> Option<()> {
    let mut count = 0;
    for mount in text.split(|byte| *byte == b'\n').filter_map(Mount::parse) {
        *hosts.get_mut(count)? = mount;
        count += 1;
    }
    let hosts = hosts.get(..count)?;
    let count = look(view, hosts, seen)?;
    let seen = seen.get(..count)?;
    for (at, entry) in seen.iter().enumerate() {
        entry.write(seen, at, long, &mut put)?;
    }
    Some(())
}

/// What the guest sees, in the order of places; how many that are.
fn look<'t>(view: &View<'t>, hosts: &[Mount<'t>], seen: &mut [Seen<'t>]) -> Option<usize> {
    let mut count = 0;
    let places = core::iter::once((None, &b"/"[..], view.root()))
        .chain(view.binds().iter().enumerate().map(|(at, bind)| (Some(at), bind.guest, bind.host)));
    for (bind, guest, place) in places {
        let read_only = view.read_only(bind);
        // Of several mounts at one place the last is seen.
        let holder = hosts.iter().filter(|mount| plain_below(place, mount.point).is_some());
        let Some(holder) =
            holder.enumerate().max_by_key(|(at, mount)| (mount.point.len(), *at)).map(|(_, mount)| mount)
        else {
            continue;
        };
        let below = plain_below(place, holder.point).unwrap_or_default();
        *seen.get_mut(count)? = Seen { guest, inside: b"", mount: *holder, below, read_only };
        count += 1;
        for (at, mount) in hosts.iter().enumerate() {
            let Some(inside) = written_below(mount.point, place).filter(|inside| !inside.is_empty()) else { continue };
            let covered = hosts[at + 1..].iter().any(|later| covers(later.point, mount.point));
            if !covered && mount_of(view, guest, inside) == bind {
                *seen.get_mut(count)? = Seen { guest, inside, mount: *mount, below: b"", read_only };
                count += 1;
            }
        }
    }
    Some(count)
}

impl<'t> Mount<'t> {
    fn parse(line: &'t [u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let (device, root) = (words.nth(2)?, words.next()?);
        let (point, options) = (words.next()?, words.next()?);
        // Optional fields, up to a dash.
        words.find(|word| *word == b"-")?;
        let (kind, source, deeper) = (words.next()?, words.next()?, words.next().unwrap_or(b"rw"));
        Some(Self { device, root, point, options, kind, source, deeper })
    }
}

impl Seen<'_> {
    /// Where it is mounted, as the kernel writes it; `/` is nothing.
    fn point(&self) -> impl Iterator<Item = u8> {
        escaped(tail(self.guest)).chain(self.inside.iter().copied())
    }

    fn write(&self, seen: &[Self], at: usize, long: bool, put: &mut impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
        let Mount { device, root, options, kind, source, deeper, .. } = self.mount;
        if long {
            let parents = seen.iter().enumerate().filter(|(other, parent)| *other != at && self.is_below(parent));
            let parent = parents.max_by_key(|(_, parent)| parent.point().count()).map_or(0, |(other, _)| other + 1);
            number(at + 1, put)?;
            put(b" ")?;
            number(parent, put)?;
            put(b" ")?;
            put(device)?;
            put(b" ")?;
            let root = root.strip_suffix(b"/").unwrap_or(root);
            each(root.iter().copied().chain(escaped(self.below)), put)?;
        } else {
            put(source)?;
        }
        put(b" ")?;
        each(self.point(), put)?;
        put(b" ")?;
        if !long {
            put(kind)?;
            put(b" ")?;
        }
        let rest = options.strip_prefix(b"rw").filter(|rest| rest.is_empty() || rest[0] == b',');
        match rest.filter(|_| self.read_only) {
            Some(rest) => {
                put(b"ro")?;
                put(rest)?;
            }
            None => put(options)?,
        }
        if long {
            for word in [b" - ", kind, b" ", source, b" ", deeper] {
                put(word)?;
            }
            put(b"\n")
        } else {
            put(deeper.get(2..).unwrap_or_default())?;
            put(b" 0 0\n")
        }
    }

    fn is_below(&self, parent: &Self) -> bool {
        let mut own = self.point();
        parent.point().all(|byte| own.next() == Some(byte)) && own.next() == Some(b'/')
    }
}

/// A path without its only slash, if that is `/`.
fn tail(path: &[u8]) -> &[u8] {
    if path == b"/" { b"" } else { path }
}

/// What of a plain path is behind a directory as the kernel writes it, if it is that or below it.
fn plain_below<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    let (mut rest, mut dir) = (tail(path), tail(dir).iter());
    while let Some((byte, others)) = rest.split_first()
        && !dir.as_slice().is_empty()
    {
        if !escape(*byte).all(|byte| dir.next() == Some(&byte)) {
            return None;
        }
        rest = others;
    }
    (dir.as_slice().is_empty() && (rest.is_empty() || rest[0] == b'/')).then_some(rest)
}

/// What of a path as the kernel writes it is behind a plain directory, if it is that or below it.
fn written_below<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    let mut rest = tail(path).iter();
    let begins = escaped(tail(dir)).all(|byte| rest.next() == Some(&byte));
    let rest = rest.as_slice();
    (begins && (rest.is_empty() || rest[0] == b'/')).then_some(rest)
}

/// Whether what is mounted later at `later` hides what is mounted at `point`; both as the kernel writes them.
fn covers(later: &[u8], point: &[u8]) -> bool {
    tail(point).strip_prefix(tail(later)).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The bind that holds a place: a plain guest path, and what is behind it as the kernel writes it.
fn mount_of(view: &View<'_>, guest: &[u8], inside: &[u8]) -> Option<usize> {
    let mut path = [0; PATH_MAX];
    let mut len = 0;
    let mut inside = inside.iter().copied();
    let mut put = |byte| {
        if let Some(room) = path.get_mut(len) {
            *room = byte;
            len += 1;
        }
    };
    tail(guest).iter().copied().for_each(&mut put);
    while let Some(byte) = inside.next() {
        if byte == b'\\' {
            let digits = [inside.next(), inside.next(), inside.next()];
            put(digits.into_iter().flatten().fold(0, |byte: u8, digit| byte << 3 | digit & 7));
        } else {
            put(byte);
        }
    }
    view.mount_of(&path[..len])
}

/// A plain path as the kernel writes it.
fn escaped(path: &[u8]) -> impl Iterator<Item = u8> {
    path.iter().copied().flat_map(escape)
}

fn escape(byte: u8) -> impl Iterator<Item = u8> {
    let octal = [b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)];
    let (text, len) = match byte {
        b' ' | b'\t' | b'\n' | b'\\' => (octal, 4),
        byte => ([byte; 4], 1),
    };
    text.into_iter().take(len)
}

/// Puts a path; `/` is nothing.
fn each(path: impl Iterator<Item = u8>, put: &mut impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    let mut some = false;
    for byte in path {
        put(&[byte])?;
        some = true;
    }
    if some { Some(()) } else { put(b"/") }
}

fn number(number: usize, put: &mut impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            return put(&digits[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{string::String, vec, vec::Vec};

    use coracle_paths::Bind;

    use super::*;

    const HOST: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:5 / /dev rw,nosuid - devtmpfs udev rw,size=1k
24 23 0:6 / /dev/shm rw,nosuid - tmpfs tmpfs rw
25 22 0:7 / /var/tmp rw - tmpfs none rw
26 22 0:8 /sub /data\\040x rw - nfs server:/sub rw,vers=4
27 22 0:9 / /data\\040x/de\\134ep rw - nfs other:/ rw
28 22 0:10 / /covered/below rw - tmpfs none rw
29 22 0:11 / /covered rw master:1 - tmpfs none ro
";

    fn made(view: &View<'_>, long: bool) -> String {
        let text = HOST.as_bytes();
        let (hosts, seen) = rooms(view, text);
        let (mut hosts, mut seen) = (vec![Mount::default(); hosts], vec![Seen::default(); seen]);
        let mut out = Vec::new();
        let put = |text: &[u8]| {
            out.extend_from_slice(text);
            Some(())
        };
        table(view, text, long, (&mut hosts, &mut seen), put).expect("there is room");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_view_as_mounts() {
        let binds = [
            Bind { guest: b"/co", host: b"/covered", read_only: false },
            Bind { guest: b"/dev", host: b"/dev", read_only: false },
            Bind { guest: b"/dev/shm", host: b"/var/tmp/s", read_only: false },
            Bind { guest: b"/in here", host: b"/data x", read_only: true },
        ];
        let view = View::new(b"/var/tmp/tree", true, &binds).expect("a view");
        assert_eq!(
            made(&view, true),
            "1 0 0:7 /tree / ro - tmpfs none rw\n\
             2 1 0:11 / /co rw - tmpfs none ro\n\
             3 1 0:5 / /dev rw,nosuid - devtmpfs udev rw,size=1k\n\
             4 3 0:7 /s /dev/shm rw - tmpfs none rw\n\
             5 1 0:8 /sub /in\\040here ro - nfs server:/sub rw,vers=4\n\
             6 5 0:9 / /in\\040here/de\\134ep ro - nfs other:/ rw\n"
        );
        let short = made(&view, false);
        assert_eq!(short.lines().nth(2), Some("udev /dev devtmpfs rw,nosuid,size=1k 0 0"));
        assert_eq!(short.lines().nth(4), Some("server:/sub /in\\040here nfs ro,vers=4 0 0"));
    }

    #[test]
    fn the_hosts_root_as_the_tree_and_what_is_no_table() {
        let view = View::new(b"/", false, &[]).expect("a view");
        assert_eq!(made(&view, false).lines().count(), 7, "one is covered: {}", made(&view, false));
        let put = |_: &[u8]| None;
        assert_eq!(table(&view, b"no table\n\n1 2 3\n", true, (&mut [], &mut []), put), Some(()));
        assert_eq!(table(&view, HOST.as_bytes(), true, (&mut [], &mut []), put), None);
    }
}
