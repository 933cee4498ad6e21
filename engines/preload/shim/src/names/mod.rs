//! The names: what a program links to, and what its C library calls likewise.
//!
//! Most names *are* a system call, under one or several spellings: the table [`plain`] says which. The others have files of
//! their own, one noun each.

mod actions;
mod commands;
pub(crate) mod directories;
pub(crate) mod exec;
pub(crate) mod loading;
pub(crate) mod opening;
mod owners;
pub(crate) mod places;
pub(crate) mod plain;
mod sockets;
pub(crate) mod stat;
pub(crate) mod streams;
mod temporary;
mod traces;

use crate::{call::call_at_length, fast, libc::answer};

/// The working directory, where a call takes a directory.
const AT_FDCWD: usize = (-100_isize).cast_unsigned();

/// A call as the C library gives its result.
#[inline(always)]
fn asked(number: u32, args: [usize; 6]) -> isize {
    // Of most names the number says that they cannot go the short way, and of the others it is as short as can be.
    answer(fast::call(number, args).unwrap_or_else(|| call_at_length(number, args)))
}

/// Defines libc names that are a system call with the same arguments.
macro_rules! calls {
    ($($number:ident: $($name:ident)+;)+) => {
        $($(
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
                $crate::names::asked(coracle_sys::kernel::$number, [a, b, c, d, e, f])
            }
        )+)+
    };
}
use calls;
