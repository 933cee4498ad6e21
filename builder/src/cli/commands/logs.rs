//! `coracle logs`: what runs in the background wrote.

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, bail};

use crate::{
    cli::{args::LogsArgs, moment, print, source, table},
    launch::log::{self, Entry, Reader, Stream},
    source::open_store,
    store::containers::Container,
};

/// How often a growing log is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Prints them, each stream to ours.
pub(super) fn run(args: &LogsArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&args.container)?;
    let tail = match args.tail.as_str() {
        "all" | "-1" => None,
        number => Some(number.parse().with_context(|| format!("--tail {number}: write a number, or all"))?),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = (now.as_secs(), now.subsec_nanos());
    let moment = |name: &str, text: &Option<String>| {
        let parse = |text: &String| moment::parse(text, now).with_context(|| format!("--{name} {text}"));
        text.as_ref().map(parse).transpose()
    };
    let (since, until) = (moment("since", &args.since)?, moment("until", &args.until)?);
    let wanted = |entry: &Entry| {
        let at = (entry.seconds, entry.nanoseconds);
        since.is_none_or(|since| at >= since) && until.is_none_or(|until| at <= until)
    };
    let mut printer = Printer { timestamps: args.timestamps, mid_line: [false; 2] };
    let mut reader = loop {
        // A run that has just been started has a log soon.
        match Reader::open(container.directory()).context("cannot read the log")? {
            Some(reader) => break reader,
            None if args.follow && container.is_running()? => std::thread::sleep(PAUSE),
            None if matches!(container.state()?, crate::store::containers::State::Created) => return Ok(()),
            None => bail!(
                "container {} has no log: only what runs in the background (`run -d`, `start`) is logged",
                args.container
            ),
        }
    };
    let mut entries = reader.more().context("cannot read the log")?;
    entries.retain(wanted);
    if let Some(count) = tail {
        entries = log::tail(entries, count);
    }
    printer.print(&entries)?;
    if !args.follow || until.is_some_and(|until| until <= now) {
        return Ok(());
    }
    follow(&container, &mut reader, |entries| {
        entries.iter().filter(|entry| wanted(entry)).try_for_each(|entry| printer.print(std::slice::from_ref(entry)))
    })
}

/// Gives what is written from now on, until nothing runs any more.
pub(super) fn follow(
    container: &Container,
    reader: &mut Reader,
    mut print: impl FnMut(&[Entry]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        // Asked before reading, so that the last lines are not missed.
        let runs = container.is_running().unwrap_or(false);
        let entries = reader.more().context("cannot read the log")?;
        print(&entries)?;
        if entries.is_empty() {
            if !runs {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Prints entries.
pub(super) struct Printer {
    pub(super) timestamps: bool,
    /// Whether the last entry of a stream ended no line.
    pub(super) mid_line: [bool; 2],
}

impl Printer {
    pub(super) fn print(&mut self, entries: &[Entry]) -> anyhow::Result<()> {
        for entry in entries {
            let stream = usize::from(entry.stream == Stream::Err);
            let mut bytes = Vec::new();
            if self.timestamps && !self.mid_line[stream] {
                let time = table::rfc3339(entry.seconds);
                bytes = format!("{}.{:09}Z ", time.trim_end_matches('Z'), entry.nanoseconds).into_bytes();
            }
            bytes.extend_from_slice(&entry.bytes);
            self.mid_line[stream] = !entry.ends_line();
            match entry.stream {
                Stream::Out => print::bytes(&bytes)?,
                Stream::Err => drop(std::io::stderr().write_all(&bytes)),
            }
        }
        Ok(())
    }
}
