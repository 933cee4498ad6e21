//! The system calls in the text of the tree's C libraries, looked for once for a run rather than by each of its processes.
//!
//! What is found is a hint: each process looks at the bytes before it changes them, and looks for itself in a library
//! that is none of these (one without a build-id, or that came later).

use std::{fs::File, os::unix::ffi::OsStrExt, path::Path};

use coracle_elf::{Elf, Segment};
use coracle_entry::{Sites, build_id, sites};

use crate::mapped::Mapped;

/// Libraries of glibc's that make system calls for others, beside its loader.
const NAMES: [&str; 2] = ["libc.so.6", "libpthread.so.0"];
/// Larger numbers are none of a system call.
const NUMBERS: u32 = 1024;

/// Of a loader at a host path and the directories that it searches.
pub(crate) fn of(loader: &Path, directories: &[u8]) -> Vec<Sites> {
    let dirs = || directories.split(|byte| *byte == b':').map(|dir| Path::new(std::ffi::OsStr::from_bytes(dir)));
    let named = NAMES.iter().filter_map(|name| dirs().map(|dir| dir.join(name)).find_map(|path| File::open(path).ok()));
    let files = File::open(loader).into_iter().chain(named);
    let mut all: Vec<Sites> = Vec::new();
    for file in files.filter_map(|file| Mapped::new(&file)) {
        for found in texts(file.bytes()).unwrap_or_default() {
            if !all.iter().any(|known| (known.id, known.len) == (found.id, found.len)) {
                all.push(found);
            }
        }
    }
    all
}

/// Of one library; `None` if it is none, or has no build-id.
fn texts(bytes: &[u8]) -> Option<Vec<Sites>> {
    const NOTE: u32 = 4;
    const READ_EXECUTE: u32 = 5;
    let elf = Elf::parse(bytes).filter(|elf| elf.wide)?;
    let headers = bytes.get(usize::try_from(elf.headers_at).ok()?..)?.chunks_exact(elf.header_size());
    let segments: Vec<Segment> = headers.take(elf.headers.into()).filter_map(|header| elf.segment(header)).collect();
    let content = |segment: &Segment| {
        let start = usize::try_from(segment.offset).ok()?;
        bytes.get(start..start.checked_add(usize::try_from(segment.file_size).ok()?)?)
    };
    let id = segments.iter().filter(|segment| segment.kind == NOTE).filter_map(content).find_map(build_id)?;
    let texts = segments.iter().filter(|segment| segment.kind == Segment::LOAD && segment.flags == READ_EXECUTE);
    let texts = texts.filter_map(content).map(|text| {
        let mut found = Vec::new();
        sites(text, &mut |site| found.extend((site.number < NUMBERS).then_some(site)));
        Sites { id, len: text.len(), sites: found }
    });
    Some(texts.collect())
}
