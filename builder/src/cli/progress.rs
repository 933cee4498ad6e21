//! Progress of downloads: bars on a terminal, a line per blob otherwise, nothing if quiet.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use super::report;
use crate::source::{Progress, Silent};

/// What suits standard error.
pub(super) fn new(quiet: bool) -> Arc<dyn Progress> {
    match (quiet, io::stderr().is_terminal()) {
        (true, _) => Arc::new(Silent),
        (false, true) => Arc::new(Bars::default()),
        (false, false) => Arc::new(Lines),
    }
}

/// The beginning of a digest, enough for people to tell blobs apart.
fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

#[derive(Debug)]
struct Lines;

impl Progress for Lines {
    fn begin(&self, digest: &str, size: u64, have: u64) {
        if have > 0 {
            let (have, size) = (HumanBytes(have), HumanBytes(size));
            report::note(false, &format!("{}: going on at {have} of {size}", short(digest)));
        }
    }

    fn at(&self, _: &str, _: u64) {}

    fn done(&self, digest: &str, size: u64, downloaded: bool) {
        let what = if downloaded { "downloaded" } else { "already there" };
        report::note(false, &format!("{}: {what} ({})", short(digest), HumanBytes(size)));
    }

    fn note(&self, text: &str) {
        report::note(false, text);
    }
}

#[derive(Debug, Default)]
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn with(&self, digest: &str, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            act(bar);
        }
    }
}

impl Progress for Bars {
    fn begin(&self, digest: &str, size: u64, have: u64) {
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {bytes:>11} of {total_bytes:<11} {bytes_per_sec:>12} {eta:>4}",
        );
        let bar = self.all.add(ProgressBar::new(size));
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(short(digest).to_owned());
        bar.set_position(have);
        bar.reset_eta();
        self.bars.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.to_owned(), bar);
    }

    fn at(&self, digest: &str, have: u64) {
        self.with(digest, |bar| bar.set_position(have));
    }

    fn done(&self, digest: &str, _: u64, _: bool) {
        self.with(digest, ProgressBar::finish_and_clear);
    }

    fn note(&self, text: &str) {
        // Above the bars; if that cannot be, anywhere.
        if self.all.println(format!("coracle: {text}")).is_err() {
            report::note(false, text);
        }
    }
}
