//! Directories that are read: opendir(3) and scandir(3).

use core::ffi::{c_char, c_int, c_void};

use coracle_sys::kernel::{__NR_close, __NR_openat, O_CLOEXEC, O_DIRECTORY, O_NONBLOCK};

use super::{AT_FDCWD, asked};
use crate::{
    call::raw,
    libc::{errno, fdopendir, free, malloc, realloc, set_errno},
};

const ENOMEM: u16 = 12;

/// `struct dirent` of both C libraries, and of both sizes of file offsets.
#[repr(C)]
struct Entry {
    inode: u64,
    offset: i64,
    length: u16,
    kind: u8,
    name: [c_char; 256],
}

unsafe extern "C" {
    fn readdir(directory: *mut c_void) -> *mut Entry;
    fn closedir(directory: *mut c_void) -> c_int;
    fn qsort(base: *mut c_void, count: usize, size: usize, compare: Compare);
}

type Select = Option<unsafe extern "C" fn(*const Entry) -> c_int>;
type Compare = Option<unsafe extern "C" fn(*const c_void, *const c_void) -> c_int>;

unsafe fn open(dir: usize, path: *const c_char) -> *mut c_void {
    let flags = (O_NONBLOCK | O_DIRECTORY | O_CLOEXEC) as usize;
    let descriptor = asked(__NR_openat, [dir, path.expose_provenance(), flags, 0, 0, 0]);
    let Ok(descriptor) = c_int::try_from(descriptor) else { return core::ptr::null_mut() };
    if descriptor < 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: a descriptor of a directory that was just opened.
    let directory = unsafe { fdopendir(descriptor) };
    if directory.is_null() {
        let before = errno();
        raw(__NR_close, [usize::try_from(descriptor).unwrap_or(0), 0, 0, 0, 0, 0]);
        set_errno(u16::try_from(before).unwrap_or(ENOMEM));
    }
    directory
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn opendir(path: *const c_char) -> *mut c_void {
    // SAFETY: the caller's own argument.
    unsafe { open(AT_FDCWD, path) }
}

/// Entries that were chosen: an array that the caller is to free, as each of them.
struct List {
    first: *mut *mut Entry,
    count: usize,
    room: usize,
}

impl List {
    /// Appends a copy; `None` if there is no memory.
    unsafe fn push(&mut self, entry: *const Entry) -> Option<()> {
        // SAFETY: the array is realloc's own; an entry is as long as it says.
        unsafe {
            if self.count == self.room {
                let room = (2 * self.room).max(16);
                let grown = realloc(self.first.cast(), room * size_of::<*mut Entry>()).cast::<*mut Entry>();
                if grown.is_null() {
                    return None;
                }
                (self.first, self.room) = (grown, room);
            }
            let length = usize::from((*entry).length);
            let copy = malloc(length).cast::<u8>();
            if copy.is_null() {
                return None;
            }
            copy.copy_from_nonoverlapping(entry.cast(), length);
            self.first.add(self.count).write(copy.cast());
            self.count += 1;
        }
        Some(())
    }

    unsafe fn give_up(self) {
        // SAFETY: malloc's own memory, to which nobody else points.
        unsafe {
            for at in 0..self.count {
                free((*self.first.add(at)).cast());
            }
            free(self.first.cast());
        }
    }
}

unsafe fn scan(dir: usize, path: *const c_char, list: *mut *mut *mut Entry, select: Select, compare: Compare) -> c_int {
    // SAFETY: the caller's own path.
    let directory = unsafe { open(dir, path) };
    if directory.is_null() {
        return -1;
    }
    let before = errno();
    let mut found = List { first: core::ptr::null_mut(), count: 0, room: 0 };
    let mut whole = true;
    // SAFETY: a directory of ours until it is closed; the caller's functions get what they are defined to get.
    unsafe {
        while whole {
            set_errno(0);
            let entry = readdir(directory);
            if entry.is_null() {
                whole = errno() == 0;
                break;
            }
            set_errno(0);
            if select.is_none_or(|select| select(entry) != 0) {
                whole = found.push(entry).is_some();
            }
        }
        let failed = errno();
        closedir(directory);
        if !whole {
            found.give_up();
            set_errno(u16::try_from(failed).ok().filter(|number| *number > 0).unwrap_or(ENOMEM));
            return -1;
        }
        set_errno(u16::try_from(before).unwrap_or(0));
        if compare.is_some() && found.count > 0 {
            qsort(found.first.cast(), found.count, size_of::<*mut Entry>(), compare);
        }
        if found.first.is_null() {
            // The caller frees it.
            found.first = malloc(size_of::<*mut Entry>()).cast();
        }
        *list = found.first;
    }
    c_int::try_from(found.count).unwrap_or(c_int::MAX)
}

macro_rules! scans {
    ($($name:ident $name_at:ident;)+) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                path: *const c_char,
                list: *mut *mut *mut Entry,
                select: Select,
                compare: Compare,
            ) -> c_int {
                // SAFETY: the caller's own arguments.
                unsafe { scan(AT_FDCWD, path, list, select, compare) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name_at(
                dir: usize,
                path: *const c_char,
                list: *mut *mut *mut Entry,
                select: Select,
                compare: Compare,
            ) -> c_int {
                // SAFETY: the caller's own arguments.
                unsafe { scan(dir, path, list, select, compare) }
            }
        )+
    };
}

scans! {
    scandir scandirat;
    scandir64 scandirat64;
}
