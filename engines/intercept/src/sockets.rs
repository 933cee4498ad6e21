//! Sockets of the Unix family, whose addresses are paths of at most 107 bytes.
//!
//! A host path is longer than the guest's, often too long: then the directory is reached through a short alias that the
//! transport gives ([`Guest::alias`]).

use core::ffi::CStr;

use coracle_paths::PATH_MAX;

use crate::{
    Call, Errno, Guest, Rules, Scratch,
    enter::Verdict,
    errno::EFAULT,
    leave::After,
    meaning::{Dir, Intent, Last, Outside, PathArg},
    permit::permit,
    translate::translate,
};

const AF_UNIX: u16 = 1;
/// Where the path begins in `struct sockaddr_un`.
const PATH_AT: usize = 2;
/// Bytes of its path.
const ROOM: usize = 108;

/// An address goes from the guest to the kernel: these arguments are it and its length.
pub(crate) fn give_address<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    [at, length]: [u8; 2],
    intent: Intent,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Some(len) = host_address(rules, guest, call.arg(at), call.int(length), intent, at, scratch)? else {
        return Ok(Verdict::Pass);
    };
    call.args[usize::from(length)] = len;
    Ok(Verdict::Make { after: After::Nothing, outside: Outside::No })
}

/// Translates an address to `Scratch::lent`; its new length, or `None` if it holds no path.
fn host_address<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    address: u64,
    len: i32,
    intent: Intent,
    arg: u8,
    scratch: &mut Scratch,
) -> Result<Option<u64>, Errno> {
    let Some(len) = usize::try_from(len).ok().filter(|len| (PATH_AT + 1..=PATH_AT + ROOM).contains(len)) else {
        return Ok(None);
    };
    let mut given = [0; PATH_AT + ROOM];
    guest.read(address, &mut given[..len])?;
    if u16::from_ne_bytes([given[0], given[1]]) != AF_UNIX || given[PATH_AT] == 0 {
        // Another family, an unnamed or an abstract address.
        return Ok(None);
    }
    let name = &given[PATH_AT..len];
    let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
    let Scratch { buffers, base, text, lent, .. } = scratch;
    let last = if intent == Intent::Create { Last::Parent } else { Last::Follow };
    let words = PathArg { dir: Dir::Cwd, arg, last, intent };
    let call = Call { abi: crate::Abi::X86_64, number: 0, args: [0; 6] };
    let Some(place) = translate(rules, guest, &call, &words, name, (buffers, base, text))? else { return Ok(None) };
    permit(rules, guest, &call, intent, &place)?;
    let host = place.host.to_bytes();
    let mut made = [0; PATH_AT + ROOM];
    made[..PATH_AT].copy_from_slice(&AF_UNIX.to_ne_bytes());
    let len = if host.len() < ROOM {
        made[PATH_AT..PATH_AT + host.len()].copy_from_slice(host);
        host.len()
    } else {
        short_name(guest, host, &mut made[PATH_AT..])?
    };
    let len = PATH_AT + len + 1;
    let len = len.min(made.len());
    lent[0].set(arg, &made[..len])?;
    Ok(Some(len as u64))
}

/// Writes a path of the same file that fits.
fn short_name<G: Guest>(guest: &G, host: &[u8], room: &mut [u8]) -> Result<usize, Errno> {
    let slash = host.iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
    let mut dir = [0; PATH_MAX];
    dir.get_mut(..slash).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&host[..slash]);
    let dir = CStr::from_bytes_until_nul(&dir).map_err(|_| Errno::ENAMETOOLONG)?;
    let alias = guest.alias(dir, room)?;
    let rest = &host[slash..];
    room.get_mut(alias..alias + rest.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(rest);
    if alias + rest.len() >= ROOM {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(alias + rest.len())
}

/// An address comes from the kernel to the guest, if the guest wants it.
pub(crate) fn take_address<G: Guest>(guest: &G, at: u64, length_at: u64) -> Result<Verdict, Errno> {
    let mut length = [0; 4];
    if at == 0 || guest.read(length_at, &mut length).is_err() {
        return Ok(Verdict::Pass);
    }
    let after = After::Address { at, length_at, room: u32::from_ne_bytes(length) };
    Ok(Verdict::Make { after, outside: Outside::No })
}

/// Shows the path in an address as the guest's.
pub(crate) fn show_address<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    at: u64,
    length_at: u64,
    room: u32,
    scratch: &mut Scratch,
) -> Result<(), Errno> {
    let mut length = [0; 4];
    guest.read(length_at, &mut length)?;
    let full = usize::try_from(u32::from_ne_bytes(length)).map_err(|_| EFAULT)?;
    let room = usize::try_from(room).map_err(|_| EFAULT)?;
    let mut given = [0; PATH_AT + ROOM + 1];
    let have = full.min(room).min(given.len());
    guest.read(at, &mut given[..have])?;
    if have <= PATH_AT || u16::from_ne_bytes([given[0], given[1]]) != AF_UNIX || given[PATH_AT] != b'/' {
        return Ok(());
    }
    let name = &given[PATH_AT..have];
    let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
    let Scratch { base, text, .. } = scratch;
    // An alias of ours first: `/proc/PID/fd/N/name`.
    let mut host_len = name.len();
    text[..host_len].copy_from_slice(name);
    if name.starts_with(b"/proc/")
        && let Some(slash) = name.iter().rposition(|byte| *byte == b'/')
    {
        let mut dir = [0; PATH_AT + ROOM + 1];
        dir[..slash].copy_from_slice(&name[..slash]);
        if let Ok(dir) = CStr::from_bytes_until_nul(&dir)
            && let Ok(len) = guest.readlink(dir, text)
        {
            let rest = &name[slash..];
            text[len..len + rest.len()].copy_from_slice(rest);
            host_len = len + rest.len();
        }
    }
    let Some(place) = rules.view.to_guest(&text[..host_len], &mut base[..PATH_MAX - 1]) else { return Ok(()) };
    base[place.len] = 0;
    let mut shown = [0; PATH_AT + ROOM];
    shown[..PATH_AT].copy_from_slice(&given[..PATH_AT]);
    let fits = (place.len + 1).min(ROOM);
    shown[PATH_AT..PATH_AT + fits].copy_from_slice(&base[..fits]);
    let new = PATH_AT + fits;
    guest.write(at, &shown[..new.min(room)])?;
    guest.write(length_at, &u32::try_from(new).map_err(|_| EFAULT)?.to_ne_bytes())
}

/// The one socket call of older 32-bit programs: the real arguments are an array in memory. What gives an address to the
/// kernel is made as the call of its own that Linux has since 4.3.
pub(crate) fn socketcall<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &mut Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    let Some(inner) = INNER.iter().find(|inner| inner.selector == call.int(0)) else { return Ok(Verdict::Pass) };
    let mut words = [0; 24];
    let words = &mut words[..4 * inner.count];
    guest.read(call.arg(1), words)?;
    let mut args = [0; 6];
    for (arg, word) in args.iter_mut().zip(words.chunks_exact(4)) {
        *arg = u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut direct = Call { abi: call.abi, number: inner.number, args };
    let [at, length] = inner.address;
    let Some(intent) = inner.gives else { return take_address(guest, direct.arg(at), direct.arg(length)) };
    if direct.arg(at) == 0 {
        return Ok(Verdict::Pass);
    }
    let verdict = give_address(rules, guest, &mut direct, inner.address, intent, scratch)?;
    if verdict != Verdict::Pass {
        *call = direct;
    }
    Ok(verdict)
}

/// A call that socketcall(2) makes.
struct Inner {
    selector: i32,
    /// Its own number on i386.
    number: u64,
    /// How many arguments it has.
    count: usize,
    /// Which of them are an address and its length.
    address: [u8; 2],
    /// What it wants of the address that it gives to the kernel; `None`: it gets one.
    gives: Option<Intent>,
}

#[rustfmt::skip] // one call, one line
static INNER: [Inner; 8] = [
    Inner { selector: 2, number: 361, count: 3, address: [1, 2], gives: Some(Intent::Create) }, // bind
    Inner { selector: 3, number: 362, count: 3, address: [1, 2], gives: Some(Intent::Read) },   // connect
    Inner { selector: 5, number: 364, count: 3, address: [1, 2], gives: None },                 // accept
    Inner { selector: 6, number: 367, count: 3, address: [1, 2], gives: None },                 // getsockname
    Inner { selector: 7, number: 368, count: 3, address: [1, 2], gives: None },                 // getpeername
    Inner { selector: 11, number: 369, count: 6, address: [4, 5], gives: Some(Intent::Read) },  // sendto
    Inner { selector: 12, number: 371, count: 6, address: [4, 5], gives: None },                // recvfrom
    Inner { selector: 18, number: 364, count: 4, address: [1, 2], gives: None },                // accept4
];
