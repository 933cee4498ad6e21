//! Whom a thread of the guest takes itself for: the kernel, too, keeps credentials per thread.

use std::rc::Rc;

use coracle_intercept::Credentials;

/// Credentials and supplementary groups.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) credentials: Credentials,
    pub(crate) groups: Rc<[u32]>,
}

impl Person {
    /// The run's first process.
    pub(crate) fn new(uid: u32, gid: u32, groups: &[u32]) -> Self {
        Self { credentials: Credentials::first(uid, gid), groups: Rc::from(groups) }
    }
}
