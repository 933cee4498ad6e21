//! Programs that this process starts.

use coracle_intercept::errno::EFAULT;

use crate::{call::raw, guest::Process, pool::Block, state::State};

/// Makes execve(2) or execveat(2), which the table has turned into a program.
pub(crate) fn execute(_: &State, _: &Process, scratch: Block, _: (Option<i32>, bool), [argv, envp]: [u64; 2]) -> isize {
    let Some(path) = scratch.lent()[0].path() else { return -isize::try_from(EFAULT.0).unwrap_or(14) };
    let [argv, envp] = [argv, envp].map(|at| usize::try_from(at).unwrap_or(0));
    raw(coracle_sys::kernel::__NR_execve, [path.as_ptr().expose_provenance(), argv, envp, 0, 0, 0])
}
