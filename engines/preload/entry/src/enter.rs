//! How a program is entered: from what a guest executes to the execve(2) that is to be made.
//!
//! A program that names the tree's loader by its host path is executed as it is, and the shim comes by `LD_PRELOAD`. Any
//! other names a loader by its guest path, which the kernel would look for on the host: then the tree's loader is
//! executed, with the program as its argument, and told where the libraries are. What the new process must know of how it
//! came about travels in variables of the environment, which the shim takes out again ([`Carried`]).
//!
//! Rules:
//! - `LD_PRELOAD` and `LD_LIBRARY_PATH` of the guest's own hold guest paths: loaders get them translated, the guest finds
//!   them as it left them.
//! - Nothing is allocated: the caller lends [`Space`] and makes the call itself.

use core::ffi::{CStr, c_char};

use coracle_elf::Elf;
use coracle_paths::Errno;

use crate::{
    Carried, Family, Loader, Run, TOLD, Text,
    carried::{carried, carry},
    elf::Linkage,
    space::{Full, Line, Space},
};

/// Argument list too long.
const E2BIG: Errno = Errno(7);

/// How the kernel can be made to start a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// By itself: it names this loader by its host path.
    Direct(Loader<'a>),
    /// By its loader, executed explicitly.
    Loader(Loader<'a>),
    /// It is this loader itself, which is told of another program or asked about one.
    Itself(Loader<'a>),
    /// By the interpreter of this guest path, which the tree did not have when the run began: resolve it, and make
    /// [`Way::Loader`] of it by [`Loader::later`].
    Unlisted(&'a [u8]),
    /// Not in this engine. Where the run [hands over](Run::hands_over), [`command`] is the call that has another one run it.
    Not(Why),
}

/// Why a program cannot be run by this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is linked statically: no loader is there to bring the shim.
    Static,
    /// It is of another machine or class than the shim.
    Foreign,
    /// It makes its system calls by itself, past every library ([`Linkage::own_calls`]).
    OwnCalls,
    /// It names a library by an absolute path ([`needs_elsewhere`](crate::needs_elsewhere)).
    Elsewhere,
}

impl Why {
    /// In words, after the program's name.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Static => "it is linked statically, so no loader can bring the shim of the preload engine into it",
            Self::Foreign => "it is a 32-bit program, and the shim of the preload engine is for 64-bit ones",
            Self::Elsewhere => {
                "it names a library by an absolute path, which its loader would open on the host before the shim is there"
            }
            Self::OwnCalls => "it is a Go program, whose system calls the shim of the preload engine does not see",
        }
    }
}

/// What to say when there is no way, after [`Why::words`].
pub const WAY_OUT: &str = "run the bundle with --coracle-engine=ptrace, which needs no shim";

impl<'a> Loader<'a> {
    /// A loader that came to the tree later: by its name it is musl's or glibc's; it searches where those of its family do,
    /// and is trusted with nothing that old ones did not understand.
    #[must_use]
    pub fn later(run: &Run<'a>, guest: &'a CStr, host: &'a CStr) -> Self {
        let name = guest.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let musl = name.starts_with(b"ld-musl");
        let family = if musl { Family::Musl } else { Family::Glibc };
        let libraries = run.loaders().find(|loader| loader.family == family).map_or(c"", |loader| loader.libraries);
        Self { guest, host, libraries, family, preload: musl, argv0: musl, inhibit_cache: !musl }
    }
}

/// Chooses the way for the program at host path `program`.
#[must_use]
pub fn way<'a>(run: &Run<'a>, program: &CStr, elf: &Elf, linkage: &Linkage<'a>) -> Way<'a> {
    if !elf.wide {
        return Way::Not(Why::Foreign);
    }
    let Some(interpreter) = linkage.interpreter else {
        return match run.loaders().find(|loader| loader.host == program) {
            Some(loader) => Way::Itself(loader),
            None => Way::Not(Why::Static),
        };
    };
    if linkage.own_calls {
        return Way::Not(Why::OwnCalls);
    }
    for loader in run.loaders() {
        if run.edited() && loader.host.to_bytes() == interpreter {
            return Way::Direct(loader);
        }
        if loader.guest.to_bytes() == interpreter {
            return Way::Loader(loader);
        }
    }
    // A copy of an edited program: the edit named a loader of a view, here or elsewhere, which may have gone since.
    if linkage.before.is_empty() || linkage.before == interpreter {
        return Way::Unlisted(interpreter);
    }
    match run.loaders().find(|loader| loader.guest.to_bytes() == linkage.before) {
        Some(loader) => Way::Loader(loader),
        None => Way::Unlisted(linkage.before),
    }
}

impl Way<'_> {
    /// The way of a program of which is known whether it [`needs_elsewhere`](crate::needs_elsewhere): the edits of one
    /// that is [`Direct`](Self::Direct) have taken care of that.
    #[must_use]
    pub fn unless(self, needs_elsewhere: bool) -> Self {
        match self {
            Self::Loader(_) | Self::Unlisted(_) if needs_elsewhere => Self::Not(Why::Elsewhere),
            way => way,
        }
    }
}

/// Guest paths to host paths, as the caller resolves them.
pub trait Places {
    /// The host path of a guest path (relative ones start in the working directory), or `None` if there is nothing.
    fn host(&mut self, guest: &[u8]) -> Option<&[u8]>;

    /// Whether the host has something by this very name.
    fn is_on_host(&mut self, path: &[u8]) -> bool;
}

/// A program about to be started.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// How.
    pub way: Way<'a>,
    /// Host path of its file.
    pub program: &'a CStr,
    /// Canonical guest path of its file.
    pub exe: &'a [u8],
    /// The name by which the guest started it (of a script, the script's): the kernel's AT_EXECFN.
    pub given: &'a [u8],
    /// [`Linkage::search`].
    pub search: &'a [u8],
    /// Host path of the run's description.
    pub description: &'a CStr,
    /// Whom the process takes itself for, in the shim's own words, if that is not whom the run began as; or empty.
    pub person: &'a [u8],
}

impl Start<'_> {
    /// Whether others find it by the name that the guest gave, and not only by a descriptor, which may close.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.given.starts_with(b"/dev/fd/")
    }
}

/// Pointers that [`command`] adds to those of the guest's arguments and environment, at most.
pub const EXTRA: usize = 24;

/// The call to be made.
#[derive(Debug, Clone, Copy)]
pub struct Command<'s> {
    /// What execve(2) takes.
    pub path: *const c_char,
    /// Ends with a null pointer.
    pub argv: &'s [*const c_char],
    /// Ends with a null pointer.
    pub envp: &'s [*const c_char],
}

/// Makes the call out of a guest's own. The strings that it is given must live as long as it.
///
/// # Errors
/// `E2BIG` if `space` is too small: it takes the pointers of both lists and [`EXTRA`] more, and as much text as the lists
/// of libraries become.
pub fn command<'a, 's>(
    run: &Run<'a>,
    start: &Start<'a>,
    argv: impl Iterator<Item = &'a CStr>,
    envp: impl Iterator<Item = &'a CStr>,
    places: &mut impl Places,
    space: &'s mut Space<'_>,
) -> Result<Command<'s>, Errno> {
    fill(run, start, argv, envp, places, space).map_err(|Full| E2BIG)
}

fn fill<'a, 's>(
    run: &Run<'a>,
    start: &Start<'a>,
    mut argv: impl Iterator<Item = &'a CStr>,
    envp: impl Iterator<Item = &'a CStr>,
    places: &mut impl Places,
    space: &'s mut Space<'_>,
) -> Result<Command<'s>, Full> {
    let (loader, direct) = match start.way {
        Way::Loader(loader) | Way::Itself(loader) => (loader, false),
        Way::Direct(loader) => (loader, true),
        Way::Not(_) | Way::Unlisted(_) => return hand_over(run, start, argv, envp, space),
    };
    // The environment goes first in memory, since what it holds decides what the loader is told.
    let (mut preload, mut library_path) = (None, None);
    for pair in envp {
        let bytes = pair.to_bytes();
        if carried(bytes).is_some() {
            continue;
        }
        if bytes.starts_with(b"LD_AUDIT=") {
            // Where an auditor is loaded, no shim is: its own C library would show it the host.
            carry(space, Carried::Restored, &[bytes])?;
        } else if let Some(value) = bytes.strip_prefix(b"LD_PRELOAD=") {
            preload = Some(value);
            carry(space, Carried::Restored, &[bytes])?;
        } else if let Some(value) = bytes.strip_prefix(b"LD_LIBRARY_PATH=") {
            library_path = Some(value);
            // A loader that is told by an argument does not look at the variable.
            if direct { carry(space, Carried::Restored, &[bytes])? } else { space.point(pair)? }
        } else {
            space.point(pair)?;
        }
    }
    carry(space, Carried::Description, &[start.description.to_bytes()])?;
    if !start.person.is_empty() {
        carry(space, Carried::Person, &[start.person])?;
    }
    carry(space, Carried::Exe, &[start.exe])?;
    carry(space, Carried::Given, &[start.given])?;
    let shim = |line: &mut Line<'_, '_>, places: &mut _| {
        line.put(run.text(Text::Shim))?;
        libraries(line, run, preload.unwrap_or_default(), places)
    };
    if direct || !loader.preload {
        let mut line = space.line();
        line.put(b"LD_PRELOAD=")?;
        shim(&mut line, places)?;
        line.end()?;
    }
    let own = argv.next().unwrap_or(c"");
    if direct {
        // What it would search by itself is the host's, and so was taken out of it.
        let mut line = space.line();
        line.put(b"LD_LIBRARY_PATH=")?;
        directories(&mut line, run, library_path.unwrap_or_default(), start, places)?;
        line.item(loader.libraries.to_bytes())?;
        line.end()?;
        let environment = space.close()?;
        space.point(own)?;
        for argument in argv {
            space.point(argument)?;
        }
        let arguments = space.close()?;
        return Ok(space.command(start.program, arguments, environment));
    }
    if !loader.argv0 {
        carry(space, Carried::Argv0, &[own.to_bytes()])?;
    }
    let environment = space.close()?;
    space.point(loader.host)?;
    if loader.inhibit_cache {
        space.point(c"--inhibit-cache")?;
    }
    space.point(c"--library-path")?;
    let mut line = space.line();
    // In the loader's own order: RPATH is before the variable, RUNPATH behind it, and hardly ever do they disagree.
    if let Some(list) = library_path {
        directories(&mut line, run, list, start, places)?;
    }
    if !start.search.is_empty() {
        directories(&mut line, run, start.search, start, places)?;
    }
    line.item(loader.libraries.to_bytes())?;
    line.end()?;
    if loader.preload {
        space.point(c"--preload")?;
        let mut line = space.line();
        shim(&mut line, places)?;
        line.end()?;
    }
    if matches!(start.way, Way::Itself(_)) {
        // musl's lists libraries if that is its name.
        if loader.family == Family::Musl && own.to_bytes().ends_with(b"ldd") {
            space.point(c"--list")?;
        }
        themselves(run, &loader, start, argv, places, space)?;
    } else {
        if loader.argv0 {
            space.point(c"--argv0")?;
            space.point(own)?;
        }
        space.point(start.program)?;
        for argument in argv {
            space.point(argument)?;
        }
    }
    let arguments = space.close()?;
    Ok(space.command(loader.host, arguments, environment))
}

/// The arguments of a guest that executes a loader itself, as ldd(1) does: its options, then a program by its guest path.
/// They come behind ours, and of options that are given twice loaders take the last.
fn themselves<'a>(
    run: &Run<'a>,
    loader: &Loader<'a>,
    start: &Start<'a>,
    argv: impl Iterator<Item = &'a CStr>,
    places: &mut impl Places,
    space: &mut Space<'_>,
) -> Result<(), Full> {
    /// Options of all loaders that are followed by a value.
    const VALUED: [&[u8]; 7] = [
        b"--library-path",
        b"--inhibit-rpath",
        b"--audit",
        b"--preload",
        b"--argv0",
        b"--glibc-hwcaps-prepend",
        b"--glibc-hwcaps-mask",
    ];
    let (mut named, mut told, mut valued) = (false, false, None);
    for argument in argv {
        let bytes = argument.to_bytes();
        if named {
            space.point(argument)?;
        } else if let Some(option) = valued.take() {
            if option == b"--library-path" {
                let mut line = space.line();
                directories(&mut line, run, bytes, start, places)?;
                line.end()?;
            } else if option == b"--preload" {
                let mut line = space.line();
                line.put(run.text(Text::Shim))?;
                libraries(&mut line, run, bytes, places)?;
                line.end()?;
            } else {
                space.point(argument)?;
            }
        } else if bytes.starts_with(b"--") {
            told |= bytes == b"--argv0";
            valued = VALUED.iter().find(|option| **option == bytes).copied();
            space.point(argument)?;
        } else {
            named = true;
            if loader.argv0 && !told {
                // It would be the host path.
                space.point(c"--argv0")?;
                space.point(argument)?;
            }
            match places.host(bytes) {
                Some(host) => {
                    let mut line = space.line();
                    line.put(host)?;
                    line.end()?;
                }
                None => space.point(argument)?,
            }
        }
    }
    Ok(())
}

/// Another program runs it: told the run's description, the name that the guest gave, and the guest's arguments (of a
/// script, those that the script has: no interpreters in front).
fn hand_over<'a, 's>(
    run: &Run<'a>,
    start: &Start<'a>,
    argv: impl Iterator<Item = &'a CStr>,
    envp: impl Iterator<Item = &'a CStr>,
    space: &'s mut Space<'_>,
) -> Result<Command<'s>, Full> {
    for pair in envp.filter(|pair| carried(pair.to_bytes()).is_none()) {
        space.point(pair)?;
    }
    let environment = space.close()?;
    let strings = run.with_nul(Text::Handover).split_inclusive(|byte| *byte == 0);
    for string in strings.filter_map(|string| CStr::from_bytes_with_nul(string).ok()) {
        space.point(string)?;
    }
    space.point(start.description)?;
    let mut line = space.line();
    // By the name that the guest gave it, which it is told; so of a script the script, with the guest's own arguments.
    line.put(if start.is_named() { start.given } else { start.exe })?;
    line.end()?;
    for argument in argv {
        space.point(argument)?;
    }
    let arguments = space.close()?;
    Ok(space.command(run.c_text(Text::Handover), arguments, environment))
}

/// A guest's list of libraries to be loaded first, behind ours.
fn libraries(line: &mut Line<'_, '_>, run: &Run<'_>, list: &[u8], places: &mut impl Places) -> Result<(), Full> {
    for name in list.split(|byte| matches!(byte, b' ' | b':' | b'\t' | b'\n')).filter(|name| !name.is_empty()) {
        if name == run.text(Text::Shim) {
            continue;
        }
        if !name.contains(&b'/') {
            // It is searched for.
            line.item(name)?;
        } else if name.contains(&b'$') {
            // The loader itself must expand it: below the tree, unless it begins with the program's own directory.
            let below = if name.starts_with(b"/") { run.text(Text::Alias) } else { b"" };
            line.item_of(below, name)?;
        } else if let Some(host) = places.host(name) {
            host_path(line, run, host, |byte| matches!(byte, b' ' | b':'))?;
        } else if name.starts_with(b"/") && places.is_on_host(name) {
            // What is not there is a warning of the loader's, which must not find the host's file of that name.
            line.item_of(run.text(Text::Alias), name)?;
        } else {
            line.item(name)?;
        }
    }
    Ok(())
}

/// A guest's list of library directories, as host paths.
fn directories(
    line: &mut Line<'_, '_>,
    run: &Run<'_>,
    list: &[u8],
    start: &Start<'_>,
    places: &mut impl Places,
) -> Result<(), Full> {
    // An empty element is the working directory, an empty list nothing.
    for name in list.split(|byte| matches!(byte, b':' | b';')).filter(|_| !list.is_empty()) {
        if name.contains(&b'$') {
            directory_of_program(line, run, name, start, places)?;
        } else {
            directory(line, run, if name.is_empty() { b"." } else { name }, places)?;
        }
    }
    Ok(())
}

fn directory(line: &mut Line<'_, '_>, run: &Run<'_>, name: &[u8], places: &mut impl Places) -> Result<(), Full> {
    match places.host(name) {
        Some(host) => host_path(line, run, host, |byte| byte == b':'),
        None => Ok(()),
    }
}

/// Those whose name begins with `$ORIGIN` need room for another, which is not on the stack of who names none.
#[inline(never)]
fn directory_of_program(
    line: &mut Line<'_, '_>,
    run: &Run<'_>,
    name: &[u8],
    start: &Start<'_>,
    places: &mut impl Places,
) -> Result<(), Full> {
    let mut guest = [0; PATH];
    match expand(name, start.exe, &mut guest) {
        Some(name) => directory(line, run, name, places),
        None => Ok(()),
    }
}

/// A host path in a list that is split at some characters: below the root there is another name for what holds them.
fn host_path(line: &mut Line<'_, '_>, run: &Run<'_>, host: &[u8], splits: impl Fn(u8) -> bool) -> Result<(), Full> {
    let is_whole = |path: &[u8]| !path.iter().any(|byte| splits(*byte));
    match host.strip_prefix(run.text(Text::Root)).filter(|rest| rest.first().is_none_or(|byte| *byte == b'/')) {
        Some(rest) if is_whole(rest) => line.item_of(run.text(Text::Alias), rest),
        None if is_whole(host) => line.item_of(TOLD, host.strip_prefix(b"/").unwrap_or(host)),
        _ => Ok(()),
    }
}

/// Longest path, with its NUL.
const PATH: usize = coracle_paths::PATH_MAX;

/// `$ORIGIN` at the beginning, which is where linkers put it; other tokens are rare and left out.
fn expand<'n>(name: &[u8], exe: &[u8], into: &'n mut [u8; PATH]) -> Option<&'n [u8]> {
    let rest = name.strip_prefix(b"$ORIGIN").or_else(|| name.strip_prefix(b"${ORIGIN}"));
    match rest {
        None => None,
        Some(rest) if rest.contains(&b'$') => None,
        Some(rest) => {
            let slash = exe.iter().rposition(|byte| *byte == b'/')?;
            let len = slash + rest.len();
            let into = into.get_mut(..len.max(1))?;
            into[0] = b'/';
            into[..slash].copy_from_slice(&exe[..slash]);
            into[slash..len].copy_from_slice(rest);
            Some(into)
        }
    }
}
