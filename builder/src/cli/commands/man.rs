//! `coracle man`.

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::cli::{
    args::{Cli, ManArgs},
    print,
};

/// Prints the manual page, or writes all pages to a directory.
pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    if let Some(directory) = &args.directory {
        return std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
            .and_then(|()| std::fs::read_dir(directory)?.try_for_each(|page| escape(&page?.path())))
            .with_context(|| format!("cannot write manual pages to {}", directory.display()));
    }
    let mut out = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut out)?;
    print::bytes(escaped(&String::from_utf8_lossy(&out)).as_bytes())
}

/// Writes a page again in letters that every roff reads, whatever it takes its input for.
fn escape(page: &std::path::Path) -> std::io::Result<()> {
    if page.extension().is_none_or(|section| section != "1") {
        return Ok(());
    }
    std::fs::write(page, escaped(&std::fs::read_to_string(page)?))
}

/// What is not ASCII, by its number (groff_char(7), mandoc_char(7)).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_ascii() { out.push(char) } else { out += &format!("\\[u{:04X}]", u32::from(char)) }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn other_letters_have_their_numbers() {
        assert_eq!(super::escaped("a…é\\fB"), "a\\[u2026]\\[u00E9]\\fB");
    }
}
