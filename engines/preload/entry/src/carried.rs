//! What travels in the environment from who executes a program to the shim in it, beside the guest's own variables.
//!
//! Who executes puts it in ([`carry`]), the shim takes it out before the guest sees it ([`received`]); what was put in for a
//! program that has executed another is recognised and left out ([`carried`]).

use crate::{
    RUN, Run, Text,
    space::{Full, Space},
};

/// What travels in the environment, for the shim alone: it takes these variables out before the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// [`RUN`]: host path of the run's description.
    Description,
    /// Guest path of the program: `/proc/self/exe`.
    Exe,
    /// The name by which it was started: AT_EXECFN, and after its last slash the process's name.
    Given,
    /// Its first argument, where the loader could not be told.
    Argv0,
    /// [`Start::person`](crate::Start::person).
    Person,
    /// A variable of the guest's own that loaders must not see: what follows is the whole of it, `KEY=value`, which takes
    /// this one's place.
    Restored,
    /// `LD_PRELOAD` with the shim in it, or `LD_LIBRARY_PATH` with the tree's directories, which the guest never had.
    Ours,
}

/// Names that are carried, in front of a value.
const CARRIED: [(&[u8], Carried); 6] = [
    (b"CORACLE_RUN_EXE=", Carried::Exe),
    (b"CORACLE_RUN_GIVEN=", Carried::Given),
    (b"CORACLE_RUN_ARGV0=", Carried::Argv0),
    (b"CORACLE_RUN_OWN=", Carried::Restored),
    (b"CORACLE_RUN_PERSON=", Carried::Person),
    (b"CORACLE_RUN=", Carried::Description),
];

pub(crate) fn carried(pair: &[u8]) -> Option<(Carried, &[u8])> {
    debug_assert!(RUN.len() + 1 == CARRIED[5].0.len());
    CARRIED.iter().find_map(|(name, what)| pair.strip_prefix(*name).map(|value| (*what, value)))
}

/// What a variable of the environment is to the shim: `None` if it is the guest's own. The value of what is restored is a
/// variable with its name.
#[must_use]
pub fn received<'e>(run: Option<&Run<'_>>, pair: &'e [u8]) -> Option<(Carried, &'e [u8])> {
    if let Some(found) = carried(pair) {
        return Some(found);
    }
    let run = run?;
    if let Some(value) = pair.strip_prefix(b"LD_LIBRARY_PATH=") {
        let ours = run.loaders().any(|loader| {
            let before = value.strip_suffix(loader.libraries.to_bytes());
            run.edited() && before.is_some_and(|before| before.last().is_none_or(|byte| *byte == b':'))
        });
        return ours.then_some((Carried::Ours, value));
    }
    let value = pair.strip_prefix(b"LD_PRELOAD=")?;
    let rest = value.strip_prefix(run.text(Text::Shim))?;
    rest.first().is_none_or(|byte| *byte == b':').then_some((Carried::Ours, value))
}

pub(crate) fn carry(space: &mut Space<'_>, what: Carried, value: &[&[u8]]) -> Result<(), Full> {
    let Some((name, _)) = CARRIED.iter().find(|(_, carried)| *carried == what) else { return Ok(()) };
    let mut line = space.line();
    line.put(name)?;
    for part in value {
        line.put(part)?;
    }
    line.end()
}
