//! The fields of a tar header: names, numbers and the checksum, as every writer there ever was may have put them.

/// A name without `.`, `..`, empty parts and leading slash.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    if name.contains(&0) {
        return Err("there is a NUL in its name");
    }
    let mut out = Vec::with_capacity(name.len());
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if out.is_empty() {
                    return Err("it leads out of the tree");
                }
                let end = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(end);
            }
            _ if part.len() > 255 => return Err("a part of its name has more than 255 bytes"),
            _ => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    Ok(out)
}

/// The bytes up to the first NUL.
pub(super) fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// A numeric field: octal digits between blanks and NULs (nothing is zero), or base 256 in two's complement.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let field = field.split(|byte| *byte == 0).find(|part| !part.is_empty()).unwrap_or_default();
    let text = std::str::from_utf8(field).ok()?.trim_matches(' ');
    if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok() }
}

/// Holds if the header's checksum is right, counted in unsigned bytes or, as some old writers did, in signed ones.
pub(super) fn check_sum(block: &[u8; 512]) -> Option<()> {
    let expected = number(&block[148..156])?;
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (expected == unsigned || expected == signed).then_some(())
}
