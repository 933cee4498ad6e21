//! Errors and notes for people, on standard error: `coracle: what: why: what to do`, on one line.

use std::io;

use super::print;

/// The one line of an error.
pub(super) fn line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut said = false;
    for cause in error.chain() {
        let text = without_numbers(&cause.to_string());
        // Some error types print their cause themselves, and what to do behind it.
        said = parts.last().is_some_and(|last| last.contains(&text));
        if !said {
            parts.push(text);
        }
    }
    if !said || parts.last().is_some_and(|last| last.ends_with(&without_numbers(&error.root_cause().to_string()))) {
        parts.extend(hint(error).map(str::to_owned));
    }
    let joined = format!("coracle: {}", parts.join(": "));
    let lines: Vec<&str> = joined.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    print::visible(&lines.join("; "))
}

/// The text of an error without the numbers of the system's errors, which tell people nothing that the words do not.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(')');
    }
    plain
}

/// The one line of arguments that make no sense.
pub(super) fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    });
    let what = paragraphs.next().unwrap_or_default();
    let mut line = format!("coracle: {}", what.trim_start_matches("error: "));
    let mut command = "coracle".to_owned();
    for paragraph in paragraphs {
        if let Some(tip) = paragraph.strip_prefix("tip: ") {
            line += &format!(": {tip}");
        } else if let Some(usage) = paragraph.strip_prefix("Usage: ") {
            // The program's name and the command's, of `coracle build [OPTIONS] …`.
            let names = usage.split(' ').skip(1).take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
            command = names.fold(command, |command, name| format!("{command} {name}"));
        }
    }
    print::visible(&format!("{line}: see `{command} --help`"))
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

/// Text of somebody else's on one line.
pub(super) fn one_line(text: &str) -> String {
    print::visible(&text.replace('\n', "; "))
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
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let text = format!("/a: cannot be read: {missing}");
        let error = anyhow::Error::new(missing).context(format!("{text}: check the file"));
        assert_eq!(line(&error), "coracle: /a: cannot be read: No such file or directory: check the file");
        let error = anyhow::Error::new(io::Error::from_raw_os_error(libc::ENOENT)).context(text);
        assert_eq!(line(&error), "coracle: /a: cannot be read: No such file or directory: check the path");
    }

    #[test]
    fn wrong_arguments_are_one_line_too() {
        use clap::Parser as _;
        let wrong = |args: &[&str]| {
            let error = crate::cli::args::Cli::try_parse_from(args).expect_err("these arguments make no sense");
            usage(&error)
        };
        assert_eq!(
            wrong(&["coracle", "biuld"]),
            "coracle: unrecognized subcommand 'biuld': a similar subcommand exists: 'build': see `coracle --help`"
        );
        assert_eq!(
            wrong(&["coracle", "build", "x"]),
            "coracle: the following required arguments were not provided: --output <FILE>: see `coracle build --help`"
        );
        assert!(wrong(&["coracle", "build", "x", "-o", "y", "--compression=40"]).contains("'40'"));
    }
}
