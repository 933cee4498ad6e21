//! rpm's own container (`lib/backend/ndb/rpmpkg.c`): pages of slots, each of which tells where a header is.

use super::little;

const PAGE: usize = 4096;
/// Slots, and the units in which places are counted.
const SLOT: usize = 16;
const MAGIC: &[u8] = b"RpmP";

/// All headers; none if the file is no such container.
pub(super) fn headers(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    if !file.starts_with(MAGIC) {
        return None;
    }
    let pages = little(file, 12)?;
    let slots = file.get(..pages.checked_mul(PAGE)?)?;
    let mut found = Vec::new();
    // The first two slots are the file's own header.
    for slot in slots.chunks_exact(SLOT).skip(2) {
        let (package, unit) = (little(slot, 4)?, little(slot, 8)?);
        if !slot.starts_with(b"Slot") || package == 0 || unit == 0 {
            continue;
        }
        let blob = file.get(unit.checked_mul(SLOT)?..)?;
        if !blob.starts_with(b"BlbS") || little(blob, 4)? != package {
            return None;
        }
        found.push(blob.get(SLOT..)?.get(..little(blob, 12)?)?.to_vec());
    }
    Some(found)
}
