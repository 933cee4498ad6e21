//! From manifest, options and host (a bundle), or from an order (a [`container`]), to one [`LaunchSpec`]: which
//! program, as whom, where, with what of the host.
//!
//! [`plan`] decides everything and says why in words; it changes nothing but directories and generated files that the run
//! needs. The bundle's default is what batch users expect (you, your home, your working directory, your environment);
//! `isolated` gives Docker's.

pub mod accounts;
mod begins;
mod binds;
mod caller;
mod captured;
mod command;
pub mod container;
mod devices;
pub mod engines;
mod environ;
mod error;
mod files;
mod identity;
mod nss;
mod ranks;
mod remember;
mod scratch;
mod tree;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use coracle_api::{Access, Devices, Engine, LaunchSpec, Loader, PortMap, Request, SPEC_VERSION, Unshare};
use coracle_format::Manifest;

pub use caller::Caller;
pub use error::LaunchError;
pub(crate) use files::write_beside;
pub(crate) use identity::root_of;
pub use remember::Memory;
pub use scratch::{Own, shared};
pub use tree::Tree;

use self::{binds::Binds, command::Asked, environ::Environment, identity::Person, nss::NameService};
use crate::{
    cache::Settings,
    options::{Cache, Join, Options, Origin, Writable},
};

/// Topic of a plan's notes that a user is told unasked: something that the run will miss.
pub const ABSENT: &str = "absent";

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// How the image wants to be started.
    pub manifest: &'a Manifest,
    /// All layers of options as one.
    pub options: &'a Options,
    /// The process that started us.
    pub caller: &'a Caller,
    /// The application's arguments.
    pub args: &'a [std::ffi::OsString],
    /// The bundle's file.
    pub bundle: &'a Path,
    /// Host directory of the tree.
    pub root: &'a Path,
    /// The tree's table of names, where it would be: an engine sees whether it is there.
    pub names: Option<&'a Path>,
    /// The list of true modes and owners, where it would be.
    pub truths: Option<&'a Path>,
    /// The tree's loaders, if the build saw them.
    pub loaders: &'a [Loader],
    /// Directory shared by all runs of this tree; none in a dry run, which then writes nothing.
    pub shared: Option<&'a Path>,
    /// Where a run's own files may go.
    pub places: &'a Settings,
}

/// A run, decided.
#[derive(Debug)]
pub struct Plan {
    /// For the engine; its `variant` and the engine's name in `env` come with the choice of one.
    pub spec: LaunchSpec,
    /// What the engine is asked for.
    pub request: Request,
    /// The run's own directory, to be removed at its end.
    pub own: Option<Own>,
    /// Where its changes are, if that is not there: see [`Plan::bring_near`].
    pub near: Option<Own>,
    /// Decisions in words: topic and text.
    pub notes: Vec<(&'static str, String)>,
}

impl Plan {
    /// Has the changes of a run that keeps none lie where this engine can share files with the tree.
    pub(crate) fn bring_near(&mut self, engine: &dyn Engine, places: &Settings) {
        if let Some(own) = self.own.as_ref().filter(|_| engine.links()) {
            self.near = scratch::bring_near(&mut self.spec, own, places);
        }
    }
}

/// Decides everything about a run but the engine.
///
/// # Errors
/// [`LaunchError`] for what was asked and cannot be.
pub fn plan(inputs: &Inputs) -> Result<Plan, LaunchError> {
    let Inputs { manifest, options, caller, .. } = *inputs;
    let config = &manifest.config;
    let tree = Tree::new(inputs.root);
    let mut notes = Vec::new();

    let person = person(inputs, tree)?;
    notes.push(("user", person.source.clone()));

    let mut env = environment(inputs, &person, tree)?;
    let path = env.get("PATH").unwrap_or(OsStr::new(coracle_api::exec::DEFAULT_PATH)).to_owned();
    let asked = Asked { options, args: inputs.args, argv0: &caller.argv0, bundle: inputs.bundle, path: &path };
    let (argv, why) = command::command(config, asked, tree)?;
    notes.push(("command", format!("{argv:?}, from {why}")));

    let (access, own) = access(inputs)?;
    let writable = access != Access::ReadOnly;

    let mut binds = Binds::default();
    if closed(options) {
        binds.name_resolution();
        if let (Some(own), false) = (&own, writable) {
            binds.own(own.dir("tmp", 0o1777)?, "/tmp", "temporary files of this run");
            binds.own(own.dir("var-tmp", 0o1777)?, "/var/tmp", "temporary files of this run");
        }
    } else {
        let home = env.get("HOME").map_or_else(|| person.home.clone(), PathBuf::from);
        binds.defaults(caller, &home, tree);
    }
    for (guest, kind, content) in generated(inputs, &person) {
        let dir = own.as_ref().map(Own::path).or(inputs.shared);
        let host = match dir {
            Some(dir) => files::kept(dir, kind, &content)?,
            None => PathBuf::from(format!("(generated {kind})")),
        };
        binds.generated(host, guest);
    }
    for (volume, origin) in &options.volumes {
        binds.volume(volume, origin, caller)?;
    }
    for reference in manifest.provenance.capture.iter().flat_map(|capture| &capture.references) {
        binds.reference(reference);
    }
    notes.extend(binds.absent.drain(..).map(|note| (ABSENT, note)));

    let mut devices = if options.isolated { Devices::Minimal { extra: Vec::new() } } else { Devices::Host };
    let asked = devices::Asked { gpus: options.gpus.as_deref(), devices: &options.devices, cdi: &options.cdi };
    let lists = devices::Lists { binds: &mut binds, env: &mut env, devices: &mut devices, notes: &mut notes };
    devices::show(asked, caller, own.as_ref().map(Own::path).or(inputs.shared), lists)?;

    let (cwd, why) = working_directory(inputs, &binds, env.get("HOME"));
    let shown = binds.shows(&cwd);
    notes.push(("directory", format!("{}, {why}", cwd.display())));
    if !options.isolated {
        env.set("PWD", &cwd);
        env.remove("OLDPWD");
    }
    env.set("CORACLE_BUNDLE", inputs.bundle);
    env.set("CORACLE_BUNDLE_ARGV0", &caller.argv0);
    notes.extend(binds.notes.drain(..).map(|note| ("not bound", note)));

    let unshare = Unshare { pid: options.isolated, ipc: options.isolated, uts: options.hostname.is_some(), net: false };
    let request = Request {
        writable,
        root: person.uid == 0 && caller.uid != 0,
        isolated: options.isolated,
        unshare,
        ports: options.ports.iter().any(PortMap::differs),
        begins: begins::begins(tree, &argv[0], &path),
        kernel: false,
    };
    let mut spec = LaunchSpec {
        version: SPEC_VERSION,
        root: inputs.root.to_owned(),
        pristine: None,
        originals: None,
        names: inputs.names.map(Path::to_owned),
        truths: inputs.truths.map(Path::to_owned),
        loaders: inputs.loaders.to_vec(),
        ledger: None,
        access,
        scratch: own
            .as_ref()
            .map(|own| own.path().to_owned())
            .or(inputs.shared.map(Path::to_owned))
            .unwrap_or_default(),
        argv,
        program: None,
        handover: Vec::new(),
        env: env.into_vec(),
        cwd,
        // What is shown at its own path exists; looking for it in the image would only cost time.
        make_cwd: !shown,
        identity: person.identity(caller),
        binds: binds.into_vec(),
        devices,
        unshare,
        hostname: options.hostname.clone(),
        kernel: None,
        temporary: Vec::new(),
        ports: options.ports.clone(),
        host_path: caller.var("PATH").map(OsStr::to_owned),
        variant: options.engine.as_ref().map(|(name, _)| name.clone()),
        started: None,
        recording: None,
        meeting: None,
    };
    spec.meeting = meeting(&options.join, caller, &spec, inputs.shared, &mut notes);
    Ok(Plan { spec, request, own, near: None, notes })
}

/// Where this run meets the other ranks of its job, if it is one of several. A dry run only says so.
fn meeting(
    asked: &Join,
    caller: &Caller,
    spec: &LaunchSpec,
    shared: Option<&Path>,
    notes: &mut Vec<(&'static str, String)>,
) -> Option<PathBuf> {
    let job = ranks::job(asked, caller)?;
    notes.push(("job", format!("{job}; its ranks on this node share namespaces, where the engine has any")));
    ranks::meeting(spec, &job, shared?)
}

/// Whether the guest gets directory, variables and files from the image, and none of the caller's.
fn closed(options: &Options) -> bool {
    options.isolated || options.alone
}

fn recorded_as_root(manifest: &Manifest) -> bool {
    manifest.provenance.capture.as_ref().is_some_and(|capture| capture.user.starts_with("0:"))
}

/// By default you; isolated, whom the image names, as Docker does: root if it names nobody.
fn person(inputs: &Inputs, tree: Tree) -> Result<Person, LaunchError> {
    let names = NameService { dir: inputs.shared.map(Path::to_owned) };
    let asked = match &inputs.options.user {
        Some(user) => user.as_str(),
        None if inputs.options.isolated => inputs.manifest.config.user.as_deref().unwrap_or("0"),
        // A run that was recorded as root's may rest on that.
        None if inputs.options.alone && recorded_as_root(inputs.manifest) => "0:0",
        None => return Ok(Person::caller(inputs.caller, tree, &names)),
    };
    let person = Person::of_image(asked, tree)?;
    // `--coracle-user=$(id -u):$(id -g)`, a habit from Docker, asks for nobody but yourself.
    if person.uid == inputs.caller.uid && !inputs.options.isolated {
        let you = Person::caller(inputs.caller, tree, &names);
        let gid = if asked.contains(':') { person.gid } else { you.gid };
        return Ok(Person { gid, ..you });
    }
    Ok(person)
}

/// The caller's login name, if the host knows one; its name service is asked once an hour for a tree's directory.
#[must_use]
pub fn login_name(caller: &Caller, tree_dir: &Path) -> Option<String> {
    identity::login_name(caller, &NameService { dir: shared(tree_dir).ok() })
}

fn environment(inputs: &Inputs, person: &Person, tree: Tree) -> Result<Environment, LaunchError> {
    let caller = inputs.caller;
    let mut env;
    if closed(inputs.options) {
        env = Environment::default();
        if let Some(term) = caller.var("TERM") {
            env.set("TERM", term);
        }
        if let Some(name) = &inputs.options.hostname {
            env.set("HOSTNAME", name);
        }
        env.add_image(&inputs.manifest.config.env);
        env.set_default("HOME", &person.home);
    } else {
        env = Environment::of_host(caller);
        env.remove("PATH");
        env.add_image(&inputs.manifest.config.env);
        // Your home is the host's whatever the image says, because it is the one that is there.
        let home = caller.var("HOME").filter(|home| Path::new(home).is_absolute());
        env.set("HOME", home.unwrap_or(person.home.as_os_str()));
        if let Some(shell) = caller.var("SHELL").filter(|shell| !tree.is_program(Path::new(shell))) {
            let fallback = tree.find_program(OsStr::new("sh"), env.get("PATH").unwrap_or_default());
            match fallback.filter(|_| env.get("SHELL") == Some(shell)) {
                Some(sh) => env.set("SHELL", sh),
                None => env.remove("SHELL"),
            }
        }
    }
    env.add_settings(&inputs.options.env, caller)?;
    Ok(env)
}

/// What the guest may write, and the run's own directory if it needs one.
fn access(inputs: &Inputs) -> Result<(Access, Option<Own>), LaunchError> {
    let options = inputs.options;
    // A dry run makes no directories.
    let dry = inputs.shared.is_none();
    let own = (options.writable == Writable::Temporary || closed(options)) && !dry;
    let own = if own { Some(Own::make(inputs.places)?) } else { None };
    let access = match &options.writable {
        Writable::No => Access::ReadOnly,
        Writable::Temporary => match &own {
            Some(own) => Access::CopyOnWrite { changes: own.dir("changes", 0o700)? },
            None => Access::CopyOnWrite { changes: "(scratch)".into() },
        },
        Writable::Kept(dir) => {
            let changes = inputs.caller.absolute(dir);
            if !dry {
                fs::create_dir_all(&changes).map_err(|source| LaunchError::Scratch {
                    step: "create it",
                    path: changes.clone(),
                    source,
                })?;
            }
            Access::CopyOnWrite { changes: fs::canonicalize(&changes).unwrap_or(changes) }
        }
    };
    Ok((access, own))
}

/// Files to put over the image's: guest path, a short name, content.
fn generated(inputs: &Inputs, person: &Person) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut made = Vec::new();
    if let Some(files) = &person.files {
        made.push(("/etc/passwd", "passwd", files.passwd.clone()));
        made.push(("/etc/group", "group", files.group.clone()));
    }
    if let Some(name) = inputs.options.hostname.as_deref().and_then(OsStr::to_str) {
        made.push(("/etc/hostname", "hostname", format!("{name}\n").into_bytes()));
        let mut hosts = fs::read("/etc/hosts").unwrap_or_default();
        if !hosts.ends_with(b"\n") && !hosts.is_empty() {
            hosts.push(b'\n');
        }
        hosts.extend_from_slice(format!("127.0.1.1\t{name}\n").as_bytes());
        made.push(("/etc/hosts", "hosts", hosts));
    }
    made
}

fn working_directory(inputs: &Inputs, binds: &Binds, home: Option<&OsStr>) -> (PathBuf, &'static str) {
    if let Some(dir) = &inputs.options.workdir {
        return (dir.clone(), "as asked for");
    }
    let image = inputs.manifest.config.working_dir.as_deref().map(Path::new).filter(|dir| dir.is_absolute());
    if closed(inputs.options) {
        return image.map_or(("/".into(), "as in the image"), |dir| (dir.to_owned(), "as in the image"));
    }
    if let Some(cwd) = inputs.caller.cwd.as_deref().filter(|cwd| binds.shows(cwd)) {
        return (cwd.to_owned(), "where you are");
    }
    if let Some(dir) = image {
        return (dir.to_owned(), "the image's, because yours is not shown");
    }
    match home.map(Path::new).filter(|home| binds.shows(home)) {
        Some(home) => (home.to_owned(), "your home, because your directory is not shown"),
        None => ("/".into(), "because your directory is not shown"),
    }
}

/// Where trees and runs may go, from options and environment.
#[must_use]
pub fn places(options: &Options, caller: &Caller) -> Settings {
    let var = |name: &str| caller.var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (mut cache, mut cache_config) = (None, None);
    if let Some((Cache::Dir(dir), origin)) = &options.cache {
        let dir = caller.absolute(dir);
        if matches!(origin, Origin::Config(_)) { cache_config = Some(dir) } else { cache = Some(dir) }
    }
    Settings {
        cache,
        cache_config,
        scratch: options.scratch.as_deref().map(|dir| caller.absolute(dir)),
        scratch_config: None,
        slurm_tmpdir: var("SLURM_TMPDIR"),
        condor_scratch: var("_CONDOR_SCRATCH_DIR"),
        tmpdir: var("TMPDIR"),
    }
}

#[cfg(test)]
mod tests;
