//! Published root file systems, as tarballs: from the folder that `CORACLE_TEST_IMAGES` names, else `../shared/images`
//! beside the workspace.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::skip;

/// Alpine 3.20, musl 1.2.5.
pub const ALPINE: &str = "alpine-3.20.3-x86_64.tar.gz";
/// Alpine 3.9, musl 1.1.20.
pub const ALPINE_OLD: &str = "alpine-3.9.6-x86_64.tar.gz";
/// Alpine 3.20, 32-bit x86.
pub const ALPINE_I386: &str = "alpine-3.20.3-i386.tar.gz";
/// busybox, dynamic, glibc.
pub const BUSYBOX_GLIBC: &str = "busybox-glibc-x86_64.tar.gz";
/// busybox, static-pie, musl.
pub const BUSYBOX_MUSL: &str = "busybox-musl-x86_64.tar.gz";
/// busybox, static, uClibc.
pub const BUSYBOX_UCLIBC: &str = "busybox-uclibc-x86_64.tar.gz";

/// The workspace's root.
///
/// # Panics
/// If the crate was moved out of it.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace")
}

/// Path of an image, or a recorded skip: `let Some(tar) = images::find(images::ALPINE) else { return };`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let folder = env::var_os("CORACLE_TEST_IMAGES").map_or_else(|| workspace().join("../shared/images"), PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    skip::because(&format!("{} is missing: set CORACLE_TEST_IMAGES to a folder that has it", path.display()));
    None
}
