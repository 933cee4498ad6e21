//! Devices of the node and the drivers' files that belong to them: GPUs first of all.
//!
//! A driver's libraries must be the running kernel's, so they are never in an image: they are found on the node at each
//! start, and shown by binds, never copied. A driver upgrade needs nothing. Two sources: CDI specifications ([`cdi`]), which
//! administrators and vendors' tools write, and, for NVIDIA where there are none, the driver's own files ([`nvidia`]).
//!
//! The trick: libraries go to one directory of their own ([`libraries`]) with the names that the host's loader knows them
//! by, and `LD_LIBRARY_PATH` ends in it. So no engine has to redirect what a loader opens by itself, the image's own
//! directories stay as they are, and a CUDA compatibility library of the image's wins.

mod cdi;
pub mod libraries;
mod nvidia;
mod yaml;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// Where CDI says that specifications are; what comes later wins.
const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// The node's root directory: `/`, but in tests.
    pub root: PathBuf,
    /// Directories of CDI specifications, the last one first in rank.
    pub cdi: Vec<PathBuf>,
    /// The caller's `LD_LIBRARY_PATH`, where a site's own driver may be.
    pub library_path: Option<OsString>,
}

impl Places {
    /// The node's, with these directories for CDI instead of the standard ones if there are any.
    #[must_use]
    pub fn new(cdi: Vec<PathBuf>, library_path: Option<OsString>) -> Self {
        let cdi = if cdi.is_empty() { CDI_DIRS.map(PathBuf::from).into() } else { cdi };
        Self { root: "/".into(), cdi, library_path }
    }

    /// A place of the node's.
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// What is to be shown to a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Device nodes: host path and guest path.
    pub nodes: Vec<(PathBuf, PathBuf)>,
    /// Files, directories and sockets that are only read: host path and guest path.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The same, to be written to as well.
    pub writable: Vec<(PathBuf, PathBuf)>,
    /// Host paths of libraries.
    pub libraries: Vec<PathBuf>,
    /// More names of libraries: name and what it stands for, both without directories.
    pub links: Vec<(OsString, OsString)>,
    /// Links that are no libraries by their names, and lie where programs look for them: guest path, and the name of the
    /// library that it stands for.
    pub plugins: Vec<(PathBuf, OsString)>,
    /// Guest directories that the guest's loader is to search.
    pub folders: Vec<PathBuf>,
    /// Groups that may use the devices.
    pub groups: Vec<u32>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// What was found and where, in words for `explain`.
    pub notes: Vec<String>,
}

/// Devices that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Neither a path nor a CDI name.
    #[error("device {0:?}: neither an absolute path nor a name as vendor/class=device: correct it")]
    Name(String),
    /// A device node that cannot be used.
    #[error("device {}: {source}: correct the path, or ask for it on a node that has it", path.display())]
    Node {
        /// Its path.
        path: PathBuf,
        /// What stat(2) said.
        source: io::Error,
    },
    /// No specification has the name.
    #[error("device {name}: no CDI specification in {dirs} has it{known}: correct the name, or ask an administrator")]
    Unknown {
        /// As asked for.
        name: String,
        /// Where was looked.
        dirs: String,
        /// What there is, in words.
        known: String,
    },
    /// Two specifications of the same rank have it.
    #[error("device {name}: both {} and {} have it: ask an administrator to remove one", first.display(), second.display())]
    Twice {
        /// As asked for.
        name: String,
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// No driver is loaded.
    #[error("NVIDIA: {}: {source}: this node has no NVIDIA driver loaded, and no CDI specification of one", path.display())]
    NoNvidia {
        /// Where it would say so.
        path: PathBuf,
        /// What open(2) said.
        source: io::Error,
    },
    /// A driver without its libraries.
    #[error(
        "NVIDIA driver {version}: none of its libraries was found in {dirs}: name their directory in LD_LIBRARY_PATH"
    )]
    NoLibraries {
        /// Of the driver.
        version: String,
        /// Where was looked.
        dirs: String,
    },
    /// A GPU that is not there.
    #[error("NVIDIA GPU {0}: there is no /dev/nvidia{0} on this node: ask for another, or for all")]
    NoGpu(String),
}

/// What `--coracle-nvidia=GPUS` and `--coracle-device=…` ask for, together.
///
/// # Errors
/// [`DriverError`] for what is not on the node.
pub fn find(gpus: Option<&str>, devices: &[String], places: &Places) -> Result<Edits, DriverError> {
    let mut edits = Edits::default();
    let specifications = cdi::Specifications::read(&places.cdi);
    edits.notes.extend(specifications.complaints.iter().cloned());
    let mut names = Vec::new();
    if let Some(gpus) = gpus {
        let wanted: Vec<&str> =
            gpus.split(',').map(str::trim).filter(|gpu| !gpu.is_empty() && *gpu != "none").collect();
        if specifications.has_kind("nvidia.com/gpu") {
            names.extend(wanted.iter().map(|gpu| format!("nvidia.com/gpu={gpu}")));
        } else if !wanted.is_empty() {
            nvidia::scan(&wanted, places, &mut edits)?;
        }
    }
    for device in devices {
        if device.starts_with('/') {
            node(device, &mut edits)?;
        } else if cdi::is_name(device) {
            names.push(device.clone());
        } else {
            return Err(DriverError::Name(device.clone()));
        }
    }
    specifications.add(&names, &mut edits)?;
    for (link, target) in std::mem::take(&mut edits.plugins) {
        let named = |library: &&PathBuf| library.file_name() == Some(&target);
        if let Some(library) = edits.libraries.iter().find(named) {
            edits.files.push((library.clone(), link));
        }
    }
    // What the image has anyway is searched anyway.
    let shown = |folder: &Path| {
        let mut mounts = edits.files.iter().chain(&edits.writable);
        mounts.any(|(host, guest)| folder.starts_with(guest) && host.is_dir())
    };
    let folders: Vec<PathBuf> = edits.folders.iter().filter(|folder| shown(folder)).cloned().collect();
    edits.folders = folders;
    for list in [&mut edits.nodes, &mut edits.files, &mut edits.writable] {
        let mut seen = Vec::new();
        list.retain(|pair| !seen.contains(pair) && (seen.push(pair.clone()), true).1);
    }
    edits.libraries.sort();
    edits.libraries.dedup();
    Ok(edits)
}

/// A node by its path, as Docker writes it: `HOST[:GUEST[:rwm]]`; a directory stands for all nodes in it.
fn node(device: &str, edits: &mut Edits) -> Result<(), DriverError> {
    let mut parts = device.split(':');
    let host = PathBuf::from(parts.next().unwrap_or_default());
    // `rwm` is what a device cgroup would allow; without one the node's own mode does.
    let guest = parts.next().filter(|guest| guest.starts_with('/')).map_or_else(|| host.clone(), PathBuf::from);
    let meta = fs::metadata(&host).map_err(|source| DriverError::Node { path: host.clone(), source })?;
    if !meta.is_dir() {
        edits.nodes.push((host, guest));
        return Ok(());
    }
    let entries = fs::read_dir(&host).map_err(|source| DriverError::Node { path: host.clone(), source })?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let path = host.join(&name);
        if fs::metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            edits.nodes.push((path, guest.join(name)));
        }
    }
    Ok(())
}

/// Whether a file's name is a shared library's: `libx.so`, `libx.so.1.2`.
fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("lib") && (name.ends_with(".so") || name.contains(".so."))
}

#[cfg(test)]
mod tests;
