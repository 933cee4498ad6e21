//! Sockets, whose addresses may be paths. The C library makes these calls itself: a thread may be cancelled in them, and
//! musl's `struct msghdr` has fields that the kernel's has not.

use coracle_sys::kernel::{
    __NR_accept, __NR_accept4, __NR_bind, __NR_connect, __NR_getpeername, __NR_getsockname, __NR_getsockopt,
    __NR_recvfrom, __NR_recvmmsg, __NR_recvmsg, __NR_sendmmsg, __NR_sendmsg, __NR_sendto,
};

use crate::{
    call::call_by,
    libc::{Next, answer},
};

macro_rules! by_libc {
    ($($number:ident: $name:ident $text:literal;)+) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $name(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
                static NEXT: Next = Next::new($text);
                answer(call_by(&NEXT, $number, [a, b, c, d, e, f]))
            }
        )+
    };
}

by_libc! {
    __NR_bind: bind c"bind";
    __NR_connect: connect c"connect";
    __NR_connect: __connect c"__connect";
    __NR_accept: accept c"accept";
    __NR_accept4: accept4 c"accept4";
    __NR_getsockname: getsockname c"getsockname";
    __NR_getpeername: getpeername c"getpeername";
    __NR_getsockopt: getsockopt c"getsockopt";
    __NR_sendto: sendto c"sendto";
    __NR_recvfrom: recvfrom c"recvfrom";
    __NR_sendmsg: sendmsg c"sendmsg";
    __NR_recvmsg: recvmsg c"recvmsg";
    __NR_sendmmsg: sendmmsg c"sendmmsg";
    __NR_recvmmsg: recvmmsg c"recvmmsg";
}

/// The fortified recvfrom(2): more than there is room for is the C library's own function's to end the program for.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __recvfrom_chk(
    socket: usize,
    buffer: usize,
    len: usize,
    room: usize,
    flags: usize,
    address: usize,
    address_len: usize,
) -> isize {
    static NEXT: Next = Next::new(c"__recvfrom_chk");
    type Receive = unsafe extern "C-unwind" fn(usize, usize, usize, usize, usize, usize, usize) -> isize;
    if len > room
        && let Some(next) = NEXT.get()
    {
        // SAFETY: the function of that name, the caller's own arguments.
        return unsafe {
            let next: Receive = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
            next(socket, buffer, len, room, flags, address, address_len)
        };
    }
    // SAFETY: the caller's own arguments.
    unsafe { recvfrom(socket, buffer, len, flags, address, address_len) }
}
