//! Programs to be started: execve(2) and execveat(2).

use core::ffi::CStr;

use crate::{
    Abi, After, Call, Errno, Guest, Rules, Scratch,
    enter::Verdict,
    errno::EBADF,
    meaning::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Dir, Intent, Last, Outside, PathArg},
    owners::S_IFLNK,
    permit::S_IFMT,
    pretend::decimal,
    translate::translate,
};

/// Ask only whether it could be executed (Linux 6.14).
const AT_EXECVE_CHECK: u64 = 0x1_0000;

/// `arg` is the path's argument.
pub(crate) fn execute<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    arg: u8,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Scratch { buffers, path, base, text, lent, .. } = &mut *scratch;
    let by_descriptor = arg > 0;
    let flags = if by_descriptor { call.arg(4) & 0xffff_ffff } else { 0 };
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_EXECVE_CHECK) != 0 {
        return Err(Errno::EINVAL);
    }
    let check = flags & AT_EXECVE_CHECK != 0;
    let (dir, last) =
        if by_descriptor { (Dir::Fd(0), Last::NoFollowIf(4, AT_SYMLINK_NOFOLLOW)) } else { (Dir::Cwd, Last::Follow) };
    let words = PathArg { dir, arg, last, intent: Intent::Read };
    let len = guest.read_string(call.arg(arg), path)?;
    let itself = len == 0 && flags & AT_EMPTY_PATH != 0;
    if itself && check {
        return Ok(Verdict::Pass);
    }
    if itself {
        match call.int(0) {
            AT_FDCWD => return Err(Errno::EACCES),
            descriptor => _ = guest.place(Some(descriptor), text).map_err(|_| EBADF)?,
        }
    }
    // fexecve(3): the open file is the program, by whatever name it has.
    let mut link = [0; 32];
    let name = if itself { name_descriptor(b"/proc/self/fd/", call.int(0), &mut link) } else { &path[..len] };
    let place = translate(rules, guest, call, &words, name, (buffers, base, text))?.ok_or(Errno::ENOENT)?;
    if flags & AT_SYMLINK_NOFOLLOW != 0 && !itself && guest.mode(place.host, false)? & S_IFMT == S_IFLNK {
        return Err(Errno::ELOOP);
    }
    lent[0].set_place(guest, arg, &place)?;
    if check {
        return Ok(Verdict::Make { after: After::Nothing, outside: Outside::No });
    }
    // What a link in `/proc` stands for has a name of its own.
    let behind = match place.magic {
        Some(magic) if magic.shows_host_path() => guest.readlink(place.host, text).ok(),
        _ => None,
    };
    match behind {
        Some(len) => match rules.view.to_guest(&text[..len], base) {
            Some(found) => lent[1].set(arg, &base[..found.len])?,
            None => lent[1].set(arg, &text[..len.min(coracle_paths::PATH_MAX)])?,
        },
        None => lent[1].set(arg, place.guest)?,
    }
    let descriptor = (by_descriptor && call.int(0) != AT_FDCWD && path[0] != b'/').then(|| call.int(0));
    if let Some(descriptor) = descriptor {
        let mut prefix = [0; 32];
        let prefix = name_descriptor(b"/dev/fd/", descriptor, &mut prefix);
        let slash = usize::from(len > 0);
        if prefix.len() + slash + len >= path.len() {
            return Err(Errno::ENAMETOOLONG);
        }
        path.copy_within(..len, prefix.len() + slash);
        path[..prefix.len()].copy_from_slice(prefix);
        if slash == 1 {
            path[prefix.len()] = b'/';
        }
        path[prefix.len() + slash + len] = 0;
    }
    Ok(Verdict::Execute { argv: arg + 1, descriptor, itself })
}

/// Writes a descriptor's number behind a prefix of at most 20 bytes.
fn name_descriptor<'n>(prefix: &[u8], descriptor: i32, name: &'n mut [u8; 32]) -> &'n [u8] {
    name[..prefix.len()].copy_from_slice(prefix);
    let mut digits = [0; 10];
    let digits = decimal(descriptor.unsigned_abs(), &mut digits);
    let end = prefix.len() + digits.len();
    name[prefix.len()..end].copy_from_slice(digits);
    &name[..end]
}

impl Scratch {
    /// The guest path of the program that [`Verdict::Execute`] starts.
    #[must_use]
    pub fn program(&self) -> &[u8] {
        self.lent[1].bytes()
    }

    /// The name by which the guest started it, as the kernel tells it in `AT_EXECFN`.
    #[must_use]
    pub fn given(&self) -> &[u8] {
        let end = self.path.iter().position(|byte| *byte == 0).unwrap_or(self.path.len());
        &self.path[..end]
    }

    /// Resolves a guest path that the transport itself found (an interpreter's), relative to the caller's working
    /// directory; the host path is then the first of [`Scratch::lent`], the guest path [`Scratch::program`].
    ///
    /// # Errors
    /// As the kernel's.
    pub fn find<G: Guest>(&mut self, rules: &Rules<'_>, guest: &G, name: &[u8]) -> Result<&CStr, Errno> {
        let Self { buffers, base, text, lent, .. } = self;
        let call = Call { abi: Abi::X86_64, number: 0, args: [0; 6] };
        let arg = PathArg { dir: Dir::Cwd, arg: 0, last: Last::Follow, intent: Intent::Read };
        let place = translate(rules, guest, &call, &arg, name, (buffers, base, text))?.ok_or(Errno::ENOENT)?;
        lent[0].set_place(guest, 0, &place)?;
        lent[1].set(0, place.guest)?;
        lent[0].path().ok_or(Errno::ENOENT)
    }
}
