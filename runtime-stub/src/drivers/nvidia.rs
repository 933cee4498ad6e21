//! The NVIDIA driver of a node without CDI specifications, by its own files.
//!
//! All user-space libraries of a driver carry its version in their file names (`libcuda.so.550.54.14`), and work with the
//! kernel module of that version alone: so the version that the module tells finds them all, whatever they are called.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{DriverError, Edits, Places, is_library};

const VERSION: &str = "/proc/driver/nvidia/version";

/// Directories of libraries in distributions, NVIDIA's installer, NixOS, and driver containers.
const LIBRARIES: [&str; 11] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib",
    "/usr/lib/nvidia",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/run/nvidia/driver/usr/lib64",
];

/// Nodes that every GPU needs, where the node has them.
const NODES: [&str; 4] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];

/// Programs, sockets and lists that belong to the driver.
const FILES: [&str; 10] = [
    "/usr/bin/nvidia-smi",
    "/usr/bin/nvidia-debugdump",
    "/usr/bin/nvidia-cuda-mps-control",
    "/usr/bin/nvidia-cuda-mps-server",
    "/run/nvidia-persistenced/socket",
    "/run/nvidia-fabricmanager/socket",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    "/etc/vulkan/icd.d/nvidia_icd.json",
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/etc/OpenCL/vendors/nvidia.icd",
];

/// Adds the driver and these GPUs: numbers, or `all`.
pub(super) fn scan(gpus: &[&str], places: &Places, edits: &mut Edits) -> Result<(), DriverError> {
    let path = places.at(VERSION);
    let text = fs::read_to_string(&path).map_err(|source| DriverError::NoNvidia { path: path.clone(), source })?;
    let version = version(&text).unwrap_or_default();

    let mut dirs: Vec<PathBuf> = places.library_path.iter().flat_map(std::env::split_paths).collect();
    dirs.retain(|dir| dir.is_absolute());
    dirs.extend(LIBRARIES.map(|dir| places.at(dir)));
    let suffix = format!(".so.{version}");
    for dir in &dirs {
        for library in entries(dir).filter(|path| is_library(path) && path.to_string_lossy().ends_with(&suffix)) {
            let name = library.file_name();
            if !edits.libraries.iter().any(|known| known.file_name() == name) {
                edits.libraries.push(library);
            }
        }
    }
    if edits.libraries.is_empty() {
        let dirs: Vec<_> = dirs.iter().filter(|dir| dir.is_dir()).map(|dir| dir.display().to_string()).collect();
        return Err(DriverError::NoLibraries { version, dirs: dirs.join(", ") });
    }

    let guest = |path: &Path| Path::new("/").join(path.strip_prefix(&places.root).unwrap_or(path));
    let show = |list: &mut Vec<(PathBuf, PathBuf)>, path: PathBuf| list.push((path.clone(), guest(&path)));
    for node in NODES.map(|node| places.at(node)).into_iter().filter(|node| node.exists()) {
        show(&mut edits.nodes, node);
    }
    for gpu in gpus {
        if *gpu == "all" {
            entries(&places.at("/dev")).filter(|path| is_gpu(path)).for_each(|path| show(&mut edits.nodes, path));
            continue;
        }
        let node = places.at(&format!("/dev/nvidia{gpu}"));
        if !is_gpu(&node) || !node.exists() {
            return Err(DriverError::NoGpu((*gpu).to_owned()));
        }
        show(&mut edits.nodes, node);
    }
    entries(&places.at("/dev/nvidia-caps")).for_each(|path| show(&mut edits.nodes, path));
    for file in FILES.map(|file| places.at(file)).into_iter().filter(|file| file.exists()) {
        show(&mut edits.files, file);
    }
    edits.notes.push(format!("NVIDIA driver {version}, by its own files: {} libraries", edits.libraries.len()));
    Ok(())
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu …`: the first word that is numbers and dots.
fn version(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

/// `nvidia0`, and not `nvidiactl`.
fn is_gpu(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix("nvidia").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What is in a directory, in order; nothing if it cannot be read.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter()
}
