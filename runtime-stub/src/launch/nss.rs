//! The host's name service (LDAP, SSSD…), asked through getent(1): a static program cannot load its modules.
//!
//! An answer is kept in the cache for an hour, so that a warm start need not ask. A directory service that does not answer
//! costs two seconds once, not at every start: an empty answer is kept too, for a minute.

use std::{
    fmt::Write as _,
    fs,
    io::Read,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use super::files;

const PATIENCE: Duration = Duration::from_secs(2);
const KEPT: Duration = Duration::from_secs(3600);
const KEPT_EMPTY: Duration = Duration::from_secs(60);

/// The name service.
#[derive(Debug, Clone, Default)]
pub(super) struct NameService {
    /// Where answers are kept; nowhere without one.
    pub(super) dir: Option<PathBuf>,
}

impl NameService {
    /// Lines of `passwd` or `group` for these ids; empty without getent, without an answer, or too late.
    pub(super) fn ask(&self, database: &str, ids: &[u32]) -> Vec<u8> {
        let mut name = format!("nss-{database}");
        for id in ids {
            let _ = write!(name, "-{id}");
        }
        if name.len() > 200 {
            name = format!("nss-{database}-{}", files::digest_name(name.as_bytes()));
        }
        let file = self.dir.as_ref().map(|dir| dir.join(name));
        if let Some(kept) = file.as_deref().and_then(kept) {
            return kept;
        }
        let answer = getent(database, ids).unwrap_or_default();
        if let (Some(dir), Some(file)) = (&self.dir, &file) {
            // Only a saving: without it the next start asks again.
            let _ = files::write_beside(dir, file, &answer);
        }
        answer
    }
}

fn kept(file: &Path) -> Option<Vec<u8>> {
    let meta = fs::metadata(file).ok()?;
    let age = SystemTime::now().duration_since(meta.modified().ok()?).ok()?;
    let limit = if meta.len() == 0 { KEPT_EMPTY } else { KEPT };
    (age < limit).then(|| fs::read(file).ok())?
}

fn getent(database: &str, ids: &[u32]) -> Option<Vec<u8>> {
    let program = ["/usr/bin/getent", "/bin/getent"].iter().find(|path| Path::new(path).exists())?;
    let mut child = Command::new(program)
        .arg(database)
        .args(ids.iter().map(u32::to_string))
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut pipe = child.stdout.take()?;
    let deadline = Instant::now() + PATIENCE;
    let mut answer = Vec::new();
    let complete = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one initialised pollfd that outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left.as_millis()).unwrap_or(0)) };
        if ready <= 0 {
            break false;
        }
        let mut buffer = [0; 4096];
        match pipe.read(&mut buffer) {
            Ok(0) => break true,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(_) => break false,
        }
    };
    if !complete {
        let _ = child.kill();
    }
    let _ = child.wait();
    complete.then_some(answer)
}
