//! Programs that this process starts: found as the kernel would, through `#!` lines, and entered as `coracle-entry` says.
//!
//! All work is done in blocks of the pool, but what the kernel is to read is copied to the stack, and the blocks are given
//! back before the call: a child of vfork(2) never comes back to do so.

use core::{
    ffi::{CStr, c_char},
    mem::MaybeUninit,
    slice,
};

use coracle_elf::Elf;
use coracle_entry::{
    EXTRA, Linkage, Loader, Places, Scripts, Source, Space, Start, WAY_OUT, Way, Why, command, linkage,
    needs_elsewhere, way,
};
use coracle_intercept::{
    Errno, Scratch, after_exec,
    errno::{EFAULT, ELIBBAD, ENOEXEC, ENOMEM},
    program::{HEAD, Kind, MAX_SCRIPTS, judge},
};
use coracle_sys::{
    self as sys, Fd,
    kernel::{__NR_execve, __NR_pread64, O_CLOEXEC, O_RDONLY},
};

use crate::{
    arch::with_stack,
    call::raw,
    environment, files,
    guest::Process,
    memory, person,
    pool::{self, Block},
    state::State,
};

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

/// Arguments and environment, as the guest gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lists {
    pub(crate) argv: *const *const c_char,
    pub(crate) envp: *const *const c_char,
}

/// What makes the call in the end: path, arguments, environment.
pub(crate) type Finish<'f> = &'f dyn Fn(*const c_char, *const *const c_char, *const *const c_char) -> isize;

/// execve(2) itself.
pub(crate) fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> isize {
    raw(__NR_execve, [path.expose_provenance(), argv.expose_provenance(), envp.expose_provenance(), 0, 0, 0])
}

/// Work on a program, in the memory of a block. What each program needs lies together, and is little of it: the rest is
/// never touched, so that it costs no pages.
#[repr(C)]
struct Work {
    /// Their text first, and how long it is right before what follows.
    scripts: Scripts,
    head: [u8; HEAD],
    wishes: [u8; 2 * HEAD],
    /// One behind the other: host path of the program, the guest's, the name that was given, those of a loader that
    /// came later.
    texts: [u8; 5 * PATH],
    /// What a link in `/proc` stands for.
    behind: [u8; PATH],
    /// Whom the process becomes.
    person: [u8; person::TEXT],
}

const PATH: usize = coracle_paths::PATH_MAX;
const _: () = assert!(size_of::<Work>() <= size_of::<Scratch>() && align_of::<Work>() <= 4096);

/// Starts the program that the table found: its host path is the first of what `scratch` lends.
pub(crate) fn execute(state: &State, process: &Process, scratch: Block, lists: Lists) -> isize {
    start(state, process, scratch, lists, &execve)
}

/// As [`execute`], where something else makes the call.
pub(crate) fn start(state: &State, process: &Process, mut scratch: Block, lists: Lists, finish: Finish<'_>) -> isize {
    let answer = |errno: Errno| -isize::try_from(errno.0).unwrap_or(1);
    let (Some(mut work), Some(text)) = (pool::take(), pool::take()) else { return answer(ENOMEM) };
    // What lies there is copied before the blocks are given back; the guest's own strings stay where they are.
    let blocks = [scratch.range(), work.range(), text.range()];
    // SAFETY: the block is ours alone, large enough and aligned to a page (the assertion above); any bytes are a Work, which
    // is made of integers.
    let work_memory = unsafe { &mut *core::ptr::from_mut::<Scratch>(&mut work).cast::<Work>() };
    let found = match find(state, process, &mut scratch, work_memory) {
        Ok(found) => found,
        Err(errno) => return answer(errno),
    };
    let Some(description) = environment::description() else { return answer(EFAULT) };
    let Found { way, host, exe, given, search, scripts, person } = found;
    if let Way::Not(why) = way
        && !state.run.hands_over()
    {
        return say(given, why);
    }
    let start = Start { way, program: host, exe, given, search, description, person };
    let (argc, envc) = match (count(lists.argv), count(lists.envp)) {
        (Ok(argc), Ok(envc)) => (argc, envc),
        (Err(errno), _) | (_, Err(errno)) => return answer(errno),
    };
    let pointers = argc + envc + EXTRA + scripts.arguments().count() + 4;
    with_stack(pointers * size_of::<*const c_char>(), move |memory| {
        let memory = zeroed(memory);
        // SAFETY: zeroed bytes, as many as so many null pointers, aligned to 16.
        let pointers = unsafe { slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<*const c_char>(), pointers) };
        let mut text = text;
        let mut space = Space::new(pointers, pool::bytes(&mut text));
        // Who takes a program over finds the interpreters of a script for himself.
        let scripted = !(scripts.is_empty() || matches!(way, Way::Not(_)) && start.is_named());
        let own = usize::from(scripted);
        // SAFETY: the guest's own lists, whose ends were just found.
        let (arguments, variables) =
            unsafe { (strings_of(lists.argv, own.min(argc), argc), strings_of(lists.envp, 0, envc)) };
        let mut places = Guest { state, process, scratch: &mut scratch };
        let arguments = scripts.arguments().filter(|_| scripted).chain(arguments);
        let made = match command(&state.run, &start, arguments, variables, &mut places, &mut space) {
            Ok(made) => made,
            Err(errno) => return answer(errno),
        };
        let (path, argv, envp) = (made.path, made.argv.as_ptr(), made.envp.as_ptr());
        let (argc, envc) = (made.argv.len(), made.envp.len());
        let ours = move |at: usize| blocks.iter().any(|block| block.contains(&at));
        let all = || {
            // SAFETY: the arrays that were just made.
            let lists = unsafe { [slice::from_raw_parts(argv, argc), slice::from_raw_parts(envp, envc)] };
            lists.into_iter().flatten().copied().chain([path]).filter(|at| ours(at.addr()))
        };
        // SAFETY: strings that end with NUL, in our blocks.
        let size = all().map(|at| unsafe { CStr::from_ptr(at) }.count_bytes() + 1).sum();
        with_stack(size, move |strings| {
            let mut free = strings;
            let mut take = |at: *const c_char| -> *const c_char {
                if !ours(at.addr()) {
                    return at;
                }
                // SAFETY: as above.
                let bytes = unsafe { CStr::from_ptr(at) }.to_bytes_with_nul();
                let (to, rest) = core::mem::take(&mut free).split_at_mut(bytes.len());
                free = rest;
                // SAFETY: as long as the string.
                unsafe { to.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                to.as_ptr().cast()
            };
            let path = take(path);
            for (list, count) in [(argv, argc), (envp, envc)] {
                for at in 0..count {
                    // SAFETY: inside the arrays, which are on our stack.
                    unsafe {
                        let slot = list.add(at).cast_mut();
                        slot.write(take(*slot));
                    }
                }
            }
            drop((scratch, work, text));
            finish(path, argv, envp)
        })
    })
}

/// Memory of a stack, with nothing in it.
pub(crate) fn zeroed(memory: &mut [MaybeUninit<u8>]) -> &mut [u8] {
    memory.fill(MaybeUninit::new(0));
    // SAFETY: every byte was just written.
    unsafe { &mut *(core::ptr::from_mut(memory) as *mut [u8]) }
}

/// How many pointers a list has before its null; a null list has none, as the kernel takes it. Each leads to a string
/// that can be read, up to its NUL.
fn count(list: *const *const c_char) -> Result<usize, Errno> {
    if list.is_null() {
        return Ok(0);
    }
    let first = list.expose_provenance();
    let mut count = 0;
    loop {
        match memory::pointer(first.wrapping_add(count * size_of::<usize>()))? {
            0 => return Ok(count),
            string => memory::string(string, usize::MAX)?,
        };
        count += 1;
    }
}

unsafe fn strings_of(list: *const *const c_char, from: usize, to: usize) -> impl Iterator<Item = &'static CStr> {
    // SAFETY: the guest's own strings, which live while it makes the call.
    (from..to).map(move |at| unsafe { CStr::from_ptr(*list.add(at)) })
}

/// What was found out of a program.
struct Found<'w> {
    way: Way<'w>,
    host: &'w CStr,
    exe: &'w [u8],
    given: &'w [u8],
    search: &'w [u8],
    scripts: &'w Scripts,
    person: &'w [u8],
}

fn find<'w>(state: &State, process: &Process, scratch: &mut Scratch, work: &'w mut Work) -> Result<Found<'w>, Errno> {
    let Work { scripts, head, wishes, texts, behind, person } = work;
    let mut room = &mut texts[..];
    scripts.clear();
    let given = keep(scratch.given(), &mut room)?;
    for turn in 0..=MAX_SCRIPTS {
        let path = behind_link(scratch.lent()[0].path().ok_or(Errno::ENOENT)?, behind);
        may_execute(path)?;
        let file = files::Held(sys::open(Fd::CWD, path, O_RDONLY | O_CLOEXEC, 0).map_err(files::errno)?);
        let len = read_at(&file, 0, head)?;
        let file = Reader { head: &head[..len], file };
        match judge(file.head)? {
            Kind::Script { .. } if turn == MAX_SCRIPTS => return Err(Errno::ELOOP),
            Kind::Script { interpreter, argument } => {
                scripts.push(interpreter, argument, given)?;
                scratch.find(&state.rules, process, interpreter)?;
            }
            Kind::Elf(elf) => {
                let host = c_str(keep(path.to_bytes(), &mut room)?)?;
                let exe = keep(scratch.program(), &mut room)?;
                let wishes = linkage(&elf, &file, wishes)?;
                let search = wishes.search;
                let way = choose(state, process, scratch, (host, &elf, &wishes), &mut room)?;
                let way = match way {
                    // The name that was behind a link has been copied.
                    Way::Loader(_) => way.unless(needs_elsewhere(&elf, &file, behind, |name| {
                        scratch.find(&state.rules, process, name).map(CStr::to_bytes) != Ok(name)
                    })),
                    way => way,
                };
                let person = match state.rules.identity.pretends() {
                    true => {
                        let (next, _) = after_exec(&state.rules, process, &files::stat(host, true)?);
                        let len = person::write(&state.run, &next, person);
                        &person[..len]
                    }
                    false => b"",
                };
                return Ok(Found { way, host, exe, given, search, scripts, person });
            }
        }
    }
    Err(ENOEXEC)
}

fn choose<'w>(
    state: &State,
    process: &Process,
    scratch: &mut Scratch,
    (program, elf, wishes): (&CStr, &Elf, &Linkage<'w>),
    room: &mut &'w mut [u8],
) -> Result<Way<'w>, Errno> {
    match way(&state.run, program, elf, wishes) {
        Way::Unlisted(name) => {
            let found = scratch.find(&state.rules, process, name).map_err(|errno| match errno {
                Errno::ENOENT => errno,
                _ => ELIBBAD,
            })?;
            files::stat(found, true)?;
            let host = c_str(keep(found.to_bytes(), room)?)?;
            let guest = c_str(keep(name, room)?)?;
            Ok(Way::Loader(Loader::later(&state.run, guest, host)))
        }
        way => Ok(way),
    }
}

/// Copies a text to the beginning of a room, with a NUL behind it; what is returned is without.
fn keep<'w>(text: &[u8], room: &mut &'w mut [u8]) -> Result<&'w [u8], Errno> {
    if text.len() >= PATH.min(room.len()) {
        return Err(Errno::ENAMETOOLONG);
    }
    let (place, rest) = core::mem::take(room).split_at_mut(text.len() + 1);
    *room = rest;
    place[..text.len()].copy_from_slice(text);
    place[text.len()] = 0;
    Ok(&place[..text.len()])
}

/// The C string that a text of [`keep`] is.
fn c_str(text: &[u8]) -> Result<&CStr, Errno> {
    // SAFETY: `keep` has put a NUL behind the text, in the same memory, which stays borrowed.
    let with_nul = unsafe { slice::from_raw_parts(text.as_ptr(), text.len() + 1) };
    CStr::from_bytes_with_nul(with_nul).map_err(|_| Errno::ENOENT)
}

/// The name of the file that a link in `/proc` stands for: the loader opens it when the descriptor may be closed.
fn behind_link<'p>(path: &'p CStr, into: &'p mut [u8; PATH]) -> &'p CStr {
    if !coracle_paths::Magic::of(path.to_bytes()).is_some_and(coracle_paths::Magic::shows_host_path) {
        return path;
    }
    let room = PATH - 1;
    let Ok(len) = files::readlink(path, &mut into[..room]) else { return path };
    into[len] = 0;
    match (CStr::from_bytes_until_nul(into), files::stat(path, true)) {
        (Ok(name), Ok(file)) if files::stat(name, true).is_ok_and(|named| named.inode == file.inode) => name,
        _ => path,
    }
}

fn may_execute(path: &CStr) -> Result<(), Errno> {
    if files::stat(path, true)?.mode & S_IFMT != S_IFREG {
        return Err(Errno::EACCES);
    }
    files::search(path)
}

/// A program's file, and what was read of its beginning: there lie its headers and notes.
struct Reader<'h> {
    head: &'h [u8],
    file: files::Held,
}

impl Source for Reader<'_> {
    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
        if let Some(known) = self.head.get(at..).and_then(|rest| rest.get(..into.len())) {
            into.copy_from_slice(known);
            return Ok(known.len());
        }
        read_at(&self.file, at, into)
    }
}

fn read_at(file: &files::Held, at: usize, into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most as many bytes as there is room for.
    let result =
        unsafe { sys::syscall4(__NR_pread64, file.0.arg(), into.as_mut_ptr().expose_provenance(), into.len(), at) };
    sys::check(result).map_err(files::errno)
}

/// The guest's paths.
struct Guest<'g> {
    state: &'g State,
    process: &'g Process,
    scratch: &'g mut Scratch,
}

impl Places for Guest<'_> {
    fn host(&mut self, guest: &[u8]) -> Option<&[u8]> {
        let host = self.scratch.find(&self.state.rules, self.process, guest).ok()?;
        files::stat(host, true).ok()?;
        Some(host.to_bytes())
    }

    fn is_on_host(&mut self, path: &[u8]) -> bool {
        is_there(path)
    }
}

/// Whether the host has a file of this name. Its room is no part of what others need of a stack.
#[cold]
#[inline(never)]
fn is_there(path: &[u8]) -> bool {
    let mut name = [0; PATH];
    keep(path, &mut &mut name[..]).and_then(c_str).is_ok_and(|name| files::stat(name, true).is_ok())
}

/// What no preload engine can run goes to whom the run names for it; if there is nobody, one line says why.
#[cold]
#[inline(never)]
fn say(given: &[u8], why: Why) -> isize {
    let line = files::Short::<1024>::new()
        .put(b"coracle: cannot execute ")
        .put(given)
        .put(b": ")
        .put(why.words().as_bytes())
        .put(b": ")
        .put(WAY_OUT.as_bytes())
        .put(b"\n");
    let _ = sys::write(Fd(2), line.as_bytes());
    -isize::try_from(Errno::EACCES.0).unwrap_or(13)
}
