//! A checksum for files that this program wrote itself: against damage, not against anybody. Its build counts it too
//! (`build.rs`), so it uses nothing but core.

/// The sum of all bytes and of their number.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let with = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let (words, rest) = bytes.as_chunks();
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| with(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| with(sum, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_and_so_does_their_number() {
        let bytes: Vec<u8> = (0..=99).collect();
        let whole = sum(&bytes);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(sum(&other), whole, "{at}");
            assert_ne!(sum(&bytes[..at]), whole, "{at}");
        }
        assert_ne!(sum(&[0; 8]), sum(&[0; 16]));
    }
}
