//! Which host places the guest sees, and why.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use coracle_api::{Bind, BindOrigin, NAMES};
use coracle_format::Reference;

use super::{Caller, LaunchError, Tree, environ};
use crate::options::{Origin, Volume};

/// Directories that are the image's own: a host directory in one of them is never put over the image's.
const SYSTEM: [&str; 12] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"];

/// Directories that hosts and images share: a host directory in one of them shows unless the image has it too.
const SHARED: [&str; 5] = ["/opt", "/root", "/srv", "/var/lib", "/run"];

/// Variables that name a directory of the job, shown at its own path.
const DIRS: [&str; 13] = [
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "SLURM_TMPDIR",
    "_CONDOR_SCRATCH_DIR",
    "_CONDOR_JOB_IWD",
    "_CONDOR_CREDS",
    "PMIX_SERVER_TMPDIR",
    "PMIX_SYSTEM_TMPDIR",
    "PMIX_DSTORE_ESH_BASE_PATH",
    "OMPI_FILE_LOCATION",
    "PBS_JOBDIR",
    "SGE_JOB_SPOOL_DIR",
    "X509_CERT_DIR",
];

/// Variables that name a file: a credential, a job's description, a socket.
const FILES: [&str; 14] = [
    "X509_USER_PROXY",
    "X509_USER_CERT",
    "X509_USER_KEY",
    "BEARER_TOKEN_FILE",
    "KRB5CCNAME",
    "_CONDOR_JOB_AD",
    "_CONDOR_MACHINE_AD",
    "_CONDOR_CHIRP_CONFIG",
    "PBS_NODEFILE",
    "PE_HOSTFILE",
    "LSB_DJOB_HOSTFILE",
    "SLURM_CONF",
    "SSH_AUTH_SOCK",
    "XAUTHORITY",
];

/// The list while it is put together.
#[derive(Debug, Default)]
pub(super) struct Binds {
    list: Vec<Bind>,
    /// What was not bound and why, for `explain`.
    pub(super) notes: Vec<String>,
    /// Files that the run was recorded with, and are neither held nor shown.
    pub(super) absent: Vec<String>,
}

impl Binds {
    /// A default at the host's own path, if the host has it and nothing shows it yet.
    fn default_place(&mut self, host: &Path, purpose: &str) {
        if self.shows(host) || !host.exists() {
            return;
        }
        self.push(host.to_owned(), host.to_owned(), BindOrigin::Default(purpose.to_owned()));
    }

    fn push(&mut self, host: PathBuf, guest: PathBuf, origin: BindOrigin) {
        self.list.push(Bind { host, guest, read_only: false, optional: true, origin });
    }

    /// Whether a host path is to be seen inside at its own path already.
    pub(super) fn shows(&self, host: &Path) -> bool {
        let cover = self.list.iter().rev().find(|bind| host.starts_with(&bind.guest));
        cover.is_some_and(|bind| bind.host == bind.guest)
    }

    /// A file that the launcher wrote.
    pub(super) fn generated(&mut self, host: PathBuf, guest: &str) {
        let (guest, optional) = (guest.into(), true);
        // Other runs share the file.
        self.list.push(Bind { host, guest, read_only: true, optional, origin: BindOrigin::Generated });
    }

    /// A directory of this run's own.
    pub(super) fn own(&mut self, host: PathBuf, guest: &str, purpose: &str) {
        self.push(host, guest.into(), BindOrigin::Default(purpose.to_owned()));
    }

    /// Host files that resolve names.
    pub(super) fn name_resolution(&mut self) {
        for path in NAMES {
            self.default_place(Path::new(path), "name resolution");
        }
    }

    /// The caller's home directory.
    pub(super) fn home(&mut self, home: &Path) {
        match unsuitable_home(home) {
            None => self.default_place(home, "home directory"),
            Some(why) => self.notes.push(format!("home directory {} is not shown: {why}", home.display())),
        }
    }

    /// Takes out of the list what is not wanted.
    pub(super) fn omit(&mut self, guests: &[PathBuf]) {
        self.list.retain(|bind| !guests.contains(&bind.guest));
    }

    /// A bind that an order holds.
    pub(super) fn as_given(&mut self, bind: Bind) {
        self.list.push(bind);
    }

    /// An empty directory that goes with the run.
    pub(super) fn temporary(&mut self, host: PathBuf, guest: &Path, read_only: bool) {
        let origin = BindOrigin::Default("temporary file system".to_owned());
        self.list.push(Bind { host, guest: guest.to_owned(), read_only, optional: false, origin });
    }

    /// All that a bundle shows by default.
    pub(super) fn defaults(&mut self, caller: &Caller, home: &Path, tree: Tree) {
        self.home(home);
        for path in ["/tmp", "/var/tmp"] {
            self.default_place(Path::new(path), "temporary files");
        }
        if let Some(cwd) = caller.cwd.as_deref() {
            match images_own(cwd, tree) {
                None => self.default_place(cwd, "working directory"),
                Some(why) if !self.shows(cwd) => {
                    self.notes.push(format!("working directory {} is not shown: {why}", cwd.display()));
                }
                Some(_) => {}
            }
        }
        for name in DIRS {
            if let Some(dir) = caller.var(name).map(Path::new).filter(|dir| dir.is_absolute()) {
                self.named_place(dir, name, tree);
            }
        }
        for name in FILES {
            if let Some(file) = caller.var(name).and_then(environ::path_of) {
                // A renewed credential is renamed over the old one, which only its directory shows.
                let own_dir = file.parent().filter(|dir| fs::metadata(dir).is_ok_and(|meta| meta.uid() == caller.uid));
                self.named_place(own_dir.filter(|dir| images_own(dir, tree).is_none()).unwrap_or(file), name, tree);
            }
        }
        self.default_place(Path::new("/run/munge"), "munge, for the batch system");
        self.name_resolution();
        self.default_place(Path::new("/etc/localtime"), "time zone");
    }

    fn named_place(&mut self, path: &Path, variable: &str, tree: Tree) {
        if self.shows(path) {
            return;
        }
        match images_own(path, tree).filter(|_| path.is_dir() || !path.starts_with("/etc")) {
            None => self.default_place(path, &format!("${variable}")),
            Some(why) => self.notes.push(format!("${variable} {} is not shown: {why}", path.display())),
        }
    }

    /// A volume of the user's, the configuration's or the bundle's.
    pub(super) fn volume(&mut self, volume: &Volume, origin: &Origin, caller: &Caller) -> Result<(), LaunchError> {
        let host = caller.absolute(&volume.host);
        let guest: PathBuf = volume.guest.as_ref().unwrap_or(&host).components().collect();
        let optional = matches!(origin, Origin::Config(_));
        if let Err(source) = fs::metadata(&host) {
            if optional {
                self.notes.push(format!("volume {} of {origin} is not shown: {source}", host.display()));
                return Ok(());
            }
            return Err(LaunchError::Volume { host, source });
        }
        if guest == Path::new("/") {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "nothing can be put over the image's root");
            return Err(LaunchError::Volume { host, source });
        }
        let origin = match origin {
            Origin::Config(path) => BindOrigin::Config(path.clone()),
            Origin::Bundle => BindOrigin::Default("fixed when the bundle was built".to_owned()),
            Origin::Environment | Origin::CommandLine => BindOrigin::Volume,
        };
        self.list.push(Bind { host, guest, read_only: volume.read_only, optional, origin });
        Ok(())
    }

    /// A file that a recorded run used and its bundle does not hold: shown if the node has it at the same place, unless a
    /// volume shows another there.
    pub(super) fn reference(&mut self, reference: &Reference) {
        let path = PathBuf::from(&reference.path);
        if self.list.iter().any(|bind| path.starts_with(&bind.guest)) {
            return;
        }
        if fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == reference.size) {
            let origin = BindOrigin::Default("used by the recorded run, and not held".to_owned());
            self.list.push(Bind { host: path.clone(), guest: path, read_only: true, optional: true, origin });
        } else {
            let Reference { path, size, sha256 } = reference;
            self.absent.push(format!(
                "{path} ({size} bytes, sha256:{sha256}) is not in this file, and not here: give it with --coracle-volume=FILE:{path}"
            ));
        }
    }

    /// The list, less what a later bind of the same place, or of one above it, covers anyway.
    pub(super) fn into_vec(self) -> Vec<Bind> {
        let seen =
            |bind: &Bind, at: usize| !self.list[at + 1..].iter().any(|later| bind.guest.starts_with(&later.guest));
        self.list.iter().enumerate().filter(|(at, bind)| seen(bind, *at)).map(|(_, bind)| bind.clone()).collect()
    }
}

fn below(path: &Path, dirs: &[&str]) -> bool {
    dirs.iter().any(|dir| path.starts_with(dir))
}

/// Why a home directory cannot be shown, if it cannot.
fn unsuitable_home(home: &Path) -> Option<&'static str> {
    if home == Path::new("/") {
        Some("it is the root directory")
    } else if below(home, &SYSTEM) {
        Some("it lies in a system directory of the image")
    } else {
        None
    }
}

/// Why a host directory must not be put over the image's, if so.
pub(super) fn images_own(path: &Path, tree: Tree) -> Option<&'static str> {
    let depth = path.components().filter(|component| matches!(component, Component::Normal(_))).count();
    if depth == 0 {
        Some("it is the root directory")
    } else if below(path, &SYSTEM) {
        Some("it lies in a system directory of the image")
    } else if path == Path::new("/var") || (below(path, &SHARED) && tree.resolve(path).is_some()) {
        Some("the image has a directory of its own there")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::tests::caller;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        for path in ["opt/app", "usr/share"] {
            fs::create_dir_all(dir.path().join(path)).expect("it is empty");
        }
        dir
    }

    #[test]
    fn the_images_own_directories_are_not_covered() {
        let dir = tree();
        let tree = Tree::new(dir.path());
        for path in ["/", "/usr/share", "/etc", "/lib64/x", "/var", "/opt/app", "/opt"] {
            assert!(images_own(Path::new(path), tree).is_some(), "{path}");
        }
        for path in ["/data", "/opt/other", "/var/spool/job", "/home/me", "/users"] {
            assert!(images_own(Path::new(path), tree).is_none(), "{path}");
        }
    }

    #[test]
    fn what_is_shown_already_is_not_bound_twice_and_a_later_volume_wins() {
        let dir = tree();
        let work = tempfile::tempdir_in("/tmp").expect("/tmp is writable");
        let mut caller = caller(&[("TMPDIR", "/tmp/x"), ("KRB5CCNAME", "KEYRING:x")]);
        caller.cwd = Some(work.path().to_owned());
        let mut binds = Binds::default();
        binds.defaults(&caller, Path::new("/"), Tree::new(dir.path()));
        let volume = |guest: &str| Volume { host: work.path().to_owned(), guest: Some(guest.into()), read_only: true };
        binds.volume(&volume("/data"), &Origin::Environment, &caller).expect("it exists");
        binds.volume(&volume("/data/"), &Origin::CommandLine, &caller).expect("it exists");
        assert!(binds.shows(work.path()) && binds.shows(Path::new("/tmp/x")) && !binds.shows(Path::new("/data")));
        assert_eq!(binds.notes.len(), 1, "{:?}", binds.notes);
        let list = binds.into_vec();
        let guests: Vec<_> = list.iter().map(|bind| bind.guest.to_string_lossy().into_owned()).collect();
        assert_eq!(guests.iter().filter(|guest| guest.starts_with("/tmp")).count(), 1, "{guests:?}");
        assert_eq!(guests.iter().filter(|guest| *guest == "/data").count(), 1, "{guests:?}");
    }

    #[test]
    fn what_a_later_bind_covers_is_left_out() {
        let mut binds = Binds::default();
        for (host, guest) in [("/tmp/x/home", "/tmp/x/home"), ("/tmp", "/tmp"), ("/data", "/tmp/data")] {
            binds.push(host.into(), guest.into(), BindOrigin::Volume);
        }
        let guests: Vec<PathBuf> = binds.into_vec().into_iter().map(|bind| bind.guest).collect();
        assert_eq!(guests, [PathBuf::from("/tmp"), PathBuf::from("/tmp/data")]);
    }

    #[test]
    fn a_missing_volume_is_an_error_unless_a_configuration_file_names_it() {
        let mut binds = Binds::default();
        let volume = Volume { host: "/no/such/place".into(), guest: None, read_only: false };
        let caller = caller(&[]);
        assert!(binds.volume(&volume, &Origin::CommandLine, &caller).is_err());
        assert!(binds.volume(&volume, &Origin::Config("/etc/coracle.toml".into()), &caller).is_ok());
        assert!(binds.into_vec().is_empty());
    }
}
