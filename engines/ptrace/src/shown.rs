//! Files of `/proc` whose text names the host, as the guest is to read them: the mounts that it sees, what is mapped, who a
//! process is.
//!
//! A guest that opens one gets a file in memory instead, written when it is opened. The mounts are the tree, the binds, and
//! the host's own mounts below those: what the same view would be if it had been mounted. Who reads this: `df`, Java
//! (for its memory limit), .NET and sanitizers (for the paths of their own libraries).

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use coracle_layout::memory_file;
use coracle_paths::View;

use crate::{
    person::Person,
    procfs::{guest_maps, guest_status},
    window::path_of,
};

/// Makes the file that shows what `/proc` file `host` says of a process, which `person` takes itself to be and thread `tracer`
/// debugs; also a path to open it by for as long as it is held.
pub(crate) fn make(
    view: &View<'_>,
    (person, tracer): (Option<&Person>, i32),
    host: &CStr,
) -> Option<(OwnedFd, CString)> {
    let text = std::fs::read(Path::new(std::ffi::OsStr::from_bytes(host.to_bytes()))).ok()?;
    let shown = match host.to_bytes().rsplit(|byte| *byte == b'/').next()? {
        b"mountinfo" => mounts(view, &text, true)?,
        b"mounts" => mounts(view, &std::fs::read("/proc/self/mountinfo").ok()?, false)?,
        b"maps" | b"smaps" => guest_maps(view, &text),
        b"status" => guest_status(person, tracer, &text),
        _ => return None,
    };
    let file = keep(&shown).ok()?;
    let path = path_of(&file).ok()?;
    Some((file, path))
}

/// A file in memory that can be read alone.
fn keep(text: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory_file(c"coracle-shown")?);
    file.write_all(text)?;
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(0o444))?;
    // SAFETY: F_ADD_SEALS takes an integer. Without seals nothing is lost: what a guest writes there only it reads.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK) };
    Ok(file.into())
}

/// One line of the kernel's mountinfo.
struct Mount<'t> {
    device: &'t str,
    /// The mount's root in its file system, as written.
    root: &'t str,
    /// Where it is mounted.
    point: Vec<u8>,
    options: &'t str,
    kind: &'t str,
    source: &'t str,
    /// Options of the file system.
    deeper: &'t str,
}

impl<'t> Mount<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(2);
        let (device, root, point, options) = (front.next()?, front.next()?, front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, source, deeper) = (back.next()?, back.next()?, back.next().unwrap_or("rw"));
        Some(Self { device, root, point: unescape(point), options, kind, source, deeper })
    }
}

/// One line for the guest.
struct Seen<'m, 't> {
    point: Vec<u8>,
    mount: &'m Mount<'t>,
    /// The root in the file system, escaped.
    root: String,
    read_only: bool,
}

/// The table of mounts; in the form of mountinfo, or in that of mounts.
fn mounts(view: &View<'_>, text: &[u8], long: bool) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let host: Vec<Mount<'_>> = text.lines().filter_map(Mount::parse).collect();
    let mut seen: Vec<Seen<'_, '_>> = Vec::new();
    let places = std::iter::once((None, &b"/"[..], view.root()))
        .chain(view.binds().iter().enumerate().map(|(at, bind)| (Some(at), bind.guest, bind.host)));
    for (bind, guest, place) in places {
        let read_only = view.read_only(bind);
        // Of several mounts at one place the last is seen.
        let holder = host.iter().filter(|mount| below(place, &mount.point).is_some());
        let holder = holder.enumerate().max_by_key(|(at, mount)| (mount.point.len(), *at)).map(|(_, mount)| mount);
        let Some(holder) = holder else { continue };
        let inside = below(place, &holder.point).unwrap_or_default();
        let root = format!("{}{}", holder.root.trim_end_matches('/'), escape(inside));
        let root = if root.is_empty() { "/".to_owned() } else { root };
        seen.push(Seen { point: guest.to_vec(), mount: holder, root, read_only });
        for (at, mount) in host.iter().enumerate() {
            let Some(inside) = below(&mount.point, place).filter(|inside| !inside.is_empty()) else { continue };
            let mut point = if guest == b"/" { Vec::new() } else { guest.to_vec() };
            point.extend_from_slice(inside);
            let covered = host[at + 1..].iter().any(|later| below(&mount.point, &later.point).is_some());
            if !covered && view.mount_of(&point) == bind {
                seen.push(Seen { point, mount, root: mount.root.to_owned(), read_only });
            }
        }
    }
    let mut out = Vec::new();
    for (at, entry) in seen.iter().enumerate() {
        let Seen { point, mount, root, read_only } = entry;
        let rest = mount.options.strip_prefix("rw").filter(|rest| rest.is_empty() || rest.starts_with(','));
        let options = match rest {
            Some(rest) if *read_only => format!("ro{rest}"),
            _ => mount.options.to_owned(),
        };
        let point_text = escape(point);
        let (kind, source, deeper) = (mount.kind, mount.source, mount.deeper);
        let line = if long {
            let parents = seen.iter().enumerate().filter(|(other, parent)| {
                *other != at && below(point, &parent.point).is_some_and(|rest| !rest.is_empty())
            });
            let parent = parents.max_by_key(|(_, parent)| parent.point.len()).map_or(0, |(other, _)| other + 1);
            format!("{} {parent} {} {root} {point_text} {options} - {kind} {source} {deeper}\n", at + 1, mount.device)
        } else {
            let deeper = deeper.get(2..).unwrap_or_default();
            format!("{source} {point_text} {kind} {options}{deeper} 0 0\n")
        };
        out.extend_from_slice(line.as_bytes());
    }
    Some(out)
}

/// `path` after `dir`, if it is `dir` or below it.
fn below<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    let dir = if dir == b"/" { b"" } else { dir };
    let rest = if path == b"/" { b"" } else { path }.strip_prefix(dir)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// As the kernel escapes paths in these tables.
fn escape(path: &[u8]) -> String {
    let mut text = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => text.push(*byte),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                path.push(byte);
                at += 4;
            }
            _ => {
                path.push(bytes[at]);
                at += 1;
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use coracle_paths::Bind;

    use super::*;

    const HOST: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:5 / /dev rw,nosuid - devtmpfs udev rw,size=1k
24 23 0:6 / /dev/shm rw,nosuid - tmpfs tmpfs rw
25 22 0:7 / /var/tmp rw - tmpfs none rw
26 22 0:8 /sub /data\\040x rw - nfs server:/sub rw,vers=4
27 22 0:9 / /data\\040x/deep rw - nfs other:/ rw
";

    #[test]
    fn a_view_as_mounts() {
        let binds = [
            Bind { guest: b"/dev", host: b"/dev", read_only: false },
            Bind { guest: b"/dev/shm", host: b"/var/tmp/s", read_only: false },
            Bind { guest: b"/in", host: b"/data x", read_only: true },
        ];
        let view = View::new(b"/var/tmp/tree", true, &binds).expect("a view");
        let long = String::from_utf8(mounts(&view, HOST.as_bytes(), true).expect("mounts")).expect("text");
        assert_eq!(
            long,
            "1 0 0:7 /tree / ro - tmpfs none rw\n\
             2 1 0:5 / /dev rw,nosuid - devtmpfs udev rw,size=1k\n\
             3 2 0:7 /s /dev/shm rw - tmpfs none rw\n\
             4 1 0:8 /sub /in ro - nfs server:/sub rw,vers=4\n\
             5 4 0:9 / /in/deep ro - nfs other:/ rw\n"
        );
        let short = String::from_utf8(mounts(&view, HOST.as_bytes(), false).expect("mounts")).expect("text");
        assert_eq!(short.lines().nth(1), Some("udev /dev devtmpfs rw,nosuid,size=1k 0 0"));
    }
}
