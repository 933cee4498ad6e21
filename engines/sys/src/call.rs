//! From the kernel's result to Rust's.

use crate::Errno;

/// A result as the kernel gives it: -4095 to -1 is an error, all else a value.
///
/// # Errors
/// The error that it says.
#[inline]
pub fn check(result: isize) -> Result<usize, Errno> {
    match u16::try_from(result.wrapping_neg()) {
        Ok(number @ 1..=4095) => Err(Errno(number)),
        _ => Ok(result.cast_unsigned()),
    }
}

/// As [`check`], where a value means nothing.
///
/// # Errors
/// The error that it says.
#[inline]
pub fn check_unit(result: isize) -> Result<(), Errno> {
    check(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::Errno;

    #[test]
    fn errors_are_the_last_page() {
        assert_eq!(check(-2), Err(Errno::ENOENT));
        assert_eq!(check(-4095), Err(Errno(4095)));
        assert_eq!(check(-4096), Ok(usize::MAX - 4095), "an address, from mmap");
        assert_eq!(check(0), Ok(0));
        assert_eq!(check(isize::MIN), Ok(isize::MIN.cast_unsigned()));
        assert_eq!(check(7), Ok(7));
    }
}
