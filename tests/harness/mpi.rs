//! Images with an MPI library, put together from the host's own files: the libraries of a program, and what Open MPI loads
//! by name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Sandbox, images::workspace, skip};

/// Open MPI's, PMIx's and UCX's plugins and texts, which no program names. (Without UCX's for CMA, MPICH's ranks sometimes
/// wait for each other at their end for ever, on any host.)
const LOADED: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/openmpi/lib/openmpi3",
    "/usr/lib/x86_64-linux-gnu/pmix2/lib/pmix",
    "/usr/lib/x86_64-linux-gnu/ucx",
];
const READ: [&str; 2] = ["/usr/share/openmpi", "/etc/openmpi"];

/// An MPI library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Open MPI.
    OpenMpi,
    /// MPICH.
    Mpich,
}

impl Library {
    /// What Debian's alternatives call it.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::OpenMpi => "openmpi",
            Self::Mpich => "mpich",
        }
    }

    /// The host's launcher.
    #[must_use]
    pub fn mpirun(self) -> String {
        format!("mpirun.{}", self.suffix())
    }

    /// Its compiler.
    #[must_use]
    pub fn mpicc(self) -> String {
        format!("mpicc.{}", self.suffix())
    }

    /// Whether the host lacks it; then the test is recorded as skipped.
    #[must_use]
    pub fn is_missing(self) -> bool {
        let missing = skip::lacks(&[&self.mpicc(), &self.mpirun(), "gcc", "ldd"]);
        // The folders below are Debian's for this architecture.
        missing
            || !cfg!(target_arch = "x86_64") && {
                skip::because("an image for MPI is put together for x86-64 only");
                true
            }
    }
}

/// Compiles a file of the workspace with the library, as `work/NAME`.
///
/// # Panics
/// If it cannot be compiled.
#[must_use]
pub fn compile(sandbox: &Sandbox, library: Library, source: &Path, name: &str) -> PathBuf {
    let copy = sandbox.write(&format!("{name}.c"), fs::read(workspace().join(source)).unwrap());
    let output = sandbox.work(name);
    let args = ["-O2".as_ref(), "-o".as_ref(), output.as_os_str(), copy.as_os_str(), "-lm".as_ref()];
    sandbox.run(library.mpicc(), args).ok();
    output
}

/// Lays out, below `root`, a tree in which these programs of the host's run, and a shell.
///
/// # Panics
/// If it cannot be written.
pub fn lay_out(root: &Path, programs: &[&Path]) {
    let mut files: BTreeSet<PathBuf> = READ.iter().flat_map(|dir| below(Path::new(dir))).collect();
    let mut plugins: Vec<PathBuf> = LOADED.iter().flat_map(|dir| below(Path::new(dir))).collect();
    plugins.retain(|file| file.extension().is_none_or(|kind| kind != "a"));
    let named = ["/bin/sh", "/bin/cat", "/bin/sleep"].iter().map(PathBuf::from);
    let named: Vec<PathBuf> = named.chain(programs.iter().map(|path| path.to_path_buf())).chain(plugins).collect();
    files.extend(libraries(&named));
    files.extend(named);
    for file in files {
        let to = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, &to).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    for dir in ["tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
}

/// A bundle of the programs for `library`, in the sandbox, that starts the first.
#[must_use]
pub fn bundle(sandbox: &Sandbox, library: Library, programs: &[&Path]) -> PathBuf {
    let root = sandbox.work(&format!("{}.tree", library.suffix()));
    lay_out(&root, programs);
    let output = sandbox.work(&format!("{}.run", library.suffix()));
    let (source, to) = (format!("rootfs:{}", root.display()), output.display().to_string());
    let entrypoint = format!("[{:?}]", programs[0].display().to_string());
    sandbox.coracle(["build", "--quiet", &source, "-o", &to, "--compression", "1", "--entrypoint", &entrypoint]).ok();
    output
}

/// What the host's loader finds for these programs and plugins, and the loader.
fn libraries(programs: &[PathBuf]) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").args(programs).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let path = |line: &str| {
        let rest = line.trim().rsplit("=> ").next()?;
        let path = rest.split(" (").next().filter(|path| line.starts_with('\t') && path.starts_with('/'))?;
        Some(PathBuf::from(path))
    };
    text.lines().filter_map(path).collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => found.extend(below(&path)),
            Ok(meta) if meta.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}
