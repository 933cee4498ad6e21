//! Images of the store as users name them, and tars on their way out.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
};

use anyhow::{Context as _, bail};

use super::print;
use crate::{
    pack::{Output, PackError},
    source::{Platform, Reference},
    store::{ImageRecord, Pulled, Store},
};

/// The image that a name or the beginning of an id means.
pub(super) fn find(store: &Store, given: &str) -> anyhow::Result<ImageRecord> {
    if let Ok(reference) = given.parse::<Reference>()
        && let Some(record) = store.image(&reference.to_string())?
    {
        return Ok(record);
    }
    let mut found = by_id(store, given)?;
    match found.len() {
        0 => bail!("no such image: {given}: see `coracle images`, or fetch it with `coracle pull`"),
        _ => Ok(found.swap_remove(0)),
    }
}

/// The images whose id (the digest of the config) begins so; all are names of one image.
pub(super) fn by_id(store: &Store, given: &str) -> anyhow::Result<Vec<ImageRecord>> {
    let digits = given.strip_prefix("sha256:").unwrap_or(given);
    if digits.len() < 4 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Vec::new());
    }
    let mut ids: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for record in store.images()? {
        for pulled in record.platforms.values() {
            let Some(id) = id(store, pulled)? else { continue };
            if id.starts_with(digits) {
                if !ids.contains(&id) {
                    ids.push(id);
                }
                found.push(record.clone());
                break;
            }
        }
    }
    if ids.len() > 1 {
        bail!("{given} is the beginning of {} images' ids: write more of it", ids.len());
    }
    Ok(found)
}

/// An image's id: the hexadecimal digits of its config's digest; `None` if its manifest is gone.
pub(super) fn id(store: &Store, pulled: &Pulled) -> anyhow::Result<Option<String>> {
    let blobs = store.blobs_of(&pulled.manifest)?;
    Ok(blobs.and_then(|blobs| Some(blobs.first()?.split_once(':')?.1.to_owned())))
}

/// The platform's image of a record: the one asked for, or this machine's, or the only one.
pub(super) fn platform<'record>(
    record: &'record ImageRecord,
    asked: Option<&str>,
) -> anyhow::Result<(&'record String, &'record Pulled)> {
    let has = || record.platforms.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Some(asked) = asked {
        let asked: Platform = asked.parse().map_err(|why: String| anyhow::anyhow!(why))?;
        let found = record.platforms.get_key_value(&asked.to_string());
        return found.with_context(|| format!("{}: it is not here for {asked}: there is {}", record.reference, has()));
    }
    let host = record.platforms.get_key_value(&Platform::host().to_string());
    match (host, record.platforms.len()) {
        (Some(host), _) => Ok(host),
        (None, 1) => record.platforms.iter().next().context("it has one"),
        (None, _) => bail!("{}: it is here for {}: choose with --platform", record.reference, has()),
    }
}

/// Writes to a file, which appears when it is whole, or straight to standard output if there is none or it is `-`.
pub(super) fn write_out(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let output = Output::create(path)?;
            let mut out = BufWriter::with_capacity(1 << 20, output.file());
            write(&mut out)?;
            out.flush().map_err(PackError::Write)?;
            drop(out);
            Ok(output.finish_as(0o644)?)
        }
        None => {
            if io::stdout().is_terminal() {
                bail!("standard output is a terminal: name a file with -o, or a pipe");
            }
            let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            let written = write(&mut out).and_then(|()| out.flush().map_err(anyhow::Error::new));
            let closed = |error: &anyhow::Error| {
                let io = |cause: &(dyn std::error::Error + 'static)| {
                    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
                };
                error.chain().any(io)
            };
            written.map_err(|error| if closed(&error) { print::Closed.into() } else { error })
        }
    }
}
