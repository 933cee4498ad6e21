//! A container's run: an [`Order`]'s requests resolved against the container's tree, by the parts that plan a bundle's.
//!
//! What differs is the default: a container is Docker's (whom the image names, else root; the image's environment; a tree
//! of its own that the guest may write to), with udocker's devices, `/proc` and `/sys`: the host's.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use coracle_api::{Access, LaunchSpec, NAMES, Order, PortMap, Request, SPEC_VERSION, Unshare};

use super::{
    Caller, LaunchError, Own, Plan, Tree, binds::Binds, devices, environ::Environment, files, identity,
    identity::Person, nss::NameService,
};
use crate::{
    cache::Settings,
    options::{Join, Options},
};

/// Where memory is a file system, for directories that go with the run.
const MEMORY: &str = "/dev/shm";

/// Decides everything about a container's run but the engine.
///
/// # Errors
/// [`LaunchError`] for what was asked and cannot be.
pub fn plan(order: &Order, caller: &Caller) -> Result<Plan, LaunchError> {
    if order.recording.is_some() {
        return Ok(super::captured::plan(order, caller));
    }
    let (root, upper) = places_of_tree(order);
    let tree = match &upper {
        Some(upper) => Tree::with_changes(&root, upper),
        None => Tree::new(&root),
    };
    let mut notes = Vec::new();
    let own = own(order, caller)?;
    let made = match (&order.made, &own) {
        (Some(made), _) => make(made)?,
        (None, Some(own)) => own.path().to_owned(),
        (None, None) => PathBuf::new(),
    };

    let names = NameService { dir: Some(made.clone()) };
    let person = Person::of_container(order.user.as_deref(), order.accounts, caller, tree, &names)?;
    notes.push(("user", person.source.clone()));

    let mut env = environment(order, &person, caller);
    let path = env.get("PATH").unwrap_or(OsStr::new(coracle_api::exec::DEFAULT_PATH)).to_owned();
    let argv = if order.argv.is_empty() { vec![identity::shell(tree, &path)?] } else { order.argv.clone() };
    notes.push(("command", format!("{argv:?}")));

    let mut binds = Binds::default();
    if order.names {
        binds.name_resolution();
    }
    if order.home {
        // Where the caller's home is: HOME inside is that of whom the guest is.
        let home = caller.var("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        match home {
            Some(home) => binds.home(&home),
            None => binds.notes.push("home directory is not shown: $HOME names none".to_owned()),
        }
    }
    binds.omit(&order.omit);
    for (guest, kind, content) in generated(order, &person) {
        let host = files::kept(&made, kind, &content)?;
        binds.generated(host, guest);
    }
    for bind in &order.binds {
        binds.as_given(bind.clone());
    }
    let mut devices = order.devices.clone();
    let cdi: Vec<PathBuf> = caller.var("CORACLE_CDI").iter().flat_map(std::env::split_paths).collect();
    let asked = devices::Asked { gpus: order.gpus.as_deref(), devices: &order.device_names, cdi: &cdi };
    let lists = devices::Lists { binds: &mut binds, env: &mut env, devices: &mut devices, notes: &mut notes };
    devices::show(asked, caller, Some(&made), lists)?;
    let mut temporary = Vec::new();
    if let Some(own) = &own {
        for (number, asked) in order.temporary.iter().enumerate() {
            let host = own.dir(&format!("tmpfs-{number}"), asked.mode)?;
            binds.temporary(host.clone(), &asked.guest, asked.read_only);
            temporary.push((host, asked.clone()));
        }
    }
    notes.extend(binds.notes.drain(..).map(|note| ("not bound", note)));

    let cwd = order.workdir.clone().unwrap_or_else(|| "/".into());
    env.set("PWD", &cwd);
    let unshare = Unshare { uts: order.hostname.is_some(), ..order.unshare };
    let request = Request {
        writable: matches!(order.access, Access::CopyOnWrite { .. }),
        root: person.uid == 0 && caller.uid != 0,
        isolated: false,
        unshare,
        ports: order.ports.iter().any(PortMap::differs),
        begins: super::begins::begins(tree, &argv[0], &path),
        kernel: order.kernel.is_some(),
    };
    let mut spec = LaunchSpec {
        version: SPEC_VERSION,
        root: order.root.clone(),
        pristine: None,
        originals: None,
        names: None,
        loaders: order.facts.loaders.clone(),
        truths: order.truths.clone(),
        access: order.access.clone(),
        scratch: made,
        argv,
        program: None,
        handover: Vec::new(),
        env: env.into_vec(),
        cwd,
        make_cwd: true,
        identity: person.identity(caller),
        binds: binds.into_vec(),
        devices,
        unshare,
        hostname: order.hostname.clone(),
        kernel: order.kernel.clone(),
        temporary,
        ports: order.ports.clone(),
        ledger: order.ledger.clone(),
        host_path: caller.var("PATH").map(OsStr::to_owned),
        variant: order.engine.clone(),
        started: None,
        recording: None,
        meeting: None,
    };
    spec.meeting = super::meeting(&Join::Auto, caller, &spec, order.made.as_deref(), &mut notes);
    Ok(Plan { spec, request, own, near: None, notes })
}

/// Where the files of a container's tree are before an engine has put them together.
fn places_of_tree(order: &Order) -> (PathBuf, Option<PathBuf>) {
    let Access::CopyOnWrite { changes } = &order.access else { return (order.root.clone(), None) };
    let view = changes.join("view/root");
    if view.is_dir() { (view, None) } else { (order.root.clone(), Some(changes.join("upper"))) }
}

/// The run's own directory, if it needs one.
fn own(order: &Order, caller: &Caller) -> Result<Option<Own>, LaunchError> {
    if order.temporary.is_empty() && order.made.is_some() {
        return Ok(None);
    }
    let places = super::places(&Options::default(), caller);
    if !order.temporary.is_empty() {
        let memory = Settings { scratch: Some(MEMORY.into()), ..Settings::default() };
        if let Ok(own) = Own::make(&memory) {
            return Ok(Some(own));
        }
    }
    Own::make(&places).map(Some)
}

fn make(dir: &Path) -> Result<PathBuf, LaunchError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(LaunchError::Scratch { step: "create it", path: dir.to_owned(), source })
        }
        _ => Ok(dir.to_owned()),
    }
}

fn environment(order: &Order, person: &Person, caller: &Caller) -> Environment {
    let mut env = if order.host_env { Environment::of_host(caller) } else { Environment::default() };
    env.remove("PATH");
    if let Some(term) = caller.var("TERM") {
        env.set("TERM", term);
    }
    let name = order.hostname.clone().or_else(|| nix::unistd::gethostname().ok());
    if let Some(name) = name.filter(|name: &OsString| !name.is_empty()) {
        env.set("HOSTNAME", name);
    }
    env.set("HOME", &person.home);
    env.add_image(&order.image_env);
    env.add(&order.env);
    env
}

/// Files to put over the tree's: guest path, a short name, content.
fn generated(order: &Order, person: &Person) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut made = Vec::new();
    if let Some(files) = &person.files {
        made.push(("/etc/passwd", "passwd", files.passwd.clone()));
        made.push(("/etc/group", "group", files.group.clone()));
    }
    let mut hosts = String::new();
    if let Some(name) = order.hostname.as_deref().and_then(OsStr::to_str) {
        made.push(("/etc/hostname", "hostname", format!("{name}\n").into_bytes()));
        hosts.push_str(&format!("127.0.1.1\t{name}\n"));
    }
    for line in &order.hosts {
        hosts.push_str(&format!("{line}\n"));
    }
    if !hosts.is_empty() {
        let mut file = fs::read(NAMES[1]).unwrap_or_default();
        if !file.ends_with(b"\n") && !file.is_empty() {
            file.push(b'\n');
        }
        file.extend_from_slice(hosts.as_bytes());
        made.push((NAMES[1], "hosts", file));
    }
    if let Some(text) = &order.resolv_conf {
        made.push((NAMES[0], "resolv.conf", text.clone().into_bytes()));
    }
    made
}
