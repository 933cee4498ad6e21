//! open(3) and its kin: who waits for a pipe's other end may be cancelled, as in the C library's own.
//!
//! That needs a call of the C library's, from which it can unwind a thread. So where a path takes the long way (whatever may
//! make one wait does), glibc's function makes the call, and comes back to us with a path of ours. musl's, which would
//! come back for good (`sites::DOORS`), is not asked: there a thread that waits is not cancelled.

use coracle_sys::kernel::{__NR_creat, __NR_open, __NR_openat};

use crate::{
    arch,
    call::{call_at_length, call_by},
    fast,
    libc::{Next, answer},
};

fn opened(next: &Next, number: u32, args: [usize; 6]) -> isize {
    let at_length =
        || if arch::gnu_get_libc_version() { call_by(next, number, args) } else { call_at_length(number, args) };
    answer(fast::call(number, args).unwrap_or_else(at_length))
}

/// Defines the names of a call; the mode is the next argument, whether it was given or not.
macro_rules! opens {
    ($($number:ident $real:literal: $($name:ident)+;)+) => {
        $($(
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(a: usize, b: usize, c: usize, d: usize) -> isize {
                static NEXT: Next = Next::new($real);
                opened(&NEXT, $number, [a, b, c, d, 0, 0])
            }
        )+)+
    };
}

opens! {
    __NR_open c"open": open open64 __open __open64 __open_2 __open64_2 __libc_open __libc_open64;
    __NR_openat c"openat": openat openat64 __openat_2 __openat64_2;
    __NR_creat c"creat": creat creat64;
}
