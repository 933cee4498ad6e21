//! Names that are a system call, argument for argument.

use super::calls;

calls! {
    // Opening; the others are in `opening`.
    __NR_open: __open_nocancel __open64_nocancel;
    __NR_openat2: openat2;
    __NR_name_to_handle_at: name_to_handle_at;
    __NR_open_by_handle_at: open_by_handle_at;
    // Looking.
    __NR_stat: stat stat64;
    __NR_lstat: lstat lstat64;
    __NR_fstat: fstat fstat64;
    __NR_newfstatat: fstatat fstatat64;
    __NR_statx: statx;
    __NR_access: access __access;
    __NR_readlink: readlink __readlink_chk __readlink;
    __NR_readlinkat: readlinkat __readlinkat_chk;
    __NR_statfs: statfs statfs64 __statfs;
    // Where one is.
    __NR_chdir: chdir __chdir;
    __NR_chroot: chroot;
    // Names.
    __NR_mkdir: mkdir __mkdir;
    __NR_mkdirat: mkdirat;
    __NR_mknod: mknod;
    __NR_mknodat: mknodat;
    __NR_rmdir: rmdir __rmdir;
    __NR_unlink: unlink __unlink;
    __NR_unlinkat: unlinkat;
    __NR_rename: rename;
    __NR_renameat: renameat;
    __NR_renameat2: renameat2;
    __NR_link: link __link;
    __NR_linkat: linkat;
    __NR_symlink: symlink __symlink;
    __NR_symlinkat: symlinkat;
    // Attributes.
    __NR_chmod: chmod __chmod;
    __NR_fchmod: fchmod __fchmod;
    __NR_chown: chown __chown;
    __NR_lchown: lchown;
    __NR_fchown: fchown;
    __NR_fchownat: fchownat;
    __NR_utime: utime;
    __NR_utimes: utimes __utimes;
    __NR_futimesat: futimesat;
    __NR_utimensat: utimensat;
    __NR_truncate: truncate truncate64;
    __NR_setxattr: setxattr;
    __NR_lsetxattr: lsetxattr;
    __NR_fsetxattr: fsetxattr;
    __NR_getxattr: getxattr;
    __NR_lgetxattr: lgetxattr;
    __NR_listxattr: listxattr;
    __NR_llistxattr: llistxattr;
    __NR_removexattr: removexattr;
    __NR_lremovexattr: lremovexattr;
    __NR_fremovexattr: fremovexattr;
    __NR_ioctl: ioctl __ioctl;
    // Watching.
    __NR_inotify_add_watch: inotify_add_watch;
    __NR_fanotify_mark: fanotify_mark;
    // What only a machine's root does.
    __NR_mount: mount;
    __NR_umount2: umount2;
    __NR_pivot_root: pivot_root;
    __NR_swapon: swapon;
    __NR_swapoff: swapoff;
    __NR_acct: acct;
    __NR_quotactl: quotactl;
    __NR_setns: setns;
    __NR_unshare: unshare;
    // Who one is.
    __NR_uname: uname __uname;
    __NR_prctl: prctl __prctl;
}
