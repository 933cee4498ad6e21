//! What this process is: the program that it runs, as the guest calls it, and the directory that is its root.

use core::{
    cell::UnsafeCell,
    ffi::CStr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use coracle_entry::Carried;
use coracle_paths::PATH_MAX;
use coracle_sys::{
    self as sys, Fd,
    kernel::{O_CLOEXEC, O_RDONLY},
};

use crate::{
    environment,
    files::{self, Held, Short},
    state,
};

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

/// The same of another process, which began with it in its environment; `None`: it runs no loader of this run's, or may not
/// be looked into.
pub(crate) fn path_of(pid: u32, exe: &mut [u8]) -> Option<usize> {
    let of = |name: &[u8]| Short::<32>::new().put(b"/proc/").number(pid).put(name);
    let mut program = [0; PATH_MAX];
    let len = files::readlink(of(b"/exe").as_c_str(), &mut program).ok()?;
    state::get().run.loaders().find(|loader| loader.host.to_bytes() == &program[..len])?;
    let file = Held(sys::open(Fd::CWD, of(b"/environ").as_c_str(), O_RDONLY | O_CLOEXEC, 0).ok()?);
    // Variable by variable, of which those that are longer than the room are none of ours.
    let mut text = [0; 2 * PATH_MAX];
    let mut have = 0;
    let mut cut = false;
    loop {
        let more = sys::read(file.0, &mut text[have..]).ok()?;
        have += more;
        while let Some(end) = text[..have].iter().position(|byte| *byte == 0) {
            if let Some((Carried::Exe, path)) = coracle_entry::received(None, &text[..end])
                && !cut
            {
                exe.get_mut(..path.len())?.copy_from_slice(path);
                return Some(path.len());
            }
            cut = false;
            text.copy_within(end + 1..have, 0);
            have -= end + 1;
        }
        if more == 0 {
            return None;
        }
        if have == text.len() {
            (have, cut) = (0, true);
        }
    }
}
