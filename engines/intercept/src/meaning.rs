//! The words of the table: what a system call's arguments mean to a guest.

use crate::Errno;

/// Which program interface of the kernel a call came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, on its own or on a 64-bit kernel.
    I386,
}

/// One system call, on every interface that has it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The kernel's name for it.
    pub name: &'static str,
    pub(crate) x86_64: u16,
    pub(crate) i386: u16,
    pub(crate) meaning: Meaning,
    pub(crate) outside: Outside,
}

/// What is to be done about a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meaning {
    /// These arguments are paths.
    Paths(&'static [PathArg]),
    /// It has a handler of its own.
    Special(Special),
    /// It is answered so, always.
    Refused(Errno),
}

/// One argument that is a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathArg {
    pub(crate) dir: Dir,
    /// Which argument.
    pub(crate) arg: u8,
    pub(crate) last: Last,
    pub(crate) intent: Intent,
}

/// Where a relative path starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dir {
    /// In the working directory.
    Cwd,
    /// In the directory whose descriptor is this argument, or in the working directory if that is `AT_FDCWD`.
    Fd(u8),
}

/// What happens to a symbolic link at the end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Last {
    Follow,
    /// As open(2) with `O_CREAT`.
    Create,
    NoFollow,
    /// The call makes, removes or renames the name itself.
    Parent,
    /// Followed if this argument holds this flag.
    FollowIf(u8, u64),
    /// Not followed if this argument holds this flag.
    NoFollowIf(u8, u64),
    /// As the open flags in this argument say.
    Open(u8),
}

/// What the call wants of the place, in the order of errors that the kernel has for a read-only file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Nothing that a read-only place forbids.
    Read,
    /// As the open flags in this argument say.
    Open(u8),
    /// Opens for writing, makes it if need be (creat).
    Write,
    /// Changes what must exist: `ENOENT` goes before `EROFS`.
    Attribute,
    /// Changes the length: as `Attribute`, but what is no regular file has errors of its own.
    Size,
    /// As `Attribute`, of the owner, who under root emulation is the ledger's matter; user and group id are the next
    /// arguments.
    Owner,
    /// As `Attribute`, of the mode, which is the next argument.
    Mode,
    /// Makes what must not exist: `EEXIST` goes before `EROFS`.
    Create,
    /// Removes or renames it: `EROFS` at once. Of two paths, the second is the new name ([`crate::pairs`]).
    Remove,
    /// The new name of a rename.
    Replace,
    /// Asks, with the mode in this argument, what may be done.
    Access(u8),
}

/// Calls with handlers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Openat2,
    Fstat,
    Listing(Entries),
    Readlink,
    Readlinkat,
    Getcwd,
    Chroot,
    DescriptorAttribute,
    DescriptorOwner,
    FileFlags,
    DescriptorMode,
    Execve,
    Execveat,
    Bind,
    Connect,
    Sendto,
    OwnName,
    PeerName,
    Recvfrom,
    Sendmsg,
    Recvmsg,
    PeerCredentials,
    Sendmmsg,
    Recvmmsg,
    Socketcall,
    FanotifyMark,
    Unshare,
    Clone,
    Clone3,
    Uname,
    Person(Person),
    Prctl,
}

/// How a directory's entries are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entries {
    /// `struct linux_dirent`, its numbers as wide as the interface's words.
    Old,
    /// `struct linux_dirent64`.
    Wide,
}

/// Calls about who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Person {
    Uid,
    Euid,
    Gid,
    Egid,
    ResUid,
    ResGid,
    SetUid,
    SetGid,
    SetReUid,
    SetReGid,
    SetResUid,
    SetResGid,
    SetFsUid,
    SetFsGid,
    Groups,
    SetGroups,
    CapGet,
    CapSet,
    Prctl,
}

/// How a transport that stands outside the guest's process can make the call itself, once its paths are host paths:
/// where the answer depends on paths and plain numbers alone. (Of the 64-bit interface only.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// It cannot: descriptors, umask or working directory are the process's own.
    No,
    /// There are only paths and numbers.
    Plain,
    /// A result of this many bytes goes where this argument points.
    Fixed(u8, u16),
    /// A `struct stat` goes where this argument points.
    Stat(u8),
    /// A `struct statx` goes where this argument points.
    Statx(u8),
}

/// No such call on that interface.
pub(crate) const NONE: u16 = u16::MAX;

pub(crate) const AT_FDCWD: i32 = -100;
pub(crate) const AT_EACCESS: u64 = 0x200;
pub(crate) const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
pub(crate) const AT_SYMLINK_FOLLOW: u64 = 0x400;
pub(crate) const AT_EMPTY_PATH: u64 = 0x1000;
pub(crate) const AT_REMOVEDIR: u64 = 0x200;
pub(crate) const RENAME_EXCHANGE: u64 = 2;
pub(crate) const RENAME_NOREPLACE: u64 = 1;
pub(crate) const IN_DONT_FOLLOW: u64 = 0x0200_0000;

pub(crate) const O_ACCMODE: u64 = 0o3;
pub(crate) const O_CREAT: u64 = 0o100;
pub(crate) const O_EXCL: u64 = 0o200;
pub(crate) const O_TRUNC: u64 = 0o1000;
pub(crate) const O_DIRECTORY: u64 = 0o200_000;
pub(crate) const O_NOFOLLOW: u64 = 0o400_000;
pub(crate) const O_PATH: u64 = 0o10_000_000;
/// `O_TMPFILE` without its `O_DIRECTORY`.
pub(crate) const O_TMPFILE: u64 = 0o20_000_000;

pub(crate) const W_OK: u64 = 2;

pub(crate) const CLONE_NEWNS: u64 = 0x0002_0000;
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
pub(crate) const CLONE_UNTRACED: u64 = 0x0080_0000;

/// Requests of ioctl(2) by which a file's owner changes what is known of it, through whatever descriptor
/// (`ioctl_iflags(2)`): FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_SETVERSION and ext4's own name for that; the first and
/// the last two of 32 bits as well.
pub(crate) static FILE_FLAGS: [u32; 7] =
    [0x4008_6602, 0x401c_5820, 0x4008_7602, 0x4008_6604, 0x4004_6602, 0x4004_7602, 0x4004_6604];

/// The socket's option that tells who its peer is.
pub(crate) const SO_PEERCRED: u32 = 17;

/// What prctl(2) is asked about whether a process may be looked into, about credentials, and for a filter, to which a
/// transport may have to see.
const PRCTLS: [u32; 12] = [3, 4, 7, 8, 22, 23, 24, 27, 28, 38, 39, 47];

impl Row {
    /// The call's number on this interface.
    #[must_use]
    pub fn number(&self, abi: Abi) -> Option<u16> {
        let number = match abi {
            Abi::X86_64 => self.x86_64,
            Abi::I386 => self.i386,
        };
        (number != NONE).then_some(number)
    }

    /// An argument that must have one of these values for the call to mean anything here.
    #[must_use]
    pub fn needs_one_of(&self) -> Option<(u8, &'static [u32])> {
        match self.meaning {
            Meaning::Special(Special::FileFlags) => Some((1, &FILE_FLAGS)),
            Meaning::Special(Special::Prctl) => Some((0, &PRCTLS)),
            Meaning::Special(Special::PeerCredentials) => Some((2, &[SO_PEERCRED])),
            _ => None,
        }
    }

    /// An argument of flags, and those with any of which alone the call means something here.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "flags of the lower half")]
    pub fn needs_flags(&self) -> Option<(u8, u32)> {
        match self.meaning {
            Meaning::Special(Special::Unshare) => Some((0, (CLONE_NEWNS | CLONE_NEWUSER) as u32)),
            Meaning::Special(Special::Clone) => Some((0, (CLONE_NEWNS | CLONE_NEWUSER | CLONE_UNTRACED) as u32)),
            _ => None,
        }
    }

    /// An argument and its value with which the call means nothing here, so that a filter can let most calls pass.
    #[must_use]
    pub fn passes_with(&self) -> Option<(u8, u64)> {
        match self.meaning {
            Meaning::Special(Special::OwnName | Special::PeerName) => Some((1, 0)),
            Meaning::Special(Special::Recvfrom | Special::Sendto) => Some((4, 0)),
            _ => None,
        }
    }
}
