//! The stub as the last step of an engine that hands the tree to another runtime: see [`coracle_api::Inside`].
//!
//! It runs inside the guest's file system, where nothing of the bundle is to be seen: it reads its order from a
//! descriptor, enters the directory and becomes the program.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
};

use coracle_api::{INSIDE, Inside, RunError, exec::Prepared};

use crate::{launch::Caller, report::say};

/// Becomes the program that the arguments' order names and returns only if that fails; none if they name no order.
#[must_use]
pub fn start(caller: &Caller) -> Option<u8> {
    let [only] = caller.args.as_slice() else { return None };
    let digits = only.as_bytes().strip_prefix(INSIDE.as_bytes())?;
    let answer = read(digits).map_err(|error| RunError::step("read the order of the engine outside", error));
    let error = match answer.and_then(become_it) {
        Ok(never) | Err(never) => never,
    };
    say(&error.to_string());
    Some(error.exit_code())
}

fn read(digits: &[u8]) -> io::Result<Inside> {
    let descriptor = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<RawFd>().ok());
    let mut file = descriptor.filter(|fd| *fd > 2).and_then(take).ok_or(io::ErrorKind::InvalidInput)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// An inherited descriptor as ours, if it is open.
fn take(fd: RawFd) -> Option<File> {
    // SAFETY: fcntl with F_GETFD takes integers; an open descriptor that was named to us is ours alone to close, since this
    // process has opened none of its own yet that it keeps.
    unsafe { (libc::fcntl(fd, libc::F_GETFD) >= 0).then(|| File::from(OwnedFd::from_raw_fd(fd))) }
}

fn become_it(order: Inside) -> Result<RunError, RunError> {
    order.close.iter().for_each(|fd| drop(take(*fd)));
    let told = take(order.tell).is_some_and(|mut outside| outside.write_all(b"i").is_ok());
    if !told {
        return Err(RunError::step("tell the engine outside", io::ErrorKind::BrokenPipe.into()));
    }
    std::env::set_current_dir(&order.cwd)
        .map_err(|error| RunError::step(format!("enter the directory {} inside", order.cwd.display()), error))?;
    Ok(Prepared::new(&order.argv, &order.env)?.exec())
}
