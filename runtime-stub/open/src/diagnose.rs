//! What happened to a bundle that is not as long as it should be, or that has lost its end.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use coracle_format::{FormatError, Slot};

use super::{OpenError, to_len};

/// Stubs are far smaller; the slot lies inside the stub.
const HEAD: u64 = 16 << 20;

/// Looks for the slot in the head of a file whose end does not lead to it.
pub(super) fn find_slot(file: &File, path: &Path) -> Result<Slot, OpenError> {
    let len = file.metadata().map_err(|source| OpenError::read(path, source))?.len().min(HEAD);
    let mut head = vec![0; to_len(len)];
    file.read_exact_at(&mut head, 0).map_err(|source| OpenError::read(path, source))?;
    let not_a_bundle = || OpenError::NotABundle { path: path.to_owned() };
    if !head.starts_with(b"\x7fELF") {
        return Err(not_a_bundle());
    }
    Slot::locate(&head).map_err(|error| match error {
        FormatError::Version { .. } => OpenError::format(path, error),
        _ => not_a_bundle(),
    })
}

/// Names the reason why a file of `len` bytes does not have the length that its slot gives.
pub(super) fn wrong_length(file: &File, path: PathBuf, len: u64, slot: Slot) -> OpenError {
    if slot.payload >= slot.total {
        let why = "its lengths cannot be".to_owned();
        return OpenError::format(&path, FormatError::Corrupt { part: "slot", why });
    }
    if len > slot.total {
        return OpenError::Appended { path, extra: len - slot.total };
    }
    // Cut anywhere, a file does not end where its own ELF header says that the program ends, except by chance at P.
    if elf_end(file).is_some_and(|end| end == len) {
        return OpenError::Stripped { path, missing: slot.total - slot.payload };
    }
    OpenError::Truncated { path, found: len, expected: slot.total }
}

/// Where the ELF file ends by its own headers: after the section header table, which linkers and strip write last, or
/// after the last segment if there is no such table.
fn elf_end(file: &File) -> Option<u64> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let u16_at = |bytes: &[u8], at: usize| Some(u64::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let u64_at = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (sections, section_len, section_count) = (u64_at(&header, 40)?, u16_at(&header, 58)?, u16_at(&header, 60)?);
    if sections != 0 {
        return sections.checked_add(section_len * section_count);
    }
    let (segments, segment_len, segment_count) = (u64_at(&header, 32)?, u16_at(&header, 54)?, u16_at(&header, 56)?);
    let mut end = 0;
    for number in 0..segment_count {
        let mut segment = [0; 56];
        file.read_exact_at(&mut segment, segments.checked_add(number * segment_len)?).ok()?;
        end = end.max(u64_at(&segment, 8)?.checked_add(u64_at(&segment, 32)?)?);
    }
    Some(end)
}
