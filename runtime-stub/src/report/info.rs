//! What `info` prints: the manifest, for people or as JSON.

use coracle_format::{Capture, Manifest};
use serde_json::json;

use crate::open::Bundle;

/// For programs.
#[must_use]
pub fn info_json(bundle: &Bundle) -> String {
    let value = json!({
        "path": bundle.path(),
        "offset": bundle.payload_offset(),
        "manifest_digest": format!("sha256:{}", coracle_format::hex(bundle.manifest_digest())),
        "manifest": bundle.manifest(),
    });
    format!("{value:#}\n")
}

/// For people.
#[must_use]
pub fn info(bundle: &Bundle) -> String {
    let Manifest { config, provenance, payload, stub, defaults, coracle, notes, index, .. } = bundle.manifest();
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{name:<13} {value}\n"));
        }
    };
    let list = |list: &Option<Vec<String>>| list.as_ref().map_or_else(String::new, |list| format!("{list:?}"));
    line("file", bundle.path().display().to_string());
    line("source", provenance.source.clone());
    line("image", provenance.manifest.clone().unwrap_or_default());
    line("built by", format!("coracle {coracle}, stub for {}", stub.target));
    line("platform", format!("{}/{}", config.os, config.architecture));
    line(
        "size",
        format!(
            "{} compressed, {} unpacked in {} files",
            bytes(payload.stored),
            bytes(payload.unpacked),
            payload.inodes
        ),
    );
    line("tree", format!("sha256:{}", index.sha256));
    line("entrypoint", list(&config.entrypoint));
    line("cmd", list(&config.cmd));
    line("directory", config.working_dir.clone().unwrap_or_default());
    line("user", config.user.clone().unwrap_or_default());
    for pair in &config.env {
        line("env", pair.clone());
    }
    for (key, value) in &config.labels {
        line("label", format!("{key}={value}"));
    }
    if defaults.isolated {
        line("isolated", "yes".to_owned());
    }
    if defaults.alone {
        line("alone", "yes".to_owned());
    }
    if defaults.writable {
        line("writable", "yes".to_owned());
    }
    line("engine", defaults.engine.clone().unwrap_or_default());
    for volume in &defaults.volumes {
        line("volume", volume.clone());
    }
    for (name, text) in provenance.capture.iter().flat_map(Capture::lines) {
        line(name, text);
    }
    for note in notes {
        line("note", note.clone());
    }
    out
}

/// A size as people read it.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut whole, mut rest, mut unit) = (count, 0, 0);
    while whole >= 1000 && unit + 1 < UNITS.len() {
        (whole, rest, unit) = (whole / 1000, whole % 1000 / 100, unit + 1);
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{rest} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_readable() {
        assert_eq!(super::bytes(999), "999 B");
        assert_eq!(super::bytes(1_250_000), "1.2 MB");
    }
}
