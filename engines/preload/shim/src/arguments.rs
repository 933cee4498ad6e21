//! What `/proc/PID/cmdline` shows of a program that its loader was told of: the arguments that the guest gave.
//!
//! The kernel shows the strings that it put on the stack, and so the loader, its options and host paths. It takes another
//! range from a process without privileges (prctl(2), `PR_SET_MM_MAP`, where it was built with checkpoints; elsewhere the
//! loader stays to be seen). The guest's arguments are the end of what is there; the first is put right before the
//! others, over the program's host path, which glibc's loader has copied by then. So they are in one piece, as programs
//! expect that write their state over them (setproctitle). musl's loader goes on using that path: there the kernel is
//! shown a copy.

use core::{
    ffi::{CStr, c_char},
    ptr,
};

use coracle_sys::{
    self as sys, Fd,
    kernel::{__NR_brk, __NR_prctl, MAP_ANONYMOUS, MAP_PRIVATE, O_CLOEXEC, O_RDONLY, PROT_READ, PROT_WRITE},
};

use crate::{call::raw, files::Held};

const PR_SET_MM: usize = 35;
const PR_SET_MM_MAP: usize = 14;

/// The kernel's `struct prctl_mm_map` (linux/prctl.h), whose words have the size of pointers here.
#[repr(C)]
struct Map {
    start_code: usize,
    end_code: usize,
    start_data: usize,
    end_data: usize,
    start_brk: usize,
    brk: usize,
    start_stack: usize,
    arg_start: usize,
    arg_end: usize,
    env_start: usize,
    env_end: usize,
    /// No vector: the kernel keeps the one that it has.
    auxv: usize,
    auxv_size: u32,
    /// No file: nor that.
    exe_fd: u32,
}

impl Map {
    /// What the kernel believes now: proc_pid_stat(5), by the numbers of its fields.
    fn now() -> Option<Self> {
        let file = Held(sys::open(Fd::CWD, c"/proc/self/stat", O_RDONLY | O_CLOEXEC, 0).ok()?);
        let mut text = [0; 1024];
        let len = sys::read(file.0, &mut text).ok()?;
        // The second field is a name in parentheses, which may hold any character.
        let (third, rest) = (3, &text[..len]);
        let after_name = rest.iter().rposition(|byte| *byte == b')')? + 2;
        let mut fields = [0; 52];
        for (field, word) in fields[third..].iter_mut().zip(rest.get(after_name..)?.split(|byte| *byte == b' ')) {
            *field = word
                .iter()
                .filter(|byte| byte.is_ascii_digit())
                .fold(0_usize, |number, digit| number.wrapping_mul(10).wrapping_add(usize::from(digit - b'0')));
        }
        let brk = usize::try_from(raw(__NR_brk, [0; 6])).ok()?;
        let map = Self {
            start_code: fields[26],
            end_code: fields[27],
            start_data: fields[45],
            end_data: fields[46],
            start_brk: fields[47],
            brk,
            start_stack: fields[28],
            arg_start: fields[48],
            arg_end: fields[49],
            env_start: fields[50],
            env_end: fields[51],
            auxv: 0,
            auxv_size: 0,
            exe_fd: u32::MAX,
        };
        (map.arg_start > 0 && map.arg_start < map.arg_end).then_some(map)
    }
}

/// Has the kernel show these arguments, `main`'s own. `copied`: the loader is done with the strings that lie before them.
pub(crate) fn show(arguments: *mut *mut c_char, copied: bool) {
    if arguments.is_null() {
        return;
    }
    // SAFETY: the array that `main` gets, of pointers to strings that stay and a null; no other thread runs yet.
    unsafe {
        let (first, second) = (*arguments, *arguments.add(usize::from(!(*arguments).is_null())));
        if first.is_null() {
            return;
        }
        let len = CStr::from_ptr(first).count_bytes() + 1;
        if ptr::eq(first.add(len), second) {
            // As the kernel laid them: no loader was told anything.
            return;
        }
        let Some(mut map) = Map::now() else { return };
        let address = |at: *mut c_char| at.expose_provenance();
        if map.arg_start == address(first) {
            return;
        }
        let others = if second.is_null() { map.arg_end } else { address(second) };
        if others <= map.arg_start || others > map.arg_end {
            return;
        }
        let in_place = copied && room_before(others, map.arg_start) >= len;
        let Some(at) = (if in_place { Some(others - len) } else { copy_of(others, map.arg_end, len) }) else {
            return;
        };
        let shown = ptr::with_exposed_provenance_mut::<c_char>(at);
        shown.copy_from(first, len);
        if in_place {
            arguments.write(shown);
        } else {
            map.arg_end = at + len + (map.arg_end - others);
        }
        map.arg_start = at;
        let map = (&raw const map).expose_provenance();
        raw(__NR_prctl, [PR_SET_MM, PR_SET_MM_MAP, map, size_of::<Map>(), 0, 0]);
    }
}

/// Bytes of the string that ends right before `end`, its NUL among them.
///
/// # Safety
/// From `start` to `end` lie strings that end with NUL.
unsafe fn room_before(end: usize, start: usize) -> usize {
    // SAFETY: the caller's strings.
    let text = unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance::<u8>(start), end - start) };
    let string = text.split_last().map_or(text, |(_, before)| before);
    text.len() - string.iter().rposition(|byte| *byte == 0).map_or(0, |nul| nul + 1)
}

/// Memory for a first argument of `len` bytes, behind which the other arguments are copied.
///
/// # Safety
/// From `others` to `end` lie the other arguments.
unsafe fn copy_of(others: usize, end: usize, len: usize) -> Option<usize> {
    let more = end - others;
    // SAFETY: a new mapping at a place of the kernel's choice, as long as what is copied, which the caller vouches for.
    unsafe {
        let at = sys::map(0, len + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, None, 0).ok()?;
        let copy = ptr::with_exposed_provenance_mut::<u8>(at + len);
        copy.copy_from_nonoverlapping(ptr::with_exposed_provenance(others), more);
        Some(at)
    }
}
