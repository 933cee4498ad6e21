//! The table of a shared tree's names, mapped: paths in it then resolve without a system call.
//!
//! It lies beside the tree, made by whoever unpacked that. Trees of older versions have none, and a table that is not whole
//! or not from the tree's owner is left alone: the walk asks the kernel then, which is slower and no less right.

use std::{
    fs::File,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    ptr, slice,
};

use coracle_paths::Table;

/// A table's bytes, for as long as this lives.
#[derive(Debug)]
pub struct Names {
    at: *mut libc::c_void,
    len: usize,
}

impl Names {
    /// Maps the table of the tree at `root`, if there is one that can be trusted.
    pub fn map(path: &Path, root: &Path) -> Option<Self> {
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
        let meta = file.metadata().ok()?;
        let others_may_write = meta.mode() & 0o022 != 0;
        if !meta.is_file() || others_may_write || meta.uid() != std::fs::metadata(root).ok()?.uid() {
            return None;
        }
        let len = usize::try_from(meta.len()).ok().filter(|len| *len > 0)?;
        let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping of a file of ours at a place of the kernel's choice.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return None;
        }
        let names = Self { at, len };
        Table::is_whole(names.bytes()).then_some(names)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`. The file is written once, before the
        // tree gets its name, and never changed or cut afterwards: it belongs to this user or root, and nobody else may
        // write to it.
        unsafe { slice::from_raw_parts(self.at.cast(), self.len) }
    }

    /// The table.
    pub fn table(&self) -> Option<Table<'_>> {
        Table::new(self.bytes()).ok()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` mapped; tables borrow `self`.
        unsafe { libc::munmap(self.at, self.len) };
    }
}
