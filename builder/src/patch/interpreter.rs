//! Programs name their loader by an absolute path, which the kernel looks up on the host: edited to lie in the view.
//!
//! The new path goes past the end of the file, and `PT_INTERP`'s `p_offset` and `p_filesz` lead there: the kernel reads
//! the name from the file (execve(2)). `p_vaddr` stays, where the loader finds its own name as it was, and `p_memsz`
//! with it; nothing that is mapped moves.

use std::io;

use coracle_format::Edit;
use goblin::elf::program_header::ProgramHeader;

use super::{
    bytes::Bytes,
    object::{Object, Odd},
    paths::LONGEST,
};

/// Bytes for the path, its NUL and padding: the kernel takes up to 4,096. Longer than that of any cache that is known,
/// and still less than most files leave of their last block.
pub(super) const SLOT: u32 = 1024;

/// The loader that a program names.
pub(super) fn name(file: Bytes<'_>, segment: &ProgramHeader) -> io::Result<Result<Vec<u8>, Odd>> {
    let odd = Ok(Err(Odd("its loader's name makes no sense")));
    if !(2..=LONGEST as u64).contains(&segment.p_filesz) {
        return odd;
    }
    let Some(mut bytes) = file.get(segment.p_offset, segment.p_filesz)? else { return odd };
    let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return odd };
    bytes.truncate(end);
    if bytes.starts_with(b"/") { Ok(Ok(bytes)) } else { odd }
}

/// The edits that make the loader at guest path `suffix` a program's.
pub(super) fn edits(object: &Object, number: usize, file: Bytes<'_>, suffix: &[u8]) -> Result<Vec<(u64, Edit)>, Odd> {
    if file.size > object.end {
        // An archive, a signature, a script's data: found by counting from the end.
        return Err(Odd("it has data of its own behind the program"));
    }
    if suffix.len() + 1 >= SLOT as usize {
        return Err(Odd("its loader's path is too long"));
    }
    let offset = file.size.next_multiple_of(16);
    let at = object.segment_at(number);
    let path = Edit::Path { slot: SLOT, suffix: suffix.to_vec() };
    // Offsets of p_offset and p_filesz in Elf64_Phdr (elf(5)).
    Ok(vec![
        (at + 8, Edit::Bytes(offset.to_le_bytes().to_vec())),
        (at + 32, Edit::Bytes(u64::from(SLOT).to_le_bytes().to_vec())),
        (offset, path),
    ])
}
