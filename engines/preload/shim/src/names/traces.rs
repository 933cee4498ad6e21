//! backtrace_symbols(3) and backtrace_symbols_fd(3): the files in them are the loader's, and shown by the guest's names.

use core::{
    ffi::{CStr, c_char, c_int, c_void},
    slice,
};

use coracle_sys::Fd;

use super::loading::{dladdr1, guest_name};
use crate::{
    files::Short,
    libc::{Next, free, malloc},
    pool,
    shown::put,
};

/// A line's file, and what follows it: `FILE(SYMBOL+0x1) [0x2]`, `FILE [0x2]`. Symbols hold no parenthesis.
fn parts(line: &[u8]) -> (&[u8], &[u8]) {
    let bracket = line.iter().rposition(|byte| *byte == b'[').map_or(0, |at| at.saturating_sub(1));
    line.split_at(line.iter().rposition(|byte| *byte == b'(').unwrap_or(bracket))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn backtrace_symbols(addresses: *const *mut c_void, count: c_int) -> *mut *mut c_char {
    static NEXT: Next = Next::new(c"backtrace_symbols");
    type Ask = unsafe extern "C" fn(*const *mut c_void, c_int) -> *mut *mut c_char;
    let null = core::ptr::null_mut();
    let Some(next) = NEXT.get() else { return null };
    // SAFETY: the function of that name, and the caller's own arguments.
    let (theirs, lines) = unsafe {
        let next: Ask = core::mem::transmute(core::ptr::with_exposed_provenance::<()>(next));
        let theirs = next(addresses, count);
        if theirs.is_null() {
            return null;
        }
        (theirs, slice::from_raw_parts(theirs, usize::try_from(count).unwrap_or(0)))
    };
    // SAFETY: as many strings as addresses, which that function made.
    let texts = || lines.iter().map(|line| unsafe { CStr::from_ptr(*line) }.to_bytes());
    let Some(mut block) = pool::take() else { return theirs };
    let room = pool::bytes(&mut block);
    let heads = size_of_val(lines);
    let size: usize = texts()
        .map(|line| {
            let (file, rest) = parts(line);
            guest_name(file, room).map_or(file.len(), <[u8]>::len) + rest.len() + 1
        })
        .sum();
    // SAFETY: malloc takes a number; a new block, whose beginning is as many pointers, and behind them so many bytes.
    unsafe {
        let ours = malloc(heads + size).cast::<*mut c_char>();
        if ours.is_null() {
            return theirs;
        }
        let mut at = ours.cast::<u8>().add(heads);
        for (number, line) in texts().enumerate() {
            ours.add(number).write(at.cast());
            let (file, rest) = parts(line);
            for part in [guest_name(file, room).unwrap_or(file), rest, b"\0"] {
                at.copy_from_nonoverlapping(part.as_ptr(), part.len());
                at = at.add(part.len());
            }
        }
        free(theirs.cast());
        ours
    }
}

/// As glibc writes them; nothing is allocated, since handlers of crashes call this.
#[unsafe(no_mangle)]
unsafe extern "C" fn backtrace_symbols_fd(addresses: *const *mut c_void, count: c_int, descriptor: c_int) {
    /// `RTLD_DL_LINKMAP`.
    const MAP: c_int = 2;
    let file = Fd(descriptor);
    for number in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's array.
        let address = unsafe { *addresses.add(number) };
        let mut info = [core::ptr::null::<c_char>(); 4];
        let mut map: *mut c_void = core::ptr::null_mut();
        // SAFETY: room for a `Dl_info` and for a pointer; the first field of a link map is where its file was loaded,
        // and the strings are the loader's and ours.
        unsafe {
            let found = dladdr1(address, info.as_mut_ptr(), &raw mut map, MAP) != 0;
            let [name, _, symbol, symbol_at] = info;
            if found && !name.is_null() && !map.is_null() && !CStr::from_ptr(name).is_empty() {
                let _ = put(file, CStr::from_ptr(name).to_bytes());
                let base = *map.cast::<usize>();
                if !symbol.is_null() || base != 0 {
                    let from = if symbol.is_null() { base } else { symbol_at.addr() };
                    let (sign, distance): (&[u8], _) = match address.addr().checked_sub(from) {
                        Some(distance) => (b"+0x", distance),
                        None => (b"-0x", from - address.addr()),
                    };
                    let _ = put(file, b"(");
                    if !symbol.is_null() {
                        let _ = put(file, CStr::from_ptr(symbol).to_bytes());
                    }
                    let _ = put(file, hexadecimal(Short::<24>::new().put(sign), distance).put(b")").as_bytes());
                }
            }
        }
        let _ = put(file, hexadecimal(Short::<24>::new().put(b"[0x"), address.addr()).put(b"]\n").as_bytes());
    }
}

fn hexadecimal<const N: usize>(text: Short<N>, number: usize) -> Short<N> {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    (0..digits).rev().fold(text, |text, at| text.put(&[b"0123456789abcdef"[number >> (4 * at) & 15]]))
}
