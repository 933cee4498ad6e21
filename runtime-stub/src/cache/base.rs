//! `coracle-<uid>`, this user's directory in a place: opened by descriptor, and trusted only if nobody else could have
//! written to it.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{Mode, SFlag, fstat, mkdirat},
        statfs::{FsType, fstatfs},
        statvfs::{FsFlags, fstatvfs},
    },
    unistd::{AccessFlags, UnlinkatFlags, faccessat, geteuid, unlinkat},
};

use super::Place;

/// File systems whose directories other nodes may share, by their magic number (statfs(2) and the systems' own sources):
/// NFS, Lustre, GPFS, Ceph, AFS, BeeGFS, SMB, SMB2, FUSE, 9P, PanFS, OrangeFS.
const NETWORK: [FsType; 12] = [
    FsType(0x6969),
    FsType(0x0BD0_0BD0),
    FsType(0x4750_4653),
    FsType(0x00C3_6400),
    FsType(0x5346_414F),
    FsType(0x1983_0326),
    FsType(0xFF53_4D42),
    FsType(0xFE53_4D42),
    FsType(0x6573_5546),
    FsType(0x0102_1997),
    FsType(0xAAD7_AAEA),
    FsType(0x2003_0528),
];
/// The least that a run's own directory needs: generated files and mount points.
const SCRATCH_BYTES: u64 = 1 << 20;
const SCRATCH_INODES: u64 = 64;

const NOEXEC: &str = "programs cannot be executed there (mounted noexec)";

const TMPFS: FsType = FsType(0x0102_1994);

/// An open `coracle-<uid>`.
#[derive(Debug)]
pub(super) struct Base {
    fd: OwnedFd,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NoBase {
    /// Nobody has made it yet, and nobody asked for that.
    Missing,
    /// It cannot be used, for a reason in words.
    Refused(String),
}

impl Base {
    /// Opens the directory in `place`, which is made first if `create` says so.
    pub(super) fn open(place: &Place, create: bool) -> Result<Self, NoBase> {
        let name = format!("coracle-{}", geteuid());
        if create {
            make(place, &name)?;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path = place.path.join(&name);
        let fd = match nix::fcntl::open(&path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Err(NoBase::Missing),
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                return Err(NoBase::Refused(format!("{name} there is no directory: somebody put it there")));
            }
            Err(errno) => return Err(NoBase::Refused(format!("{name} there cannot be opened: {}", errno.desc()))),
        };
        let stat = fstat(&fd).map_err(|errno| NoBase::Refused(errno.desc().to_owned()))?;
        if stat.st_uid != geteuid().as_raw() {
            return Err(NoBase::Refused(format!("{name} there belongs to user {}", stat.st_uid)));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(NoBase::Refused(format!(
                "{name} there can be written by others (mode {:o})",
                stat.st_mode & 0o7777
            )));
        }
        Ok(Self { fd })
    }

    /// A directory of the cache itself, in which views lie.
    pub(super) fn at(path: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self { fd: nix::fcntl::open(path, flags, Mode::empty())? })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its path without symbolic links.
    pub(super) fn path(&self) -> io::Result<PathBuf> {
        path_of(self.fd())
    }

    /// Has the names in it mean what they mean on the server now: a node remembers for a while what names on a network file
    /// system led to, and asks again when a directory is opened by name.
    pub(super) fn look_anew(&self) {
        if self.is_network()
            && let Ok(path) = self.path()
        {
            let _ = std::fs::File::open(path);
        }
    }

    /// Whether somebody has removed it since.
    pub(super) fn is_gone(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    pub(super) fn is_network(&self) -> bool {
        fstatfs(self.fd()).is_ok_and(|data| NETWORK.contains(&data.filesystem_type()))
    }

    /// Whether programs may be executed there: by the mount's flag, and by asking about a file that was just made.
    pub(super) fn check_exec(&self) -> Result<(), String> {
        let forbidden = || NOEXEC.to_owned();
        if fstatvfs(&self.fd).is_ok_and(|data| data.flags().contains(FsFlags::ST_NOEXEC)) {
            return Err(forbidden());
        }
        let name = format!(".exec-{}", std::process::id());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.fd, name.as_str(), flags, Mode::S_IRWXU)
            .map_err(|errno| format!("cannot be written: {}", errno.desc()))?;
        drop(file);
        let allowed = faccessat(&self.fd, name.as_str(), AccessFlags::X_OK, AtFlags::empty());
        // Removed again whatever the answer; what cannot be removed does no harm, it is empty.
        let _ = unlinkat(&self.fd, name.as_str(), UnlinkatFlags::NoRemoveDir);
        allowed.map_err(|_| forbidden())
    }

    /// Whether it will do for a run's own files, as far as one look tells. What the user named for that may be `noexec`.
    pub(super) fn check_scratch(&self, chosen: bool) -> Result<(), String> {
        if !chosen && fstatvfs(&self.fd).is_ok_and(|data| data.flags().contains(FsFlags::ST_NOEXEC)) {
            return Err(NOEXEC.to_owned());
        }
        self.check_room(SCRATCH_BYTES, SCRATCH_INODES)
    }

    /// Whether the file system has room. It may still run out later, or a quota may: unpacking says so then.
    pub(super) fn check_room(&self, bytes: u64, inodes: u64) -> Result<(), String> {
        let Ok(data) = fstatvfs(&self.fd) else { return Ok(()) };
        let (free, free_inodes) =
            (data.blocks_available().saturating_mul(data.fragment_size()), data.files_available());
        // Every file ends, on average, in the middle of a block.
        let needed = bytes.saturating_add(inodes.saturating_mul(data.block_size().min(4096) / 2));
        if free < needed {
            return Err(format!("{} MB are free and {} are needed", free >> 20, needed.div_ceil(1 << 20)));
        }
        // Btrfs and others count no inodes.
        if data.files() > 0 && free_inodes < inodes {
            return Err(format!("{free_inodes} inodes are free and {inodes} are needed"));
        }
        Ok(())
    }
}

/// Whether a place lies in memory.
pub(super) fn is_tmpfs(place: &Path) -> bool {
    nix::sys::statfs::statfs(place).is_ok_and(|data| data.filesystem_type() == TMPFS)
}

/// The path that a descriptor leads to, from the kernel.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn make(place: &Place, name: &str) -> Result<(), NoBase> {
    let refused = |what: &str, why: &str| NoBase::Refused(format!("{what}: {why}"));
    if place.chosen {
        // The user named it for this: it may be new.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place.path);
        made.map_err(|error| refused("cannot be made", &error.to_string()))?;
    }
    // A symbolic link as a place is the administrator's or the user's own.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = nix::fcntl::open(&place.path, flags, Mode::empty())
        .map_err(|errno| refused("cannot be opened", errno.desc()))?;
    match mkdirat(&parent, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(refused("cannot be written", errno.desc())),
    }
    // Where others may rename what is not theirs, they could put one directory of ours in another's stead.
    let stat = fstat(&parent).map_err(|errno| refused("cannot be looked at", errno.desc()))?;
    let open_to_all = stat.st_mode & 0o022 != 0 && stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    if open_to_all && stat.st_mode & 0o1000 == 0 && stat.st_uid != geteuid().as_raw() {
        return Err(refused("is not safe", "others can write there and it has no sticky bit"));
    }
    Ok(())
}
