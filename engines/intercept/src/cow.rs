//! Copy-on-write views: whatever would change a file that is shared gets the guest a file of its own first.
//!
//! A view is a tree of hard links into a shared tree ([`coracle_view`]); its [`Marks`](coracle_view::Marks) tell shared
//! inodes, under whatever name they are met. Before a call that may change a file the name is looked at, and if it means a
//! shared file, the transport puts a copy in its place ([`Guest::unshare`]). The order of errors is the kernel's: what the
//! file's true mode forbids is not copied, and the kernel refuses it.
//!
//! Rules:
//! - Between the look and the call another thread may give the name to a shared file. What then changes data is stopped by
//!   the kernel, since shared files have no write bits on disk, and asked again ([`lost_race`]); what changes attributes,
//!   which an owner always may, goes to a *pinned* file ([`Guest::pin`]): looked at through a descriptor and reached by it,
//!   whatever its name means by then. Where shared files do have write bits, or the host's root runs this, data is
//!   pinned too.
//! - For the same reason no call that would need a pin goes to the kernel by a name that meant nothing when it was
//!   looked at: it is answered here, and one that is to make a file makes it or none (`O_EXCL`).
//! - A descriptor that was opened for reading before the copy keeps the shared file and shows its content as it was, as
//!   under overlayfs. A change of attributes through it goes to the file that has its name now.
//! - A shared file that has no name left in the view cannot be changed: `EROFS`.
//! - The guest is shown the true mode, the links that the image has, and (if it takes itself for root) the true owner.

use core::ffi::CStr;

use coracle_paths::{Found, Last as Tail, PATH_MAX, Resolved};
use coracle_view::{FileId, Mark, Marks};

use crate::{
    Call, Errno, Guest, Rules,
    errno::{EEXIST, EROFS},
    ledger::Inode,
    meaning::{
        AT_EMPTY_PATH, Intent, Last, Meaning, O_ACCMODE, O_CREAT, O_EXCL, O_NOFOLLOW, O_PATH, O_TMPFILE, O_TRUNC,
        PathArg, Row, Special, W_OK,
    },
    owners::S_IFLNK,
    permit::S_IFMT,
    table,
    translate::{start_descriptor, tail},
};

const S_IFREG: u16 = 0o100_000;
const OWNER_MAY_WRITE: u16 = 0o200;

/// As often a name may change its meaning while we look; a guest that goes on longer wants it so.
pub(crate) const TRIES: usize = 16;

/// No error of the kernel's: the name means something else by now, so the call's meaning is to be found anew.
pub(crate) const AGAIN: Errno = Errno(u16::MAX);

/// A file as stat(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Which one.
    pub id: FileId,
    /// `st_mode`.
    pub mode: u32,
}

/// What a call wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    /// To change its data.
    Data,
    /// To change what is known of it.
    Attribute,
    /// To give it another name.
    Name,
    /// To know, with the mode in this argument, what may be done.
    Ask(u8),
}

/// A host path with its NUL, of our own.
struct Name {
    bytes: [u8; PATH_MAX],
}

impl Name {
    fn new(parts: [&[u8]; 3]) -> Result<Self, Errno> {
        let mut name = Self { bytes: [0; PATH_MAX] };
        let mut len = 0;
        for part in parts {
            name.bytes.get_mut(len..len + part.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(part);
            len += part.len();
        }
        if len < PATH_MAX { Ok(name) } else { Err(Errno::ENAMETOOLONG) }
    }

    fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// One call in a run that has a view.
pub(crate) struct Cow<'a, G> {
    rules: &'a Rules<'a>,
    guest: &'a G,
    row: &'a Row,
    marks: Marks<'a>,
}

/// Room for a link's text, and for a guest path.
pub(crate) type Memory<'m> = (&'m mut [u8], &'m mut [u8]);

impl<'a, G: Guest> Cow<'a, G> {
    /// None if the guest's tree is no view.
    pub(crate) fn of(rules: &'a Rules<'a>, guest: &'a G, row: &'a Row) -> Option<Self> {
        rules.marks.map(|marks| Self { rules, guest, row, marks })
    }

    /// Sees to it that the call harms no shared file. `given` is its host path as the kernel would get it. `Some(len)` says
    /// that the path is to be `text[..len]` instead, with its NUL; the call's flags then fit that.
    ///
    /// # Errors
    /// What copying the file said, and [`EROFS`].
    pub(crate) fn protect(
        &self,
        call: &mut Call,
        (arg, place): (&PathArg, &Resolved<'_>),
        given: &[u8],
        memory: Memory<'_>,
    ) -> Result<Option<usize>, Errno> {
        let wish = self.wish(call, arg);
        if wish == Wish::Nothing {
            return Ok(None);
        }
        let pinned = place.bind.is_none() && self.wants_pin(wish);
        if place.found == Found::Missing {
            return if pinned { self.missing(call, arg, Errno::ENOENT) } else { Ok(None) };
        }
        let given = given.strip_suffix(b"\0").unwrap_or(given);
        let mut link = [0; 48];
        let name = if given.first() == Some(&b'/') {
            Name::new([given, b"", b""])?
        } else {
            // Below a directory that only the guest can name.
            let len = self.guest.link(start_descriptor(call, arg.dir), &mut link);
            Name::new([&link[..len], b"/", given])?
        };
        let follow = place.magic.is_some();
        let file = match self.guest.file(name.path(), follow) {
            Ok(file) => file,
            Err(errno) if pinned => return self.missing(call, arg, errno),
            // What is not there, or cannot be seen, is the kernel's to refuse.
            Err(_) => return Ok(None),
        };
        let mark = self.marks.find(&file.id);
        if let Wish::Ask(at) = wish {
            if mark.is_some_and(|mark| self.may_write(mark)) {
                // Asked without it: the kernel would look at the mode on disk.
                call.args[usize::from(at)] &= !W_OK;
            }
            return Ok(None);
        }
        let Some(mark) = mark else {
            return if pinned { self.pin(call, arg, &name, memory.0).map(Some) } else { Ok(None) };
        };
        if self.is_refused(wish, mark) {
            return Ok(None);
        }
        if follow {
            let len = self.guest.readlink(name.path(), memory.0)?;
            let (name, text) = self.name_of(&file.id, len, memory)?;
            self.unshare(&name, &file.id, mark)?;
            return self.pin(call, arg, &name, text).map(Some);
        }
        if place.bind.is_some() {
            // The shared tree itself, through a bind of the user's.
            return Err(EROFS);
        }
        self.unshare(&name, &file.id, mark)?;
        if pinned { self.pin(call, arg, &name, memory.0).map(Some) } else { Ok(None) }
    }

    /// The same for a call that changes attributes of the file behind a descriptor: they are changed of the file that
    /// has its name.
    ///
    /// # Errors
    /// As [`Cow::protect`].
    pub(crate) fn protect_descriptor(
        &self,
        call: &mut Call,
        arg: &PathArg,
        descriptor: i32,
        memory: Memory<'_>,
    ) -> Result<Option<usize>, Errno> {
        let Ok(file) = self.guest.descriptor(descriptor) else { return Ok(None) };
        let Some(mark) = self.marks.find(&file.id) else { return Ok(None) };
        if self.is_refused(Wish::Attribute, mark) {
            return Ok(None);
        }
        let len = self.guest.place(Some(descriptor), memory.0).map_err(|_| EROFS)?;
        let (name, text) = self.name_of(&file.id, len, memory)?;
        self.unshare(&name, &file.id, mark)?;
        self.pin(call, arg, &name, text).map(Some)
    }

    /// Whether what is wished could be had of a shared file, if the name came to mean one.
    fn wants_pin(&self, wish: Wish) -> bool {
        match wish {
            Wish::Attribute => true,
            Wish::Data => self.rules.identity.host_uid == 0 || self.marks.writable_on_disk(),
            _ => false,
        }
    }

    /// A name that means nothing, or nothing that can be seen: `errno`. A call that makes a file is to make a new one.
    fn missing(&self, call: &mut Call, arg: &PathArg, errno: Errno) -> Result<Option<usize>, Errno> {
        if errno != Errno::ENOENT {
            return Err(errno);
        }
        match arg.intent {
            Intent::Open(flags) if call.arg(flags) & O_CREAT != 0 => call.args[usize::from(flags)] |= O_EXCL,
            Intent::Write => {
                let open = table::TABLE.iter().find(|row| row.name == "open").and_then(|row| row.number(call.abi));
                call.number = open.ok_or(errno)?.into();
                call.args[2] = call.args[1];
                call.args[1] = O_CREAT | O_EXCL | O_TRUNC | 1;
            }
            _ => return Err(errno),
        }
        Ok(None)
    }

    /// Whether the file behind a descriptor is shared.
    pub(crate) fn is_shared(&self, descriptor: i32) -> bool {
        self.guest.descriptor(descriptor).is_ok_and(|file| self.marks.find(&file.id).is_some())
    }

    fn wish(&self, call: &Call, arg: &PathArg) -> Wish {
        match arg.intent {
            Intent::Open(flags) => {
                let flags = call.arg(flags);
                let writes = flags & (O_ACCMODE | O_TRUNC) != 0 && flags & O_TMPFILE == 0;
                if writes && flags & O_PATH == 0 { Wish::Data } else { Wish::Nothing }
            }
            Intent::Write | Intent::Size => Wish::Data,
            // Of an owner only what is told is changed then.
            Intent::Owner | Intent::Mode if self.rules.identity.pretends() => Wish::Nothing,
            Intent::Attribute | Intent::Owner | Intent::Mode => Wish::Attribute,
            Intent::Read if self.row.name.starts_with("link") => Wish::Name,
            Intent::Access(mode) if call.arg(mode) & W_OK != 0 => Wish::Ask(mode),
            _ => Wish::Nothing,
        }
    }

    /// Whether the guest may write to a file by its true mode: the host's owner of all files is the guest's user.
    fn may_write(&self, mark: Mark) -> bool {
        let identity = &self.rules.identity;
        mark.mode & OWNER_MAY_WRITE != 0 || identity.uid == 0 || identity.host_uid == 0
    }

    /// Whether the kernel will refuse the call by the file's mode, on disk as in truth.
    fn is_refused(&self, wish: Wish, mark: Mark) -> bool {
        (wish == Wish::Data || self.row.name.contains("xattr")) && !self.may_write(mark)
    }

    /// The name in the tree of a file that the kernel calls `text[..len]`, and the text's memory.
    fn name_of<'m>(&self, file: &FileId, len: usize, (text, guest): Memory<'m>) -> Result<(Name, &'m mut [u8]), Errno> {
        let host = text.get(..len).ok_or(Errno::ENAMETOOLONG)?;
        let found = self.rules.view.to_guest(host, guest).ok_or(EROFS)?;
        if found.bind.is_some() {
            return Err(EROFS);
        }
        // What a copy took the name of has none any more.
        let host = if found.deleted { &host[..len - coracle_paths::DELETED.len()] } else { host };
        let name = Name::new([host, b"", b""])?;
        let now = self.guest.file(name.path(), false).map_err(|_| EROFS)?;
        let same = now.id == *file || self.guest.successor(file) == Some(now.id.inode);
        if same { Ok((name, text)) } else { Err(EROFS) }
    }

    /// Breaks the link of a name that means a shared file, until it means none.
    fn unshare(&self, name: &Name, file: &FileId, mark: Mark) -> Result<(), Errno> {
        let (mut file, mut mark) = (*file, mark);
        for _ in 0..TRIES {
            // Who takes itself for root opens whatever it likes, so the mode on disk must not stand in its way.
            let root = self.rules.identity.pretends() && self.rules.identity.uid == 0;
            let mode = u32::from(mark.mode) | if root { 0o600 } else { 0 };
            if let Some(new) = self.guest.unshare(name.path(), &file, mode & 0o1777)? {
                self.carry(&file, &new, mark);
            }
            // Renamed meanwhile, perhaps, or removed.
            let Ok(now) = self.guest.file(name.path(), false) else { return Ok(()) };
            let Some(other) = self.marks.find(&now.id) else { return Ok(()) };
            (file, mark) = (now.id, other);
        }
        Err(EROFS)
    }

    /// What the guest was told of the shared file holds for its copy.
    fn carry(&self, old: &FileId, new: &FileId, mark: Mark) {
        let Some(ledger) = self.rules.ledger else { return };
        let inode = |file: &FileId| Inode { device: file.device, number: file.inode };
        let mut entry = ledger.get(inode(old)).unwrap_or_default();
        entry.shared = false;
        entry.owner = entry.owner.or(mark.owner);
        entry.mode = entry.mode.or(Some(S_IFREG | mark.mode & 0o7777));
        // A full ledger forgets an owner; the file is right.
        let _ = ledger.put(inode(new), &entry);
    }

    /// Pins the file that a name means, once that is not shared, and changes the call so that it follows the pin's path,
    /// whose length with its NUL is returned.
    fn pin(&self, call: &mut Call, arg: &PathArg, name: &Name, text: &mut [u8]) -> Result<usize, Errno> {
        for _ in 0..TRIES {
            let (file, len) = match self.guest.pin(name.path(), text) {
                Err(Errno::ENOENT) => return Err(AGAIN),
                pinned => pinned?,
            };
            if file.mode & S_IFMT == S_IFLNK && tail(call, arg.last, b"") != Tail::NoFollow {
                // The walk has met no link here.
                return Err(AGAIN);
            }
            let Some(mark) = self.marks.find(&file.id) else {
                self.follow(call, arg);
                return Ok(len);
            };
            self.unshare(name, &file.id, mark)?;
        }
        Err(EROFS)
    }

    /// Changes a call that would not follow its path's last link into one that does.
    fn follow(&self, call: &mut Call, arg: &PathArg) {
        match arg.last {
            Last::NoFollowIf(at, flag) => call.args[usize::from(at)] &= !(flag | AT_EMPTY_PATH),
            Last::Open(at) => call.args[usize::from(at)] &= !O_NOFOLLOW,
            _ => {}
        }
        if let Some(number) = table::following(self.row).and_then(|row| row.number(call.abi)) {
            call.number = u64::from(number);
        }
    }
}

/// Whether the kernel refused what a call wanted of the file at `path`, as lent, because that name came to mean a shared
/// file after it had been looked at: then the call is to be made once more, from its beginning.
pub(crate) fn lost_race<G: Guest>(rules: &Rules<'_>, guest: &G, call: &Call, (path, errno): (&CStr, Errno)) -> bool {
    let (Some(marks), Some(row)) = (rules.marks, table::row_of(call.abi, call.number)) else { return false };
    let flags = match row.meaning {
        Meaning::Paths([PathArg { intent: Intent::Open(flags), .. }]) => call.arg(*flags),
        Meaning::Paths([PathArg { intent: Intent::Write, .. }]) => O_CREAT | O_TRUNC,
        Meaning::Paths([PathArg { intent: Intent::Size, .. }]) => O_TRUNC,
        Meaning::Special(Special::Openat2) => {
            let mut flags = [0; 8];
            guest.read(call.arg(2), &mut flags).map_or(O_PATH, |()| u64::from_ne_bytes(flags))
        }
        _ => return false,
    };
    if flags & O_PATH != 0 || path.to_bytes().first() != Some(&b'/') {
        return false;
    }
    let cow = Cow { rules, guest, row, marks };
    match errno {
        Errno::EACCES if flags & (O_ACCMODE | O_TRUNC) != 0 => {
            let Ok(file) = guest.file(path, true) else { return guest.names_changed() };
            match marks.find(&file.id) {
                Some(mark) => cow.may_write(mark),
                // Its link may have been broken since, for another thread.
                None => guest.names_changed() && file.mode & u32::from(OWNER_MAY_WRITE) != 0,
            }
        }
        // Only we wanted a new file.
        EEXIST => cow.wants_pin(Wish::Data) && flags & (O_CREAT | O_EXCL) == O_CREAT,
        _ => false,
    }
}
