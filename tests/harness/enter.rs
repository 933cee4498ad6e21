//! An engine by hand: what its example `enter` does.

use std::{
    env, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use coracle_api::{Access, Bind, BindOrigin, Engine, Identity, LaunchSpec, PortMap, signals::die_as};
use coracle_paths::table::{Kind, build};

/// Runs a program in a tree under an engine as the command line says, for looking at the engine itself:
///
/// `enter [VARIANT] [rw|cow=DIR] [root|user=ID] [ledger=FILE] [truths=FILE] [names] [handover=STUB] [port=HOST:GUEST[/udp]]…
/// [HOST:GUEST[:ro]]… -- ROOT PROGRAM [ARG]…`
#[must_use]
pub fn enter(engine: &dyn Engine) -> ExitCode {
    let mut args = env::args_os().skip(1);
    // SAFETY: these calls take no argument and cannot fail; SIGPIPE becomes what a guest expects (Rust ignores it).
    let (uid, gid) = unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        (libc::geteuid(), libc::getegid())
    };
    // Without anybody who stays behind and could remove it: one directory for all runs of this user.
    let own = if engine.stays() { format!("enter-{}", std::process::id()) } else { format!("{}-{uid}", engine.name()) };
    let scratch = env::temp_dir().join(format!("coracle-{own}"));
    let mut spec = LaunchSpec {
        scratch: scratch.clone(),
        env: env::vars_os().collect(),
        ..LaunchSpec::new(PathBuf::new(), Identity::launcher(uid, gid))
    };
    let mut names = false;
    for option in args.by_ref() {
        match option.to_str() {
            Some("--") => break,
            Some(option) if option.starts_with("truths=") => spec.truths = Some(option[7..].into()),
            Some(option) if option.starts_with("cow=") => {
                spec.access = Access::CopyOnWrite { changes: option[4..].into() };
            }
            Some("rw") => spec.access = Access::Direct,
            Some(option) if option.starts_with("ledger=") => spec.ledger = Some(option[7..].into()),
            Some(option) if option.starts_with("user=") => {
                let id = option[5..].parse().unwrap_or(0);
                (spec.identity.uid, spec.identity.gid) = (id, id);
            }
            Some("root") => (spec.identity.uid, spec.identity.gid) = (0, 0),
            Some(variant) if engine.aliases().contains(&variant) => spec.variant = Some(variant.to_owned()),
            Some(option) if option.starts_with("handover=") => {
                spec.handover = vec![option[9..].into(), "--coracle-handover".into()];
            }
            Some("names") => names = true,
            Some(port) if port.starts_with("port=") => {
                spec.ports.extend(PortMap::parse(&port[5..]).into_iter().flatten())
            }
            Some(bind) => {
                let mut parts = bind.split(':');
                let host = parts.next().unwrap_or_default();
                spec.binds.push(Bind {
                    host: host.into(),
                    guest: parts.next().unwrap_or(host).into(),
                    read_only: parts.next() == Some("ro"),
                    optional: false,
                    origin: BindOrigin::Volume,
                });
            }
            None => {}
        }
    }
    spec.root = args.next().unwrap_or_default().into();
    spec.argv = args.collect();
    let run = std::fs::create_dir_all(&scratch)
        .and_then(|()| {
            if names {
                let (root, path) = (spec.root.clone(), scratch.join("names"));
                std::fs::write(&path, table_of(&root)?)?;
                spec.names = Some(path);
            }
            Ok(())
        })
        .map_err(|error| coracle_api::RunError::step("make the scratch directory", error))
        .and_then(|()| engine.run(&spec));
    if engine.stays() {
        let _ = std::fs::remove_dir_all(&scratch);
    }
    match run {
        Ok(ended) => ExitCode::from(die_as(ended)),
        Err(error) => {
            eprintln!("coracle: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The table that would have been made while unpacking this tree.
fn table_of(root: &Path) -> io::Result<Vec<u8>> {
    let mut names: Vec<(Vec<u8>, Option<Vec<u8>>, bool)> = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let (path, kind) = (entry.as_ref().map(std::fs::DirEntry::path), entry.as_ref().map(|e| e.file_type()));
            let (Ok(path), Ok(Ok(kind))) = (path, kind) else { continue };
            let name = path.strip_prefix(root).map_err(io::Error::other)?.as_os_str().as_bytes().to_vec();
            let target = kind.is_symlink().then(|| std::fs::read_link(&path)).transpose()?;
            names.push((name, target.map(|target| target.into_os_string().into_vec()), kind.is_dir()));
            if kind.is_dir() {
                pending.push(path);
            }
        }
    }
    let entries = names.iter().map(|(name, target, is_dir)| {
        let kind = match target {
            Some(target) => Kind::Symlink(target),
            None if *is_dir => Kind::Directory,
            None => Kind::File,
        };
        (name.as_slice(), kind)
    });
    build(entries).map_err(|error| io::Error::other(format!("{error:?}")))
}
