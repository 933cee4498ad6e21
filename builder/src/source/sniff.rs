//! What bytes are, by how they begin: compressions, tars, bundles. Names and media types are not believed.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
};

use super::Compression;

/// How many bytes are looked at.
pub const HEAD: usize = 512;

/// The compression that a stream begins with.
#[must_use]
pub fn compression(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A zstd frame, or a skippable one (which seekable and chunked writers put first).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        _ => Compression::None,
    }
}

/// Whether a tar header stands here: its checksum decides, so old tars without a magic are seen too. An end-of-archive
/// block (an empty tar) counts.
#[must_use]
pub fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..512) else { return false };
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    let field: String = block[148..156].iter().map(|byte| char::from(*byte)).collect();
    let Ok(stated) = u32::from_str_radix(field.trim_matches(['\0', ' ']), 8) else { return false };
    let sum: u32 =
        block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    sum == stated
}

/// Whether a file begins as a program does; of the files a source may be, only a bundle is one.
#[must_use]
pub fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Whether a file is of a form that a source may have.
#[must_use]
pub fn is_known(head: &[u8]) -> bool {
    is_elf(head) || is_tar(head) || compression(head) != Compression::None
}

/// The first bytes of a run in a file; fewer if it is short.
///
/// # Errors
/// Those of reading.
pub fn head_at(file: &File, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut head = vec![0; usize::try_from(len).unwrap_or(HEAD).min(HEAD)];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// The decompressed bytes of a stream, all of its concatenated members.
///
/// # Errors
/// That of setting up a decoder.
pub fn decoder<'from>(from: impl Read + 'from, compression: Compression) -> io::Result<Box<dyn Read + 'from>> {
    let from = BufReader::with_capacity(1 << 17, from);
    Ok(match compression {
        Compression::None => Box::new(from),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
            // The largest window that zstd --ultra --long=31 may have asked for.
            decoder.window_log_max(31)?;
            Box::new(decoder)
        }
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(from)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tars_are_known_by_their_checksum() {
        let mut header = tar::Header::new_old();
        header.set_path("x").expect("a path");
        header.set_size(0);
        header.set_cksum();
        assert!(is_tar(header.as_bytes()));
        let mut damaged = *header.as_bytes();
        damaged[0] ^= 1;
        assert!(!is_tar(&damaged));
        assert!(is_tar(&[0; 512]) && !is_tar(&[0; 511]) && !is_tar(b""));
    }

    #[test]
    fn compressions() {
        assert_eq!(compression(&[0x1f, 0x8b, 8]), Compression::Gzip);
        assert_eq!(compression(&zstd::encode_all(&b"x"[..], 1).expect("encoded")), Compression::Zstd);
        assert_eq!(compression(&[0x52, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(compression(b"BZh91AY"), Compression::Bzip2);
        assert_eq!(compression(b"\xfd7zXZ\0"), Compression::Xz);
        assert_eq!(compression(b""), Compression::None);
    }
}
