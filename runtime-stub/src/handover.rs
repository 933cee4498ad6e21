//! The stub as what takes over a program in the middle of a run: one that the `preload` engine cannot come into (linked
//! statically, or of 32 bits), and that `ptrace` can run.
//!
//! Executed by a process of the guest's in place of the program, with the run's description, the program's guest path and
//! its arguments. All else is inherited: environment, working directory, descriptors. The process stays in front as any
//! tracer's does; what the program starts is traced too.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use coracle_api::{Access, Bind, BindOrigin, Engine, Identity, LaunchSpec, PortMap, Protocol, RunError};
use coracle_entry::{Run, Text, WAY_OUT};
use coracle_paths::View;
use coracle_ptrace::Ptrace;

use crate::{launch::Caller, report::say, slot, start::outcome};

/// The first argument.
const ARGUMENT: &str = "--coracle-handover";

/// How an engine that needs it has programs taken over, for its launch specification: this very executable, by a path that
/// lasts. One that has none (a memory file) is written to the run's directory for generated files.
pub(crate) fn prepare(spec: &mut LaunchSpec, engine: &dyn Engine) {
    if engine.hands_over()
        && let Ok(path) = lasting(&spec.scratch)
    {
        spec.handover = vec![path.into(), ARGUMENT.into()];
    }
}

fn lasting(scratch: &Path) -> io::Result<PathBuf> {
    let own = Path::new("/proc/self/exe");
    let (path, meta) = (fs::read_link(own)?, fs::metadata(own)?);
    if fs::metadata(&path).is_ok_and(|found| (found.dev(), found.ino()) == (meta.dev(), meta.ino())) {
        return Ok(path);
    }
    // The stub alone, of a bundle that was removed since it was started.
    let len = slot::read().map_or(meta.len(), |slot| if slot.payload == 0 { meta.len() } else { slot.payload });
    let path = scratch.join(coracle_api::kept_launcher(len));
    if fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == len) {
        return Ok(path);
    }
    let beside = scratch.join(format!(".new-stub-{}", std::process::id()));
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o755).open(&beside)?;
        io::copy(&mut File::open(own)?.take(len), &mut file)?;
        drop(file);
        fs::rename(&beside, &path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map(|()| path)
}

/// Takes over the program that the arguments name and returns its exit status; none if they name none.
#[must_use]
pub fn start(caller: &Caller) -> Option<u8> {
    let [first, description, program, argv @ ..] = caller.args.as_slice() else { return None };
    if first != ARGUMENT {
        return None;
    }
    let spec = match specification(caller, Path::new(description), Path::new(program), argv) {
        Ok(spec) => spec,
        Err(error) => {
            let path = Path::new(description).display();
            say(&format!("{path}: the description of the run cannot be read: {error}: start the program again"));
            return Some(crate::start::FAILED);
        }
    };
    Some(match Ptrace.run(&spec) {
        Err(RunError::Refused(refusal)) => {
            let program = Path::new(program).display();
            say(&format!(
                "{program}: no loader can bring the preload engine into it, and ptrace cannot take it over: {refusal}: {WAY_OUT}"
            ));
            crate::start::FAILED
        }
        answer => outcome(answer),
    })
}

fn specification(caller: &Caller, description: &Path, program: &Path, argv: &[OsString]) -> io::Result<LaunchSpec> {
    let bytes = fs::read(description)?;
    let run = Run::new(&bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let text = |text: Text| Some(run.text(text)).filter(|text| !text.is_empty()).map(path);
    let ((uid, gid), (host_uid, host_gid)) = (run.ids(), run.host_ids());
    let identity = Identity { uid, gid, groups: run.groups().collect(), host_uid, host_gid, subordinate: None };
    let binds: Vec<_> = run.binds().collect();
    let view = View::new(run.text(Text::Root), run.root_read_only(), &binds);
    let view = view.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut guest = vec![0; 2 * coracle_paths::PATH_MAX];
    // A directory that the guest cannot name is left: it would be told of none either.
    let cwd = caller.cwd.as_deref().and_then(|cwd| {
        let found = view.to_guest(cwd.as_os_str().as_bytes(), &mut guest)?;
        Some(path(&guest[..found.len]))
    });
    // Edited programs work here too, but for the loaders, which look for nothing by themselves any more.
    let kept = text(Text::Originals)
        .map(|originals| true_loaders(&run, Path::new(OsStr::from_bytes(run.text(Text::Root))), &originals));
    Ok(LaunchSpec {
        // A view has names of its own.
        names: text(Text::Names).filter(|_| run.text(Text::Root) == run.text(Text::Pristine)),
        ledger: text(Text::Ledger),
        access: match text(Text::Lock).as_deref().and_then(Path::parent) {
            // Of the same view.
            Some(changes) => Access::CopyOnWrite { changes: changes.to_owned() },
            None if run.root_read_only() => Access::ReadOnly,
            None => Access::Direct,
        },
        truths: text(Text::Truths),
        scratch: text(Text::Scratch).unwrap_or_default(),
        argv: argv.to_vec(),
        program: Some(program.to_owned()),
        env: caller.env.clone(),
        cwd: cwd.unwrap_or_else(|| "/".into()),
        binds: binds
            .iter()
            .map(|bind| Bind {
                host: path(bind.host),
                guest: path(bind.guest),
                read_only: bind.read_only,
                optional: true,
                origin: BindOrigin::Generated,
            })
            .chain(kept.into_iter().flatten())
            .collect(),
        hostname: run.hostname().map(|name| OsStr::from_bytes(name).to_owned()),
        ports: run
            .ports()
            .map(|port| PortMap {
                address: port.address,
                host: port.host,
                guest: port.guest,
                protocol: if port.datagram { Protocol::Udp } else { Protocol::Tcp },
            })
            .collect(),
        ..LaunchSpec::new(text(Text::Pristine).unwrap_or_default(), identity)
    })
}

/// The tree's loaders as they were, over the edited ones.
fn true_loaders(run: &Run<'_>, root: &Path, originals: &Path) -> Vec<Bind> {
    let loaders = run.loaders().filter_map(|loader| {
        let name = Path::new(OsStr::from_bytes(loader.host.to_bytes())).strip_prefix(root).ok()?.to_owned();
        let host = originals.join(&name);
        let bind = Bind {
            host,
            guest: Path::new("/").join(name),
            read_only: false,
            optional: true,
            origin: BindOrigin::Generated,
        };
        bind.host.exists().then_some(bind)
    });
    let mut binds: Vec<Bind> = loaders.collect();
    binds.dedup();
    binds
}
