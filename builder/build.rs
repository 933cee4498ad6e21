//! Builds the stub, which the builder carries as opaque bytes (`src/artifacts.rs`).
//!
//! Cargo has neither a profile nor a target nor flags per package, so a nested `cargo rustc` builds it: with its own
//! target directory (one shared with the outer cargo would wait for the outer cargo's lock for ever), its own flags, and
//! none of the outer cargo's environment, which would make it rebuild or misbuild.

mod nested;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

use nested::variable;

/// Forces the stub's target triple, so that tests reach both.
const TARGET_VARIABLE: &str = "CORACLE_STUB_TARGET";

/// Folders, relative to the workspace, whose files go into the stub. Cargo looks at every file below.
const SOURCES: [&str; 5] = ["runtime-stub", "engines", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the builder has no workspace around it")?;
    let out = PathBuf::from(variable("OUT_DIR")?).join("stub");

    println!("cargo::rerun-if-env-changed={TARGET_VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=nested.rs");
    for source in SOURCES.iter().map(|source| workspace.join(source)).filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", source.display());
    }

    let target = stub_target()?;
    build(workspace, &out, &target)?;
    println!("cargo::rustc-env=CORACLE_STUB_TARGET={target}");
    println!("cargo::rustc-env=CORACLE_STUB_FILE={}", out.join(&target).join("stub/coracle-stub").display());
    Ok(())
}

/// musl where its target is installed (smaller, and starts five times faster), else static glibc.
fn stub_target() -> Result<String, Box<dyn Error>> {
    if let Some(forced) = env::var_os(TARGET_VARIABLE).filter(|value| !value.is_empty()) {
        return forced.into_string().map_err(|_| format!("{TARGET_VARIABLE} is not text").into());
    }
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let musl = format!("{arch}-unknown-linux-musl");
    let printed = Command::new(variable("RUSTC")?).args(["--print", "target-libdir", "--target", &musl]).output()?;
    let installed = printed.status.success() && Path::new(String::from_utf8(printed.stdout)?.trim()).is_dir();
    Ok(if installed { musl } else { format!("{arch}-unknown-linux-gnu") })
}

fn build(workspace: &Path, out: &Path, target: &str) -> Result<(), Box<dyn Error>> {
    let mut cargo = nested::cargo("STUB", variable("PROFILE")? == "debug")?;
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, target).join("\u{1f}"));
    set_compiler(&mut cargo, target);
    cargo
        .current_dir(workspace)
        .args(["rustc", "--quiet", "--package", "coracle-stub", "--bin", "coracle-stub", "--profile", "stub"])
        .args(["--target", target, "--target-dir"])
        .arg(out);
    if workspace.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    let status = cargo.status()?;
    if status.success() { Ok(()) } else { Err(format!("the stub was not built for {target}: {status}").into()) }
}

/// The compiler's flags, in place of those of .cargo/config.toml.
fn flags(workspace: &Path, target: &str) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    // Static glibc has threads cancelled by unwinding, and applies packed relocations only since 2.36.
    if target.ends_with("-musl") {
        let script = workspace.join("runtime-stub/no-unwind-tables.ld");
        flags.extend([
            format!("-Clink-arg=-Wl,-T,{}", script.display()),
            "-Clink-arg=-Wl,--no-eh-frame-hdr".to_owned(),
            "-Clink-arg=-Wl,-z,pack-relative-relocs".to_owned(),
        ]);
    }
    flags
}

/// The stub compresses what a run has changed, fast and little: zstd's thorough strategies stay out of it.
const FAST_ONLY: &str = "-DZSTD_EXCLUDE_GREEDY_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_LAZY_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_LAZY2_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTLAZY2_BLOCK_COMPRESSOR \
    -DZSTD_EXCLUDE_BTOPT_BLOCK_COMPRESSOR -DZSTD_EXCLUDE_BTULTRA_BLOCK_COMPRESSOR";

/// zstd's C files need nothing of a libc but its plain functions, which glibc's headers declare as musl has them, once
/// they are kept from naming glibc's own: the checked ones (`__memcpy_chk`) and the stack protector.
const NOTHING_OF_GLIBC: &str = "-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=0 -fno-stack-protector";

/// Says how C is compiled for the stub, but for what the environment says.
fn set_compiler(cargo: &mut Command, target: &str) {
    let suffix = target.replace('-', "_");
    let mut set = |name: &str, value: &str| {
        let name = format!("{name}_{suffix}");
        if env::var_os(&name).is_none() {
            cargo.env(name, value);
        }
    };
    if target.ends_with("-musl") && !on_path("musl-gcc") {
        set("CC", "cc");
        set("AR", "ar");
        set("CFLAGS", &format!("{NOTHING_OF_GLIBC} {FAST_ONLY}"));
    } else {
        set("CFLAGS", FAST_ONLY);
    }
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
