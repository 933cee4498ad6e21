//! Files of `/proc` whose text names the host, as the guest is to read them: the mounts that it sees, what is mapped, who a
//! process is.
//!
//! A guest that opens one gets a file in memory instead, written when it is opened. Who reads this: `df`, Java (for its
//! memory limit), .NET and sanitizers (for the paths of their own libraries).

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

use coracle_intercept::mounts;
use coracle_layout::memory_file;
use coracle_paths::View;

use crate::{
    person::Person,
    procfs::{guest_maps, guest_status},
    window::path_of,
};

/// Makes the file that shows what `/proc` file `host` says of a process, which `person` takes itself to be and thread
/// `tracer` debugs; also a path to open it by for as long as it is held.
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

/// The table of mounts; in the form of mountinfo, or in that of mounts.
fn mounts(view: &View<'_>, text: &[u8], long: bool) -> Option<Vec<u8>> {
    let (hosts, seen) = mounts::rooms(view, text);
    let (mut hosts, mut seen) = (vec![mounts::Mount::default(); hosts], vec![mounts::Seen::default(); seen]);
    let mut out = Vec::new();
    let put = |text: &[u8]| {
        out.extend_from_slice(text);
        Some(())
    };
    mounts::table(view, text, long, (&mut hosts, &mut seen), put)?;
    Some(out)
}
