//! What this process is: the program that it runs, as the guest calls it, and the directory that is its root.

use core::{
    cell::UnsafeCell,
    ffi::CStr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use coracle_paths::PATH_MAX;

use crate::environment;

struct Root(UnsafeCell<[u8; PATH_MAX]>);

// SAFETY: written by chroot(2) alone, which a program calls before it has threads that look up files.
unsafe impl Sync for Root {}

static ROOT: Root = Root(UnsafeCell::new([0; PATH_MAX]));
/// 0: it is `/`.
static ROOT_LEN: AtomicUsize = AtomicUsize::new(0);
static CHANGING: AtomicBool = AtomicBool::new(false);

/// The root directory, a canonical guest path.
pub(crate) fn root() -> &'static [u8] {
    match ROOT_LEN.load(Ordering::Acquire) {
        0 => b"/",
        // SAFETY: as many bytes were written before the length was.
        len => unsafe { &(&*ROOT.0.get())[..len.min(PATH_MAX)] },
    }
}

/// Whether the root is the tree's.
pub(crate) fn root_is_top() -> bool {
    ROOT_LEN.load(Ordering::Relaxed) == 0
}

/// chroot(2).
pub(crate) fn set_root(root: &[u8]) {
    while CHANGING.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let len = if root == b"/" { 0 } else { root.len().min(PATH_MAX) };
    // SAFETY: CHANGING is ours; see ROOT.
    unsafe { (&mut *ROOT.0.get())[..len].copy_from_slice(&root[..len]) };
    ROOT_LEN.store(len, Ordering::Release);
    CHANGING.store(false, Ordering::Release);
}

/// The guest path of the program, where the kernel's own link leads to a loader; `None`: the kernel's link is right.
pub(crate) fn path() -> Option<&'static [u8]> {
    environment::exe().map(CStr::to_bytes)
}
