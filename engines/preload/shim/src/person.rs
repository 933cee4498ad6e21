//! Whom this process takes itself for: one for all its threads, as the C library keeps it (setuid(2), "C library/kernel
//! differences"). A child made by fork(2) has it with the rest of our memory.
//!
//! Two copies, of which a number says which one holds: whoever reads never waits, and a reader in a signal handler finds
//! a whole one.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use coracle_entry::Run;
use coracle_intercept::{Caps, Credentials, Ids, MAX_GROUPS};

use crate::environment;

/// The groups come last: most of their room is never touched.
#[derive(Clone, Copy)]
#[repr(C)]
struct Person {
    /// Whether the credentials were set.
    known: bool,
    credentials: Credentials,
    count: usize,
    groups: [u32; MAX_GROUPS],
}

struct Copies([UnsafeCell<Person>; 2]);

// SAFETY: the copy that CURRENT names is only read, the other only written, by a thread that has WRITING.
unsafe impl Sync for Copies {}

/// All zero, so that it takes no room in the file, nor a copy of that in each process.
const NOBODY: Person = {
    let ids = Ids { real: 0, effective: 0, saved: 0, files: 0 };
    let caps = Caps { permitted: 0, effective: 0, inheritable: 0, bounding: 0, ambient: 0 };
    let credentials = Credentials { user: ids, group: ids, caps, secure_bits: 0, no_new_privileges: false };
    Person { known: false, credentials, count: 0, groups: [0; MAX_GROUPS] }
};
static COPIES: Copies = Copies([const { UnsafeCell::new(NOBODY) }; 2]);
static CURRENT: AtomicUsize = AtomicUsize::new(0);
static WRITING: AtomicBool = AtomicBool::new(false);
static DUMPABLE: AtomicBool = AtomicBool::new(true);

fn change(change: impl FnOnce(&mut Person)) {
    while WRITING.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let current = CURRENT.load(Ordering::Relaxed) & 1;
    // SAFETY: WRITING is ours, so nobody else writes, and readers look at the other copy.
    unsafe {
        let new = &mut *COPIES.0[1 - current].get();
        *new = *COPIES.0[current].get();
        change(new);
    }
    CURRENT.store(1 - current, Ordering::Release);
    WRITING.store(false, Ordering::Release);
}

fn look<T>(look: impl FnOnce(&Person) -> T) -> T {
    let current = CURRENT.load(Ordering::Acquire) & 1;
    // SAFETY: written before CURRENT named it, and written again only after it names the other; a reader that is stopped
    // for two changes by other threads may see a mixture of integers, as a program that changes its ids in two threads may.
    look(unsafe { &*COPIES.0[current].get() })
}

/// As the process that executed this one had it, or as the run's first process has it. Called once, while the state is made.
pub(crate) fn start(run: &Run<'_>) {
    let (uid, gid) = run.ids();
    // SAFETY: the copy that CURRENT names from the beginning; whoever would read or change it asks the state first, which is
    // not made yet.
    let person = unsafe { &mut *COPIES.0[0].get() };
    person.known = true;
    person.credentials = Credentials::first(uid, gid);
    for group in run.groups().take(MAX_GROUPS) {
        person.groups[person.count] = group;
        person.count += 1;
    }
    if let Some(text) = environment::person() {
        // A damaged text changes nothing.
        let _ = read(text.to_bytes(), person);
    }
}

/// Numbers of credentials, in the order in which they are written.
const NUMBERS: usize = 15;

/// The bytes that [`write`] needs at most.
pub(crate) const TEXT: usize = 17 * NUMBERS + 9 * MAX_GROUPS;

/// Writes whom a process is that this one executes with these credentials, in hexadecimal; its length, 0 if that is whom the
/// run began as.
pub(crate) fn write(run: &Run<'_>, next: &Credentials, text: &mut [u8]) -> usize {
    let (uid, gid) = run.ids();
    look(|person| {
        let groups = person.groups.get(..person.count).unwrap_or_default();
        if *next == Credentials::first(uid, gid) && run.groups().eq(groups.iter().copied()) {
            return 0;
        }
        let Credentials { user, group, caps, secure_bits, no_new_privileges } = *next;
        let ids = [user, group].into_iter().flat_map(|ids| [ids.real, ids.effective, ids.saved, ids.files]);
        let caps = [caps.permitted, caps.effective, caps.inheritable, caps.bounding, caps.ambient];
        let rest = [u64::from(secure_bits), u64::from(no_new_privileges)];
        let numbers = ids.map(u64::from).chain(caps).chain(rest).chain(groups.iter().map(|group| u64::from(*group)));
        let mut len = 0;
        for number in numbers {
            let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
            for digit in (0..digits).rev() {
                put(text, &mut len, b"0123456789abcdef"[usize::try_from(number >> (4 * digit) & 15).unwrap_or(0)]);
            }
            put(text, &mut len, b',');
        }
        len
    })
}

fn put(text: &mut [u8], len: &mut usize, byte: u8) {
    if let Some(room) = text.get_mut(*len) {
        *room = byte;
        *len += 1;
    }
}

/// Reads what [`write`] wrote.
fn read(text: &[u8], person: &mut Person) -> Option<()> {
    let mut numbers = text
        .split(|byte| *byte == b',')
        .filter(|digits| !digits.is_empty())
        .map(|digits| core::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    let mut next = || numbers.next().flatten();
    let mut id = || next().and_then(|number| u32::try_from(number).ok());
    let user = Ids { real: id()?, effective: id()?, saved: id()?, files: id()? };
    let group = Ids { real: id()?, effective: id()?, saved: id()?, files: id()? };
    let caps =
        Caps { permitted: next()?, effective: next()?, inheritable: next()?, bounding: next()?, ambient: next()? };
    let (secure_bits, no_new_privileges) = (u32::try_from(next()?).ok()?, next()? != 0);
    let mut groups = [0; MAX_GROUPS];
    let mut count = 0;
    for number in numbers {
        *groups.get_mut(count)? = u32::try_from(number?).ok()?;
        count += 1;
    }
    let credentials = Credentials { user, group, caps, secure_bits, no_new_privileges };
    *person = Person { known: true, credentials, count, groups };
    Some(())
}

/// The credentials of this process.
pub(crate) fn credentials() -> Credentials {
    look(|person| person.known.then_some(person.credentials)).unwrap_or(Credentials::first(u32::MAX, u32::MAX))
}

/// Gives this process others.
pub(crate) fn set_credentials(new: &Credentials) {
    change(|person| (person.known, person.credentials) = (true, *new));
}

/// As many supplementary groups as there is room for; how many there are.
pub(crate) fn groups(groups: &mut [u32]) -> usize {
    look(|person| {
        let known = person.groups.get(..person.count).unwrap_or_default();
        for (group, known) in groups.iter_mut().zip(known) {
            *group = *known;
        }
        known.len()
    })
}

/// One of the supplementary groups.
pub(crate) fn group(at: usize) -> Option<u32> {
    look(|person| person.groups.get(..person.count)?.get(at).copied())
}

/// Gives this process other groups.
pub(crate) fn set_groups(groups: &[u32]) {
    change(|person| {
        person.count = groups.len().min(MAX_GROUPS);
        person.groups[..person.count].copy_from_slice(&groups[..person.count]);
    });
}

/// See `PR_GET_DUMPABLE` in prctl(2).
pub(crate) fn dumpable() -> bool {
    DUMPABLE.load(Ordering::Relaxed)
}

/// See `PR_SET_DUMPABLE` in prctl(2).
pub(crate) fn set_dumpable(dumpable: bool) {
    DUMPABLE.store(dumpable, Ordering::Relaxed);
}
