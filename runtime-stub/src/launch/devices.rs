//! Devices that a run asks for, put among its binds, its variables and its `/dev`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use coracle_api::{Bind, BindOrigin, Devices};

use super::{Caller, LaunchError, binds::Binds, environ::Environment, files};
use crate::drivers::{self, Edits, Places, libraries};

/// The variable that the guest's loader reads.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// NVIDIA's GPUs: numbers, or `all`.
    pub(super) gpus: Option<&'a str>,
    /// Nodes by path, and CDI names.
    pub(super) devices: &'a [String],
    /// Directories of CDI specifications instead of the standard ones.
    pub(super) cdi: &'a [PathBuf],
}

/// The lists that a run is made of, while they are put together.
pub(super) struct Lists<'a> {
    pub(super) binds: &'a mut Binds,
    pub(super) env: &'a mut Environment,
    pub(super) devices: &'a mut Devices,
    pub(super) notes: &'a mut Vec<(&'static str, String)>,
}

/// Finds them on the node, and adds what they need. `made` is where generated files go; without it nothing is written.
pub(super) fn show(asked: Asked, caller: &Caller, made: Option<&Path>, lists: Lists) -> Result<(), LaunchError> {
    if asked.gpus.is_none() && asked.devices.is_empty() {
        return Ok(());
    }
    let places = Places::new(asked.cdi.to_owned(), caller.var(LIBRARY_PATH).map(OsString::from));
    let edits = drivers::find(asked.gpus, asked.devices, &places)?;
    // The host's /dev has no place for one more name.
    let renamed = |(host, guest): &(PathBuf, PathBuf)| host != guest && guest.starts_with("/dev") && !guest.exists();
    if *lists.devices == Devices::Host
        && let Some((_, guest)) = edits.nodes.iter().find(|node| renamed(node))
    {
        let why = format!(
            "{} is none of the host's, so /dev has what was asked for and the usual ones only",
            guest.display()
        );
        lists.notes.push(("devices", why));
        *lists.devices = Devices::Minimal { extra: Vec::new() };
    }
    for (host, guest) in &edits.nodes {
        if host == guest && !host.exists() {
            let why = format!("{} is named by a specification and is not on this node", host.display());
            lists.notes.push(("devices", why));
            continue;
        }
        match &mut *lists.devices {
            Devices::Host if host == guest => {}
            Devices::Minimal { extra } if host == guest => extra.push(host.clone()),
            _ => lists.binds.as_given(Bind { optional: false, ..bind(host, guest, false, "device") }),
        }
    }
    for (host, guest) in &edits.files {
        lists.binds.as_given(bind(host, guest, true, "driver"));
    }
    for (host, guest) in &edits.writable {
        lists.binds.as_given(bind(host, guest, false, "driver"));
    }
    for group in edits.groups.iter().filter(|group| caller.uid != 0 && !caller.groups.contains(group)) {
        lists.notes.push(("devices", format!("they are for group {group}, which you are not in")));
    }
    libraries(&edits, made, lists.binds, lists.env)?;
    for pair in &edits.env {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        lists.env.set(key, value);
    }
    lists.notes.extend(edits.notes.into_iter().map(|note| ("devices", note)));
    Ok(())
}

fn libraries(edits: &Edits, made: Option<&Path>, binds: &mut Binds, env: &mut Environment) -> Result<(), LaunchError> {
    for folder in &edits.folders {
        search(env, folder);
    }
    let names = libraries::Names::of(edits);
    if names.files.is_empty() {
        return Ok(());
    }
    let name = format!("drivers-{}", files::digest_name(&names.identity()));
    let dir = made.map_or_else(|| PathBuf::from("(generated drivers)"), |made| made.join(name));
    if made.is_some() {
        names.make(&dir).map_err(|source| LaunchError::Scratch { step: "make it", path: dir.clone(), source })?;
    }
    let guest = Path::new(libraries::GUEST);
    binds.as_given(bind(&dir, guest, true, "drivers' libraries"));
    for (name, host) in &names.files {
        binds.as_given(bind(host, &guest.join(name), true, "driver's library"));
    }
    search(env, guest);
    Ok(())
}

/// Has the guest's loader search one more directory, after those that it knows by its variable.
fn search(env: &mut Environment, folder: &Path) {
    let mut path = env.get(LIBRARY_PATH).unwrap_or_default().to_owned();
    if std::env::split_paths(&path).any(|known| known == folder) {
        return;
    }
    if !path.is_empty() {
        path.push(":");
    }
    path.push(folder);
    env.set(LIBRARY_PATH, path);
}

fn bind(host: &Path, guest: &Path, read_only: bool, purpose: &str) -> Bind {
    let origin = BindOrigin::Default(purpose.to_owned());
    Bind { host: host.to_owned(), guest: guest.to_owned(), read_only, optional: true, origin }
}
