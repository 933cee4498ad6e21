//! Error numbers that tables and transports answer, beside those that path resolution names.

use coracle_paths::Errno;

/// No error of the kernel's, but a transport's own word: the call is to wait until the transport knows more, and be entered
/// anew. It comes back to the transport as the answer of a verdict.
pub const LATER: Errno = Errno(u16::MAX - 1);
/// Operation not permitted.
pub const EPERM: Errno = Errno(1);
/// No such process.
pub const ESRCH: Errno = Errno(3);
/// Input or output failed.
pub const EIO: Errno = Errno(5);
/// Argument list too long.
pub const E2BIG: Errno = Errno(7);
/// Not a program.
pub const ENOEXEC: Errno = Errno(8);
/// Bad descriptor.
pub const EBADF: Errno = Errno(9);
/// No child to wait for.
pub const ECHILD: Errno = Errno(10);
/// Out of memory.
pub const ENOMEM: Errno = Errno(12);
/// Bad address.
pub const EFAULT: Errno = Errno(14);
/// In use.
pub const EBUSY: Errno = Errno(16);
/// Exists.
pub const EEXIST: Errno = Errno(17);
/// Across file systems.
pub const EXDEV: Errno = Errno(18);
/// Is a directory.
pub const EISDIR: Errno = Errno(21);
/// No space left.
pub const ENOSPC: Errno = Errno(28);
/// A program that runs.
pub const ETXTBSY: Errno = Errno(26);
/// Read-only file system.
pub const EROFS: Errno = Errno(30);
/// Result too large.
pub const ERANGE: Errno = Errno(34);
/// Not on this file system.
pub const EOPNOTSUPP: Errno = Errno(95);
/// No such call.
pub const ENOSYS: Errno = Errno(38);
/// Directory not empty.
pub const ENOTEMPTY: Errno = Errno(39);
/// Not a socket.
pub const ENOTSOCK: Errno = Errno(88);
/// Address in use.
pub const EADDRINUSE: Errno = Errno(98);
/// The interpreter is no program that can be used as one.
pub const ELIBBAD: Errno = Errno(80);
