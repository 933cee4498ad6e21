//! Interleaved rounds, medians and quartiles.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

/// One competitor: a name, and how to run it once.
pub(crate) struct Peer<'a> {
    pub(crate) name: &'static str,
    /// Runs once before each round, untimed.
    pub(crate) before: Box<dyn Fn() + 'a>,
    /// The command that is timed.
    pub(crate) command: Box<dyn Fn() -> Command + 'a>,
}

impl<'a> Peer<'a> {
    /// A competitor with nothing to prepare.
    pub(crate) fn new(name: &'static str, command: impl Fn() -> Command + 'a) -> Self {
        Self { name, before: Box::new(|| {}), command: Box::new(command) }
    }

    /// Adds what must be put in order before each run.
    pub(crate) fn before(mut self, before: impl Fn() + 'a) -> Self {
        self.before = Box::new(before);
        self
    }
}

/// Lets the peers take turns for `rounds` rounds after one unmeasured round, and prints a table. Ratios are to the peer
/// named `base`, or to the fastest of several bases.
pub(crate) fn compare(title: &str, rounds: usize, bases: &[&str], peers: &[Peer<'_>]) -> anyhow::Result<()> {
    let times = take_turns(rounds, peers)?;
    print(&format!("{title} ({rounds} rounds, interleaved)"), ("ms", 1e3), bases, peers, times);
    Ok(())
}

/// The peers' times, round by round, after one unmeasured round.
pub(crate) fn take_turns(rounds: usize, peers: &[Peer<'_>]) -> anyhow::Result<Vec<Vec<Duration>>> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); peers.len()];
    for round in 0..=rounds {
        for (peer, times) in peers.iter().zip(&mut times) {
            (peer.before)();
            let mut command = (peer.command)();
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let begin = Instant::now();
            let status = command.status().with_context(|| format!("{} cannot be started", peer.name))?;
            let time = begin.elapsed();
            ensure!(status.success(), "{} failed: {status}", peer.name);
            if round > 0 {
                times.push(time);
            }
        }
    }
    Ok(times)
}

/// As [`compare`], for peers that print how many nanoseconds it took.
pub(crate) fn compare_printed(title: &str, rounds: usize, base: &str, peers: &[Peer<'_>]) -> anyhow::Result<()> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); peers.len()];
    for _ in 0..rounds {
        for (peer, times) in peers.iter().zip(&mut times) {
            let output = (peer.command)().stdin(Stdio::null()).output();
            let output = output.with_context(|| format!("{} cannot be started", peer.name))?;
            let text = String::from_utf8_lossy(&output.stdout);
            let nanoseconds = text.trim().parse().with_context(|| format!("{} printed {text:?}", peer.name))?;
            times.push(Duration::from_nanos(nanoseconds));
        }
    }
    print(&format!("{title} ({rounds} rounds, interleaved)"), ("µs", 1e6), &[base], peers, times);
    Ok(())
}

fn print(title: &str, (unit, scale): (&str, f64), bases: &[&str], peers: &[Peer<'_>], mut times: Vec<Vec<Duration>>) {
    for times in &mut times {
        times.sort();
    }
    let median = |times: &[Duration]| quantile(times, 0.5).as_secs_f64();
    let base = peers
        .iter()
        .zip(&times)
        .filter(|(peer, _)| bases.contains(&peer.name))
        .map(|(_, times)| median(times))
        .fold(f64::INFINITY, f64::min);
    println!("\n{title}");
    println!("{:<24} {:>11} {:>23} {:>8}", "", "median", "quartiles", "ratio");
    for (peer, times) in peers.iter().zip(&times) {
        println!(
            "{:<24} {:>8.2} {unit} {:>9.2} – {:>8.2} {unit} {:>8.2}",
            peer.name,
            median(times) * scale,
            quantile(times, 0.25).as_secs_f64() * scale,
            quantile(times, 0.75).as_secs_f64() * scale,
            median(times) / base,
        );
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a few dozen measurements"
)]
pub(crate) fn quantile<T: Copy>(sorted: &[T], q: f64) -> T {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}
