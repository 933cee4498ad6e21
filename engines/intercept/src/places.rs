//! Where a guest is: getcwd, readlink, chroot.

use coracle_paths::{DELETED, Link, Magic, PATH_MAX, Resolved};

use crate::{
    Call, Errno, Guest, Rules, Scratch,
    credentials::cap,
    enter::Verdict,
    errno::{EPERM, ERANGE},
    leave::After,
    meaning::{Dir, Intent, Last, O_ACCMODE, O_PATH, Outside, PathArg},
    permit::{S_IFDIR, S_IFMT},
    translate::{is_named, translate},
};

/// getcwd(2): the result counts the NUL. Its room is no part of the other calls' stack.
#[inline(never)]
pub(crate) fn getcwd<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Scratch { base, text, .. } = scratch;
    let (len, long) = match guest.place(None, text) {
        // The guest's own path may be short enough.
        Err(Errno::ENAMETOOLONG) => (guest.whole_place(text)?, true),
        answer => (answer?, false),
    };
    let host = &text[..len];
    let deleted = !long && host.ends_with(DELETED) && !is_named(guest, None, host);
    let place = rules.view.to_guest_as(host, false, &mut base[..PATH_MAX - 1]).filter(|_| !deleted);
    // A directory outside the view, or one that was removed, has no name.
    let place = place.ok_or(if long { Errno::ENAMETOOLONG } else { Errno::ENOENT })?;
    let mut name = below_root(guest.root(), &base[..place.len]);
    if let Err(whole) = name {
        // As the kernel says it of a directory that chroot(2) has left behind.
        let len = UNREACHABLE.len() + whole.len();
        text.get_mut(..len).ok_or(Errno::ENAMETOOLONG)?[..UNREACHABLE.len()].copy_from_slice(UNREACHABLE);
        text[UNREACHABLE.len()..len].copy_from_slice(whole);
        name = Ok(&text[..len]);
    }
    let name = name.unwrap_or_default();
    let size = usize::try_from(call.arg(1)).unwrap_or(usize::MAX);
    if name.len() + 1 > size {
        return Err(ERANGE);
    }
    let mut answer = [0; PATH_MAX];
    let answer = answer.get_mut(..=name.len()).ok_or(Errno::ENAMETOOLONG)?;
    answer[..name.len()].copy_from_slice(name);
    guest.write(call.arg(0), answer)?;
    Ok(Verdict::Answer(i64::try_from(answer.len()).unwrap_or(0)))
}

/// readlink(2) and readlinkat(2): `arg` is the path's argument, buffer and size are the next.
pub(crate) fn readlink<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: u8,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Scratch { buffers, path, base, text, lent, .. } = scratch;
    let room = usize::try_from(call.int(arg + 2)).ok().filter(|room| *room > 0).ok_or(Errno::EINVAL)?;
    let dir = if arg == 0 { Dir::Cwd } else { Dir::Fd(0) };
    let words = PathArg { dir, arg, last: Last::NoFollow, intent: Intent::Read };
    let len = guest.read_string(call.arg(arg), path)?;
    if len == 0 && arg == 1 {
        // The descriptor is the link (O_PATH|O_NOFOLLOW).
        return Ok(Verdict::Pass);
    }
    let Some(place) = translate(rules, guest, call, &words, &path[..len], (buffers, base, text))? else {
        return Ok(Verdict::Pass);
    };
    if place.at_base || place.magic.is_some_and(|magic| matches!(magic.link, Link::OwnPid | Link::OwnThread)) {
        lent[0].set_place(guest, arg, &place)?;
        return Ok(Verdict::Make { after: After::Nothing, outside: Outside::No });
    }
    let magic = place.magic;
    let mut answer: &[u8] = {
        let len = guest.readlink(place.host, text)?;
        &text[..len.min(text.len())]
    };
    if let Some(magic) = magic.filter(|magic| magic.shows_host_path()) {
        let told = match magic.link {
            Link::Exe => guest.exe_of(magic.pid, base),
            Link::Root => guest.root_of(magic.pid, base),
            _ => None,
        };
        if let Some(len) = told {
            answer = shown(guest.root(), &base[..len]);
        } else if answer.first() == Some(&b'/')
            && let Some(place) = rules.view.to_guest(answer, base)
        {
            answer = shown(guest.root(), &base[..place.len]);
        }
    }
    let answer = &answer[..answer.len().min(room)];
    guest.write(call.arg(arg + 1), answer)?;
    Ok(Verdict::Answer(i64::try_from(answer.len()).unwrap_or(0)))
}

/// chroot(2): root may go to any directory, and `..` ends there from then on.
pub(crate) fn chroot<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Scratch { buffers, path, base, text, .. } = scratch;
    let words = PathArg { dir: Dir::Cwd, arg: 0, last: Last::Follow, intent: Intent::Read };
    let len = guest.read_string(call.arg(0), path)?;
    let place = translate(rules, guest, call, &words, &path[..len], (buffers, base, text))?.ok_or(EPERM)?;
    if place.at_base {
        return Err(Errno::ENOENT);
    }
    let mode = guest.mode(place.host, true)?;
    if mode & S_IFMT != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    if !guest.credentials().can(cap::SYS_CHROOT) {
        // Whoever may not search the directory is told that first.
        guest.search(place.host)?;
        return Err(EPERM);
    }
    if place.deep {
        return Err(Errno::ENAMETOOLONG);
    }
    if place.magic.is_some_and(Magic::shows_host_path) {
        // An open directory, by its link in `/proc`.
        let len = guest.readlink(place.host, text)?;
        let place = rules.view.to_guest(&text[..len], base).filter(|place| !place.deleted).ok_or(EPERM)?;
        guest.set_root(&base[..place.len]);
    } else {
        guest.set_root(place.guest);
    }
    Ok(Verdict::Answer(0))
}

/// What getcwd(2) puts before a path that the caller's root does not hold.
const UNREACHABLE: &[u8] = b"(unreachable)";

/// A canonical guest path as seen from a root directory; as it is, if that does not hold it.
fn below_root<'p>(root: &[u8], path: &'p [u8]) -> Result<&'p [u8], &'p [u8]> {
    if root == b"/" {
        return Ok(path);
    }
    match path.strip_prefix(root) {
        Some(b"") => Ok(b"/"),
        Some(rest) if rest[0] == b'/' => Ok(rest),
        _ => Err(path),
    }
}

/// As `/proc` shows it, which says nothing of what cannot be reached.
fn shown<'p>(root: &[u8], path: &'p [u8]) -> &'p [u8] {
    below_root(root, path).unwrap_or_else(|whole| whole)
}

/// A `/proc` file of a guest's process whose text names host places, opened to be read: a path to a file that shows it to
/// the guest is written to `text`, with a NUL; its length without that.
pub(crate) fn shown_file<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    intent: Intent,
    place: &Resolved<'_>,
    text: &mut [u8],
) -> Option<usize> {
    let Intent::Open(flags) = intent else { return None };
    place.bind?;
    let (process, name) = parts_of(place.host.to_bytes())?;
    if call.arg(flags) & (O_ACCMODE | O_PATH) != 0 {
        if name == b"status" {
            guest.looked_at(process);
        }
        return None;
    }
    match name {
        b"mounts" | b"mountinfo" | b"maps" | b"smaps" | b"status" => {}
        _ => return None,
    }
    let caller = guest.caller();
    if process != caller.pid && process != caller.tid {
        // Of a process that is none of ours, what the host says.
        guest.root_of(process, &mut text[..PATH_MAX])?;
    }
    let end = text.len() - 1;
    let len = guest.shown_file(&rules.view, process, place.host, &mut text[..end])?;
    text[len] = 0;
    Some(len)
}

/// Process and name of `/proc/PID/NAME` and `/proc/PID/task/TID/NAME`.
fn parts_of(host: &[u8]) -> Option<(u32, &[u8])> {
    let (process, rest) = split(host.strip_prefix(b"/proc/")?)?;
    let (process, name) = match rest.strip_prefix(b"task/") {
        Some(rest) => split(rest)?,
        None => (process, rest),
    };
    Some((core::str::from_utf8(process).ok()?.parse().ok()?, name))
}

fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().position(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}
