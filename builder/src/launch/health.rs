//! Health checks: a program in the background is asked, again and again, whether it works.
//!
//! The monitor runs the image's (or the user's) check as `coracle exec` does, one at a time, and keeps the verdict in the
//! run's record. Docker's rules: failures within the start period do not count, until one check has succeeded; so many in
//! a row make the program unhealthy; a check that takes too long is killed and has failed.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use coracle_format::Health;

use crate::store::{
    self,
    containers::{Check, RunRecord, Verdict},
};

/// So much of a check's output is kept (Docker's).
const OUTPUT: usize = 4096;
/// So many checks are kept (Docker's).
const KEPT: usize = 5;

/// The image's check with the user's wishes on top; none if there is nothing to ask, or nobody wants it.
#[must_use]
pub fn wanted(image: Option<&Health>, user: Option<&Health>) -> Option<Health> {
    let mut health = image.cloned().unwrap_or_default();
    if let Some(user) = user {
        let over = |under: &mut u64, top: u64| {
            if top != 0 {
                *under = top;
            }
        };
        if !user.test.is_empty() {
            health.test.clone_from(&user.test);
        }
        over(&mut health.interval, user.interval);
        over(&mut health.timeout, user.timeout);
        over(&mut health.start_period, user.start_period);
        over(&mut health.start_interval, user.start_interval);
        over(&mut health.retries, user.retries);
    }
    argv(&health).is_some().then_some(health)
}

/// What a check runs.
fn argv(health: &Health) -> Option<Vec<String>> {
    match health.test.split_first() {
        Some((kind, rest)) if !rest.is_empty() && kind == "CMD" => Some(rest.to_vec()),
        Some((kind, [line, ..])) if kind == "CMD-SHELL" => {
            Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
        }
        _ => None,
    }
}

/// Asks one run.
#[derive(Debug)]
pub struct Checker {
    health: Health,
    program: PathBuf,
    store: PathBuf,
    container: String,
    began: Instant,
    next: Instant,
    asking: Option<Asking>,
    verdict: Verdict,
}

/// A check that runs.
#[derive(Debug)]
struct Asking {
    child: Child,
    output: File,
    since: Instant,
    began: u64,
}

impl Checker {
    /// One for a run that begins now; `program` is `coracle`.
    #[must_use]
    pub fn new(health: Health, program: PathBuf, store: PathBuf, container: String) -> Self {
        let now = Instant::now();
        let verdict = Verdict { status: "starting".to_owned(), ..Verdict::default() };
        let mut checker = Self { health, program, store, container, began: now, next: now, asking: None, verdict };
        checker.next = now + checker.pause();
        checker
    }

    fn or(nanoseconds: u64, seconds: u64) -> Duration {
        if nanoseconds == 0 { Duration::from_secs(seconds) } else { Duration::from_nanos(nanoseconds) }
    }

    /// Whether failures do not count yet.
    fn is_starting(&self) -> bool {
        self.verdict.status == "starting" && self.began.elapsed() < Duration::from_nanos(self.health.start_period)
    }

    fn pause(&self) -> Duration {
        let pause = if self.is_starting() {
            Self::or(self.health.start_interval, 5).min(Self::or(self.health.interval, 30))
        } else {
            Self::or(self.health.interval, 30)
        };
        pause.max(Duration::from_millis(100))
    }

    /// Does what is due: begins a check, or ends one. Whether the record has changed.
    pub fn step(&mut self, record: &mut RunRecord) -> bool {
        let check = match self.asking.take() {
            None if Instant::now() >= self.next => match self.ask() {
                Ok(asking) => {
                    self.asking = Some(asking);
                    None
                }
                Err(error) => {
                    let now = store::now();
                    Some(Check { began: now, ended: now, status: -1, output: error.to_string() })
                }
            },
            None => None,
            Some(asking) => self.look_at(asking),
        };
        let heard = check.is_some();
        check.into_iter().for_each(|check| self.heard(check));
        if heard || record.health.is_none() {
            record.health = Some(self.verdict.clone());
            return true;
        }
        false
    }

    /// What came of a check, if it has ended or has to.
    fn look_at(&mut self, mut asking: Asking) -> Option<Check> {
        let status = match asking.child.try_wait() {
            Ok(Some(status)) => status.code().unwrap_or(-1),
            Ok(None) if asking.since.elapsed() < Self::or(self.health.timeout, 30) => {
                self.asking = Some(asking);
                return None;
            }
            _ => {
                let _ = asking.child.kill();
                let _ = asking.child.wait();
                -1
            }
        };
        let mut output = read(&mut asking.output);
        if status == -1 && output.is_empty() {
            "the check took too long".clone_into(&mut output);
        }
        Some(Check { began: asking.began, ended: store::now(), status, output })
    }

    /// How long nothing is due.
    #[must_use]
    pub fn idle(&self) -> Duration {
        match &self.asking {
            Some(_) => Duration::from_millis(50),
            None => self.next.saturating_duration_since(Instant::now()),
        }
    }

    fn ask(&self) -> io::Result<Asking> {
        let output = tempfile::tempfile_in(&self.store)?;
        let mut command = Command::new(&self.program);
        command.arg("exec").arg(&self.container).args(argv(&self.health).unwrap_or_default());
        command.env("CORACLE_DIR", &self.store).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        Ok(Asking { child: command.spawn()?, output, since: Instant::now(), began: store::now() })
    }

    fn heard(&mut self, check: Check) {
        let starting = self.is_starting();
        let verdict = &mut self.verdict;
        if check.status == 0 {
            (verdict.status, verdict.failing) = ("healthy".to_owned(), 0);
        } else if !starting {
            verdict.failing += 1;
            if verdict.failing >= if self.health.retries == 0 { 3 } else { self.health.retries } {
                verdict.status = "unhealthy".to_owned();
            }
        }
        verdict.log.push(check);
        let old = verdict.log.len().saturating_sub(KEPT);
        verdict.log.drain(..old);
        self.next = Instant::now() + self.pause();
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        if let Some(asking) = &mut self.asking {
            let _ = asking.child.kill();
            let _ = asking.child.wait();
        }
    }
}

fn read(output: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = output.seek(SeekFrom::Start(0)).and_then(|_| output.take(OUTPUT as u64).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a time as Docker writes it: `30s`, `1m30s`, `500ms`, `2h`; in nanoseconds.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000)];
    let units = units.into_iter().chain([("h", 3_600_000_000_000)]);
    let (mut total, mut rest) = (0_u64, text);
    if text == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = units.clone().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_wishes() {
        assert_eq!(parse_time("1m30s"), Some(90_000_000_000));
        assert_eq!(parse_time("500ms"), Some(500_000_000));
        assert_eq!(parse_time("0"), Some(0));
        for wrong in ["", "5", "s", "5x", "-1s", "1.5s", "99999999999999999999s"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
        let test = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let image = Health { test: test(&["CMD", "curl", "-f"]), interval: 7, ..Health::default() };
        assert_eq!(wanted(Some(&image), None), Some(image.clone()));
        let user = Health { test: test(&["CMD-SHELL", "true"]), retries: 2, ..Health::default() };
        let both = wanted(Some(&image), Some(&user)).expect("something to ask");
        assert_eq!((both.interval, both.retries), (7, 2));
        assert_eq!(argv(&both), Some(test(&["/bin/sh", "-c", "true"])));
        let none = Health { test: test(&["NONE"]), ..Health::default() };
        assert_eq!(wanted(Some(&image), Some(&none)), None);
        assert_eq!(wanted(None, None), None);
    }

    #[test]
    fn failures_count_when_the_start_is_over() {
        let health = Health { test: vec!["CMD".into(), "x".into()], retries: 2, ..Health::default() };
        let mut checker = Checker::new(health, "x".into(), "/".into(), String::new());
        let failed = || Check { status: 1, ..Check::default() };
        checker.heard(failed());
        assert_eq!((checker.verdict.status.as_str(), checker.verdict.failing), ("starting", 1));
        checker.heard(failed());
        assert_eq!(checker.verdict.status, "unhealthy");
        checker.heard(Check::default());
        assert_eq!((checker.verdict.status.as_str(), checker.verdict.failing), ("healthy", 0));
        checker.health.start_period = 3_600_000_000_000;
        checker.verdict = Verdict { status: "starting".into(), ..Verdict::default() };
        (0..9).for_each(|_| checker.heard(failed()));
        assert_eq!((checker.verdict.status.as_str(), checker.verdict.failing), ("starting", 0));
        assert_eq!(checker.verdict.log.len(), KEPT);
    }
}
