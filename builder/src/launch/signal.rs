//! Signals by name or number, as kill(1) and Docker write them.

use nix::sys::signal::Signal;

/// The highest signal number that Linux has.
const MOST: i32 = 64;

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1`; letter case does not matter.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &str) -> Result<i32, String> {
    let wrong = || format!("{text}: there is no such signal: write a name such as TERM, or a number from 1 to {MOST}");
    let upper = text.to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=MOST).contains(&number).then_some(number).ok_or_else(wrong);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |rest: &str, base: i32, sign: i32| {
        let offset = if rest.is_empty() { Some(0) } else { rest[1..].parse::<i32>().ok() };
        let number = offset.map(|offset| base + sign * offset).filter(|number| (34..=MOST).contains(number));
        number.ok_or_else(wrong)
    };
    if let Some(rest) = name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+')) {
        return realtime(rest, 34, 1);
    }
    if let Some(rest) = name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-')) {
        return realtime(rest, MOST, -1);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        name => name,
    };
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigkill", 9), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX", 64), ("rtmax-1", 63), ("CLD", 17)]
        {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "FOO", "RTMIN+40", "RTMINX", "SIG", "-1"] {
            assert!(parse(text).is_err_and(|why| why.contains("no such signal")), "{text}");
        }
    }
}
