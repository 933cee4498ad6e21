//! The ordinary user that commands run as.
//!
//! Started as root, the harness takes the account named by `CORACLE_TEST_USER`, else `coracle-tester` (which
//! `cargo xtask test` makes, with subordinate ids), else the bare uid 12345. Started otherwise, it stays who it is.

use std::{env, fs, os::unix::process::CommandExt, process::Command, sync::OnceLock};

/// Uid used where no account was made.
const BARE_UID: u32 = 12345;

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name; `None` for a uid without an entry in passwd.
    pub name: Option<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Whether the harness itself is root, so that it may mount, chown and make users.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail (getuid(2)).
    unsafe { libc::geteuid() == 0 }
}

/// The user that commands run as.
pub fn ordinary() -> &'static User {
    static USER: OnceLock<User> = OnceLock::new();
    USER.get_or_init(|| {
        if !is_root() {
            // SAFETY: getuid and getgid take no argument, touch no memory and cannot fail (getuid(2)).
            let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
            return User { name: env::var("USER").ok(), uid, gid };
        }
        let name = env::var("CORACLE_TEST_USER").unwrap_or_else(|_| "coracle-tester".to_owned());
        find(&name).unwrap_or(User { name: None, uid: BARE_UID, gid: BARE_UID })
    })
}

impl User {
    /// Makes `command` run as this user, with no supplementary groups.
    pub fn apply(&self, command: &mut Command) {
        if is_root() {
            // The standard library drops root's supplementary groups before it changes the uid.
            command.uid(self.uid).gid(self.gid);
        }
    }
}

fn find(name: &str) -> Option<User> {
    fs::read_to_string("/etc/passwd").ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() > 3 && fields[0] == name).then_some(())?;
        Some(User { name: Some(name.to_owned()), uid: fields[2].parse().ok()?, gid: fields[3].parse().ok()? })
    })
}
