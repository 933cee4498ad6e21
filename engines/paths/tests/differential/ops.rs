//! System calls that are made twice: in a real chroot with the guest's path, and outside with the path that the walk gave.
//! Each undoes what it did.

use std::{ffi::CString, os::unix::ffi::OsStrExt, path::Path};

use coracle_paths::Last;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Find,
    FindNoFollow,
    OpenDirectory,
    OpenNoFollow,
    Create,
    CreateNoFollow,
    CreateNew,
    Readlink,
    Mkdir,
    Rmdir,
    Unlink,
    RenameToItself,
    Symlink,
    Chdir,
}

pub(crate) const OPS: [Op; 14] = [
    Op::Find,
    Op::FindNoFollow,
    Op::OpenDirectory,
    Op::OpenNoFollow,
    Op::Create,
    Op::CreateNoFollow,
    Op::CreateNew,
    Op::Readlink,
    Op::Mkdir,
    Op::Rmdir,
    Op::Unlink,
    Op::RenameToItself,
    Op::Symlink,
    Op::Chdir,
];

impl Op {
    pub(crate) fn last(self, path: &str) -> Last {
        match self {
            Self::Find | Self::OpenDirectory | Self::Chdir => Last::Follow,
            Self::FindNoFollow | Self::OpenNoFollow | Self::Readlink => Last::NoFollow,
            Self::Create => Last::for_create(path.as_bytes(), true),
            Self::CreateNoFollow | Self::CreateNew => Last::for_create(path.as_bytes(), false),
            Self::Mkdir | Self::Rmdir | Self::Unlink | Self::RenameToItself | Self::Symlink => Last::Parent,
        }
    }

    /// Whether it removes or moves what it names.
    pub(crate) fn removes(self) -> bool {
        matches!(self, Self::Rmdir | Self::Unlink | Self::RenameToItself)
    }
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().expect("an error of the system")
}

pub(crate) fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).expect("no NUL")
}

/// Makes the call; what it says, files named by `name_of` (a descriptor's path).
pub(crate) fn perform(op: Op, path: &CString, name_of: &dyn Fn(i32) -> String) -> String {
    let p = path.as_ptr();
    // SAFETY: every path is a NUL-terminated string that outlives its call; buffers are as long as said; descriptors are
    // those just opened. This program has one thread and no state that these calls could upset.
    unsafe {
        let opened = |flags: i32| {
            let fd = libc::open(p, flags | libc::O_CLOEXEC | libc::O_NONBLOCK, 0o644);
            if fd < 0 { Err(errno()) } else { Ok(fd) }
        };
        let show = |fd: Result<i32, i32>| match fd {
            Ok(fd) => {
                let name = name_of(fd);
                libc::close(fd);
                format!("ok {name}")
            }
            Err(errno) => format!("errno {errno}"),
        };
        let done = |result: i32| if result == 0 { "ok".to_owned() } else { format!("errno {}", errno()) };
        match op {
            Op::Find => show(opened(libc::O_PATH)),
            Op::FindNoFollow => show(opened(libc::O_PATH | libc::O_NOFOLLOW)),
            Op::OpenDirectory => show(opened(libc::O_DIRECTORY)),
            Op::OpenNoFollow => show(opened(libc::O_NOFOLLOW)),
            Op::Create | Op::CreateNoFollow | Op::CreateNew => {
                let flags = libc::O_CREAT
                    | libc::O_WRONLY
                    | match op {
                        Op::Create => 0,
                        Op::CreateNoFollow => libc::O_NOFOLLOW,
                        _ => libc::O_EXCL,
                    };
                match opened(flags) {
                    Err(errno) => format!("errno {errno}"),
                    Ok(fd) => {
                        let name = name_of(fd);
                        let mut stat: libc::stat = std::mem::zeroed();
                        assert_eq!(libc::fstat(fd, &raw mut stat), 0);
                        let real = std::fs::read_link(format!("/proc/self/fd/{fd}"));
                        libc::close(fd);
                        // All files that were there hold text (those of /proc aside).
                        if stat.st_size == 0 && !name.starts_with("/proc") {
                            // Without /proc (in the chroot) its name is where it is; outside, the kernel's is.
                            let real = real.unwrap_or_else(|_| name.clone().into());
                            assert_eq!(libc::unlink(c(real).as_ptr()), 0, "removing what was created");
                            return format!("created {name}");
                        }
                        format!("ok {name}")
                    }
                }
            }
            Op::Readlink => {
                let mut text = [0_u8; 4096];
                let len = libc::readlink(p, text.as_mut_ptr().cast(), text.len());
                match usize::try_from(len) {
                    Ok(len) => format!("ok {}", String::from_utf8_lossy(&text[..len])),
                    Err(_) => format!("errno {}", errno()),
                }
            }
            Op::Mkdir => {
                let answer = done(libc::mkdir(p, 0o755));
                if answer == "ok" {
                    assert_eq!(libc::rmdir(p), 0, "undoing mkdir {path:?}");
                }
                answer
            }
            Op::Symlink => {
                let answer = done(libc::symlink(c"anywhere".as_ptr(), p));
                if answer == "ok" {
                    assert_eq!(libc::unlink(p), 0, "undoing symlink {path:?}");
                }
                answer
            }
            Op::Rmdir | Op::Unlink => {
                // What to put back, and where: the path may lead through what is removed.
                let there = libc::open(p, libc::O_PATH | libc::O_NOFOLLOW);
                let mut stat: libc::stat = std::mem::zeroed();
                libc::fstat(there, &raw mut stat);
                let real = std::fs::read_link(format!("/proc/self/fd/{there}")).unwrap_or_default();
                libc::close(there);
                let link = std::fs::read_link(&real);
                let text = std::fs::read(&real);
                if op == Op::Unlink && stat.st_mode & libc::S_IFMT == libc::S_IFREG && text.is_err() {
                    return "a file that could not be put back".into();
                }
                let answer = done(if op == Op::Rmdir { libc::rmdir(p) } else { libc::unlink(p) });
                if answer == "ok" {
                    if op == Op::Rmdir {
                        assert_eq!(libc::mkdir(c(&real).as_ptr(), 0o755), 0, "undoing rmdir {path:?}");
                        assert_eq!(libc::chmod(c(&real).as_ptr(), stat.st_mode & 0o7777), 0);
                    } else if let Ok(link) = link {
                        assert_eq!(libc::symlink(c(link).as_ptr(), c(&real).as_ptr()), 0, "undoing unlink {path:?}");
                    } else {
                        std::fs::write(&real, text.expect("read before")).expect("undoing unlink");
                    }
                }
                answer
            }
            Op::RenameToItself => done(libc::rename(p, p)),
            Op::Chdir => {
                let before = libc::open(c".".as_ptr(), libc::O_PATH);
                let answer = done(libc::chdir(p));
                let here = libc::open(c".".as_ptr(), libc::O_PATH);
                let name = if here < 0 { format!("unsearchable {}", errno()) } else { name_of(here) };
                if before >= 0 {
                    assert_eq!(libc::fchdir(before), 0, "back to where we were");
                    libc::close(before);
                }
                if here >= 0 {
                    libc::close(here);
                }
                format!("{answer} {name}")
            }
        }
    }
}
