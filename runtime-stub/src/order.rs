//! The bare stub as a launcher for others: `coracle run` writes an [`Order`] and executes the stub that it carries.
//!
//! So there is one launcher, and no threads of the caller's stand between it and `unshare(CLONE_NEWUSER)`.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{FromRawFd, RawFd},
        unix::ffi::OsStrExt,
    },
};

use coracle_api::{Host, Order, SPEC_VERSION, signals};

use crate::{
    launch::{LaunchError, engines},
    report::{Voice, say},
    start::{FAILED, name_engine, outcome},
    supervise,
};

/// The only argument of a bare stub, followed by the descriptor to read.
const ARGUMENT: &str = "--coracle-launch=";

/// An order that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The descriptor.
    #[error("{ARGUMENT}{0}: not an open descriptor to read an order from: it is for `coracle run` to give")]
    Descriptor(String),
    /// The order's bytes.
    #[error("the order cannot be read: {0}: use a stub and a coracle of the same version")]
    Read(#[source] io::Error),
    /// Another version's.
    #[error("the order is of version {found} and not {SPEC_VERSION}: use a stub and a coracle of the same version")]
    Version {
        /// What it says.
        found: u32,
    },
    /// No engine.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The child that runs the program.
    #[error("cannot start a process for the program: {0}: raise the limit on processes")]
    Fork(#[source] io::Error),
}

/// Carries out the order that the arguments name; none if they name none.
#[must_use]
pub fn start(args: &[OsString]) -> Option<u8> {
    let [only] = args else { return None };
    let descriptor = only.as_bytes().strip_prefix(ARGUMENT.as_bytes())?;
    Some(read(descriptor).and_then(|order| run(&order)).unwrap_or_else(|error| {
        say(&error.to_string());
        FAILED
    }))
}

fn read(descriptor: &[u8]) -> Result<Order, OrderError> {
    let wrong = || OrderError::Descriptor(OsStr::from_bytes(descriptor).to_string_lossy().into_owned());
    let fd: RawFd = std::str::from_utf8(descriptor).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    // SAFETY: fcntl with these arguments touches no memory.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(wrong());
    }
    // SAFETY: the descriptor is open, and whoever named it on the command line gave it to this process for good.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(OrderError::Read)?;
    let order: Order = serde_json::from_slice(&text).map_err(|error| OrderError::Read(error.into()))?;
    if order.spec.version != SPEC_VERSION {
        return Err(OrderError::Version { found: order.spec.version });
    }
    Ok(order)
}

fn run(order: &Order) -> Result<u8, OrderError> {
    let voice = Voice { verbose: order.verbose, quiet: false };
    let asked = order.spec.variant.as_deref().filter(|name| !name.eq_ignore_ascii_case("auto"));
    let (engine, refused) = engines::choose(&engines::ENGINES, asked, &Host::read(), &order.facts, &order.request)?;
    for one in &refused {
        if let Err(refusal) = &one.answer {
            voice.note(&format!("engine {}: {refusal}", one.engine.name()));
        }
    }
    voice.note(&format!("engine: {}", engine.name()));
    let mut spec = order.spec.clone();
    name_engine(&mut spec, engine);
    if !order.remove_scratch {
        return Ok(outcome(engine.run(&spec)));
    }
    let ended = supervise::beside(|| outcome(engine.run(&spec))).map_err(OrderError::Fork)?;
    if let Err(error) = fs::remove_dir_all(&spec.scratch) {
        voice.warn(&format!("{}: cannot be removed: {error}: remove it by hand", spec.scratch.display()));
    }
    Ok(signals::die_as(ended))
}
