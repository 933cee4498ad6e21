//! Calls with two paths: rename, renameat, renameat2, link, linkat. Errors in the kernel's order, which looks both
//! directories up before it judges either name.

use coracle_paths::{Ending, Found, Resolved};

use crate::{
    Call, Errno, Guest, Outside, Row, Rules, Scratch,
    cow::Cow,
    enter::Verdict,
    errno::{EBUSY, EEXIST, EISDIR, ENOTEMPTY, EROFS, EXDEV},
    leave::After,
    meaning::{AT_EMPTY_PATH, Intent, PathArg, RENAME_NOREPLACE},
    permit::{Home, S_IFDIR, S_IFMT, is_mounted, name_mode, permit, refuse},
    pretend,
    translate::{start_descriptor, translate},
};

/// What of a place is needed when the other one has taken its memory.
#[derive(Clone, Copy)]
struct Seen {
    home: Home,
    /// The bind of the file itself, if that is known.
    bind: Option<Option<usize>>,
    ending: Ending,
    mounted: bool,
    mount_point: bool,
    missing: bool,
    outside: Outside,
}

impl Seen {
    fn new(rules: &Rules<'_>, place: &Resolved<'_>, outside: Outside) -> Self {
        let is_link = place.magic.is_some_and(crate::Magic::shows_host_path) && place.found != Found::Symlink;
        // What a process may do in `/proc` depends on who asks.
        let own_process = place.host.to_bytes().starts_with(b"/proc/");
        Self {
            home: Home::of(rules, place),
            bind: if is_link { place.behind } else { Some(place.behind.unwrap_or(place.bind)) },
            ending: place.ending,
            mounted: is_mounted(rules, place),
            mount_point: place.mount_point,
            missing: place.found == Found::Missing,
            outside: if place.at_base || place.is_long() || own_process { Outside::No } else { outside },
        }
    }
}

/// Finds the meaning of a call with these two path arguments.
pub(crate) fn enter<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    (from, to): (&PathArg, &PathArg),
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let links = to.intent == Intent::Create;
    let old = find(rules, guest, call, row, (0, from), scratch)?;
    if let Some(old) = &old
        && links
    {
        // What is to be linked is looked up whole before the new name is.
        if old.missing {
            return Err(Errno::ENOENT);
        }
        mode(guest, scratch, 0)?;
    }
    let new = find(rules, guest, call, row, (1, to), scratch)
        .map_err(|errno| scratch.lent[0].path().map_or(errno, |old| refuse(guest, old, errno)))?;
    match (&old, &new) {
        (Some(old), Some(new)) if links => {
            let across = old.bind.is_some_and(|bind| bind != new.home.bind);
            // What is there already goes first.
            if across && new.ending == Ending::Name && mode(guest, scratch, 1) == Err(Errno::ENOENT) {
                let errno = if slash(scratch, 1) { Errno::ENOENT } else { EXDEV };
                return Err(scratch.lent[1].path().map_or(errno, |path| refuse(guest, path, errno)));
            }
        }
        (Some(old), Some(new)) => permit_rename(guest, row, call, (old, new), scratch)?,
        // Where one is seen by the kernel alone, the kernel judges; no more than what it sees can be at stake.
        (_, Some(new)) if new.home.read_only => return Err(EROFS),
        _ => {}
    }
    if scratch.lent.iter().all(|lent| lent.bytes().is_empty()) {
        return Ok(Verdict::Pass);
    }
    let outside = match (old, new) {
        (Some(old), Some(new)) if old.outside != Outside::No => new.outside,
        _ => Outside::No,
    };
    let after =
        if rules.identity.pretends() { pretend::on_pair(rules, guest, call, row, scratch)? } else { After::Nothing };
    Ok(Verdict::Make { after, outside })
}

/// Translates one of the two; `None` if the kernel alone sees it.
fn find<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    row: &Row,
    (at, arg): (usize, &PathArg),
    scratch: &mut Scratch,
) -> Result<Option<Seen>, Errno> {
    let Scratch { buffers, path, base, text, lent, .. } = &mut *scratch;
    let len = guest.read_string(call.arg(arg.arg), path)?;
    if len == 0 && row.name == "linkat" && at == 0 && call.arg(4) & AT_EMPTY_PATH != 0 {
        return Ok(descriptor(rules, guest, call, arg, text, base));
    }
    let Some(place) = translate(rules, guest, call, arg, &path[..len], (buffers, base, text))? else {
        return Ok(None);
    };
    if arg.intent == Intent::Create {
        permit(rules, guest, call, arg.intent, &place)?;
    }
    lent[at].set_place(guest, arg.arg, &place)?;
    if let Some(cow) = Cow::of(rules, guest, row)
        && let Some(len) = cow.protect(call, (arg, &place), lent[at].bytes(), (text, base))?
    {
        lent[at].set(arg.arg, &text[..len])?;
    }
    Ok(Some(Seen::new(rules, &place, row.outside)))
}

/// The file that a descriptor holds, to be linked.
fn descriptor<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: &PathArg,
    text: &mut [u8],
    name: &mut [u8],
) -> Option<Seen> {
    let len = guest.place(start_descriptor(call, arg.dir), text).ok()?;
    let bind = rules.view.to_guest(&text[..len], name)?.bind;
    let home = Home { bind, read_only: rules.view.read_only(bind) };
    Some(Seen {
        home,
        bind: Some(bind),
        ending: Ending::Name,
        mounted: false,
        mount_point: false,
        missing: false,
        outside: Outside::No,
    })
}

fn permit_rename<G: Guest>(
    guest: &G,
    row: &Row,
    call: &Call,
    (old, new): (&Seen, &Seen),
    scratch: &Scratch,
) -> Result<(), Errno> {
    let refuse = |errno: Errno| {
        let paths = scratch.lent.iter().filter_map(crate::Lent::path);
        paths.map(|path| refuse(guest, path, errno)).find(|found| *found != errno).unwrap_or(errno)
    };
    if old.home.bind != new.home.bind {
        return Err(refuse(EXDEV));
    }
    let keeps = row.name == "renameat2" && call.arg(4) & RENAME_NOREPLACE != 0;
    if old.ending != Ending::Name {
        return Err(refuse(EBUSY));
    }
    if new.ending != Ending::Name {
        return Err(refuse(if keeps { EEXIST } else { EBUSY }));
    }
    if old.home.read_only {
        return Err(refuse(EROFS));
    }
    if !old.mounted && !new.mounted {
        return Ok(());
    }
    // A mount point's directory may be the view's alone, so the kernel cannot be asked.
    let old_mode = mode(guest, scratch, 0)?;
    if keeps && mode(guest, scratch, 1).is_ok() {
        return Err(EEXIST);
    }
    Err(match old.mounted || new.mount_point {
        true => EBUSY,
        false if old_mode & S_IFMT == S_IFDIR => ENOTEMPTY,
        false => EISDIR,
    })
}

/// Whether what was lent as the path of this number ends in a slash.
fn slash(scratch: &Scratch, at: usize) -> bool {
    scratch.lent[at].path().is_some_and(|path| path.to_bytes().ends_with(b"/"))
}

/// The mode of what was lent as the path of this number.
fn mode<G: Guest>(guest: &G, scratch: &Scratch, at: usize) -> Result<u32, Errno> {
    // What is reached by the guest's own working directory or descriptor has no host path: the kernel will say.
    let path = scratch.lent[at].path().filter(|path| path.to_bytes().first() == Some(&b'/'));
    path.map_or(Ok(0), |path| if at == 0 { guest.mode(path, false) } else { name_mode(guest, path) })
}
