//! The fixed slot: 64 bytes inside the stub that the builder fills in and the running stub reads from its own memory.
//!
//! It lies in a loaded section, so `strip` keeps it: a stub whose file is shorter than the slot says was stripped or cut.

use crate::{FORMAT_VERSION, FormatError, wire::Reader};

/// Length of the slot in bytes.
pub const SLOT_LEN: usize = 64;

/// Marks the slot.
const MAGIC: [u8; 16] = *b"\x7fCORACLE-SLOT\x00\xff\n";

/// No layout will have a higher version; a mark with more behind it is none.
const VERSIONS_MOST: u32 = 1000;

/// What the slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// P: offset of the payload, which is the stub's length; 0 in a stub that no builder has filled in.
    pub payload: u64,
    /// Length of the whole bundle in bytes.
    pub total: u64,
}

impl Slot {
    /// The slot of a bare stub, for the stub's own static.
    pub const BARE: [u8; SLOT_LEN] = Self { payload: 0, total: 0 }.encode();

    /// The slot's bytes.
    #[must_use]
    pub const fn encode(self) -> [u8; SLOT_LEN] {
        let mut out = [0; SLOT_LEN];
        copy(&mut out, 0, &MAGIC);
        copy(&mut out, 16, &FORMAT_VERSION.to_le_bytes());
        copy(&mut out, 24, &self.payload.to_le_bytes());
        copy(&mut out, 32, &self.total.to_le_bytes());
        out
    }

    /// Makes a filled-in slot bare again, in place. Not by [`Slot::BARE`], which would then be a second bare slot among the
    /// constants of the stub.
    pub fn clear(bytes: &mut [u8; SLOT_LEN]) {
        bytes[24..40].fill(0);
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// [`FormatError::Missing`] without the mark, [`FormatError::Version`] for another layout.
    pub fn decode(bytes: &[u8; SLOT_LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "slot");
        if reader.array::<16>()? != MAGIC {
            return Err(FormatError::Missing { part: "slot" });
        }
        let found = reader.u32()?;
        if found != FORMAT_VERSION {
            return Err(FormatError::Version { found, expected: FORMAT_VERSION });
        }
        reader.u32()?;
        Ok(Self { payload: reader.u64()?, total: reader.u64()? })
    }

    /// Offset of the one bare slot in a stub's bytes. The whole slot is looked for, because the compiler may keep the
    /// mark alone a second time as a constant of [`Slot::decode`].
    ///
    /// # Errors
    /// [`FormatError::Missing`] if there is none, [`FormatError::Corrupt`] if there are several.
    pub fn find(stub: &[u8]) -> Result<usize, FormatError> {
        let mut found = stub.windows(SLOT_LEN).enumerate().filter(|(_, window)| *window == Self::BARE);
        let (offset, _) = found.next().ok_or(FormatError::Missing { part: "slot" })?;
        match found.next() {
            Some(_) => Err(FormatError::corrupt("stub", "it holds two bare slots")),
            None => Ok(offset),
        }
    }
}

impl Slot {
    /// The slot in the head of a file, bare or filled in: for telling what became of a bundle that lost its end.
    ///
    /// # Errors
    /// [`FormatError::Missing`] if there is none, [`FormatError::Version`] if there is only one of another layout.
    pub fn locate(head: &[u8]) -> Result<Self, FormatError> {
        let mut error = FormatError::Missing { part: "slot" };
        // A mark with anything else behind it is a constant of some program's, not a slot.
        for window in head.windows(SLOT_LEN).filter(|window| window[..MAGIC.len()] == MAGIC) {
            let Ok(window) = window.try_into() else { continue };
            match Self::decode(window) {
                Ok(slot)
                    if slot == Self { payload: 0, total: 0 } || (slot.payload > 0 && slot.payload < slot.total) =>
                {
                    return Ok(slot);
                }
                Err(other @ FormatError::Version { found, .. }) if found < VERSIONS_MOST => error = other,
                _ => {}
            }
        }
        Err(error)
    }
}

const fn copy(out: &mut [u8; SLOT_LEN], at: usize, bytes: &[u8]) {
    let mut i = 0;
    while i < bytes.len() {
        out[at + i] = bytes[i];
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_back() {
        let slot = Slot { payload: 483_928, total: 5 << 32 };
        assert_eq!(Slot::decode(&slot.encode()), Ok(slot));
        let mut bytes = slot.encode();
        Slot::clear(&mut bytes);
        assert_eq!(bytes, Slot::BARE);
    }

    #[test]
    fn a_slot_is_located_whether_filled_in_or_not() {
        let filled = Slot { payload: 100, total: 1000 };
        let impossible = Slot { payload: 1000, total: 100 };
        let mut head = b"\x7fELF".to_vec();
        assert_eq!(Slot::locate(&head), Err(FormatError::Missing { part: "slot" }));
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&impossible.encode());
        assert_eq!(Slot::locate(&head), Err(FormatError::Missing { part: "slot" }));
        head.extend_from_slice(&filled.encode());
        assert_eq!(Slot::locate(&head), Ok(filled));
        assert_eq!(Slot::locate(&Slot::BARE), Ok(Slot { payload: 0, total: 0 }));
        let mut older = filled.encode();
        older[16] -= 1;
        let version = FormatError::Version { found: FORMAT_VERSION - 1, expected: FORMAT_VERSION };
        assert_eq!(Slot::locate(&older), Err(version));
    }

    #[test]
    fn the_slot_is_found_once_or_refused() {
        let mut stub = vec![0; 100];
        assert_eq!(Slot::find(&stub), Err(FormatError::Missing { part: "slot" }));
        stub.extend_from_slice(&Slot::BARE);
        assert_eq!(Slot::find(&stub), Ok(100));
        stub.extend_from_slice(&Slot::BARE);
        assert!(matches!(Slot::find(&stub), Err(FormatError::Corrupt { .. })));
    }
}
