//! What each system call means to a guest: one table, used by every engine that intercepts.
//!
//! A transport (a tracer outside, a handler inside) catches a call and asks [`enter`] what it means. The answer is a
//! [`Verdict`]: let it pass, answer it without the kernel, make it with other arguments, or start a program. Where the
//! result shows the host too, [`leave`] translates it afterwards.
//!
//! Rules: no allocation, no standard library, no global state; memory of the guest, the host's links and the lending of
//! strings to the guest are the transport's ([`Guest`]). [`table::TABLE`] is data; the handlers follow the order in which
//! the kernel itself finds errors.

#![no_std]

mod act;
mod birth;
mod cow;
mod credentials;
mod enter;
pub mod errno;
mod exec;
mod identity;
mod leave;
mod listing;
mod meaning;
pub mod mounts;
mod openat2;
mod owners;
mod pairs;
mod permit;
mod places;
mod prctl;
mod pretend;
pub mod program;
mod rights;
mod sockets;
pub mod table;
mod translate;

pub use act::{Act, Reach, acts, reach};
pub use coracle_ledger as ledger;
pub use coracle_paths::Errno;
pub use coracle_view::{FileId, Mark, Marks};
pub use cow::File;
pub use credentials::{Caps, Credentials, Ids};
pub use enter::{Verdict, enter};
pub use identity::{Identity, MAX_GROUPS};
pub use leave::{After, Layout, Left, leave, leave_layout};
pub use listing::Shape;
pub use meaning::{Abi, Outside, Row};
pub use owners::Facts;
pub use rights::{after_exec, may_execute, unlock};
pub use sockets::{
    Whose,
    ports::{Kind, Port},
};
pub use translate::{Lent, Scratch, Within};

use core::ffi::CStr;

use coracle_paths::{Host, Magic, View};

/// What a guest is to see, for a whole run.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Its file system.
    pub view: View<'a>,
    /// Whom it takes itself for.
    pub identity: Identity,
    /// The node's name as it sees it; `None`: the host's.
    pub hostname: Option<&'a [u8]>,
    /// The kernel's release as it is told it; `None`: the node's.
    pub kernel: Option<&'a [u8]>,
    /// What it is told of files that the host keeps otherwise; there is one wherever [`Identity::pretends`].
    pub ledger: Option<ledger::Ledger<'a>>,
    /// Ports that the host knows by other numbers.
    pub ports: &'a [Port],
    /// Some bind's mount point has no name in its directory, so that listings lack it.
    pub unlisted: bool,
    /// Which files of its tree are shared, if that is a copy-on-write view; then the transport breaks links.
    pub marks: Option<Marks<'a>>,
}

impl Rules<'_> {
    /// Whether stat(2) tells of some files what the host does not.
    #[must_use]
    pub fn shows_files(&self) -> bool {
        self.identity.pretends() || self.marks.is_some()
    }

    /// Whether calls of this row must be caught at all in this run.
    #[must_use]
    pub fn wants(&self, row: &Row) -> bool {
        use meaning::{Meaning, Special};
        match row.meaning {
            Meaning::Special(Special::Fstat) => self.shows_files(),
            Meaning::Special(Special::Listing(_)) => self.unlisted,
            Meaning::Special(Special::Person(_) | Special::PeerCredentials) => self.identity.pretends(),
            Meaning::Special(Special::Uname) => self.hostname.is_some() || self.kernel.is_some(),
            _ => true,
        }
    }
}

/// A system call as caught: the handlers change it in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The interface that it came through.
    pub abi: Abi,
    /// Its number there.
    pub number: u64,
    /// Its arguments; 32-bit ones are zero-extended.
    pub args: [u64; 6],
}

impl Call {
    /// Argument `at` as the kernel takes an `int`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the kernel ignores the upper half of an int argument")]
    pub fn int(&self, at: u8) -> i32 {
        (self.args[usize::from(at)] as u32).cast_signed()
    }

    /// Argument `at`.
    #[must_use]
    pub fn arg(&self, at: u8) -> u64 {
        self.args[usize::from(at)]
    }
}

/// The guest whose call was caught, as the transport reaches it.
pub trait Guest: Host {
    /// Reads exactly as many bytes as `into` holds.
    ///
    /// # Errors
    /// `EFAULT` where the kernel would say so.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Reads a string up to its NUL; its length without the NUL.
    ///
    /// # Errors
    /// `EFAULT`, or `ENAMETOOLONG` if `into` is full before the NUL.
    fn read_string(&self, address: u64, into: &mut [u8]) -> Result<usize, Errno>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// `EFAULT`.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// The file's `st_mode`, or with `follow` that of the file that a link leads to.
    ///
    /// # Errors
    /// What stat(2) and lstat(2) say.
    fn mode(&self, host: &CStr, follow: bool) -> Result<u32, Errno>;

    /// Whether the directory may be searched by the caller.
    ///
    /// # Errors
    /// What access(2) says.
    fn search(&self, host: &CStr) -> Result<(), Errno>;
    /// What stat(2) tells of a file, or without `follow` lstat(2).
    ///
    /// # Errors
    /// Theirs.
    fn stat(&self, host: &CStr, follow: bool) -> Result<Facts, Errno>;

    /// Gives a file these permissions on the host, following links.
    ///
    /// # Errors
    /// What chmod(2) says.
    fn set_mode(&self, host: &CStr, mode: u32) -> Result<(), Errno>;

    /// The calling thread's credentials, as it believes them to be.
    fn credentials(&self) -> Credentials;

    /// Gives the calling thread other credentials.
    fn set_credentials(&self, new: &Credentials);

    /// The calling thread's supplementary groups, as many as there is room for; how many there are.
    fn groups(&self, groups: &mut [u32]) -> usize;

    /// Gives the calling thread other supplementary groups.
    fn set_groups(&self, groups: &[u32]);

    /// The credentials of a thread of this run.
    fn credentials_of(&self, tid: u32) -> Option<Credentials>;

    /// Whether a process of this run executes this file.
    fn is_running(&self, host: &CStr) -> bool;

    /// Whether the caller's process believes that others may look into it (`PR_GET_DUMPABLE`).
    fn dumpable(&self) -> bool;

    /// Has the caller's process believe so.
    fn set_dumpable(&self, dumpable: bool);

    /// The text of `/proc/…/cwd`, or with a descriptor of `/proc/…/fd/N`.
    ///
    /// # Errors
    /// `EBADF` for a descriptor that is not open.
    fn place(&self, descriptor: Option<i32>, text: &mut [u8]) -> Result<usize, Errno>;

    /// Writes the path of that link itself, at most 48 bytes; its length.
    fn link(&self, descriptor: Option<i32>, path: &mut [u8]) -> usize;

    /// The whole host path of the working directory, which [`place`](Self::place) found too long, written to `text`.
    ///
    /// # Errors
    /// `ENAMETOOLONG` if `text` is too short too.
    fn whole_place(&self, text: &mut [u8]) -> Result<usize, Errno>;

    /// A path of at most 60 bytes by which the guest's process can reach host directory `dir`, until the kernel has
    /// looked it up.
    ///
    /// # Errors
    /// What open(2) says; `ENAMETOOLONG` if there is no such way.
    fn alias(&self, dir: &CStr, text: &mut [u8]) -> Result<usize, Errno>;

    /// A name of at most as many bytes as `name` holds (108) by which the kernel can bind a socket at `host`, which the
    /// guest calls `given`. When the call has ended, the transport sees to it that the socket stands at `host` (or that
    /// the guest gets an error), and goes on knowing it by [`socket_bound`](Self::socket_bound).
    ///
    /// # Errors
    /// As the kernel's of bind(2); `ENAMETOOLONG` if there is no such way.
    fn socket_to_bind(&self, host: &CStr, given: &[u8], name: &mut [u8]) -> Result<usize, Errno>;

    /// As short a name by which the kernel reaches the socket at `host` for the time of this call.
    ///
    /// # Errors
    /// As the kernel's of connect(2); `ENAMETOOLONG` if there is no such way.
    fn socket_to_reach(&self, host: &CStr, name: &mut [u8]) -> Result<usize, Errno>;

    /// What the guest called the socket that was bound as `name`; of a name that was cut, only the beginning and its
    /// `full` length are known.
    fn socket_bound(&self, name: &[u8], full: usize, given: &mut [u8]) -> Option<usize>;

    /// What kind of socket a descriptor of the caller's is, if the kernel tells.
    fn socket_kind(&self, descriptor: i32) -> Option<Kind>;

    /// Whether a socket of the caller's takes addresses of IPv6 only (`IPV6_V6ONLY`); false where the kernel does not tell.
    fn is_v6_only(&self, socket: i32) -> bool;

    /// Makes a file that shows what `/proc` file `host` says of a process to a guest with this view, holds it until the call
    /// has been made, and writes a path by which the caller can open it; `None` leaves it the host's.
    fn shown_file(&self, view: &View<'_>, process: u32, host: &CStr, path: &mut [u8]) -> Option<usize>;

    /// The caller is about to open `/proc/PID/status` in a way that will let it read later what the kernel tells there.
    fn looked_at(&self, process: u32);

    /// Where the next read of a descriptor begins.
    ///
    /// # Errors
    /// `EBADF`.
    fn offset(&self, descriptor: i32) -> Result<u64, Errno>;

    /// The caller's root directory, as a canonical guest path.
    fn root(&self) -> &[u8];

    /// Gives its process another root directory, and thereby the children that it will have.
    fn set_root(&self, root: &[u8]);

    /// The file at a host path; with `follow` the one that a link leads to.
    ///
    /// # Errors
    /// What stat(2) and lstat(2) say.
    fn file(&self, host: &CStr, follow: bool) -> Result<File, Errno>;

    /// The file behind a descriptor of the caller's.
    ///
    /// # Errors
    /// `EBADF` for a descriptor that is not open.
    fn descriptor(&self, descriptor: i32) -> Result<File, Errno>;

    /// Gives the name `host` a copy of its own of the shared file that it means, with these permission bits; the new file,
    /// or none if the name means another file by now. Only in a run with [`Rules::marks`].
    ///
    /// # Errors
    /// What copying said: `ENOSPC`, `EDQUOT`…
    fn unshare(&self, host: &CStr, shared: &FileId, mode: u32) -> Result<Option<FileId>, Errno>;

    /// Holds the file that `host` means (a link is not followed) until the call has been made, and writes a path with
    /// its NUL by which the caller reaches just that file, if it follows links: `/proc/…/fd/N`. Its length counts the
    /// NUL.
    ///
    /// # Errors
    /// What open(2) says.
    fn pin(&self, host: &CStr, path: &mut [u8]) -> Result<(File, usize), Errno>;

    /// Whether names may have been changed since the call that now ends was entered.
    fn names_changed(&self) -> bool;

    /// Inode number of the file that [`unshare`](Self::unshare) last made of this shared one, in this run.
    fn successor(&self, shared: &FileId) -> Option<u64>;
}
