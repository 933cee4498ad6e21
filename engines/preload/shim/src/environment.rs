//! The environment of this process: what travelled in it for the shim alone is taken out before the guest sees it.

use core::{
    ffi::{CStr, c_char},
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
};

use coracle_entry::{Carried, RUN, Run, received};
use coracle_sys::{
    self as sys, Fd,
    kernel::{MAP_ANONYMOUS, MAP_PRIVATE, O_CLOEXEC, O_RDONLY, PROT_READ, PROT_WRITE},
};

use crate::{
    arch::{self, Variable},
    files::Held,
    pool,
};

/// The environment as the loader handed it to our constructor, if it did.
static HANDED: AtomicPtr<*mut c_char> = AtomicPtr::new(core::ptr::null_mut());

/// What was carried, as strings of the first environment, which stay where they are; null: it was not.
static DESCRIPTION: Word = Word::new();
static EXE: Word = Word::new();
static GIVEN: Word = Word::new();
static ARGV0: Word = Word::new();
static PERSON: Word = Word::new();
/// What was carried has been taken out.
static CLEAN: AtomicBool = AtomicBool::new(false);

struct Word(AtomicPtr<c_char>);

impl Word {
    const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    fn set(&self, text: *mut c_char) {
        self.0.store(text, Ordering::Release);
    }

    fn get(&self) -> Option<&'static CStr> {
        let text = self.0.load(Ordering::Acquire);
        // SAFETY: set to a string of the first environment, which nobody moves or frees.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
    }
}

/// Where what was carried is kept; what is restored is the guest's own.
fn word_of(what: Carried) -> Option<&'static Word> {
    match what {
        Carried::Description => Some(&DESCRIPTION),
        Carried::Exe => Some(&EXE),
        Carried::Given => Some(&GIVEN),
        Carried::Argv0 => Some(&ARGV0),
        Carried::Person => Some(&PERSON),
        Carried::Restored | Carried::Ours => None,
    }
}

/// glibc hands constructors the environment, before or beside which it may not have set `environ` yet.
pub(crate) fn handed(environment: *mut *mut c_char) {
    HANDED.store(environment, Ordering::Relaxed);
}

/// The pointers of the environment that the process began with.
fn first() -> *mut *mut c_char {
    let handed = HANDED.load(Ordering::Relaxed);
    if handed.is_null() { now() } else { handed }
}

/// The pointers of the environment as it is now.
pub(crate) fn now() -> *mut *mut c_char {
    // SAFETY: the C library's own variable, which it has set before any constructor runs.
    arch::variable(Variable::Environment).map_or(core::ptr::null_mut(), |environ| unsafe { *environ }.cast())
}

/// The value of a variable.
pub(crate) fn value(name: &[u8]) -> Option<&'static CStr> {
    value_in(now(), name)
}

fn value_in(mut at: *mut *mut c_char, name: &[u8]) -> Option<&'static CStr> {
    if at.is_null() {
        return None;
    }
    // SAFETY: an array of pointers to NUL-terminated strings that ends in a null (environ(7)).
    unsafe {
        while !(*at).is_null() {
            let text = CStr::from_ptr(*at);
            if let Some(rest) = text.to_bytes().strip_prefix(name)
                && rest.first() == Some(&b'=')
            {
                return Some(CStr::from_ptr((*at).add(name.len() + 1)));
            }
            at = at.add(1);
        }
    }
    None
}

/// Host path of the run's description.
pub(crate) fn description() -> Option<&'static CStr> {
    DESCRIPTION.get().or_else(|| value_in(first(), RUN.as_bytes())).or_else(early)
}

/// The same, for whom calls before the C library has begun (a function that the loader asks which one to take, a constructor
/// that is to run before all others): then it knows of no environment yet, but the kernel does.
#[cold]
#[inline(never)]
fn early() -> Option<&'static CStr> {
    let file = Held(sys::open(Fd::CWD, c"/proc/self/environ", O_RDONLY | O_CLOEXEC, 0).ok()?);
    let mut block = pool::take()?;
    let text = pool::bytes(&mut block);
    let mut have = 0;
    let mut cut = false;
    loop {
        let more = sys::read(file.0, text.get_mut(have..)?).ok()?;
        have += more;
        while let Some(len) = text[..have].iter().position(|byte| *byte == 0) {
            if let Some((what, value)) = received(None, &text[..len]).filter(|_| !cut)
                && let Some(word) = word_of(what)
            {
                word.set(kept(value)?.as_ptr().cast_mut());
            }
            cut = false;
            text.copy_within(len + 1..have, 0);
            have -= len + 1;
        }
        if more == 0 {
            return DESCRIPTION.get();
        }
        if have == text.len() {
            // None of ours is as long as that.
            (have, cut) = (0, true);
        }
    }
}

/// A copy that stays: the C library's own memory is not to be had yet.
fn kept(path: &[u8]) -> Option<&'static CStr> {
    let access = PROT_READ | PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice, of zeroes, which is never undone.
    let memory = unsafe {
        let at = sys::map(0, path.len() + 1, access, MAP_PRIVATE | MAP_ANONYMOUS, None, 0).ok()?;
        core::slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut::<u8>(at), path.len() + 1)
    };
    memory[..path.len()].copy_from_slice(path);
    CStr::from_bytes_until_nul(memory).ok()
}

/// Takes out of the environment what is not the guest's, and puts back what was hidden from its loader; once, as soon
/// as the C library knows of one.
pub(crate) fn clean(run: &Run<'_>) {
    let list = first();
    if list.is_null() || CLEAN.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut from = list;
    let mut to = list;
    // SAFETY: the array on the stack that the process began with, of pointers to strings that end with NUL, itself ending
    // with a null: only pointers to such strings, or into them, are moved down in it.
    unsafe {
        while !(*from).is_null() {
            let pair = *from;
            from = from.add(1);
            let text = CStr::from_ptr(pair).to_bytes();
            let kept = match received(Some(run), text) {
                None => pair,
                Some((what, value)) => {
                    let value = pair.add(text.len() - value.len());
                    if let Some(word) = word_of(what) {
                        word.set(value);
                    }
                    if what == Carried::Restored { value } else { core::ptr::null_mut() }
                }
            };
            // What was put back stands before what the loader was given under that name.
            if !kept.is_null() && !is_among(list, to, kept) {
                to.write(kept);
                to = to.add(1);
            }
        }
        to.write(core::ptr::null_mut());
    }
}

/// Whether a variable of the loader's is in the list already.
unsafe fn is_among(mut list: *mut *mut c_char, end: *mut *mut c_char, pair: *mut c_char) -> bool {
    // SAFETY: the caller's array of strings.
    unsafe {
        let pair = CStr::from_ptr(pair).to_bytes();
        if !pair.starts_with(b"LD_") {
            return false;
        }
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair);
        while list < end {
            let other = CStr::from_ptr(*list).to_bytes();
            if other.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'=')) {
                return true;
            }
            list = list.add(1);
        }
    }
    false
}

/// The guest path of the program, where it was told.
pub(crate) fn exe() -> Option<&'static CStr> {
    EXE.get()
}

/// The name by which the program was started.
pub(crate) fn given() -> Option<&'static CStr> {
    GIVEN.get()
}

/// The first argument, where the loader could not be told.
pub(crate) fn argv0() -> Option<&'static CStr> {
    ARGV0.get()
}

/// Whom the process that executed this one took itself for.
pub(crate) fn person() -> Option<&'static CStr> {
    PERSON.get()
}

/// The arguments that lie on the stack before the environment.
pub(crate) fn arguments() -> *mut *mut c_char {
    let list = first();
    if list.is_null() {
        return list;
    }
    // SAFETY: before the environment lie a null, the arguments, and their number (the System V ABI's process
    // initialization; loaders that take arguments away keep it so).
    unsafe {
        let mut at = list.sub(2);
        let mut count = 0;
        while (*at).addr() != count {
            at = at.sub(1);
            count += 1;
        }
        at.add(1)
    }
}
