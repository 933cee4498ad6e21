//! The guest's file system, from the launch specification: which host places it sees where.
//!
//! Nothing is mounted: a bind is a rule of translation. So that a program can also *walk* to a mount point whose parents
//! the tree lacks, those parents are made in the run's scratch directory (a skeleton) and bound too.

use std::{
    ffi::CStr,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::symlink,
    },
    path::{Path, PathBuf},
};

use coracle_api::{Access, Devices, LaunchSpec, RunError};
use coracle_intercept::Errno;
use coracle_paths::{self as paths, Base, Buffers, Caller, Host, Last, View, arrange};

/// Binds that own their paths; [`paths::View`] borrows them.
#[derive(Debug)]
pub struct Layout {
    root: Vec<u8>,
    read_only: bool,
    binds: Vec<Place>,
    unlisted: bool,
}

#[derive(Debug)]
struct Place {
    guest: Vec<u8>,
    host: Vec<u8>,
    read_only: bool,
}

/// What `/dev` holds if not all of the host's.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

impl Layout {
    /// Lays out what the specification asks for, over the tree at `root`.
    pub fn new(spec: &LaunchSpec, root: &Path) -> Result<Self, RunError> {
        let root = fs::canonicalize(root)
            .map_err(|error| RunError::step(format!("open the tree {}", root.display()), error))?;
        let read_only = spec.access == Access::ReadOnly;
        let mut layout = Self { root: root.into_os_string().into_vec(), read_only, binds: Vec::new(), unlisted: false };
        for system in ["/proc", "/sys"] {
            layout.add(Path::new(system), Path::new(system), false, spec)?;
        }
        match &spec.devices {
            Devices::Host => layout.add(Path::new("/dev"), Path::new("/dev"), false, spec)?,
            Devices::Minimal { extra } => layout.add_devices(extra, spec)?,
        }
        for bind in &spec.binds {
            let what = || format!("bind {} at {}", bind.host.display(), bind.guest.display());
            match fs::canonicalize(&bind.host) {
                Ok(host) => layout.add(&host, &bind.guest, bind.read_only, spec)?,
                Err(_) if bind.optional => {}
                Err(error) => return Err(RunError::step(what(), error)),
            }
        }
        Ok(layout)
    }

    /// The rules for [`View`], which `storage` must outlive.
    pub fn binds(&self) -> Vec<paths::Bind<'_>> {
        let mut binds: Vec<_> = self
            .binds
            .iter()
            .map(|place| paths::Bind { guest: &place.guest, host: &place.host, read_only: place.read_only })
            .collect();
        let kept = arrange(&mut binds);
        binds.truncate(kept);
        binds
    }

    /// Whether some mount point has no name in the directory that it is in.
    pub fn is_unlisted(&self) -> bool {
        self.unlisted
    }

    /// The view with these binds.
    pub fn view<'a>(&'a self, binds: &'a [paths::Bind<'a>]) -> Result<View<'a>, RunError> {
        View::new(&self.root, self.read_only, binds).map_err(|error| {
            RunError::step(format!("lay out the guest's file system ({error:?})"), io::ErrorKind::InvalidInput.into())
        })
    }

    /// Where an absolute guest path leads, as things are laid out by now: canonical guest path and host path.
    ///
    /// # Errors
    /// The walk's.
    pub fn find(&self, guest: &[u8]) -> Result<(Vec<u8>, PathBuf), Errno> {
        let binds = self.binds();
        let view = View::new(&self.root, self.read_only, &binds).map_err(|error| error.errno())?;
        let mut buffers = Box::new(Buffers::new());
        let request =
            paths::Request { root: b"/", base: Base { guest: b"/", deleted: false }, path: guest, last: Last::Follow };
        let place = paths::resolve(&view, &Plain, &request, &mut buffers)?;
        let host = PathBuf::from(std::ffi::OsStr::from_bytes(place.host.to_bytes()));
        Ok((place.guest.to_vec(), host))
    }

    fn add(&mut self, host: &Path, guest: &Path, read_only: bool, spec: &LaunchSpec) -> Result<(), RunError> {
        let what = || format!("bind {} at {}", host.display(), guest.display());
        let errno = |errno: Errno| RunError::step(what(), io::Error::from_raw_os_error(i32::from(errno.0)));
        let mut known = plain(guest);
        let mut missing: Vec<Vec<u8>> = Vec::new();
        // The deepest ancestor that exists, and what lacks below it.
        let found = loop {
            match self.find(if known.is_empty() { b"/" } else { &known }) {
                Ok((found, at)) if missing.is_empty() || fs::symlink_metadata(&at).is_ok() => break found,
                Ok(_) | Err(Errno::ENOENT) if !known.is_empty() => {
                    let slash = known.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    missing.insert(0, known[slash + 1..].to_vec());
                    known.truncate(slash);
                }
                Ok((found, _)) => break found,
                Err(error) => return Err(errno(error)),
            }
        };
        let mut place = if found == b"/" { Vec::new() } else { found };
        self.unlisted |= !missing.is_empty();
        if missing.len() > 1 {
            // Parents that nobody has: a skeleton for the first, with the others inside.
            let skeleton = spec.scratch.join(format!("skeleton-{}", self.binds.len()));
            let names = missing.iter().map(|name| Path::new(std::ffi::OsStr::from_bytes(name)));
            let inner: PathBuf = names.skip(1).take(missing.len() - 2).collect();
            fs::create_dir_all(skeleton.join(&inner)).map_err(|error| RunError::step(what(), error))?;
            let last = skeleton.join(inner).join(std::ffi::OsStr::from_bytes(&missing[missing.len() - 1]));
            // The directory may be shared by all runs of the tree, so it may be there already.
            let made = if host.is_dir() { fs::create_dir_all(last) } else { fs::write(last, "") };
            made.map_err(|error| RunError::step(what(), error))?;
            let mut at = place.clone();
            at.push(b'/');
            at.extend_from_slice(&missing[0]);
            let skeleton = fs::canonicalize(&skeleton).map_err(|error| RunError::step(what(), error))?;
            self.binds.push(Place { guest: at, host: skeleton.into_os_string().into_vec(), read_only: self.read_only });
        }
        for name in missing {
            place.push(b'/');
            place.extend_from_slice(&name);
        }
        if place.is_empty() {
            return Err(RunError::step(what(), io::Error::other("nothing can be bound over the root of the image")));
        }
        self.binds.push(Place { guest: place, host: host.as_os_str().as_bytes().to_vec(), read_only });
        Ok(())
    }

    /// A small `/dev` in the scratch directory, with host nodes bound into it.
    fn add_devices(&mut self, extra: &[PathBuf], spec: &LaunchSpec) -> Result<(), RunError> {
        let dev = spec.scratch.join("dev");
        let make = || -> io::Result<PathBuf> {
            fs::create_dir_all(dev.join("pts"))?;
            fs::create_dir_all(dev.join("shm"))?;
            for node in NODES {
                fs::write(dev.join(node), "")?;
            }
            for (target, link) in LINKS {
                symlink(target, dev.join(link))?;
            }
            for node in extra {
                if let Ok(inside) = node.strip_prefix("/dev") {
                    let place = dev.join(inside);
                    fs::create_dir_all(place.parent().unwrap_or(&dev))?;
                    fs::write(place, "")?;
                }
            }
            fs::canonicalize(&dev)
        };
        let dev = make().map_err(|error| RunError::step(format!("make {}", dev.display()), error))?;
        self.add(&dev, Path::new("/dev"), false, spec)?;
        let nodes = NODES.iter().chain(["pts", "shm"].iter()).map(|node| Path::new("/dev").join(node));
        for node in nodes.chain(extra.iter().cloned()) {
            if node.exists() {
                self.add(&node, &node, false, spec)?;
            }
        }
        Ok(())
    }

    /// Host path of the guest's working directory; made if the specification says so.
    pub fn enter(&mut self, spec: &LaunchSpec) -> Result<PathBuf, RunError> {
        let cwd = plain(&spec.cwd);
        let cwd = if cwd.is_empty() { b"/".to_vec() } else { cwd };
        let what = || format!("enter the working directory {}", spec.cwd.display());
        let errno = |errno: Errno| RunError::step(what(), io::Error::from_raw_os_error(i32::from(errno.0)));
        match self.find(&cwd) {
            Ok((_, host)) if host.is_dir() => return Ok(host),
            Ok(_) | Err(Errno::ENOENT) if spec.make_cwd => {}
            Ok(_) => return Err(errno(Errno::ENOENT)),
            Err(error) => return Err(errno(error)),
        }
        if spec.access != Access::ReadOnly {
            // Component by component, so that links on the way are the guest's.
            let mut at = Vec::new();
            for name in cwd[1..].split(|byte| *byte == b'/') {
                at.push(b'/');
                at.extend_from_slice(name);
                let (_, host) = self.find(&at).map_err(errno)?;
                if !host.is_dir() {
                    fs::create_dir(&host).map_err(|error| RunError::step(what(), error))?;
                }
            }
        } else {
            let empty = spec.scratch.join("cwd");
            fs::create_dir_all(&empty).map_err(|error| RunError::step(what(), error))?;
            let empty = fs::canonicalize(&empty).map_err(|error| RunError::step(what(), error))?;
            self.add(&empty, &spec.cwd, false, spec)?;
        }
        self.find(&cwd).map(|(_, host)| host).map_err(errno)
    }
}

/// The path without `.`, `..`, doubled and trailing slashes; `/` is empty.
fn plain(path: &Path) -> Vec<u8> {
    let mut plain = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => {
                plain.push(b'/');
                plain.extend_from_slice(name.as_bytes());
            }
            std::path::Component::ParentDir => {
                plain.truncate(plain.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            }
            _ => {}
        }
    }
    plain
}

/// The launcher's own look at the host.
struct Plain;

impl Host for Plain {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: a NUL-terminated path, and a buffer that is writable for the length given.
        let len = unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
        usize::try_from(len).map_err(|_| {
            let error = io::Error::last_os_error().raw_os_error().and_then(|error| u16::try_from(error).ok());
            error.map_or(Errno::ENOENT, Errno)
        })
    }

    fn caller(&self) -> Caller {
        Caller { pid: std::process::id(), tid: std::process::id() }
    }

    fn root_of(&self, _pid: u32, _root: &mut [u8]) -> Option<usize> {
        None
    }
}
