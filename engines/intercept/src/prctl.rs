//! prctl(2), where it is about what an engine plays or needs.
//!
//! A process that lets nobody look into it would be closed to an engine outside of it too, which reads its paths: so it
//! only believes to be closed. Other programs of the same user could look into it, as into any other of theirs.

use crate::{Call, Errno, Guest, Rules, Scratch, enter::Verdict, identity, meaning::Person};

const PR_GET_DUMPABLE: i32 = 3;
const PR_SET_DUMPABLE: i32 = 4;

pub(crate) fn prctl<G: Guest>(
    rules: &Rules<'_>,
    guest: &G,
    call: &Call,
    scratch: &mut Scratch,
) -> Result<Verdict, Errno> {
    match (call.int(0), call.arg(1)) {
        (PR_GET_DUMPABLE, _) => Ok(Verdict::Answer(guest.dumpable().into())),
        (PR_SET_DUMPABLE, dumpable @ 0..=1) => {
            guest.set_dumpable(dumpable == 1);
            Ok(Verdict::Answer(0))
        }
        (PR_SET_DUMPABLE, _) => Err(Errno::EINVAL),
        _ if rules.identity.pretends() => identity::person(guest, call, Person::Prctl, "prctl", scratch),
        _ => Ok(Verdict::Pass),
    }
}
