//! The last step of every engine that has entered the tree: find the program on the guest's PATH and execute it.
//!
//! Called inside the guest's view of the file system, so plain system calls see guest paths.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use crate::{RunError, mask};

/// The PATH that a guest gets when its environment has none (Docker's default).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Strings in the form execve(2) takes, made before entering the guest so that nothing allocates or fails after.
#[derive(Debug)]
pub struct Prepared {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    search_path: String,
}

impl Prepared {
    /// Prepares `argv` and `env`; a name without a slash becomes one candidate per directory of the guest's PATH.
    ///
    /// # Errors
    /// [`RunError::Step`] if a string holds a NUL byte or `argv` is empty.
    pub fn new(argv: &[OsString], env: &[(OsString, OsString)]) -> Result<Self, RunError> {
        let program = argv.first().ok_or_else(|| {
            RunError::step("start the program", io::Error::new(io::ErrorKind::InvalidInput, "no program was given"))
        })?;
        let path = env.iter().rev().find(|(key, _)| key == "PATH").map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value);
        let candidates = if program.as_bytes().contains(&b'/') || program.is_empty() {
            vec![c_string(program)?]
        } else {
            path.as_bytes()
                .split(|byte| *byte == b':')
                .map(|dir| {
                    let mut full = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
                    full.push(b'/');
                    full.extend_from_slice(program.as_bytes());
                    c_string(OsStr::from_bytes(&full))
                })
                .collect::<Result<_, _>>()?
        };
        let argv = argv.iter().map(|arg| c_string(arg)).collect::<Result<_, _>>()?;
        let env = env
            .iter()
            .map(|(key, value)| {
                let mut pair = key.clone().into_vec();
                pair.push(b'=');
                pair.extend_from_slice(value.as_bytes());
                c_string(OsStr::from_bytes(&pair))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { candidates, argv, env, search_path: path.to_string_lossy().into_owned() })
    }

    /// The same arguments for a program of another path than the first of them says, if there is one.
    ///
    /// # Errors
    /// [`RunError::Step`] if it holds a NUL byte.
    pub fn of(mut self, program: Option<&Path>) -> Result<Self, RunError> {
        if let Some(program) = program {
            self.candidates = vec![c_string(program.as_os_str())?];
        }
        Ok(self)
    }

    /// Where the program may be, in the order in which it is looked for, for an engine that starts it in its own way.
    #[must_use]
    pub fn candidates(&self) -> &[CString] {
        &self.candidates
    }

    /// Its arguments, the first with them.
    #[must_use]
    pub fn arguments(&self) -> &[CString] {
        &self.argv
    }

    /// Its environment, `KEY=value`.
    #[must_use]
    pub fn environment(&self) -> &[CString] {
        &self.env
    }

    /// The PATH that it is looked for on.
    #[must_use]
    pub fn search_path(&self) -> &str {
        &self.search_path
    }

    /// Executes the first candidate that the kernel accepts, as execvp(3) chooses; returns only on failure.
    #[must_use]
    pub fn exec(&self) -> RunError {
        mask::put_back();
        let argv = pointers(&self.argv);
        let env = pointers(&self.env);
        let mut denied = None;
        for candidate in &self.candidates {
            // SAFETY: `candidate` and every element of the two arrays are NUL-terminated strings owned by `self`, which
            // outlives the call, and both arrays end with a null pointer (`pointers`).
            unsafe { libc::execve(candidate.as_ptr(), argv.as_ptr(), env.as_ptr()) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {
                    // A script or a dynamic program whose interpreter is missing says ENOENT too.
                    if exists(candidate) {
                        return self.not_executable(
                            error,
                            Some("the file exists, its interpreter (#! line or ELF loader) does not: is it for another distribution or architecture?"),
                        );
                    }
                }
                Some(libc::EACCES) => denied = Some(error),
                Some(libc::ENOEXEC) => {
                    return self.not_executable(
                        error,
                        Some("not a program for this processor, or a script without a #! line: name its interpreter"),
                    );
                }
                _ => return self.not_executable(error, None),
            }
        }
        match denied {
            Some(error) => self.not_executable(error, None),
            None => RunError::NotFound { program: self.program(), path: self.search_path.clone() },
        }
    }

    fn program(&self) -> String {
        self.argv[0].to_string_lossy().into_owned()
    }

    fn not_executable(&self, source: io::Error, advice: Option<&str>) -> RunError {
        RunError::NotExecutable { program: self.program(), source, advice: advice.map(str::to_owned) }
    }
}

fn exists(path: &CString) -> bool {
    // SAFETY: `path` is a NUL-terminated string that outlives the call; access(2) writes nothing.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

fn c_string(string: &OsStr) -> Result<CString, RunError> {
    CString::new(string.as_bytes()).map_err(|_| {
        RunError::step(
            format!("pass {:?} to the program", string.to_string_lossy()),
            io::Error::new(io::ErrorKind::InvalidInput, "it holds a NUL byte"),
        )
    })
}
