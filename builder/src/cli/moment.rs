//! Moments as Docker takes them: RFC 3339, parts of it, seconds since 1970, or a time that has passed (`10m`, `1h30m`).

use anyhow::Context as _;

use crate::launch::health::parse_time;

/// Seconds since 1970, and nanoseconds.
pub(super) type Moment = (u64, u32);

/// Reads a moment; `now` is what times that have passed count from.
pub(super) fn parse(text: &str, now: Moment) -> anyhow::Result<Moment> {
    const HINT: &str = "write a time that has passed (10m, 1h30m), a date (2026-11-21T04:58:44Z) or seconds since 1970";
    read(text, now).with_context(|| HINT)
}

fn read(text: &str, now: Moment) -> Option<Moment> {
    const SECOND: u64 = 1_000_000_000;
    if let Some(passed) = parse_time(text).filter(|_| !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')) {
        let then = (u128::from(now.0) * u128::from(SECOND) + u128::from(now.1)).saturating_sub(u128::from(passed));
        let seconds = u64::try_from(then / u128::from(SECOND)).ok()?;
        return Some((seconds, u32::try_from(then % u128::from(SECOND)).ok()?));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse() {
        return Some((seconds, nanoseconds(fraction)?));
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let days = days(date)?;
    // Without a zone it is this machine's in Docker; here all times are shown and read as UTC.
    let (time, ahead) = zone(time)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':').filter(|part| !part.is_empty()).map(|part| part.parse::<i64>().ok());
    let mut part = |most| match parts.next() {
        None => Some(0),
        Some(number) => number.filter(|number| (0..=most).contains(number)),
    };
    let (hours, minutes, seconds) = (part(23)?, part(59)?, part(60)?);
    if parts.next().is_some() {
        return None;
    }
    let seconds = days * 86400 + hours * 3600 + minutes * 60 + seconds - ahead;
    Some((u64::try_from(seconds).ok()?, nanoseconds(fraction)?))
}

/// `5` is half a second.
fn nanoseconds(fraction: &str) -> Option<u32> {
    if fraction.is_empty() {
        return Some(0);
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    digits.parse().ok()
}

/// A time without its zone, and how many seconds that is ahead of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let ahead = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    Some((&time[..at], if time.as_bytes()[at] == b'-' { -ahead } else { ahead }))
}

/// Days from 1970 to `YYYY-MM-DD`, by the calendar's rule that a year begins in March.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some()
        || !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
    {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    Some(365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_dockers() {
        let read = |text: &str| parse(text, (1000, 500_000_000)).ok();
        for (text, expected) in [
            ("10s", (990, 500_000_000)),
            ("1m30s", (910, 500_000_000)),
            ("600ms", (999, 900_000_000)),
            ("2h", (0, 0)),
            ("1795237124", (1_795_237_124, 0)),
            ("1795237124.5", (1_795_237_124, 500_000_000)),
            ("2026-11-21T04:58:44Z", (1_795_237_124, 0)),
            ("2026-11-21T05:58:44.25+01:00", (1_795_237_124, 250_000_000)),
            ("2026-11-20T23:58:44-05:00", (1_795_237_124, 0)),
            ("2026-11-21 04:58:44", (1_795_237_124, 0)),
            ("2026-11-21T04:58", (1_795_237_080, 0)),
            ("2000-02-29", (951_782_400, 0)),
            ("1970-01-01", (0, 0)),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for wrong in ["", "yesterday", "2026-13-01", "2026-11-21T25:00:00Z", "2026-11-21T04:58:44+1", "-5", "1.x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
