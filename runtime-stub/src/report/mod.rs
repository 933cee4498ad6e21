//! Everything the stub says: messages on standard error, and what `help`, `version`, `info` and `explain` print.

mod explain;
mod info;

use std::io::Write;

pub use explain::{entering, explain};
pub use info::{info, info_json};

use crate::{
    launch::engines,
    options::table::{Kind, ROWS, Takes},
};

/// How much to say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Voice {
    /// Say what is done.
    pub verbose: bool,
    /// Say nothing but errors.
    pub quiet: bool,
}

impl Voice {
    /// Something that the user should know.
    pub fn warn(self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Something for whoever wants to know more.
    pub fn note(self, text: &str) {
        if self.verbose {
            say(text);
        }
    }
}

/// A line on standard error. Nobody can be told that it did not get there.
pub fn say(text: &str) {
    let text = without_numbers(text);
    // One write, so that the lines of many processes do not mix.
    let _ = std::io::stderr().write_all(format!("coracle: {text}\n").as_bytes());
}

/// The standard library adds ` (os error 13)` to the system's own words, which nobody needs.
pub(crate) fn without_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARK) {
        out.push_str(before);
        match after.split_once(')') {
            Some((number, after)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest = after,
            _ => {
                out.push_str(MARK);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// What `help` prints.
#[must_use]
pub fn help(name: &str) -> String {
    let mut out = format!(
        "Usage: {name} [--coracle-OPTION[=VALUE]…] [ARG…]\n\n\
         A container image as one executable file. Options begin with --coracle- and come first; everything\n\
         from the first other argument on is the application's.\n"
    );
    for (title, kind) in [("Instead of running:", Kind::Action), ("This run:", Kind::Run), ("This node:", Kind::Node)] {
        out.push_str(&format!("\n{title}\n"));
        for row in ROWS.iter().filter(|row| row.kind == kind) {
            let value = match row.takes {
                Takes::Switch => String::new(),
                Takes::Optional(word) => format!("[={word}]"),
                Takes::Value(word) | Takes::List(word, _) => format!("={word}"),
            };
            let often = if matches!(row.takes, Takes::List(..)) { " (may be repeated)" } else { "" };
            out.push_str(&format!("  {:<42} {}{often}\n", format!("{}{value}", row.flag()), row.help));
        }
    }
    out.push_str(&format!(
        "\nEngines: {}\n\n\
         Every option is also an environment variable (--coracle-env-file is CORACLE_ENV_FILE; lists are separated\n\
         by commas, CORACLE_ENV by newlines) and, but for the first group, a key of the table [run] in\n\
         /etc/coracle.toml and ~/.config/coracle.toml. --coracle-- ends Coracle's options.\n\
         Exit status: the application's; 125 if Coracle fails, 126 if the program cannot be executed, 127 if it\n\
         does not exist.\n",
        engines::known(&engines::ENGINES)
    ));
    out
}

/// What `version` prints.
#[must_use]
pub fn version() -> String {
    format!("coracle {}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_lose_their_numbers_and_nothing_else() {
        assert_eq!(
            without_numbers("x: Permission denied (os error 13): y (os error"),
            "x: Permission denied: y (os error"
        );
        assert_eq!(without_numbers("a (os error x) b"), "a (os error x) b");
    }

    #[test]
    fn help_names_every_option_of_this_version_within_a_terminals_width() {
        let help = help("./app.run");
        for row in ROWS {
            assert_eq!(help.contains(&format!("  {}", row.flag())), row.kind != Kind::Later, "{}", row.name);
        }
        for line in help.lines() {
            assert!(line.chars().count() <= 130, "{line}");
        }
    }
}
