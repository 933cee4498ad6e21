//! The image of `examples/hello`: our own small static program, a data file, and a file that the second layer takes away.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    images::workspace,
    oci::{Layer, OciImage},
};

/// Compiles `examples/hello/hello.rs` and writes the two-layer image as an OCI layout to `dir`.
///
/// # Panics
/// If rustc fails or the layout cannot be written.
pub fn write_image(dir: &Path) {
    let example = workspace().join("examples/hello");
    let work = tempfile::tempdir().unwrap();
    let program = work.path().join("hello");
    let status = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "-o"])
        .arg(&program)
        .arg(example.join("hello.rs"))
        .status()
        .expect("rustc can be started");
    assert!(status.success(), "examples/hello/hello.rs does not compile");
    let config = json!({
        "Entrypoint": ["/usr/bin/hello"],
        "Env": ["PATH=/usr/bin:/bin", "HELLO_FROM=a coracle"],
        "WorkingDir": "/",
    });
    OciImage::new(config)
        .layer(
            Layer::new()
                .dir("usr/", 0o755)
                .dir("usr/bin/", 0o755)
                .file("usr/bin/hello", 0o755, &fs::read(&program).unwrap())
                .dir("usr/share/", 0o755)
                .dir("usr/share/hello/", 0o755)
                .file("usr/share/hello/greeting", 0o644, b"Ahoy")
                .file("usr/share/hello/draft", 0o644, b"This never leaves the harbour.\n"),
        )
        .layer(Layer::new().whiteout("usr/share/hello/draft"))
        .write(dir)
        .unwrap();
}
