//! Errors and notes for people, on standard error: `coracle: what: why: what to do`, on one line.

use std::io;

use super::print;

/// The one line of an error.
pub(super) fn line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        // An input error's text ends in its number, which tells people nothing that the words do not.
        let text = cause.to_string();
        let text = match text.rfind(" (os error ") {
            Some(at) if text.ends_with(')') => &text[..at],
            _ => &text,
        };
        // Some error types print their cause themselves.
        if !parts.last().is_some_and(|last| last.ends_with(text)) {
            parts.push(text.to_owned());
        }
    }
    parts.extend(hint(error).map(str::to_owned));
    let joined = format!("coracle: {}", parts.join(": "));
    let lines: Vec<&str> = joined.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    print::visible(&lines.join("; "))
}

/// What to do about an error of the system, which does not say it itself.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let cause = error.root_cause().downcast_ref::<io::Error>()?;
    Some(match cause.kind() {
        io::ErrorKind::StorageFull => "free some space, or use another file system",
        io::ErrorKind::QuotaExceeded => "free some of your quota, or use another file system",
        io::ErrorKind::ReadOnlyFilesystem => "choose a place that can be written to",
        io::ErrorKind::PermissionDenied => "check the owner and the mode",
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::NotADirectory => "a part of the path is no directory",
        io::ErrorKind::FileTooLarge => "raise the limit of file sizes (ulimit -f), or use another file system",
        _ => return None,
    })
}

/// A remark while working.
pub(super) fn note(quiet: bool, text: &str) {
    if !quiet {
        eprintln!("coracle: {}", print::visible(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_without_numbers_or_repeats() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = anyhow::Error::new(full).context("cannot write /a/b").context("first\nsecond");
        assert_eq!(
            line(&error),
            "coracle: first; second: cannot write /a/b: No space left on device: \
             free some space, or use another file system"
        );
    }
}
