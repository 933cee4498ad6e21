//! The table: every system call that carries a path, a name, an id or a result that would show the host.
//!
//! What is not here passes untouched, whatever its number; `tests/numbers.rs` compares the table and its list of harmless
//! calls with the kernel's own lists, so that a new call is noticed.

use crate::{
    errno::{ENOSYS, EPERM},
    meaning::{
        AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, Abi, Dir, Entries, IN_DONT_FOLLOW, Intent, Last,
        Meaning::{self, Paths, Refused, Special as Own},
        NONE, Outside, PathArg, Person, Row, Special,
    },
};

const fn row(name: &'static str, x86_64: u16, i386: u16, meaning: Meaning, outside: Outside) -> Row {
    Row { name, x86_64, i386, meaning, outside }
}

const fn path(arg: u8, last: Last, intent: Intent) -> PathArg {
    PathArg { dir: Dir::Cwd, arg, last, intent }
}

const fn at(dir: u8, arg: u8, last: Last, intent: Intent) -> PathArg {
    PathArg { dir: Dir::Fd(dir), arg, last, intent }
}

/// Name, number on x86_64, number on i386, meaning, and whether a tracer can make the call itself.
#[rustfmt::skip] // one call, one line
pub static TABLE: &[Row] = &[
    // Opening.
    row("open", 2, 5, Paths(&[path(0, Last::Open(1), Intent::Open(1))]), Outside::No),
    row("openat", 257, 295, Paths(&[at(0, 1, Last::Open(2), Intent::Open(2))]), Outside::No),
    row("openat2", 437, 437, Own(Special::Openat2), Outside::No),
    row("creat", 85, 8, Paths(&[path(0, Last::Create, Intent::Write)]), Outside::No),
    row("open_by_handle_at", 304, 342, Refused(EPERM), Outside::No),
    row("name_to_handle_at", 303, 341, Paths(&[at(0, 1, Last::FollowIf(4, AT_SYMLINK_FOLLOW), Intent::Read)]), Outside::No),
    row("open_tree", 428, 428, Paths(&[at(0, 1, Last::NoFollowIf(2, AT_SYMLINK_NOFOLLOW), Intent::Read)]), Outside::No),
    // Looking.
    row("stat", 4, 106, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::Stat(1)),
    row("lstat", 6, 107, Paths(&[path(0, Last::NoFollow, Intent::Read)]), Outside::Stat(1)),
    row("newfstatat", 262, NONE, Paths(&[at(0, 1, Last::NoFollowIf(3, AT_SYMLINK_NOFOLLOW), Intent::Read)]), Outside::Stat(2)),
    row("fstat", 5, 108, Own(Special::Fstat), Outside::No),
    row("fstat64", NONE, 197, Own(Special::Fstat), Outside::No),
    row("statx", 332, 383, Paths(&[at(0, 1, Last::NoFollowIf(2, AT_SYMLINK_NOFOLLOW), Intent::Read)]), Outside::Statx(4)),
    row("stat64", NONE, 195, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::No),
    row("lstat64", NONE, 196, Paths(&[path(0, Last::NoFollow, Intent::Read)]), Outside::No),
    row("fstatat64", NONE, 300, Paths(&[at(0, 1, Last::NoFollowIf(3, AT_SYMLINK_NOFOLLOW), Intent::Read)]), Outside::No),
    row("oldstat", NONE, 18, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::No),
    row("oldlstat", NONE, 84, Paths(&[path(0, Last::NoFollow, Intent::Read)]), Outside::No),
    row("getdents", 78, 141, Own(Special::Listing(Entries::Old)), Outside::No),
    row("getdents64", 217, 220, Own(Special::Listing(Entries::Wide)), Outside::No),
    row("access", 21, 33, Paths(&[path(0, Last::Follow, Intent::Access(1))]), Outside::Plain),
    row("faccessat", 269, 307, Paths(&[at(0, 1, Last::Follow, Intent::Access(2))]), Outside::Plain),
    row("faccessat2", 439, 439, Paths(&[at(0, 1, Last::NoFollowIf(3, AT_SYMLINK_NOFOLLOW), Intent::Access(2))]), Outside::Plain),
    row("readlink", 89, 85, Own(Special::Readlink), Outside::No),
    row("readlinkat", 267, 305, Own(Special::Readlinkat), Outside::No),
    row("statfs", 137, 99, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::Fixed(1,120)),
    row("statfs64", NONE, 268, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::No),
    // Where one is.
    row("chdir", 80, 12, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::No),
    row("getcwd", 79, 183, Own(Special::Getcwd), Outside::No),
    row("chroot", 161, 61, Own(Special::Chroot), Outside::No),
    // Names.
    row("mkdir", 83, 39, Paths(&[path(0, Last::Parent, Intent::Create)]), Outside::No),
    row("mkdirat", 258, 296, Paths(&[at(0, 1, Last::Parent, Intent::Create)]), Outside::No),
    row("mknod", 133, 14, Paths(&[path(0, Last::Parent, Intent::Create)]), Outside::No),
    row("mknodat", 259, 297, Paths(&[at(0, 1, Last::Parent, Intent::Create)]), Outside::No),
    row("rmdir", 84, 40, Paths(&[path(0, Last::Parent, Intent::Remove)]), Outside::Plain),
    row("unlink", 87, 10, Paths(&[path(0, Last::Parent, Intent::Remove)]), Outside::Plain),
    row("unlinkat", 263, 301, Paths(&[at(0, 1, Last::Parent, Intent::Remove)]), Outside::Plain),
    row("rename", 82, 38, Paths(&[path(0, Last::Parent, Intent::Remove), path(1, Last::Parent, Intent::Replace)]), Outside::Plain),
    row("renameat", 264, 302, Paths(&[at(0, 1, Last::Parent, Intent::Remove), at(2, 3, Last::Parent, Intent::Replace)]), Outside::Plain),
    row("renameat2", 316, 353, Paths(&[at(0, 1, Last::Parent, Intent::Remove), at(2, 3, Last::Parent, Intent::Replace)]), Outside::Plain),
    row("link", 86, 9, Paths(&[path(0, Last::NoFollow, Intent::Read), path(1, Last::Parent, Intent::Create)]), Outside::Plain),
    row("linkat", 265, 303, Paths(&[at(0, 1, Last::FollowIf(4, AT_SYMLINK_FOLLOW), Intent::Read), at(2, 3, Last::Parent, Intent::Create)]), Outside::No),
    row("symlink", 88, 83, Paths(&[path(1, Last::Parent, Intent::Create)]), Outside::No),
    row("symlinkat", 266, 304, Paths(&[at(1, 2, Last::Parent, Intent::Create)]), Outside::No),
    // Attributes.
    row("chmod", 90, 15, Paths(&[path(0, Last::Follow, Intent::Mode)]), Outside::Plain),
    row("fchmod", 91, 94, Own(Special::DescriptorMode), Outside::No),
    row("fchmodat", 268, 306, Paths(&[at(0, 1, Last::Follow, Intent::Mode)]), Outside::Plain),
    row("fchmodat2", 452, 452, Paths(&[at(0, 1, Last::NoFollowIf(3, AT_SYMLINK_NOFOLLOW), Intent::Mode)]), Outside::No),
    row("chown", 92, 182, Paths(&[path(0, Last::Follow, Intent::Owner)]), Outside::No),
    row("lchown", 94, 16, Paths(&[path(0, Last::NoFollow, Intent::Owner)]), Outside::No),
    row("fchown", 93, 95, Own(Special::DescriptorOwner), Outside::No),
    row("fchownat", 260, 298, Paths(&[at(0, 1, Last::NoFollowIf(4, AT_SYMLINK_NOFOLLOW), Intent::Owner)]), Outside::No),
    row("chown32", NONE, 212, Paths(&[path(0, Last::Follow, Intent::Owner)]), Outside::No),
    row("lchown32", NONE, 198, Paths(&[path(0, Last::NoFollow, Intent::Owner)]), Outside::No),
    row("fchown32", NONE, 207, Own(Special::DescriptorOwner), Outside::No),
    row("utime", 132, 30, Paths(&[path(0, Last::Follow, Intent::Attribute)]), Outside::No),
    row("utimes", 235, 271, Paths(&[path(0, Last::Follow, Intent::Attribute)]), Outside::No),
    row("futimesat", 261, 299, Paths(&[at(0, 1, Last::Follow, Intent::Attribute)]), Outside::No),
    row("utimensat", 280, 320, Paths(&[at(0, 1, Last::NoFollowIf(3, AT_SYMLINK_NOFOLLOW), Intent::Attribute)]), Outside::No),
    row("utimensat_time64", NONE, 412, Paths(&[at(0, 1, Last::NoFollowIf(3, AT_SYMLINK_NOFOLLOW), Intent::Attribute)]), Outside::No),
    row("truncate", 76, 92, Paths(&[path(0, Last::Follow, Intent::Size)]), Outside::No),
    row("truncate64", NONE, 193, Paths(&[path(0, Last::Follow, Intent::Size)]), Outside::No),
    row("setxattr", 188, 226, Paths(&[path(0, Last::Follow, Intent::Attribute)]), Outside::No),
    row("lsetxattr", 189, 227, Paths(&[path(0, Last::NoFollow, Intent::Attribute)]), Outside::No),
    row("fsetxattr", 190, 228, Own(Special::DescriptorAttribute), Outside::No),
    row("getxattr", 191, 229, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::No),
    row("lgetxattr", 192, 230, Paths(&[path(0, Last::NoFollow, Intent::Read)]), Outside::No),
    row("listxattr", 194, 232, Paths(&[path(0, Last::Follow, Intent::Read)]), Outside::No),
    row("llistxattr", 195, 233, Paths(&[path(0, Last::NoFollow, Intent::Read)]), Outside::No),
    row("removexattr", 197, 235, Paths(&[path(0, Last::Follow, Intent::Attribute)]), Outside::No),
    row("lremovexattr", 198, 236, Paths(&[path(0, Last::NoFollow, Intent::Attribute)]), Outside::No),
    row("fremovexattr", 199, 237, Own(Special::DescriptorAttribute), Outside::No),
    row("setxattrat", 463, 463, Paths(&[at(0, 1, Last::NoFollowIf(2, AT_SYMLINK_NOFOLLOW), Intent::Attribute)]), Outside::No),
    row("getxattrat", 464, 464, Paths(&[at(0, 1, Last::NoFollowIf(2, AT_SYMLINK_NOFOLLOW), Intent::Read)]), Outside::No),
    row("listxattrat", 465, 465, Paths(&[at(0, 1, Last::NoFollowIf(2, AT_SYMLINK_NOFOLLOW), Intent::Read)]), Outside::No),
    row("removexattrat", 466, 466, Paths(&[at(0, 1, Last::NoFollowIf(2, AT_SYMLINK_NOFOLLOW), Intent::Attribute)]), Outside::No),
    row("file_getattr", 468, 468, Paths(&[at(0, 1, Last::NoFollowIf(4, AT_SYMLINK_NOFOLLOW), Intent::Read)]), Outside::No),
    row("file_setattr", 469, 469, Paths(&[at(0, 1, Last::NoFollowIf(4, AT_SYMLINK_NOFOLLOW), Intent::Attribute)]), Outside::No),
    row("ioctl", 16, 54, Own(Special::FileFlags), Outside::No),
    // Programs.
    row("execve", 59, 11, Own(Special::Execve), Outside::No),
    row("execveat", 322, 358, Own(Special::Execveat), Outside::No),
    row("uselib", 134, 86, Refused(ENOSYS), Outside::No),
    // Sockets, whose names may be paths.
    row("bind", 49, 361, Own(Special::Bind), Outside::No),
    row("connect", 42, 362, Own(Special::Connect), Outside::No),
    row("sendto", 44, 369, Own(Special::Sendto), Outside::No),
    row("accept", 43, NONE, Own(Special::PeerName), Outside::No),
    row("accept4", 288, 364, Own(Special::PeerName), Outside::No),
    row("getsockname", 51, 367, Own(Special::OwnName), Outside::No),
    row("getpeername", 52, 368, Own(Special::PeerName), Outside::No),
    row("recvfrom", 45, 371, Own(Special::Recvfrom), Outside::No),
    row("getsockopt", 55, 365, Own(Special::PeerCredentials), Outside::No),
    row("sendmsg", 46, 370, Own(Special::Sendmsg), Outside::No),
    row("recvmsg", 47, 372, Own(Special::Recvmsg), Outside::No),
    row("sendmmsg", 307, 345, Own(Special::Sendmmsg), Outside::No),
    row("recvmmsg", 299, 337, Own(Special::Recvmmsg), Outside::No),
    row("recvmmsg_time64", NONE, 417, Own(Special::Recvmmsg), Outside::No),
    row("socketcall", NONE, 102, Own(Special::Socketcall), Outside::No),
    // Watching.
    row("inotify_add_watch", 254, 292, Paths(&[path(1, Last::NoFollowIf(2, IN_DONT_FOLLOW), Intent::Read)]), Outside::No),
    row("fanotify_mark", 301, 339, Own(Special::FanotifyMark), Outside::No),
    // What only a machine's root does.
    row("mount", 165, 21, Refused(EPERM), Outside::No),
    row("umount2", 166, 52, Refused(EPERM), Outside::No),
    row("umount", NONE, 22, Refused(EPERM), Outside::No),
    row("pivot_root", 155, 217, Refused(EPERM), Outside::No),
    row("move_mount", 429, 429, Refused(EPERM), Outside::No),
    row("mount_setattr", 442, 442, Refused(EPERM), Outside::No),
    row("fspick", 433, 433, Refused(EPERM), Outside::No),
    row("swapon", 167, 87, Refused(EPERM), Outside::No),
    row("swapoff", 168, 115, Refused(EPERM), Outside::No),
    row("acct", 163, 51, Refused(EPERM), Outside::No),
    row("quotactl", 179, 131, Refused(EPERM), Outside::No),
    row("open_tree_attr", 467, 467, Refused(EPERM), Outside::No),
    // As on an older kernel: who asks reads /proc/self/mountinfo then, which shows the guest's mounts.
    row("statmount", 457, 457, Refused(ENOSYS), Outside::No),
    row("listmount", 458, 458, Refused(ENOSYS), Outside::No),
    // A view of files that the engine would not know of.
    row("setns", 308, 346, Refused(EPERM), Outside::No),
    row("unshare", 272, 310, Own(Special::Unshare), Outside::No),
    row("clone", 56, 120, Own(Special::Clone), Outside::No),
    row("clone3", 435, 435, Own(Special::Clone3), Outside::No),
    // Paths that the kernel would read by itself, past any table.
    row("io_uring_setup", 425, 425, Refused(ENOSYS), Outside::No),
    // Who and where one is said to be.
    row("uname", 63, 122, Own(Special::Uname), Outside::No),
    row("olduname", NONE, 109, Own(Special::Uname), Outside::No),
    row("oldolduname", NONE, 59, Own(Special::Uname), Outside::No),
    row("getuid", 102, 24, Own(Special::Person(Person::Uid)), Outside::No),
    row("geteuid", 107, 49, Own(Special::Person(Person::Euid)), Outside::No),
    row("getgid", 104, 47, Own(Special::Person(Person::Gid)), Outside::No),
    row("getegid", 108, 50, Own(Special::Person(Person::Egid)), Outside::No),
    row("getuid32", NONE, 199, Own(Special::Person(Person::Uid)), Outside::No),
    row("geteuid32", NONE, 201, Own(Special::Person(Person::Euid)), Outside::No),
    row("getgid32", NONE, 200, Own(Special::Person(Person::Gid)), Outside::No),
    row("getegid32", NONE, 202, Own(Special::Person(Person::Egid)), Outside::No),
    row("getresuid", 118, 165, Own(Special::Person(Person::ResUid)), Outside::No),
    row("getresgid", 120, 171, Own(Special::Person(Person::ResGid)), Outside::No),
    row("getresuid32", NONE, 209, Own(Special::Person(Person::ResUid)), Outside::No),
    row("getresgid32", NONE, 211, Own(Special::Person(Person::ResGid)), Outside::No),
    row("setuid", 105, 23, Own(Special::Person(Person::SetUid)), Outside::No),
    row("setgid", 106, 46, Own(Special::Person(Person::SetGid)), Outside::No),
    row("setreuid", 113, 70, Own(Special::Person(Person::SetReUid)), Outside::No),
    row("setregid", 114, 71, Own(Special::Person(Person::SetReGid)), Outside::No),
    row("setresuid", 117, 164, Own(Special::Person(Person::SetResUid)), Outside::No),
    row("setresgid", 119, 170, Own(Special::Person(Person::SetResGid)), Outside::No),
    row("setgroups", 116, 81, Own(Special::Person(Person::SetGroups)), Outside::No),
    row("setfsuid", 122, 138, Own(Special::Person(Person::SetFsUid)), Outside::No),
    row("setfsgid", 123, 139, Own(Special::Person(Person::SetFsGid)), Outside::No),
    row("setuid32", NONE, 213, Own(Special::Person(Person::SetUid)), Outside::No),
    row("setgid32", NONE, 214, Own(Special::Person(Person::SetGid)), Outside::No),
    row("setreuid32", NONE, 203, Own(Special::Person(Person::SetReUid)), Outside::No),
    row("setregid32", NONE, 204, Own(Special::Person(Person::SetReGid)), Outside::No),
    row("setresuid32", NONE, 208, Own(Special::Person(Person::SetResUid)), Outside::No),
    row("setresgid32", NONE, 210, Own(Special::Person(Person::SetResGid)), Outside::No),
    row("setgroups32", NONE, 206, Own(Special::Person(Person::SetGroups)), Outside::No),
    row("setfsuid32", NONE, 215, Own(Special::Person(Person::SetFsUid)), Outside::No),
    row("getgroups", 115, 80, Own(Special::Person(Person::Groups)), Outside::No),
    row("getgroups32", NONE, 205, Own(Special::Person(Person::Groups)), Outside::No),
    row("capget", 125, 184, Own(Special::Person(Person::CapGet)), Outside::No),
    row("capset", 126, 185, Own(Special::Person(Person::CapSet)), Outside::No),
    row("prctl", 157, 172, Own(Special::Prctl), Outside::No),
    row("setfsgid32", NONE, 216, Own(Special::Person(Person::SetFsGid)), Outside::No),
];

/// The row of a call, if the call means anything to a guest.
#[must_use]
pub fn row_of(abi: Abi, number: u64) -> Option<&'static Row> {
    static X86_64: [u8; SPAN] = index(Abi::X86_64);
    static I386: [u8; SPAN] = index(Abi::I386);
    let index = match abi {
        Abi::X86_64 => &X86_64,
        Abi::I386 => &I386,
    };
    let at = *index.get(usize::try_from(number).ok()?)?;
    TABLE.get(usize::from(at))
}

/// The call that does by a path, its last link followed, what this one does by a descriptor or not following. Its arguments
/// are the same, but for the path where the descriptor was.
pub(crate) fn following(row: &Row) -> Option<&'static Row> {
    let name = match row.name {
        "fchmod" => "chmod",
        "fchown" | "lchown" => "chown",
        "fchown32" | "lchown32" => "chown32",
        "fsetxattr" | "lsetxattr" => "setxattr",
        "fremovexattr" | "lremovexattr" => "removexattr",
        _ => return None,
    };
    TABLE.iter().find(|row| row.name == name)
}

/// Numbers below this may be in the table.
const SPAN: usize = 512;

/// For each number its row, or 255.
#[expect(clippy::cast_possible_truncation, reason = "the table has fewer than 255 rows: the assertion")]
const fn index(abi: Abi) -> [u8; SPAN] {
    assert!(TABLE.len() < 255, "row numbers fit a byte");
    let mut index = [u8::MAX; SPAN];
    let mut at = 0;
    while at < TABLE.len() {
        let number = match abi {
            Abi::X86_64 => TABLE[at].x86_64,
            Abi::I386 => TABLE[at].i386,
        };
        if number != NONE {
            assert!(index[number as usize] == u8::MAX, "no number twice");
            index[number as usize] = at as u8;
        }
        at += 1;
    }
    index
}
