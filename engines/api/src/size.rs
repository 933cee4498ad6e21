//! Sizes as people write them: `500M`, `1.5T`, `20GiB`, or a number of bytes. Units are powers of 1024.

/// No size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not of that form.
    #[error("no size: write a number with K, M, G or T behind it (powers of 1024)")]
    Malformed,
    /// More bytes than 64 bits can count.
    #[error("larger than any file can be")]
    TooLarge,
}

/// The number of bytes that `text` means. Of a fraction the first digit counts.
///
/// # Errors
/// [`SizeError`].
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(SizeError::Malformed),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(SizeError::Malformed);
    }
    let tenths = u64::from(fraction.as_bytes()[0] - b'0');
    let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1 << shift));
    whole.and_then(|whole| whole.checked_add((tenths << shift) / 10)).ok_or(SizeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::{SizeError, parse};

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("17b", 17),
            ("500M", 500 << 20),
            ("1.5g", 3 << 29),
            ("1.25K", 1024 + 204),
            ("20GiB", 20 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "G", "M", "-1", "-1G", "1X", "12Q", "1.", ".5G", "1..5G", "1.xG", "1.5.5G"] {
            assert_eq!(parse(wrong), Err(SizeError::Malformed), "{wrong}");
        }
        for huge in ["99999999999999999999", "99999999999T", "18446744073709551615K"] {
            assert_eq!(parse(huge), Err(SizeError::TooLarge), "{huge}");
        }
    }
}
