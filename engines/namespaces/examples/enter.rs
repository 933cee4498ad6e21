//! A small driver for benchmarks and by hand: `enter TREE [--root] [--sub] [--minimal] [--cow DIR] [--direct] [--bind
//! HOST:GUEST[:ro]]… [--pid] [--ipc] [--uts] [--net] [--cwd DIR] -- PROGRAM ARG…`.

use std::{env, ffi::OsString, path::PathBuf, process::exit};

use coracle_api::{
    Access, Bind, BindOrigin, Devices, Engine as _, Host, Identity, ImageFacts, LaunchSpec, Request, SubordinateIds,
    signals,
};
use coracle_namespaces::Namespaces;

fn main() {
    let host = Host::read(None);
    let mut args = env::args_os().skip(1);
    let root = PathBuf::from(args.next().unwrap_or_else(|| "/".into()));
    let mut spec = LaunchSpec {
        scratch: env::temp_dir(),
        env: env::vars_os().collect(),
        ..LaunchSpec::new(root, Identity::launcher(host.uid, host.gid))
    };
    let mut probe = false;
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.to_str().unwrap_or_default() {
            "--root" => (spec.identity.uid, spec.identity.gid) = (0, 0),
            "--sub" => {
                spec.identity.subordinate = Some(SubordinateIds {
                    uids: (100_000, 65536),
                    gids: (100_000, 65536),
                    newuidmap: "/usr/bin/newuidmap".into(),
                    newgidmap: "/usr/bin/newgidmap".into(),
                });
            }
            "--minimal" => spec.devices = Devices::Minimal { extra: Vec::new() },
            "--cow" => spec.access = Access::CopyOnWrite { changes: value().into() },
            "--direct" => spec.access = Access::Direct,
            "--cwd" => spec.cwd = value().into(),
            "--pid" => spec.unshare.pid = true,
            "--ipc" => spec.unshare.ipc = true,
            "--uts" => spec.unshare.uts = true,
            "--net" => spec.unshare.net = true,
            "--hostname" => spec.hostname = Some(value()),
            "--scratch" => spec.scratch = value().into(),
            "--probe" => probe = true,
            "--bind" => spec.binds.push(bind(&value())),
            "--" => {
                spec.argv = args.by_ref().collect();
                break;
            }
            other => {
                eprintln!("enter: {other:?}?");
                exit(125)
            }
        }
    }
    if probe {
        let request = Request { root: spec.identity.uid == 0, unshare: spec.unshare, ..Request::default() };
        match Namespaces.probe(&host, &ImageFacts::default(), &request) {
            Ok(()) => println!("accepted"),
            Err(refusal) => println!("refused: {refusal}"),
        }
        return;
    }
    match Namespaces.run(&spec) {
        Ok(ended) => exit(i32::from(signals::die_as(ended))),
        Err(error) => {
            eprintln!("enter: {error}");
            exit(i32::from(error.exit_code()))
        }
    }
}

fn bind(text: &OsString) -> Bind {
    let text = text.to_string_lossy();
    let mut parts = text.split(':');
    let host = PathBuf::from(parts.next().unwrap_or_default());
    let guest = parts.next().map_or_else(|| host.clone(), PathBuf::from);
    Bind { host, guest, read_only: parts.next() == Some("ro"), optional: false, origin: BindOrigin::Volume }
}
