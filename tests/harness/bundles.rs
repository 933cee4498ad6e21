//! Bundles made once per process, by the built `coracle` as the ordinary user, and shared read-only by the cases.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use crate::{Sandbox, images};

/// A bundle of the image `name` (see [`images`]) built with `options`, or a recorded skip.
///
/// # Panics
/// If the build fails.
#[must_use]
pub fn of(name: &'static str, options: &[&str]) -> Option<PathBuf> {
    static BUNDLES: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let tar = images::find(name)?;
    let mut bundles = BUNDLES.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let key = format!("{name} {}", options.join(" "));
    if let Some(path) = bundles.get(&key) {
        return Some(path.clone());
    }
    let sandbox = SANDBOX.get_or_init(Sandbox::kept);
    let path = sandbox.work(&format!("{}.run", bundles.len()));
    let (source, output) = (format!("rootfs:{}", tar.display()), path.display().to_string());
    let mut args = vec!["build", source.as_str(), "-o", output.as_str()];
    args.extend_from_slice(options);
    sandbox.coracle(args).ok();
    bundles.insert(key, path.clone());
    Some(path)
}

/// The Alpine 3.20 bundle, which starts a shell.
#[must_use]
pub fn alpine() -> Option<PathBuf> {
    of(images::ALPINE, &["--cmd", r#"["/bin/sh"]"#])
}
