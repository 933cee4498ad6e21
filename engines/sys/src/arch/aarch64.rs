//! aarch64: the number in x8, arguments in x0 to x5, the result in x0; all other registers are kept (syscall(2)).

use core::arch::asm;

/// A system call of no argument; the result as the kernel gives it, an error as -4095 to -1.
///
/// # Safety
/// Whatever this call does to memory, descriptors and threads of this process must be sound: pointers valid for what the
/// kernel reads and writes, nothing unmapped that Rust still refers to.
#[inline]
pub unsafe fn syscall0(number: u32) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the calling convention above; the caller answers for the call itself.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            lateout("x0") result,
            options(nostack),
        );
    }
    result
}

/// A system call of one argument; the result as the kernel gives it, an error as -4095 to -1.
///
/// # Safety
/// Whatever this call does to memory, descriptors and threads of this process must be sound: pointers valid for what the
/// kernel reads and writes, nothing unmapped that Rust still refers to.
#[inline]
pub unsafe fn syscall1(number: u32, a: usize) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the calling convention above; the caller answers for the call itself.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") a => result,
            options(nostack),
        );
    }
    result
}

/// A system call of two arguments; the result as the kernel gives it, an error as -4095 to -1.
///
/// # Safety
/// Whatever this call does to memory, descriptors and threads of this process must be sound: pointers valid for what the
/// kernel reads and writes, nothing unmapped that Rust still refers to.
#[inline]
pub unsafe fn syscall2(number: u32, a: usize, b: usize) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the calling convention above; the caller answers for the call itself.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") a => result,
            in("x1") b,
            options(nostack),
        );
    }
    result
}

/// A system call of three arguments; the result as the kernel gives it, an error as -4095 to -1.
///
/// # Safety
/// Whatever this call does to memory, descriptors and threads of this process must be sound: pointers valid for what the
/// kernel reads and writes, nothing unmapped that Rust still refers to.
#[inline]
pub unsafe fn syscall3(number: u32, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the calling convention above; the caller answers for the call itself.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            options(nostack),
        );
    }
    result
}

/// A system call of four arguments; the result as the kernel gives it, an error as -4095 to -1.
///
/// # Safety
/// Whatever this call does to memory, descriptors and threads of this process must be sound: pointers valid for what the
/// kernel reads and writes, nothing unmapped that Rust still refers to.
#[inline]
pub unsafe fn syscall4(number: u32, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the calling convention above; the caller answers for the call itself.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            options(nostack),
        );
    }
    result
}

/// A system call of five arguments; the result as the kernel gives it, an error as -4095 to -1.
///
/// # Safety
/// Whatever this call does to memory, descriptors and threads of this process must be sound: pointers valid for what the
/// kernel reads and writes, nothing unmapped that Rust still refers to.
#[inline]
pub unsafe fn syscall5(number: u32, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the calling convention above; the caller answers for the call itself.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            options(nostack),
        );
    }
    result
}

/// A system call of six arguments; the result as the kernel gives it, an error as -4095 to -1.
///
/// # Safety
/// Whatever this call does to memory, descriptors and threads of this process must be sound: pointers valid for what the
/// kernel reads and writes, nothing unmapped that Rust still refers to.
#[inline]
pub unsafe fn syscall6(number: u32, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the calling convention above; the caller answers for the call itself.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            in("x5") f,
            options(nostack),
        );
    }
    result
}
