//! The environment of this process: what travelled in it for the shim alone is taken out before the guest sees it.

use core::{
    ffi::{CStr, c_char},
    sync::atomic::{AtomicPtr, Ordering},
};

use coracle_entry::{Carried, RUN, Run, received};

use crate::arch::{self, Variable};

/// The environment as the loader handed it to our constructor, if it did.
static HANDED: AtomicPtr<*mut c_char> = AtomicPtr::new(core::ptr::null_mut());

/// What was carried, as strings of the first environment, which stay where they are; null: it was not.
static DESCRIPTION: Word = Word::new();
static EXE: Word = Word::new();
static GIVEN: Word = Word::new();
static ARGV0: Word = Word::new();
static PERSON: Word = Word::new();

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
    DESCRIPTION.get().or_else(|| value_in(first(), RUN.as_bytes()))
}

/// Takes out of the environment what is not the guest's, and puts back what was hidden from its loader.
pub(crate) fn clean(run: &Run<'_>) {
    let list = first();
    if list.is_null() {
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
                    match what {
                        Carried::Description => DESCRIPTION.set(value),
                        Carried::Exe => EXE.set(value),
                        Carried::Given => GIVEN.set(value),
                        Carried::Argv0 => ARGV0.set(value),
                        Carried::Person => PERSON.set(value),
                        Carried::Restored | Carried::Ours => {}
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
