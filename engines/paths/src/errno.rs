//! Error numbers as the kernel knows them; the few that path resolution itself can answer have names here.

use core::fmt;

/// A Linux error number (`errno(3)`), the same on every architecture that Coracle knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub u16);

impl Errno {
    /// No such file or directory.
    pub const ENOENT: Self = Self(2);
    /// Permission denied.
    pub const EACCES: Self = Self(13);
    /// Across mounts.
    pub const EXDEV: Self = Self(18);
    /// Not a directory.
    pub const ENOTDIR: Self = Self(20);
    /// Invalid argument; from readlink(2): not a symbolic link.
    pub const EINVAL: Self = Self(22);
    /// File name too long.
    pub const ENAMETOOLONG: Self = Self(36);
    /// Too many levels of symbolic links.
    pub const ELOOP: Self = Self(40);
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ENOENT => f.write_str("ENOENT"),
            Self::EACCES => f.write_str("EACCES"),
            Self::EXDEV => f.write_str("EXDEV"),
            Self::ENOTDIR => f.write_str("ENOTDIR"),
            Self::EINVAL => f.write_str("EINVAL"),
            Self::ENAMETOOLONG => f.write_str("ENAMETOOLONG"),
            Self::ELOOP => f.write_str("ELOOP"),
            Self(number) => write!(f, "errno {number}"),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
