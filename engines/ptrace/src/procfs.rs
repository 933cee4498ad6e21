//! Files of `/proc/PID` that tell their reader about the host: `maps` and `smaps` name mapped files by host paths, by which
//! debuggers and others look for symbols. Who opens one for reading gets a file in memory instead, as the kernel's would
//! be read at that moment. Where a guest takes itself for somebody else than the host does, `status` says so too.

use std::{ffi::CString, fs, io, io::Write as _, os::fd::OwnedFd};

use coracle_intercept::{Abi, Call, Ids, Rules};
use coracle_paths::{PATH_MAX, View};

use crate::{
    person::Person,
    tracee::Tracees,
    window::{memory_file, path_of},
};

/// A file in memory, and the path by which a guest opens it.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) file: OwnedFd,
    pub(crate) path: CString,
}

/// What takes the place of host path `host` (with its NUL) in a call of thread `caller`; `None`: nothing.
pub(crate) fn stand_in(rules: &Rules<'_>, tracees: &Tracees, caller: i32, call: &Call, host: &[u8]) -> Option<StandIn> {
    let rest = host.strip_prefix(b"/proc/")?.strip_suffix(b"\0")?;
    let flags = match (call.abi, call.number) {
        (Abi::X86_64, 2) | (Abi::I386, 5) => call.arg(1),
        (Abi::X86_64, 257) | (Abi::I386, 295) => call.arg(2),
        _ => return None,
    };
    let read_only = flags & u64::from((libc::O_ACCMODE | libc::O_PATH).unsigned_abs()) == 0;
    let pid = whose(rest, caller).filter(|_| read_only)?;
    let tracee = tracees.get(&pid)?;
    let is_status = rest.ends_with(b"/status");
    if is_status && !rules.identity.pretends() {
        return None;
    }
    let name = std::str::from_utf8(rest).ok()?;
    let name = if pid == caller { name.replacen("self", &pid.to_string(), 1) } else { name.to_owned() };
    let text = fs::read(format!("/proc/{name}")).ok()?;
    let text = if is_status { guest_status(&tracee.person.borrow(), &text) } else { guest_maps(&rules.view, &text) };
    in_memory(&text).ok()
}

/// Whose mappings they are.
fn whose(rest: &[u8], caller: i32) -> Option<i32> {
    let name = rest.rsplit(|byte| *byte == b'/').next()?;
    let mut parts = rest.split(|byte| *byte == b'/');
    let mut pid = parts.next()?;
    let mut next = parts.next()?;
    if next == b"task" {
        pid = parts.next()?;
        next = parts.next()?;
    }
    if !matches!(name, b"maps" | b"smaps" | b"status") || next != name || parts.next().is_some() {
        return None;
    }
    if pid == b"self" { Some(caller) } else { std::str::from_utf8(pid).ok()?.parse().ok() }
}

/// The mappings with the guest's names for files, and without those that are ours.
fn guest_maps(view: &View<'_>, maps: &[u8]) -> Vec<u8> {
    const FIELDS: usize = 5;
    let mut out = Vec::with_capacity(maps.len());
    let mut guest = vec![0; PATH_MAX];
    let mut ours = false;
    for line in maps.split_inclusive(|byte| *byte == b'\n') {
        // In `smaps` lines of numbers follow each mapping: `Name:  value`.
        let is_mapping = line.split(|byte| *byte == b' ').next().is_some_and(|word| !word.ends_with(b":"));
        if !is_mapping {
            if !ours {
                out.extend_from_slice(line);
            }
            continue;
        }
        let path = path_at(line, FIELDS);
        let name = line.get(path..).map_or(&b""[..], |name| name.strip_suffix(b"\n").unwrap_or(name));
        ours = name.starts_with(b"/memfd:coracle-");
        if ours {
            continue;
        }
        match Some(name).filter(|name| name.first() == Some(&b'/')).and_then(|name| view.to_guest(name, &mut guest)) {
            Some(place) => {
                out.extend_from_slice(&line[..path]);
                out.extend_from_slice(&guest[..place.len]);
                out.push(b'\n');
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

/// What is told of a process, with the ids and capabilities that it believes to have.
fn guest_status(person: &Person, status: &[u8]) -> Vec<u8> {
    let Person { credentials, groups } = person;
    let ids = |ids: Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.files);
    let caps = credentials.caps;
    let mut out = Vec::with_capacity(status.len());
    for line in status.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let value = match name {
            b"Uid" => ids(credentials.user),
            b"Gid" => ids(credentials.group),
            b"Groups" => groups.iter().map(|group| format!("{group} ")).collect(),
            b"CapInh" => format!("{:016x}", caps.inheritable),
            b"CapPrm" => format!("{:016x}", caps.permitted),
            b"CapEff" => format!("{:016x}", caps.effective),
            b"CapBnd" => format!("{:016x}", caps.bounding),
            b"CapAmb" => format!("{:016x}", caps.ambient),
            b"NoNewPrivs" => u8::from(credentials.no_new_privileges).to_string(),
            _ => {
                out.extend_from_slice(line);
                continue;
            }
        };
        out.extend_from_slice(name);
        out.extend_from_slice(b":\t");
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    }
    out
}

/// Where the field after so many fields begins.
fn path_at(line: &[u8], fields: usize) -> usize {
    let mut at = 0;
    for _ in 0..fields {
        at += line[at..].iter().take_while(|byte| **byte != b' ').count();
        at += line[at..].iter().take_while(|byte| **byte == b' ').count();
    }
    at
}

fn in_memory(text: &[u8]) -> io::Result<StandIn> {
    let file = memory_file(c"proc")?;
    fs::File::from(file.try_clone()?).write_all(text)?;
    let path = path_of(&file)?;
    Ok(StandIn { file, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_files_have_guest_names() {
        let view = View::new(b"/host/tree", true, &[]).expect("a view");
        let maps = b"5000-6000 r-xp 00000000 08:01 77       /host/tree/bin/a b\n\
            Size:                  4 kB\n\
            6000-7000 r--s 00000000 00:01 9        /memfd:coracle-window (deleted)\n\
            Size:                  8 kB\n\
            7000-8000 rw-p 00000000 00:00 0 \n\
            8000-9000 rw-p 00000000 00:00 0        [stack]\n";
        let expected = b"5000-6000 r-xp 00000000 08:01 77       /bin/a b\n\
            Size:                  4 kB\n\
            7000-8000 rw-p 00000000 00:00 0 \n\
            8000-9000 rw-p 00000000 00:00 0        [stack]\n";
        assert_eq!(String::from_utf8_lossy(&guest_maps(&view, maps)), String::from_utf8_lossy(expected));
    }

    #[test]
    fn status_tells_of_whom_the_guest_takes_itself_for() {
        let status = b"Name:\tsh\nUid:\t7\t7\t7\t7\nGroups:\t7 \nCapEff:\t0000000000000000\nThreads:\t1\n";
        let expected = "Name:\tsh\nUid:\t0\t0\t0\t0\nGroups:\t4 5 \nCapEff:\t00000000a80425fb\nThreads:\t1\n";
        let told = guest_status(&Person::new(0, 0, &[4, 5]), status);
        assert_eq!(String::from_utf8_lossy(&told), expected);
    }

    #[test]
    fn whose_file_it_is() {
        assert_eq!(whose(b"17/maps", 5), Some(17));
        assert_eq!(whose(b"self/smaps", 5), Some(5));
        assert_eq!(whose(b"17/task/18/smaps", 5), Some(18));
        assert_eq!(whose(b"17/cwd/maps", 5), None);
        assert_eq!(whose(b"17/task/18/x/maps", 5), None);
        assert_eq!(whose(b"17/auxv", 5), None);
        assert_eq!(whose(b"maps", 5), None);
    }
}
