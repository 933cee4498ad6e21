//! The `preload` engine: libc calls, interposed by a shim that the guest's own loader injects.
//!
//! Here is the host side. It lays out the guest's file system, writes the run's description and the shim beside the tree's
//! other generated files ([`describe`]), and replaces the process by the guest's first program, entered as the shim will
//! enter all others ([`coracle_entry`]). Nothing stays behind. Two flavours:
//!
//! - explicit (`F1`, `F2`): the guest's own loader is executed, with the program as its argument and told where the guest's
//!   libraries are. Needs nothing of the tree.
//! - edited (`F3`, `F4`): programs name the tree's loader by its host path, by edits that were made while unpacking.
//!
//! Nothing of the host's loader, its directories or its cache is used in either.

mod cache;
mod changed;
mod describe;
mod libraries;
mod links;
mod loaders;
mod mapped;
mod place;
mod probe;
mod program;
mod shim;
mod sum;
mod texts;

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use coracle_api::{Ended, Engine, Host, ImageFacts, LaunchSpec, Refusal, Request, RunError, exec::Prepared};
use coracle_entry::{EXTRA, Linkage, NotARun, Places, Run, Space, Start, Way, command, way};
use coracle_layout::Layout;

use crate::{
    changed::Changed,
    describe::describe,
    program::{Program, find, not_here},
};

pub use shim::bytes as shim_bytes;

/// The engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preload;

impl Engine for Preload {
    fn name(&self) -> &'static str {
        "preload"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["F1", "F2", "F3", "F4"]
    }

    fn stays(&self) -> bool {
        false
    }

    fn links(&self) -> bool {
        true
    }

    fn wants_edits(&self, variant: Option<&str>) -> bool {
        let explicit = |name: &str| name.eq_ignore_ascii_case("F1") || name.eq_ignore_ascii_case("F2");
        !variant.is_some_and(explicit)
    }

    fn hands_over(&self) -> bool {
        true
    }

    fn probe(&self, host: &Host, facts: &ImageFacts, request: &Request) -> Result<(), Refusal> {
        probe::probe(host, facts, request)
    }

    fn run(&self, spec: &LaunchSpec) -> Result<Ended, RunError> {
        let shown = links::with_bound(spec);
        let shown = shown.map_err(|error| RunError::step("make links to bound libraries", error))?;
        let spec = shown.as_ref().unwrap_or(spec);
        let prepared = Prepared::new(&spec.argv, &spec.env)?.of(spec.program.as_deref())?;
        let changed = Changed::open(spec)?;
        let mut layout = Layout::new(spec, changed.as_ref().map_or(&spec.root, |changed| changed.root()))?;
        let cwd = layout.enter(spec)?;
        let program = Program::find(&layout, &prepared, &spec.cwd)?;
        let described = describe(spec, changed.as_ref(), &layout, &program)?;
        let damaged = |NotARun| RunError::step("describe the run", io::ErrorKind::InvalidData.into());
        let run = Run::new(&described.bytes).map_err(damaged)?;
        let start = start(&run, &program, &described.path)?;
        std::env::set_current_dir(&cwd)
            .map_err(|error| RunError::step(format!("enter the working directory {}", cwd.display()), error))?;
        Err(execute(
            &run,
            &start,
            &program,
            &prepared,
            &mut Guest { layout: &layout, cwd: &spec.cwd, host: PathBuf::new() },
        ))
    }
}

fn start<'a>(run: &Run<'a>, program: &'a Program, description: &'a CStr) -> Result<Start<'a>, RunError> {
    let linkage = Linkage {
        interpreter: program.interpreter.as_deref().map(CStr::to_bytes),
        before: &program.before,
        search: &program.search,
        own_calls: program.own_calls,
    };
    let way = match way(run, &program.host, &program.elf, &linkage).unless(program.needs_elsewhere) {
        way @ Way::Not(_) if run.hands_over() => way,
        Way::Not(why) => return Err(not_here(&program.given, why.words())),
        // The loaders of the run include that of its first program, if the tree has it.
        Way::Unlisted(name) => {
            let why = format!("the image does not have its loader {}", String::from_utf8_lossy(name));
            return Err(not_here(&program.given, &why));
        }
        way => way,
    };
    Ok(Start {
        way,
        program: &program.host,
        exe: &program.guest,
        given: program.given.to_bytes(),
        search: &program.search,
        description,
        person: b"",
    })
}

/// Replaces the process by the program; returns only on failure.
fn execute(
    run: &Run<'_>,
    start: &Start<'_>,
    program: &Program,
    prepared: &Prepared,
    guest: &mut Guest<'_>,
) -> RunError {
    /// Lists of libraries, and what is carried.
    const TEXT: usize = 256 << 10;
    // Who takes a program over finds the interpreters of a script for himself.
    let scripts = !(program.scripts.is_empty() || matches!(start.way, Way::Not(_)) && start.is_named());
    let own = usize::from(scripts);
    let interpreters = || program.scripts.arguments().filter(move |_| scripts);
    let arguments = || interpreters().chain(prepared.arguments()[own..].iter().map(CString::as_c_str));
    let environment = prepared.environment();
    let mut pointers = vec![std::ptr::null(); arguments().count() + environment.len() + EXTRA];
    let mut text = vec![0; TEXT];
    let mut space = Space::new(&mut pointers, &mut text);
    let environment = environment.iter().map(CString::as_c_str);
    let made = match command(run, start, arguments(), environment, guest, &mut space) {
        Ok(made) => made,
        Err(errno) => return failed(program, io::Error::from_raw_os_error(i32::from(errno.0))),
    };
    // SAFETY: a NUL-terminated path and two arrays that end with null pointers; every string lives in `program`,
    // `prepared`, `run` or `text`, which outlive the call.
    unsafe { libc::execve(made.path, made.argv.as_ptr(), made.envp.as_ptr()) };
    failed(program, io::Error::last_os_error())
}

fn failed(program: &Program, source: io::Error) -> RunError {
    let advice = match source.raw_os_error() {
        Some(libc::EACCES) => Some("its file system may forbid programs (noexec): choose another cache directory"),
        Some(libc::E2BIG) => Some("pass fewer or shorter arguments and variables"),
        _ => None,
    };
    let program = program.given.to_string_lossy().into_owned();
    RunError::NotExecutable { program, source, advice: advice.map(str::to_owned) }
}

/// The guest's paths, before it runs.
struct Guest<'l> {
    layout: &'l Layout,
    cwd: &'l Path,
    /// What was found last.
    host: PathBuf,
}

impl Places for Guest<'_> {
    fn host(&mut self, guest: &[u8]) -> Option<&[u8]> {
        (_, self.host) = find(self.layout, guest, self.cwd).ok()?;
        Some(self.host.as_os_str().as_bytes())
    }

    fn is_on_host(&mut self, path: &[u8]) -> bool {
        Path::new(OsStr::from_bytes(path)).exists()
    }
}
