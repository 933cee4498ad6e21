//! The program that execve(2) names: found through `#!` lines, judged, opened, with its interpreter.
//!
//! Everything that the kernel refuses is refused here, in its order and before anything of the old program is lost.

use std::{
    ffi::{CStr, CString},
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    rc::Rc,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use coracle_elf::{Elf, Segment};
use coracle_intercept::{
    Abi, Credentials, Errno, Guest, Rules, Scratch, after_exec,
    errno::{EIO, ELIBBAD, ENOEXEC, ENOSYS},
    program::{self, HEAD, Kind, MAX_SCRIPTS},
    unlock,
};
use coracle_layout::memory_file;

use crate::{
    loading::Loading,
    peer::{Peer, facts, last_errno},
    script::{Image, StackKind},
    window::path_of,
};

/// How a guest named the program that it executes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    /// From this descriptor.
    pub(crate) descriptor: Option<i32>,
    /// By this descriptor itself.
    pub(crate) itself: bool,
}

/// Judges the program that `Scratch` holds after [`coracle_intercept::Verdict::Execute`], following `#!` lines.
pub(crate) fn prepare(
    rules: &Rules<'_>,
    peer: &Peer<'_>,
    named: Named,
    scratch: &mut Scratch,
    mark: u64,
) -> Result<Loading, Errno> {
    let given = scratch.given().to_vec();
    let mut prefix: Vec<Vec<u8>> = Vec::new();
    let mut host = scratch.lent()[0].bytes().to_vec();
    for _ in 0..=MAX_SCRIPTS {
        let mut head = [0; HEAD];
        let (file, len) = open(rules, peer, &mut host, &mut head)?;
        match program::judge(&head[..len])? {
            Kind::Elf(elf) => {
                let exe: Rc<[u8]> = Rc::from(scratch.program());
                let person = person_of(rules, peer, &file)?;
                let program = read_image(file, host, elf)?;
                let interpreter = find_interpreter(rules, peer, &program, scratch)?;
                let abi = if elf.wide { Abi::X86_64 } else { Abi::I386 };
                let name = if named.itself && names_by_file() { file_name(&exe) } else { last(&given) };
                let name = name.to_vec();
                let stack = stack_kind(&program);
                let mut loading = Loading::new(exe, (abi, stack), (given, name, prefix), (program, interpreter), mark);
                loading.person = person;
                return Ok(loading);
            }
            Kind::Script { interpreter, argument } => {
                if prefix.is_empty() && named.descriptor.is_some_and(|fd| closes_on_exec(peer, fd)) {
                    // The interpreter could not open it by the name that it is told.
                    return Err(Errno::ENOENT);
                }
                // The script takes its own first argument's place, behind its interpreter and the argument of that.
                let name = prefix.first().cloned().unwrap_or_else(|| given.clone());
                let mut new = vec![interpreter.to_vec()];
                new.extend(argument.map(<[u8]>::to_vec));
                new.push(name);
                new.extend(prefix.drain(..).skip(1));
                prefix = new;
                if interpreter.is_empty() {
                    // The working directory, to the kernel.
                    return Err(Errno::EACCES);
                }
                host = scratch.find(rules, peer, interpreter)?.to_bytes_with_nul().to_vec();
            }
        }
    }
    Err(Errno::ELOOP)
}

/// Whether this kernel names a process that executed a descriptor after the file (Linux 6.14), and not after the number.
fn names_by_file() -> bool {
    static BY_FILE: OnceLock<bool> = OnceLock::new();
    *BY_FILE.get_or_init(|| coracle_api::Host::read(None).kernel >= (6, 14))
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn file_name(path: &[u8]) -> &[u8] {
    last(path.strip_suffix(coracle_paths::DELETED).unwrap_or(path))
}

/// Whether a descriptor of the caller's is closed by execve(2).
fn closes_on_exec(peer: &Peer<'_>, descriptor: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", peer.thread)).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0)
}

/// Opens a file that may be executed and reads its head.
fn open(rules: &Rules<'_>, peer: &Peer<'_>, host: &mut Vec<u8>, head: &mut [u8]) -> Result<(File, usize), Errno> {
    let path = CStr::from_bytes_with_nul(host).map_err(|_| Errno::ENOENT)?;
    let name = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    if rules.identity.pretends() {
        may_pretend(rules, peer, path)?;
    } else {
        may_execute(path, name)?;
    }
    peer.executes(path);
    // It was a regular file a moment ago; a pipe that took its name since must not hold the tracer up.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let copy = copy_unreadable(name).map_err(|_| Errno::EACCES)?;
            *host = path_of(&copy).map_err(errno_of)?.into_bytes_with_nul();
            copy
        }
        other => other.map_err(errno_of)?,
    };
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64).map_err(errno_of)? {
            0 => break,
            more => len += more,
        }
    }
    Ok((file, len))
}

/// Whether a guest that takes itself for somebody else may execute this file; then its real owner may read it.
fn may_pretend(rules: &Rules<'_>, peer: &Peer<'_>, path: &CStr) -> Result<(), Errno> {
    let facts = match peer.stat(path, true) {
        Err(Errno::EACCES) if unlock(rules, peer, path.to_bytes()) => peer.stat(path, true)?,
        facts => facts?,
    };
    if facts.mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EACCES);
    }
    coracle_intercept::may_execute(rules, peer, path, &facts)
}

/// Whom a process becomes that executes this program.
fn person_of(rules: &Rules<'_>, peer: &Peer<'_>, file: &File) -> Result<Option<(Credentials, bool)>, Errno> {
    if !rules.identity.pretends() {
        return Ok(None);
    }
    let stat = nix::sys::stat::fstat(file).map_err(|_| Errno::EACCES)?;
    Ok(Some(after_exec(rules, peer, &facts(&stat))))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno_of(error: io::Error) -> Errno {
    Errno(error.raw_os_error().and_then(|error| u16::try_from(error).ok()).unwrap_or(ENOEXEC.0))
}

/// Whether the kernel would execute this file: asked of itself since Linux 6.14, which also knows who writes to it.
fn may_execute(path: &CStr, name: &Path) -> Result<(), Errno> {
    /// "Only ask"; refused before anything happens by kernels that do not know it.
    const AT_EXECVE_CHECK: i32 = 0x1_0000;
    static REFUSED: AtomicBool = AtomicBool::new(false);
    if !REFUSED.load(Ordering::Relaxed) {
        let argv = [path.as_ptr(), std::ptr::null()];
        // SAFETY: a NUL-terminated path, and two arrays that end with a null; with this flag nothing is executed.
        let asked = unsafe {
            libc::syscall(
                libc::SYS_execveat,
                libc::AT_FDCWD,
                path.as_ptr(),
                argv.as_ptr(),
                argv[1..].as_ptr(),
                AT_EXECVE_CHECK,
            )
        };
        match last_errno() {
            _ if asked == 0 => return Ok(()),
            Errno::EINVAL | ENOSYS => REFUSED.store(true, Ordering::Relaxed),
            errno => return Err(errno),
        }
    }
    // SAFETY: a NUL-terminated path; faccessat writes nothing.
    if unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, 0) } != 0 {
        return Err(last_errno());
    }
    // What is no regular file might block when opened.
    if fs::metadata(name).map_err(errno_of)?.is_file() { Ok(()) } else { Err(Errno::EACCES) }
}

/// A copy in memory of a program that may be executed but not read. The kernel can map it without reading rights, a loader
/// cannot; its owner may give itself the right for a moment, anybody else is refused.
fn copy_unreadable(name: &Path) -> io::Result<File> {
    let mode = fs::metadata(name)?;
    // SAFETY: geteuid takes nothing and cannot fail.
    if mode.uid() != unsafe { libc::geteuid() } {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    fs::set_permissions(name, Permissions::from_mode(mode.mode() | 0o400))?;
    let opened = File::open(name);
    fs::set_permissions(name, mode.permissions())?;
    let mut copy = File::from(memory_file(c"coracle-program")?);
    io::copy(&mut opened?, &mut copy)?;
    Ok(copy)
}

fn read_image(file: File, host: Vec<u8>, elf: Elf) -> Result<Image, Errno> {
    let size = elf.header_size();
    let mut table = vec![0; size * usize::from(elf.headers)];
    file.read_exact_at(&mut table, elf.headers_at).map_err(|_| ENOEXEC)?;
    let segments =
        table.chunks_exact(size).map(|bytes| elf.segment(bytes).ok_or(ENOEXEC)).collect::<Result<Vec<_>, _>>()?;
    // What is mapped must be mappable: a header that lies would only harm the guest itself, but let it be refused cleanly.
    let sound = |segment: &Segment| {
        segment.kind != Segment::LOAD
            || (segment.file_size <= segment.memory_size
                && segment.address.checked_add(segment.memory_size).is_some_and(|end| end < 1 << 47)
                && segment.offset.checked_add(segment.file_size).is_some()
                && (segment.file_size == 0 || segment.address % 4096 == segment.offset % 4096))
    };
    if !segments.iter().all(sound) || !segments.iter().any(|segment| segment.kind == Segment::LOAD) {
        return Err(ENOEXEC);
    }
    // A descriptor's name in `/proc` is the caller's, and closed by the time of loading if it is O_CLOEXEC: ours is open.
    let host =
        if host.starts_with(b"/proc/") { path_of(&file).map_err(|_| ENOEXEC)?.into_bytes_with_nul() } else { host };
    Ok(Image { host, file, elf, segments })
}

/// What the program says of its stack: the kernel reads it from the runner, which must say the same.
fn stack_kind(program: &Image) -> StackKind {
    match program.segments.iter().find(|segment| segment.kind == Segment::STACK) {
        None => StackKind::Unsaid,
        Some(segment) if segment.flags & 1 != 0 => StackKind::Executable,
        Some(_) => StackKind::Plain,
    }
}

/// The interpreter's name where the kernel reads it.
fn interpreter_name(program: &Image, segment: &Segment) -> Result<CString, Errno> {
    let size = usize::try_from(segment.file_size).map_err(|_| ENOEXEC)?;
    if !(2..=coracle_paths::PATH_MAX).contains(&size) {
        return Err(ENOEXEC);
    }
    let mut name = vec![0; size];
    program.file.read_exact_at(&mut name, segment.offset).map_err(|_| EIO)?;
    if name.last() != Some(&0) {
        return Err(ENOEXEC);
    }
    Ok(CStr::from_bytes_until_nul(&name).map_err(|_| ENOEXEC)?.to_owned())
}

/// The interpreter's name where the program has it in memory, if that is another place of its file: an edit leaves it there.
fn before_edit(program: &Image, segment: &Segment) -> Option<CString> {
    let first = program.segments.iter().find(|segment| segment.kind == Segment::LOAD)?;
    let within = segment.address.checked_sub(first.address).filter(|within| *within < first.file_size)?;
    let at = first.offset.checked_add(within).filter(|at| *at != segment.offset)?;
    let mut name = vec![0; coracle_paths::PATH_MAX];
    let len = program.file.read_at(&mut name, at).ok()?;
    let name = CStr::from_bytes_until_nul(&name[..len]).ok()?;
    name.to_bytes().starts_with(b"/").then(|| name.to_owned())
}

fn find_interpreter(
    rules: &Rules<'_>,
    peer: &Peer<'_>,
    program: &Image,
    scratch: &mut Scratch,
) -> Result<Option<Image>, Errno> {
    let Some(segment) = program.segments.iter().find(|segment| segment.kind == Segment::INTERPRETER) else {
        return Ok(None);
    };
    // A program of a tree that was edited for an engine without a tracer names the tree's loader by its host path, and
    // a copy of such a program that of a view which may have gone, or nothing: strip(1) drops an edit.
    let before = before_edit(program, segment);
    let name = match interpreter_name(program, segment) {
        Err(_) if before.is_some() && segment.file_size == 0 => None,
        name => Some(name?),
    };
    let mut found = Err(Errno::ENOENT);
    for name in [&name, &before].into_iter().flatten() {
        let own = name.to_bytes().strip_prefix(rules.view.root()).filter(|rest| rest.starts_with(b"/"));
        found = scratch
            .find(rules, peer, own.unwrap_or(name.to_bytes()))
            .and_then(|host| peer.stat(host, true).map(|_| host.to_bytes_with_nul().to_vec()));
        if found.is_ok() {
            break;
        }
    }
    let mut host = found?;
    let mut head = [0; HEAD];
    let (file, len) = open(rules, peer, &mut host, &mut head)?;
    if len < if program.elf.wide { 64 } else { 52 } {
        return Err(EIO);
    }
    match Elf::parse(&head[..len]) {
        Some(elf) if elf.wide == program.elf.wide => read_image(file, host, elf).map(Some).map_err(|_| ELIBBAD),
        _ => Err(ELIBBAD),
    }
}
