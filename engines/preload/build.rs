//! Builds the shim, which the engine carries as opaque bytes (`src/shim.rs`).
//!
//! A nested `cargo rustc`, for the reasons that `builder/build.rs` gives: the shim is a shared object with flags of its own,
//! whatever this crate is built for. It is always for glibc's target, whose code runs under musl too.

#[path = "../../builder/nested.rs"]
mod nested;
#[path = "src/sum.rs"]
mod sum;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use nested::variable;

/// Folders and files, relative to the workspace, that go into the shim.
const SOURCES: [&str; 11] = [
    "engines/preload/shim",
    "engines/preload/entry",
    "engines/elf",
    "engines/intercept/src",
    "engines/ledger/src",
    "engines/paths/src",
    "engines/sys/src",
    "engines/view/src",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
];

/// No library is needed, and it stays loaded; loaders of all ages find its names; its own are bound when it is loaded, not
/// in the middle of a call; where it names its own functions they are meant, whatever a program exports under these names; a
/// thread that is cancelled can be unwound through it. Each program that starts maps it: so it has two segments, of
/// which one is written to, and nothing is made read-only afterwards, which would be two mappings more.
const FLAGS: [&str; 9] = [
    "-Ctarget-feature=-crt-static",
    "-Cforce-unwind-tables=yes",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-Wl,-z,nodelete",
    "-Clink-arg=-Wl,-z,now",
    "-Clink-arg=-Wl,--hash-style=both",
    "-Clink-arg=-Wl,-Bsymbolic-functions",
    "-Clink-arg=-Wl,-z,norelro",
    "-Clink-arg=-Wl,--no-rosegment",
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.ancestors().nth(2).ok_or("the engine has no workspace around it")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../builder/nested.rs");
    for source in SOURCES.iter().map(|source| workspace.join(source)).filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    println!("cargo::rerun-if-changed=src/sum.rs");
    let (shim, frame) = match variable("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => {
            let shim = fs::read(build(workspace, &out.join("shim"), "x86_64-unknown-linux-gnu")?)?;
            let frame = compress(&shim)?;
            (shim, frame)
        }
        // There is no shim for others yet, and the engine says so.
        _ => (Vec::new(), Vec::new()),
    };
    let file = out.join("shim.zst");
    fs::write(&file, &frame)?;
    // As coracle_api::content_sum, which a build script cannot import; a test of `shim.rs` compares them.
    let sum = |content: &[u8]| {
        content
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    };
    println!("cargo::rustc-env=CORACLE_SHIM_SUM={:016x}", sum(&shim));
    println!("cargo::rustc-env=CORACLE_SHIM_LEN={}", shim.len());
    println!("cargo::rustc-env=CORACLE_SHIM_QUICK_SUM={}", sum::sum(&shim));
    println!("cargo::rustc-env=CORACLE_SHIM_FILE={}", file.display());
    Ok(())
}

fn build(workspace: &Path, out: &Path, target: &str) -> Result<PathBuf, Box<dyn Error>> {
    // In the edit-and-test loop, which builder/build.rs knows by the same sign, nobody waits for the whole program's
    // optimisation.
    let quick = variable("PROFILE")? == "debug" || env::var("CARGO_PROFILE_STUB_LTO").is_ok_and(|lto| lto == "off");
    let mut cargo = nested::cargo("SHIM", quick)?;
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    cargo
        .current_dir(workspace)
        .args(["rustc", "--quiet", "--package", "coracle-shim", "--lib", "--crate-type", "cdylib", "--profile", "shim"])
        .args(["--features", "injected"])
        .args(["--target", target, "--target-dir"])
        .arg(out);
    if workspace.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the shim was not built for {target}: {status}").into());
    }
    Ok(out.join(target).join("shim/libcoracle_shim.so"))
}

/// As small as zstd makes it: this is done once, and the bytes are in every bundle.
fn compress(bytes: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut frame = vec![0; zstd_safe::compress_bound(bytes.len())];
    let len =
        zstd_safe::compress(&mut frame[..], bytes, zstd_safe::max_c_level()).map_err(zstd_safe::get_error_name)?;
    frame.truncate(len);
    Ok(frame)
}
