//! The Container Device Interface: specifications in JSON or YAML that say what a device needs of the node.
//!
//! After the specification of the CNCF's `container-device-interface`, version 1: a directory that comes later outranks
//! one before it; within one directory the same device twice is an error when it is asked for. Of the hooks, those that
//! arrange libraries (`update-ldcache`, `create-symlinks`) are done by [`libraries`](super::libraries), others are
//! named as not run; groups are the caller's own, so those of `additionalGids` that he lacks are named, too. A file
//! that cannot be read or understood is passed over with a note, as podman and containerd do.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{DriverError, Edits, is_library, yaml};

/// No specification of any vendor comes near.
const LARGEST: u64 = 16 << 20;

/// All specifications of the node.
#[derive(Debug, Default)]
pub(super) struct Specifications {
    /// File, rank of its directory, content.
    list: Vec<(PathBuf, usize, Specification)>,
    dirs: String,
    /// Files that could not be used, in words.
    pub(super) complaints: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specification {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: Name,
    #[serde(default)]
    container_edits: ContainerEdits,
}

/// YAML without quotes makes a number of `0`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Number(i64),
}

impl Name {
    fn is(&self, asked: &str) -> bool {
        match self {
            Self::Text(name) => name == asked,
            Self::Number(number) => number.to_string() == asked,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerEdits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    #[serde(alias = "additionalGIDs")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Hook {
    #[serde(default)]
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
}

/// Hooks whose work is done, or has no object here: no node is copied, no file's mode is another than the host's, and the
/// loader's path puts a compatibility library of the image's first.
const NEEDLESS: [&str; 5] =
    ["update-ldcache", "create-symlinks", "chmod", "enable-cuda-compat", "disable-device-node-modification"];

/// Whether this is `vendor/class=device`.
pub(super) fn is_name(text: &str) -> bool {
    text.split_once('=').is_some_and(|(kind, device)| {
        kind.split_once('/').is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty())
            && !device.is_empty()
    })
}

impl Specifications {
    /// Reads every specification in `dirs`.
    pub(super) fn read(dirs: &[PathBuf]) -> Self {
        let shown: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let mut all = Self { dirs: shown.join(" and "), ..Self::default() };
        for (rank, dir) in dirs.iter().enumerate() {
            let mut files: Vec<_> =
                fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in files {
                let is_json = match file.extension().and_then(|extension| extension.to_str()) {
                    Some("json") => true,
                    Some("yaml" | "yml") => false,
                    _ => continue,
                };
                match read(&file, is_json) {
                    Ok(specification) => all.list.push((file, rank, specification)),
                    Err(why) => all.complaints.push(format!("CDI specification {}: {why}", file.display())),
                }
            }
        }
        all
    }

    pub(super) fn has_kind(&self, kind: &str) -> bool {
        self.list.iter().any(|(_, _, specification)| specification.kind == kind)
    }

    /// Adds what the named devices need, and once what all devices of their specifications need.
    pub(super) fn add(&self, names: &[String], edits: &mut Edits) -> Result<(), DriverError> {
        let mut used: Vec<&Path> = Vec::new();
        for name in names {
            let (kind, device) = name.split_once('=').unwrap_or((name, ""));
            let mut found: Option<(&Path, usize, &Specification, &Device)> = None;
            for (file, rank, specification) in self.list.iter().filter(|(_, _, one)| one.kind == kind) {
                let Some(device) = specification.devices.iter().find(|one| one.name.is(device)) else { continue };
                match found {
                    Some((first, best, ..)) if best == *rank => {
                        let (first, second) = (first.to_owned(), file.clone());
                        return Err(DriverError::Twice { name: name.clone(), first, second });
                    }
                    _ => found = Some((file, *rank, specification, device)),
                }
            }
            let Some((file, _, specification, device)) = found else {
                return Err(DriverError::Unknown { name: name.clone(), dirs: self.dirs.clone(), known: self.known() });
            };
            edits.notes.push(format!("{name}, by {}", file.display()));
            apply(&device.container_edits, edits);
            if !used.contains(&file) {
                used.push(file);
                apply(&specification.container_edits, edits);
            }
        }
        Ok(())
    }

    fn known(&self) -> String {
        let mut names: Vec<_> = self
            .list
            .iter()
            .flat_map(|(_, _, one)| {
                one.devices.iter().map(|device| match &device.name {
                    Name::Text(name) => format!("{}={name}", one.kind),
                    Name::Number(number) => format!("{}={number}", one.kind),
                })
            })
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() { String::new() } else { format!(" (there are {})", names.join(", ")) }
    }
}

fn read(file: &Path, is_json: bool) -> Result<Specification, String> {
    if fs::metadata(file).map_err(|error| error.to_string())?.len() > LARGEST {
        return Err("too large".to_owned());
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let value = if is_json {
        serde_json::from_slice(text.as_bytes()).map_err(|error| error.to_string())?
    } else {
        yaml::parse(&text).ok_or("not YAML as specifications use it")?
    };
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn apply(from: &ContainerEdits, edits: &mut Edits) {
    edits.env.extend(from.env.iter().cloned());
    for node in &from.device_nodes {
        edits.nodes.push((node.host_path.as_ref().unwrap_or(&node.path).clone(), node.path.clone()));
    }
    for mount in &from.mounts {
        if is_library(&mount.container_path) {
            edits.libraries.push(mount.host_path.clone());
        } else {
            let is_read = mount.options.iter().any(|option| option == "ro");
            let list = if is_read { &mut edits.files } else { &mut edits.writable };
            list.push((mount.host_path.clone(), mount.container_path.clone()));
        }
    }
    edits.groups.extend(&from.additional_gids);
    for hook in &from.hooks {
        if !hook.args.iter().any(|word| NEEDLESS.contains(&word.as_str())) {
            let words = hook.args.iter().skip(1).map(String::as_str).collect::<Vec<_>>().join(" ");
            edits.notes.push(format!("the hook {} {words} is not run", hook.path.display()));
        }
        for link in values(&hook.args, "--link") {
            // `TARGET::LINK`: of either only the name counts, as all libraries are in one directory.
            let Some((target, link)) = link.split_once("::").map(|(target, link)| (Path::new(target), Path::new(link)))
            else {
                continue;
            };
            let Some((target, name)) = target.file_name().zip(link.file_name()) else { continue };
            if !is_library(link) {
                edits.plugins.push((link.to_owned(), target.to_owned()));
            } else if name != target {
                edits.links.push((name.to_owned(), target.to_owned()));
            }
        }
        edits.folders.extend(values(&hook.args, "--folder").map(PathBuf::from));
    }
}

/// Values of an option that may be given several times, as `--option VALUE` or `--option=VALUE`.
fn values<'a>(args: &'a [String], option: &str) -> impl Iterator<Item = &'a str> {
    args.iter().enumerate().filter_map(move |(at, word)| match word.strip_prefix(option)? {
        "" => args.get(at + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    })
}
