//! The nested cargo by which build scripts make what is carried as opaque bytes: it must see nothing of the outer cargo's
//! environment, which would make it rebuild or misbuild. Shared by the build scripts, of which each is a program of its own.

use std::{env, error::Error, process::Command};

/// Variables of the outer build that the nested one keeps: where crates come from, and the job server.
const KEPT: [&str; 2] = ["CARGO_HOME", "CARGO_MAKEFLAGS"];
const KEPT_PREFIXES: [&str; 4] = ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRY_", "CARGO_REGISTRIES_"];

/// Variables that cargo, clippy or the user set for the outer build, beside all of `CARGO_*`.
const DROPPED: [&str; 14] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC",
    "RUSTDOC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "TARGET",
    "HOST",
    "PROFILE",
    "OPT_LEVEL",
    "DEBUG",
    "OUT_DIR",
    "CLIPPY_ARGS",
];

/// A cargo for `profile`, in the environment of one that was started by hand; `quick`: it is for the edit-and-test loop,
/// where nobody waits for the whole program's optimisation.
pub(crate) fn cargo(profile: &str, quick: bool) -> Result<Command, Box<dyn Error>> {
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let kept = KEPT.contains(&&*name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if (name.starts_with("CARGO") && !kept) || DROPPED.contains(&&*name) {
            cargo.env_remove(&*name);
        }
    }
    if quick {
        for (name, value) in [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("INCREMENTAL", "true")] {
            cargo.env(format!("CARGO_PROFILE_{profile}_{name}"), value);
        }
    }
    Ok(cargo)
}

/// A variable that cargo sets for build scripts.
pub(crate) fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
