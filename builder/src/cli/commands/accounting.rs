//! `coracle accounting`: sums of the records that runs of bundles left.
//!
//! Records are lines of JSON that anybody may have written and a full disk may have torn: what is none is counted, told of,
//! and passed over.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use coracle_api::{RECORD_VERSION, Record};
use serde_json::{Map, Value};

use crate::cli::{
    args::{AccountingArgs, AccountingFormat, AccountingKey},
    print, report,
    table::{columns_of, size},
};

/// A line longer than this is no record.
const LONGEST: u64 = 1 << 20;

/// Reads them all and prints the sums.
pub(super) fn run(args: &AccountingArgs, quiet: bool) -> anyhow::Result<()> {
    for day in [&args.since, &args.until].into_iter().flatten() {
        if !is_day(day) {
            bail!("{day}: not a day: write it as 2026-11-21");
        }
    }
    let mut sums = Sums { args, lines: BTreeMap::new(), names: BTreeMap::new(), strange: 0, newer: 0 };
    for path in &args.files {
        sums.add_path(path, true)?;
    }
    let note = |count: u64, what: &str| {
        if count > 0 {
            report::note(quiet, &format!("{count} {what}"));
        }
    };
    note(sums.strange, "lines are no records: passed over");
    note(sums.newer, "records are of a newer version: passed over: use a newer coracle");
    match args.format {
        AccountingFormat::Table => sums.print_table(),
        AccountingFormat::Json => sums.print_json(),
        AccountingFormat::Csv => sums.print_csv(),
    }
}

fn is_day(text: &str) -> bool {
    let shape = |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(shape)
}

/// What one line of the answer sums.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    failed: u64,
    wall: f64,
    user: f64,
    system: f64,
    max_rss: u64,
    read: u64,
    written: u64,
    read_storage: u64,
    written_storage: u64,
    unpacked: u64,
    unpacked_bytes: u64,
    unpack: f64,
}

impl Sum {
    fn add(&mut self, record: &Record) {
        let io = record.io.unwrap_or_default();
        self.runs += 1;
        self.failed += u64::from(record.exit != Some(0));
        self.wall += record.wall_s.max(0.0);
        self.user += record.user_s.max(0.0);
        self.system += record.system_s.max(0.0);
        self.max_rss = self.max_rss.max(record.max_rss_bytes);
        self.read = self.read.saturating_add(io.read_chars);
        self.written = self.written.saturating_add(io.written_chars);
        self.read_storage = self.read_storage.saturating_add(io.read_bytes);
        self.written_storage = self.written_storage.saturating_add(io.written_bytes);
        if let Some(unpack) = record.unpack {
            self.unpacked += 1;
            self.unpacked_bytes = self.unpacked_bytes.saturating_add(unpack.bytes);
            self.unpack += unpack.seconds.max(0.0);
        }
    }

    /// For programs, in the order of columns.
    fn values(&self) -> [(&'static str, Value); 13] {
        let seconds = |seconds: f64| Value::from((seconds * 1000.0).round() / 1000.0);
        [
            ("runs", self.runs.into()),
            ("failed", self.failed.into()),
            ("wall_s", seconds(self.wall)),
            ("user_s", seconds(self.user)),
            ("system_s", seconds(self.system)),
            ("max_rss_bytes", self.max_rss.into()),
            ("read_chars", self.read.into()),
            ("written_chars", self.written.into()),
            ("read_bytes", self.read_storage.into()),
            ("written_bytes", self.written_storage.into()),
            ("unpacked", self.unpacked.into()),
            ("unpacked_bytes", self.unpacked_bytes.into()),
            ("unpack_s", seconds(self.unpack)),
        ]
    }

    /// For people.
    fn cells(&self) -> Vec<String> {
        vec![
            self.runs.to_string(),
            self.failed.to_string(),
            duration(self.wall),
            duration(self.user + self.system),
            size(self.max_rss),
            size(self.read),
            size(self.written),
            self.unpacked.to_string(),
        ]
    }
}

struct Sums<'a> {
    args: &'a AccountingArgs,
    lines: BTreeMap<Vec<String>, Sum>,
    /// What a bundle's file was called last, by its digest.
    names: BTreeMap<String, String>,
    strange: u64,
    newer: u64,
}

impl Sums<'_> {
    fn add_path(&mut self, path: &Path, named: bool) -> anyhow::Result<()> {
        if named && path == Path::new("-") {
            return self.add_lines(io::stdin().lock()).context("standard input: cannot be read");
        }
        let unreadable = || format!("{}: cannot be read", path.display());
        // What a user names may be a link; what is found is followed nowhere.
        let meta = if named { fs::metadata(path) } else { fs::symlink_metadata(path) }.with_context(unreadable)?;
        if meta.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(path).with_context(unreadable)?.collect::<Result<_, _>>()?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                self.add_path(&entry.path(), false)?;
            }
            return Ok(());
        }
        let ours = path.extension().and_then(OsStr::to_str).is_some_and(|end| ["json", "jsonl"].contains(&end));
        if !(named || meta.is_file() && ours) {
            return Ok(());
        }
        let file = File::open(path).with_context(unreadable)?;
        self.add_lines(BufReader::new(file)).with_context(unreadable)
    }

    fn add_lines(&mut self, mut from: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if from.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Record>(&line) {
                Ok(record) if record.record > RECORD_VERSION => self.newer += 1,
                Ok(record) if record.record > 0 && is_day(record.start.get(..10).unwrap_or_default()) => {
                    self.add(&record);
                }
                _ => self.strange += 1,
            }
        }
    }

    fn add(&mut self, record: &Record) {
        let day = &record.start[..10];
        let outside = |bound: &Option<String>, before: bool| {
            bound.as_deref().is_some_and(|bound| if before { day < bound } else { day > bound })
        };
        if outside(&self.args.since, true) || outside(&self.args.until, false) {
            return;
        }
        let name = Path::new(&record.bundle).file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.names.insert(record.manifest.clone(), name);
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let key = self.args.by.iter().map(|key| match key {
            AccountingKey::Day => day.to_owned(),
            AccountingKey::User => record.user.clone().unwrap_or_else(|| record.uid.to_string()),
            AccountingKey::Bundle => record.manifest.clone(),
            AccountingKey::Engine => text(&record.engine),
            AccountingKey::Node => record.node.clone(),
            AccountingKey::Job => {
                record.job.as_ref().map_or_else(|| "-".to_owned(), |job| format!("{}:{}", job.system, job.id))
            }
        });
        self.lines.entry(key.collect()).or_default().add(record);
    }

    fn print_table(&self) -> anyhow::Result<()> {
        let word = |key: &AccountingKey| format!("{key:?}").to_uppercase();
        let mut heading: Vec<String> = self.args.by.iter().map(word).collect();
        heading.extend(["RUNS", "FAILED", "WALL", "CPU", "MAX RSS", "READ", "WRITTEN", "UNPACKED"].map(str::to_owned));
        let rows = self.lines.iter().map(|(key, sum)| {
            let keys = self.args.by.iter().zip(key).map(|(by, value)| match by {
                AccountingKey::Bundle => {
                    let digest = value.trim_start_matches("sha256:");
                    format!("{} ({})", self.name(value), digest.get(..12).unwrap_or(digest))
                }
                _ => value.clone(),
            });
            keys.chain(sum.cells()).collect()
        });
        print::bytes(columns_of(heading, rows.collect()).as_bytes())
    }

    /// Every line as named values.
    fn objects(&self) -> impl Iterator<Item = Map<String, Value>> + '_ {
        self.lines.iter().map(|(key, sum)| {
            let mut object = Map::new();
            for (by, value) in self.args.by.iter().zip(key) {
                if *by == AccountingKey::Bundle {
                    object.insert("bundle".to_owned(), self.name(value).into());
                    object.insert("manifest".to_owned(), value.clone().into());
                } else {
                    object.insert(format!("{by:?}").to_lowercase(), value.clone().into());
                }
            }
            object.extend(sum.values().map(|(name, value)| (name.to_owned(), value)));
            object
        })
    }

    fn print_json(&self) -> anyhow::Result<()> {
        print::json(&Value::Array(self.objects().map(Value::Object).collect()))
    }

    fn print_csv(&self) -> anyhow::Result<()> {
        let mut names = Vec::new();
        for by in &self.args.by {
            names.push(format!("{by:?}").to_lowercase());
            names.extend((*by == AccountingKey::Bundle).then(|| "manifest".to_owned()));
        }
        names.extend(Sum::default().values().map(|(name, _)| name.to_owned()));
        let mut out = names.join(",") + "\n";
        for object in self.objects() {
            let cells: Vec<_> = names.iter().map(|name| cell(&object[name.as_str()])).collect();
            out.push_str(&cells.join(","));
            out.push('\n');
        }
        print::bytes(out.as_bytes())
    }

    fn name(&self, manifest: &str) -> &str {
        self.names.get(manifest).map_or("", String::as_str)
    }
}

/// A value as RFC 4180 has it.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `1:02:03` hours, minutes and seconds; seconds with a tenth below a minute.
fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and rounded on purpose")]
    let whole = seconds.round() as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_durations_and_cells() {
        assert!(is_day("2026-11-21") && !is_day("2026-11-2x") && !is_day("yesterday"));
        assert_eq!([0.04, 59.94, 60.0, 3_723.4].map(duration), ["0.0s", "59.9s", "0:01:00", "1:02:03"]);
        assert_eq!(cell(&"a\"b,c".into()), "\"a\"\"b,c\"");
        assert_eq!(cell(&7.into()), "7");
    }
}
