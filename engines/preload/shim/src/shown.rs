//! Files of `/proc` whose text names host places, as the guest is to read them.

use core::ffi::CStr;

use coracle_paths::View;

use crate::files::Held;

/// A file that shows what `/proc` file `host` says to a guest with this view; `None`: it stays the host's.
pub(crate) fn make(_: &View<'_>, _: u32, _: &CStr) -> Option<Held> {
    None
}
