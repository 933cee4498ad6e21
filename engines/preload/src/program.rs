//! The run's first program: found on the guest's PATH, through `#!` lines, and judged, as the shim does it with all others.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
};

use coracle_api::{RunError, exec::Prepared};
use coracle_entry::{Linkage, Scripts, Source, WAY_OUT, linkage, needs_elsewhere};
use coracle_intercept::{
    Errno,
    program::{HEAD, Kind, MAX_SCRIPTS, judge},
};
use coracle_layout::Layout;

/// A program of the guest's.
#[derive(Debug)]
pub(crate) struct Program {
    /// Host path of its file.
    pub(crate) host: CString,
    /// Canonical guest path of its file.
    pub(crate) guest: Vec<u8>,
    /// The path by which it was found; of a script, the script's.
    pub(crate) given: CString,
    /// What takes the place of the first argument.
    pub(crate) scripts: Box<Scripts>,
    pub(crate) elf: coracle_elf::Elf,
    /// As written in it.
    pub(crate) interpreter: Option<CString>,
    /// What it was before an edit: [`Linkage::before`].
    pub(crate) before: Vec<u8>,
    /// Where it looks for its libraries.
    pub(crate) search: Vec<u8>,
    /// It makes its system calls by itself: [`Linkage::own_calls`].
    pub(crate) own_calls: bool,
    /// It names a library by a path that is another file on the host: [`needs_elsewhere`].
    pub(crate) needs_elsewhere: bool,
}

impl Program {
    /// Finds the program of a run that begins in guest directory `cwd`.
    pub(crate) fn find(layout: &Layout, prepared: &Prepared, cwd: &Path) -> Result<Self, RunError> {
        let mut denied = None;
        for candidate in prepared.candidates() {
            let name = prepared.arguments().first().map_or(c"", CString::as_c_str);
            match Self::look(layout, candidate, cwd) {
                Ok(program) => return Ok(program),
                Err(Failed::Missing(_)) => {}
                Err(failed @ Failed::Denied) => denied = Some(failed.error(name)),
                Err(failed) => return Err(failed.error(name)),
            }
        }
        Err(denied.unwrap_or_else(|| RunError::NotFound {
            program: prepared.arguments().first().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            path: prepared.search_path().to_owned(),
        }))
    }

    fn look(layout: &Layout, given: &CStr, cwd: &Path) -> Result<Self, Failed> {
        let mut scripts = Box::new(Scripts::new());
        let (mut guest, mut host) = find(layout, given.to_bytes(), cwd).map_err(Failed::Missing)?;
        for _ in 0..=MAX_SCRIPTS {
            let path = c_path(&host)?;
            may_execute(&path, &host)?;
            let file = File::open(&host).map_err(Failed::Read)?;
            let mut head = [0; HEAD];
            let len = read_head(&file, &mut head).map_err(Failed::Read)?;
            match judge(&head[..len]).map_err(|_| Failed::NoProgram)? {
                Kind::Script { interpreter, argument } => {
                    scripts.push(interpreter, argument, given.to_bytes()).map_err(|_| Failed::NoProgram)?;
                    let name = String::from_utf8_lossy(interpreter).into_owned();
                    (guest, host) = find(layout, interpreter, cwd).map_err(|_| Failed::Interpreter(name))?;
                }
                Kind::Elf(elf) => {
                    let mut room = [0; 2 * HEAD];
                    let Linkage { interpreter, before, search, own_calls } =
                        linkage(&elf, &Reader(&file), &mut room).map_err(|_| Failed::NoProgram)?;
                    let interpreter = interpreter.and_then(|name| CString::new(name).ok());
                    let (given, before, search) = (given.to_owned(), before.to_vec(), search.to_vec());
                    let elsewhere = |name: &[u8]| !is_same_on_host(layout, name);
                    let needs_elsewhere = needs_elsewhere(&elf, &Reader(&file), &mut room, elsewhere);
                    return Ok(Self {
                        host: path,
                        guest,
                        given,
                        scripts,
                        elf,
                        interpreter,
                        before,
                        search,
                        own_calls,
                        needs_elsewhere,
                    });
                }
            }
        }
        Err(Failed::Missing(Errno::ELOOP))
    }
}

/// Why a file is not the program, or cannot be run.
enum Failed {
    Missing(Errno),
    Denied,
    Interpreter(String),
    Read(io::Error),
    NoProgram,
}

impl Failed {
    fn error(self, program: &CStr) -> RunError {
        let (source, advice) = match self {
            Self::Missing(errno) => (os_error(errno), None),
            Self::Denied => (io::ErrorKind::PermissionDenied.into(), None),
            Self::Interpreter(name) => (
                io::Error::other(format!("the image does not have its interpreter {name}")),
                Some("correct its first line, or name another interpreter"),
            ),
            Self::Read(source) => (source, None),
            Self::NoProgram => (
                io::Error::from_raw_os_error(libc::ENOEXEC),
                Some("not a program for this processor, or a script without a #! line: name its interpreter"),
            ),
        };
        RunError::NotExecutable {
            program: program.to_string_lossy().into_owned(),
            source,
            advice: advice.map(str::to_owned),
        }
    }
}

/// A program that this engine cannot run, and the way out.
pub(crate) fn not_here(program: &CStr, why: &str) -> RunError {
    RunError::NotExecutable {
        program: program.to_string_lossy().into_owned(),
        source: io::Error::other(why.to_owned()),
        advice: Some(WAY_OUT.to_owned()),
    }
}

fn os_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(i32::from(errno.0))
}

/// Canonical guest path and host path of a guest path; relative ones start in `cwd`.
pub(crate) fn find(layout: &Layout, name: &[u8], cwd: &Path) -> Result<(Vec<u8>, PathBuf), Errno> {
    if name.starts_with(b"/") {
        return layout.find(name);
    }
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    layout.find(&[cwd.as_os_str().as_bytes(), b"/", name].concat())
}

/// Whether an absolute path leads to the same file for the guest and on the host.
fn is_same_on_host(layout: &Layout, name: &[u8]) -> bool {
    layout.find(name).is_ok_and(|(_, host)| host.as_os_str().as_bytes() == name)
}

fn c_path(path: &Path) -> Result<CString, Failed> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Failed::Missing(Errno::ENOENT))
}

fn may_execute(path: &CStr, host: &Path) -> Result<(), Failed> {
    let meta = host.metadata().map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES) => Failed::Denied,
        _ => Failed::Missing(Errno::ENOENT),
    })?;
    // SAFETY: a NUL-terminated path; faccessat writes nothing.
    let may = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, 0) } == 0;
    if meta.is_file() && may { Ok(()) } else { Err(Failed::Denied) }
}

fn read_head(file: &File, head: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

struct Reader<'f>(&'f File);

impl Source for Reader<'_> {
    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
        self.0.read_at(into, at).map_err(|error| {
            let error = error.raw_os_error().and_then(|error| u16::try_from(error).ok());
            error.map_or(Errno::ENOENT, Errno)
        })
    }
}
