//! Where a guest is: getcwd, readlink, chroot.

use coracle_paths::{DELETED, Link, PATH_MAX};

use crate::{
    Call, Errno, Guest, Rules, Scratch,
    enter::Verdict,
    errno::{EPERM, ERANGE},
    leave::After,
    meaning::{Dir, Intent, Last, Outside, PathArg},
    translate::{is_named, translate},
};

/// getcwd(2): the result counts the NUL.
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
    let root = guest.root();
    let mut name = &base[..place.len];
    if root != b"/" {
        name = name.strip_prefix(root).ok_or(Errno::ENOENT)?;
    }
    let size = usize::try_from(call.arg(1)).unwrap_or(usize::MAX);
    if name.len() + 1 > size {
        return Err(ERANGE);
    }
    let len = name.len();
    let start = place.len - len;
    base[place.len] = 0;
    guest.write(call.arg(0), &base[start..=place.len])?;
    Ok(Verdict::Answer(i64::try_from(len + 1).unwrap_or(0)))
}

/// readlink(2) and readlinkat(2): `arg` is the path's argument, buffer and size are the next.
pub(crate) fn readlink<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: u8,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Scratch { buffers, path, base, text, lent } = scratch;
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
        if magic.link == Link::Exe
            && let Some(len) = guest.exe_of(magic.pid, base)
        {
            answer = &base[..len];
        } else if answer.first() == Some(&b'/')
            && let Some(place) = rules.view.to_guest(answer, base)
        {
            answer = &base[..place.len];
        }
    }
    let answer = &answer[..answer.len().min(room)];
    guest.write(call.arg(arg + 1), answer)?;
    Ok(Verdict::Answer(i64::try_from(answer.len()).unwrap_or(0)))
}

/// chroot(2): to where one is already; nobody may go deeper yet.
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
    guest.mode(place.host, false)?;
    if rules.identity.uid == 0 && matches!(place.guest, b"/" | b"") { Ok(Verdict::Answer(0)) } else { Err(EPERM) }
}
