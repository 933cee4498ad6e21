//! The fixed slot in the running stub's own memory, which the builder filled in.

use coracle_format::{FormatError, SLOT_LEN, Slot};

// A section of its own keeps the linker from merging or dropping it; it is loaded, so `strip` leaves it alone.
#[used]
// SAFETY: the section's name is no other section's, and nothing but this static is in it.
#[unsafe(link_section = ".coracle.slot")]
static SLOT: [u8; SLOT_LEN] = Slot::BARE;

/// What the builder wrote into the slot; a payload offset of 0 means that none did.
///
/// # Errors
/// As [`Slot::decode`].
pub fn read() -> Result<Slot, FormatError> {
    // SAFETY: SLOT is a static of this type. Volatile, because the builder changes its bytes after the compiler saw them.
    let bytes = unsafe { std::ptr::read_volatile(&raw const SLOT) };
    Slot::decode(&bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_unfilled_slot_says_so() {
        assert_eq!(super::read().map(|slot| (slot.payload, slot.total)), Ok((0, 0)));
    }
}
