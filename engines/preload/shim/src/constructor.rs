//! What happens when the library is loaded, and when it fails.

use core::ffi::{CStr, c_char, c_int};

use coracle_sys::kernel::__NR_prctl;

use crate::{
    arch::{self, Variable},
    arguments,
    call::raw,
    environment, sites, state,
};

/// prctl(2): the thread's name.
const PR_SET_NAME: usize = 15;

/// Runs before the program's `main`, though not before constructors of other libraries. musl hands it nothing.
unsafe extern "C" fn constructor(_: c_int, arguments: *mut *mut c_char, environment: *mut *mut c_char) {
    let handed = arch::gnu_get_libc_version();
    if handed {
        environment::handed(environment);
    }
    environment::clean(&state::get().run);
    sites::start();
    let arguments = if handed { arguments } else { environment::arguments() };
    if let Some(name) = environment::argv0() {
        if !arguments.is_null() {
            // SAFETY: the array that `main` gets, whose first was the program's host path; the string stays.
            unsafe { arguments.write(name.as_ptr().cast_mut()) };
        }
        rename(name);
    }
    arguments::show(arguments, handed);
    if let Some(given) = environment::given() {
        // fexecve(3) has no name but the program's own.
        let by_descriptor = given.to_bytes().strip_prefix(b"/dev/fd/").is_some_and(|rest| !rest.contains(&b'/'));
        let name = after_slash(environment::exe().filter(|_| by_descriptor).unwrap_or(given));
        raw(__NR_prctl, [PR_SET_NAME, name.as_ptr().expose_provenance(), 0, 0, 0, 0]);
    }
}

/// Tells the C library the program's name, which it took from the first argument.
fn rename(name: &'static CStr) {
    for (which, name) in [(Variable::Name, name), (Variable::ShortName, after_slash(name))] {
        if let Some(variable) = arch::variable(which) {
            // SAFETY: the C library's own variable of that type; no other thread runs yet.
            unsafe { variable.write(name.as_ptr().cast_mut().cast()) };
        }
    }
}

fn after_slash(name: &CStr) -> &CStr {
    let bytes = name.to_bytes_with_nul();
    let at = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    CStr::from_bytes_with_nul(&bytes[at..]).unwrap_or(name)
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: unsafe extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) = constructor;
