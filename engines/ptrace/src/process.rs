//! What the tracer knows of each process of a guest: what the kernel, too, keeps per process and not per thread.
//!
//! All threads of a process share one record. A child process gets a copy of its own, whatever else it shares with its
//! parent; execve(2) keeps the record and changes in it what the new program changes.

use std::{cell::RefCell, rc::Rc};

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Its id, which is that of its first thread.
    pub(crate) id: i32,
    /// Guest path of the program that it runs.
    pub(crate) exe: Rc<[u8]>,
    /// Device and inode of that program.
    pub(crate) file: (u64, u64),
    /// Its root directory, a canonical guest path.
    pub(crate) root: Rc<[u8]>,
    /// Where the window lies in its memory.
    pub(crate) window: u64,
    /// It can execute what is there.
    pub(crate) springs: bool,
    /// It believes that others may look into it.
    pub(crate) dumpable: bool,
    /// Some guest may hold open a file that tells of its threads' affinity.
    pub(crate) watched: bool,
}

/// A process as its threads hold it.
pub(crate) type Shared = Rc<RefCell<Process>>;

impl Process {
    /// A process that nothing is known of yet but where it sees the window.
    pub(crate) fn new(id: i32, window: u64) -> Shared {
        let root: Rc<[u8]> = Rc::from(&b"/"[..]);
        let exe = Rc::clone(&root);
        Rc::new(RefCell::new(Self {
            id,
            exe,
            file: (0, 0),
            root,
            window,
            springs: false,
            dumpable: true,
            watched: false,
        }))
    }

    /// The record of its new child `id`.
    pub(crate) fn fork(&self, id: i32) -> Shared {
        Rc::new(RefCell::new(Self { id, watched: false, ..self.clone() }))
    }
}
