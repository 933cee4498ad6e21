//! x86_64: the number in rax, arguments in rdi, rsi, rdx, r10, r8, r9, the result in rax; the kernel overwrites rcx and
//! r11 (syscall(2)).

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
            "syscall",
            inlateout("rax") number as usize => result,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") a,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") a,
            in("rsi") b,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
