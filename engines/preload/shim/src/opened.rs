//! What stat(2) and its kin tell of a file that is open: the kernel is asked by the descriptor itself, and what the guest is
//! to know otherwise is put in. (The table's own way is by a path that a tracer can ask, too.)

use coracle_intercept::{After, Layout};
use coracle_sys::kernel::{__NR_fstat, __NR_newfstatat, __NR_statx, AT_EMPTY_PATH, STATX_MTIME};

use crate::{memory, state::State};

/// What is to be done with the result of a call that asks about an open file; `None`: this is none, or the host's
/// answer is the guest's. The call may be asked for more, by which files are known.
#[expect(non_upper_case_globals, reason = "the kernel's own names")]
pub(crate) fn asks(state: &State, number: u32, args: &mut [usize; 6]) -> Option<After> {
    if !state.rules.shows_files() {
        return None;
    }
    let itself = |path: usize, flags: usize| flags & AT_EMPTY_PATH as usize != 0 && is_empty(path);
    let (at, layout) = match number {
        __NR_fstat => (args[1], Layout::Stat),
        __NR_newfstatat if itself(args[1], args[3]) => (args[2], Layout::Stat),
        __NR_statx if itself(args[1], args[2]) => {
            args[3] |= STATX_MTIME as usize;
            (args[4], Layout::Statx)
        }
        _ => return None,
    };
    Some(After::Owner { at: at as u64, layout })
}

fn is_empty(path: usize) -> bool {
    memory::begins(path, b"\0")
}
