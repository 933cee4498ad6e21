//! Arguments as parsed ([`args`]), then the plan as resolved ([`plan`]), then the plan carried out ([`commands`]).
//!
//! Only here is the environment read. Nothing here exits: [`run`] returns the status for `main.rs`.

pub mod args;
mod ask;
mod before;
mod changes;
mod commands;
mod groups;
mod moment;
mod options;
mod plan;
mod print;
mod progress;
mod report;
mod source;
mod stored;
mod table;
mod template;
mod volumes;

use std::ffi::OsString;

use clap::Parser as _;

/// Exit status of every failure of our own, wrong arguments included: a guest's own statuses must stay apart from ours.
pub const FAILURE: u8 = 125;

/// Parses the arguments and carries them out; returns the exit status.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let parsed = match args::Cli::try_parse_from(groups::flat(args.into_iter().collect())) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are "errors" of clap's that go to standard output; help is also its answer to no argument.
            use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NothingAsked;
            if error.use_stderr() && error.kind() != NothingAsked {
                eprintln!("{}", report::usage(&error));
                return FAILURE;
            }
            let printed = error.print();
            return if error.use_stderr() || printed.is_err() { FAILURE } else { 0 };
        }
    };
    // Docker's: `run`, `create` and the like say 125, so that a guest's status stays apart; the rest say 1.
    let failure = parsed.command.failure();
    match before::apply(parsed).and_then(commands::run) {
        Ok(status) => status,
        // Whoever reads our output has read enough: `coracle inspect … | head -1`.
        Err(error) if error.is::<print::Closed>() => 0,
        Err(error) => {
            eprintln!("{}", report::line(&error));
            failure
        }
    }
}
