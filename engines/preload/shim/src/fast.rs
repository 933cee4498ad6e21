//! The short way: an absolute path of a tree that never changes, without links on its way, is put together on the stack.
//!
//! Directories that were come through are kept ([`known`]), so that mostly one name is looked up. Everything else (a
//! link, `..`, a bind, a change) takes the way through the table of meanings, which gives the same answer for these,
//! too. What the tree's table does not have is not there, and no system call is made at all.

use core::{mem::MaybeUninit, slice};

use coracle_intercept::Guest as _;
use coracle_paths::{
    Table,
    table::{Kind, Node},
};
use coracle_sys::kernel::{
    __NR_access, __NR_faccessat, __NR_getcwd, __NR_lstat, __NR_newfstatat, __NR_open, __NR_openat, __NR_stat,
    __NR_statx, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, O_ACCMODE, O_CREAT, O_NOFOLLOW, O_PATH, O_TRUNC,
};

use crate::{
    call::raw,
    guest::Process,
    instructions::WORD,
    known::{self, Key},
    memory, program, sites,
    state::{self, State},
};

/// Longest host path, with its NUL, that goes this way.
const ROOM: usize = 512;
const NAME_MAX: usize = coracle_paths::NAME_MAX;
const W_OK: usize = 2;
/// `O_TMPFILE` without `O_DIRECTORY`.
const TEMPORARY: usize = 0o20_000_000;
const ENOENT: isize = 2;
const ERANGE: isize = 34;

/// Which argument is the path, and whether a link at its end is followed; `None`: the call takes the long way.
#[inline(always)]
#[expect(non_upper_case_globals, reason = "the kernel's own names")]
pub(crate) fn words(number: u32, args: &[usize; 6]) -> Option<(usize, bool)> {
    let follows = |flags: usize| flags & AT_SYMLINK_NOFOLLOW as usize == 0;
    let reads = |flags: usize| flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_PATH) as usize == 0 && flags & TEMPORARY == 0;
    match number {
        __NR_stat => Some((0, true)),
        __NR_lstat => Some((0, false)),
        __NR_newfstatat if args[3] & AT_EMPTY_PATH as usize == 0 => Some((1, follows(args[3]))),
        __NR_statx if args[2] & AT_EMPTY_PATH as usize == 0 => Some((1, follows(args[2]))),
        __NR_access if args[1] & W_OK == 0 => Some((0, true)),
        __NR_faccessat if args[2] & W_OK == 0 => Some((1, true)),
        __NR_open if reads(args[1]) => Some((0, args[1] & O_NOFOLLOW as usize == 0)),
        __NR_openat if reads(args[2]) => Some((1, args[2] & O_NOFOLLOW as usize == 0)),
        _ => None,
    }
}

/// Room for a host path, and for as much behind it as is written in whole words.
pub(crate) type Room = MaybeUninit<[u8; ROOM]>;

/// A host path that is put together. It lies where it was made, for it is large for what is done with it.
struct Text<'r> {
    /// All but the NUL, which is there.
    whole: &'r [u8],
    /// Where the guest's path begins.
    path: usize,
    /// Where in that its last slash is.
    slash: usize,
    /// The guest's path to the end of the word that holds its NUL.
    words: &'r [u8],
}

impl<'r> Text<'r> {
    /// `root` and the guest's path behind it; `None`: there is no room, no path or no slash.
    #[inline]
    fn new(room: &'r mut Room, root: &[u8], address: usize) -> Option<Self> {
        let start = room.as_mut_ptr().cast::<u8>();
        let most = ROOM.checked_sub(root.len())?;
        // SAFETY: both fit; the slices are of what was written.
        unsafe {
            start.copy_from_nonoverlapping(root.as_ptr(), root.len());
            let path = start.add(root.len());
            let copied = memory::copy_string(address, path, most)?;
            let words = copied.len.next_multiple_of(WORD).min(most);
            Some(Self {
                whole: slice::from_raw_parts(start, root.len() + copied.len - 1),
                path: root.len(),
                slash: copied.slash?,
                words: slice::from_raw_parts(path, words),
            })
        }
    }

    /// The guest's path.
    #[inline]
    fn path(&self) -> &[u8] {
        &self.whole[self.path..]
    }

    /// For the kernel.
    #[inline]
    fn address(&self) -> usize {
        self.whole.as_ptr().expose_provenance()
    }
}

/// What became of a path.
pub(crate) enum Short {
    /// The host's is at this address, as long as the room is there.
    Made(usize),
    /// The call's answer.
    Known(isize),
    /// The call takes the long way.
    Not,
}

/// Makes the call, if it can go this way.
#[inline(always)]
pub(crate) fn call(number: u32, mut args: [usize; 6]) -> Option<isize> {
    let (at, follow) = words(number, &args)?;
    let mut room = Room::uninit();
    match path(args[at], follow, &mut room) {
        Short::Made(path) => {
            args[at] = path;
            Some(raw(number, args))
        }
        Short::Known(result) => Some(result),
        Short::Not => None,
    }
}

/// Makes a host path of a guest's, in `room`. The call itself is made by the caller: after it the processor knows no return
/// addresses any more, so that each function to leave is a delay.
#[inline(never)]
pub(crate) fn path(address: usize, follow: bool, room: &mut Room) -> Short {
    let state = state::get();
    if !state.plain || !program::root_is_top() {
        return Short::Not;
    }
    let Some(text) = Text::new(room, state.rules.view.host_root(None), address) else { return Short::Not };
    if text.path().first() != Some(&b'/') {
        return Short::Not;
    }
    match find(state, &text, follow) {
        Some(Found::There) => Short::Made(text.address()),
        // A host path that a loader was told is no name of the tree's.
        Some(Found::Missing) if sites::is_told(address) => Short::Not,
        Some(Found::Missing) => Short::Known(-ENOENT),
        None => Short::Not,
    }
}

enum Found {
    There,
    Missing,
}

/// Looks a path up; `None`: this is not a case for here.
#[inline]
fn find(state: &State, text: &Text<'_>, follow: bool) -> Option<Found> {
    let table = state.rules.view.table()?;
    let slash = text.slash;
    let key = Key::new(text.words, slash);
    let known = key.as_ref().and_then(known::find);
    let directory = match known {
        Some(node) => node,
        None => match walk(state, table, &text.path()[..slash])? {
            Some(node) => {
                if let Some(key) = key {
                    known::keep(&key, node);
                }
                node
            }
            None => return Some(Found::Missing),
        },
    };
    let Some(node) = child(state, table, directory, text.path(), slash)? else { return Some(Found::Missing) };
    match table.kind(node) {
        Kind::Directory | Kind::File => Some(Found::There),
        Kind::Symlink(_) if !follow => Some(Found::There),
        Kind::Symlink(_) => None,
    }
}

/// The directory at the end of a path, component by component; within, `None`: it is not there.
fn walk(state: &State, table: &Table<'_>, path: &[u8]) -> Option<Option<Node>> {
    let mut node = table.root();
    let mut slash = 0;
    while slash < path.len() {
        let len = path[slash + 1..].iter().position(|byte| *byte == b'/').unwrap_or(path.len() - slash - 1);
        let end = slash + 1 + len;
        let Some(next) = child(state, table, node, &path[..end], slash)? else { return Some(None) };
        // What is below a file, or behind a link, is not for here.
        let Kind::Directory = table.kind(next) else { return None };
        (node, slash) = (next, end);
    }
    Some(Some(node))
}

/// What a directory has by the name behind the slash with which `path` ends; within, `None`: nothing.
#[inline]
fn child(state: &State, table: &Table<'_>, directory: Node, path: &[u8], slash: usize) -> Option<Option<Node>> {
    let name = &path[slash + 1..];
    // An empty name is a slash at the end, or one of several.
    if matches!(name, b"" | b"." | b"..") || name.len() > NAME_MAX || state.rules.view.mounted_at(path).is_some() {
        return None;
    }
    Some(table.child(directory, name))
}

/// getcwd(2), where the kernel's own answer is all that is needed; what it cannot say, or says at length, goes the long way.
#[inline(never)]
pub(crate) fn getcwd(state: &State, args: &[usize; 6]) -> Option<isize> {
    if !program::root_is_top() {
        return None;
    }
    let (mut host, mut guest) = ([0_u8; ROOM], [0_u8; ROOM]);
    let len = raw(__NR_getcwd, [host.as_mut_ptr().expose_provenance(), ROOM, 0, 0, 0, 0]);
    if len == -ENOENT {
        return Some(-ENOENT);
    }
    let host = host.get(..usize::try_from(len).ok()?.checked_sub(1)?)?;
    // Of a place outside its root the kernel says so in front.
    if host.first() != Some(&b'/') {
        return None;
    }
    let place = state.rules.view.to_guest_as(host, false, &mut guest[..ROOM - 1])?;
    if place.len + 1 > args[1] {
        return Some(-ERANGE);
    }
    match Process::default().write(args[0] as u64, &guest[..=place.len]) {
        Ok(()) => isize::try_from(place.len + 1).ok(),
        Err(errno) => isize::try_from(errno.0).ok().map(isize::wrapping_neg),
    }
}
