//! Published root file systems, as tarballs: from the folder that `CORACLE_TEST_IMAGES` names, else `../shared/images`
//! beside the workspace.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex, PoisonError},
};

use crate::{Sandbox, skip};

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

/// What tests want of Debian.
const PACKAGES: &str = "--include=ca-certificates,gcc,g++,make,cmake,git,perl,python3-venv,sqlite3,openssl,tmux,gdb,vim,procps,file,libc6-dev";

/// The workspace's root: the one that cargo is running in, which need not be the one that this was compiled in, for
/// build folders are copied beside other checkouts.
///
/// # Panics
/// If the crate was moved out of it.
#[must_use]
pub fn workspace() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
        root.expect("the tests crate lies in the workspace").to_owned()
    });
    &ROOT
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

/// `tree.tar` in the sandbox's work: busybox under two names and little more, for stores that are looked at file by
/// file. False is a recorded skip.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn small(sandbox: &Sandbox) -> bool {
    let Some(tar) = find(BUSYBOX_GLIBC) else { return false };
    let few = format!(
        "mkdir tree && tar -C tree -xzf '{}' && find tree/bin ! -name busybox ! -name sh ! -type d -delete && \
         tar -C tree -cf tree.tar .",
        tar.display()
    );
    sandbox.run("sh", ["-c", &few]).ok();
    true
}

/// The tree of a release of Debian, made once and kept in `target/suites`, or a recorded skip. For the slow tier.
///
/// # Panics
/// If nothing can be written below `target`.
#[must_use]
pub fn debian(release: &str) -> Option<PathBuf> {
    make(release, release, "apt", PACKAGES)
}

/// As [`debian`], with other packages: `include` in mmdebstrap's words, kept under `name` as well.
///
/// # Panics
/// If nothing can be written below `target`.
#[must_use]
pub fn debian_with(release: &str, name: &str, variant: &str, include: &str) -> Option<PathBuf> {
    make(release, &format!("{release}-{name}"), variant, include)
}

fn make(release: &str, name: &str, variant: &str, include: &str) -> Option<PathBuf> {
    if skip::unless_slow() || skip::unless_root() || skip::lacks(&["mmdebstrap"]) {
        return None;
    }
    let tar = workspace().join(format!("target/suites/{name}.tar"));
    // Tests of one process that want the same tree wait for the first of them.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !tar.exists() {
        fs::create_dir_all(tar.parent()?).expect("target can be written");
        // Other processes that want it at the same time make it twice.
        let half = tar.with_extension(format!("half-{}.tar", std::process::id()));
        // An old snapshot of the archive is as good as a new one.
        let old = r#"--aptopt=Acquire::Check-Valid-Until "false""#;
        let variant = format!("--variant={variant}");
        let made = Command::new("mmdebstrap").args(["--quiet", &variant, include, old, release]).arg(&half).status();
        if !made.is_ok_and(|status| status.success()) {
            skip::because(&format!("mmdebstrap makes no {name} here (no network?)"));
            return None;
        }
        fs::rename(half, &tar).expect("target can be written");
    }
    Some(tar)
}
