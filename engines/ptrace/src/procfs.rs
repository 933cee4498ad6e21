//! What files of `/proc/PID` say, as the guest is to read it: `maps` and `smaps` name mapped files by host paths, by which
//! debuggers and others look for symbols; `status` tells of ids that the guest believes to be others, and who debugs.
//!
//! Text to text; [`crate::shown`] makes files of it.

use coracle_intercept::Ids;
use coracle_paths::{PATH_MAX, View};

use crate::person::Person;

/// The mappings with the guest's names for files, and without those that are ours.
pub(crate) fn guest_maps(view: &View<'_>, maps: &[u8]) -> Vec<u8> {
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

/// What is told of a process, with the guest thread that debugs it in our place (0: none), and the ids and capabilities
/// that it believes to have, if those are not the host's.
pub(crate) fn guest_status(person: Option<&Person>, tracer: i32, status: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(status.len());
    for line in status.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let value = match name {
            b"TracerPid" => Some(tracer.to_string()),
            name => person.and_then(|person| believed(person, name)),
        };
        let Some(value) = value else {
            out.extend_from_slice(line);
            continue;
        };
        out.extend_from_slice(name);
        out.extend_from_slice(b":\t");
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    }
    out
}

/// The line of this name, if it tells of what a process may believe of itself.
fn believed(person: &Person, name: &[u8]) -> Option<String> {
    let Person { credentials, groups } = person;
    let ids = |ids: Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.files);
    let caps = credentials.caps;
    Some(match name {
        b"Uid" => ids(credentials.user),
        b"Gid" => ids(credentials.group),
        b"Groups" => groups.iter().map(|group| format!("{group} ")).collect(),
        b"CapInh" => format!("{:016x}", caps.inheritable),
        b"CapPrm" => format!("{:016x}", caps.permitted),
        b"CapEff" => format!("{:016x}", caps.effective),
        b"CapBnd" => format!("{:016x}", caps.bounding),
        b"CapAmb" => format!("{:016x}", caps.ambient),
        b"NoNewPrivs" => u8::from(credentials.no_new_privileges).to_string(),
        _ => return None,
    })
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
        let status = "Name:\tsh\nTracerPid:\t9\nUid:\t7\t7\t7\t7\nGroups:\t7 \nCapEff:\t0000000000000000\n";
        let expected = "Name:\tsh\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGroups:\t4 5 \nCapEff:\t00000000a80425fb\n";
        let told = guest_status(Some(&Person::new(0, 0, &[4, 5])), 0, status.as_bytes());
        assert_eq!(String::from_utf8_lossy(&told), expected);
        let told = guest_status(None, 77, status.as_bytes());
        assert_eq!(String::from_utf8_lossy(&told), status.replace("\t9", "\t77"));
    }
}
