//! Questions at the terminal, and answers on standard input.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, ensure};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

/// One line of standard input.
pub(super) fn line() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin().lock().read_line(&mut text).context("cannot read standard input")?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Asks at the terminal; without `echo`, what is typed is not shown.
pub(super) fn ask(question: &str, echo: bool) -> anyhow::Result<String> {
    eprint!("{question}");
    io::stderr().flush().context("cannot write to the terminal")?;
    if echo {
        return line();
    }
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).context("cannot hide the password on this terminal")?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).context("cannot hide the password on this terminal")?;
    let typed = line();
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before).context("cannot show what is typed again: run `stty echo`")?;
    eprintln!();
    typed
}

/// A password: from standard input if that was asked for, else from the terminal, if there is one.
pub(super) fn password(from_stdin: bool, question: &str) -> anyhow::Result<String> {
    if from_stdin {
        return line();
    }
    ensure!(io::stdin().is_terminal(), "no password, and no terminal to ask at: give it by --password-stdin");
    ask(question, false)
}
