//! Commands that do the same to several things: what fails does not keep the rest from being done.

use crate::cli::{print, report};

/// Does something to each; prints the name of what was done, and an error for what was not. The exit status: 1 if any
/// failed, as Docker has it.
pub(super) fn each(items: &[String], mut act: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    let mut status = 0;
    for item in items {
        match act(item) {
            Ok(()) => print::line(item)?,
            Err(error) => {
                eprintln!("{}", report::line(&error));
                status = 1;
            }
        }
    }
    Ok(status)
}
