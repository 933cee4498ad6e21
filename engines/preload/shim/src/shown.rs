//! Files of `/proc` whose text names host places or ids, as the guest is to read them: what is mapped, and who a process is.
//!
//! A guest that opens one gets a file in memory instead, written line by line when it is opened.

use core::ffi::CStr;

use coracle_intercept::Ids;
use coracle_paths::{PATH_MAX, View};
use coracle_sys::{
    self as sys, Fd,
    kernel::{__NR_fchmod, __NR_memfd_create, O_CLOEXEC, O_RDONLY},
};

use crate::{
    files::{Held, Short},
    mounts, person, pool, state,
};

/// A file that shows what `/proc` file `host` says to a guest with this view; `None`: it stays the host's.
pub(crate) fn make(view: &View<'_>, process: u32, host: &CStr) -> Option<Held> {
    let name = host.to_bytes().rsplit(|byte| *byte == b'/').next()?;
    match name {
        b"maps" | b"smaps" => rewrite(host, |line, out| mapping(view, line, out)),
        b"status" if process == sys::getpid() => rewrite(host, status),
        b"mounts" | b"mountinfo" => mounts::make(view, host).map(readable),
        _ => None,
    }
}

/// A new file in memory.
pub(crate) fn memory_file() -> Option<Held> {
    const CLOEXEC: usize = 1;
    // SAFETY: a NUL-terminated name.
    let made = unsafe { sys::syscall2(__NR_memfd_create, c"coracle-shown".as_ptr().expose_provenance(), CLOEXEC) };
    Some(Held(Fd(i32::try_from(sys::check(made).ok()?).ok()?)))
}

/// The file with the mode of what it shows.
fn readable(shown: Held) -> Held {
    // SAFETY: takes numbers alone.
    unsafe { sys::syscall2(__NR_fchmod, shown.0.arg(), 0o444) };
    shown
}

/// Room for a line and for what becomes of it.
const LINE: usize = 2 * PATH_MAX;

/// Copies a file into memory, line by line; what `change` does not write stays.
fn rewrite(host: &CStr, mut change: impl FnMut(&[u8], &mut [u8]) -> Option<usize>) -> Option<Held> {
    let source = Held(sys::open(Fd::CWD, host, O_RDONLY | O_CLOEXEC, 0).ok()?);
    let shown = memory_file()?;
    let mut block = pool::take()?;
    let (line, rest) = pool::bytes(&mut block).split_at_mut_checked(LINE)?;
    let out = rest.get_mut(..LINE)?;
    let mut have = 0;
    loop {
        let more = sys::read(source.0, &mut line[have..]).ok()?;
        have += more;
        let mut start = 0;
        while let Some(len) = line[start..have].iter().position(|byte| *byte == b'\n') {
            let text = &line[start..=start + len];
            match change(text, out).and_then(|len| out.get(..len)) {
                Some(text) => put(shown.0, text)?,
                None => put(shown.0, text)?,
            }
            start += len + 1;
        }
        line.copy_within(start..have, 0);
        have -= start;
        if more == 0 || have == line.len() {
            put(shown.0, &line[..have])?;
            break;
        }
    }
    Some(readable(shown))
}

/// Writes all of a text.
pub(crate) fn put(file: Fd, mut text: &[u8]) -> Option<()> {
    while !text.is_empty() {
        text = text.get(sys::write(file, text).ok()?..)?;
    }
    Some(())
}

/// A line of maps: the path is what begins with a slash behind the columns.
fn mapping(view: &View<'_>, line: &[u8], out: &mut [u8]) -> Option<usize> {
    let at = line.iter().position(|byte| *byte == b'/')?;
    let path = &line[at..line.len() - 1];
    out.get_mut(..at)?.copy_from_slice(&line[..at]);
    let found = view.to_guest(path, out.get_mut(at..)?)?;
    *out.get_mut(at + found.len)? = b'\n';
    Some(at + found.len + 1)
}

/// A line of status, if it tells of what this process may believe of itself.
fn status(line: &[u8], out: &mut [u8]) -> Option<usize> {
    if !state::get().rules.identity.pretends() {
        return None;
    }
    let who = person::credentials();
    let name = line.split(|byte| *byte == b':').next()?;
    let text = Short::<80>::new().put(name).put(b":\t");
    let text = match name {
        b"Uid" => ids(text, who.user),
        b"Gid" => ids(text, who.group),
        b"Groups" => return groups(text, out),
        b"CapInh" => capabilities(text, who.caps.inheritable),
        b"CapPrm" => capabilities(text, who.caps.permitted),
        b"CapEff" => capabilities(text, who.caps.effective),
        b"CapBnd" => capabilities(text, who.caps.bounding),
        b"CapAmb" => capabilities(text, who.caps.ambient),
        b"NoNewPrivs" => text.number(who.no_new_privileges.into()),
        _ => return None,
    };
    append(out, 0, text.put(b"\n").as_bytes())
}

/// There may be more of them than a stack has room for.
fn groups(text: Short<80>, out: &mut [u8]) -> Option<usize> {
    let mut len = append(out, 0, text.as_bytes())?;
    let mut at = 0;
    while let Some(group) = person::group(at) {
        len = append(out, len, Short::<12>::new().number(group).put(b" ").as_bytes())?;
        at += 1;
    }
    append(out, len, b"\n")
}

/// Adds to what is `len` bytes long already; how long it is then.
fn append(out: &mut [u8], len: usize, text: &[u8]) -> Option<usize> {
    out.get_mut(len..len + text.len())?.copy_from_slice(text);
    Some(len + text.len())
}

fn ids<const N: usize>(text: Short<N>, ids: Ids) -> Short<N> {
    text.number(ids.real).put(b"\t").number(ids.effective).put(b"\t").number(ids.saved).put(b"\t").number(ids.files)
}

/// A set of them, in the kernel's sixteen digits.
fn capabilities<const N: usize>(text: Short<N>, set: u64) -> Short<N> {
    let digit = |at: u32| b"0123456789abcdef"[usize::try_from(set >> (4 * at) & 15).unwrap_or(0)];
    (0..16).rev().fold(text, |text, at| text.put(&[digit(at)]))
}
