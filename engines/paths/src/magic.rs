//! The links in `/proc` whose text is not where they lead: the kernel jumps. Told apart by their *host* path, so that a
//! `/proc` that the guest sees elsewhere is understood too.

/// Which of a process's links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// `/proc/self`.
    OwnPid,
    /// `/proc/thread-self`.
    OwnThread,
    /// `/proc/PID/exe`: its program.
    Exe,
    /// `/proc/PID/cwd`: its working directory.
    Cwd,
    /// `/proc/PID/root`: its root directory.
    Root,
    /// `/proc/PID/fd/N`: an open file, perhaps nameless (`pipe:[…]`), deleted or memfd.
    Fd,
    /// `/proc/PID/map_files/A-B`: a mapped file.
    MapFile,
    /// `/proc/PID/ns/NAME`: a namespace.
    Namespace,
}

/// A magic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Magic {
    /// Which one.
    pub link: Link,
    /// Whose: the number in its path (a thread's, if the path has one); 0 for `self` and `thread-self`.
    pub pid: u32,
}

impl Magic {
    /// The magic link that a host path without trailing slash names, if it is one.
    #[must_use]
    pub fn of(host: &[u8]) -> Option<Self> {
        let rest = host.strip_prefix(b"/proc/")?;
        match rest {
            b"self" => return Some(Self { link: Link::OwnPid, pid: 0 }),
            b"thread-self" => return Some(Self { link: Link::OwnThread, pid: 0 }),
            _ => {}
        }
        let mut parts = rest.split(|byte| *byte == b'/');
        let mut pid = number(parts.next()?)?;
        let mut name = parts.next()?;
        if name == b"task" {
            pid = number(parts.next()?)?;
            name = parts.next()?;
        }
        let inside = parts.next();
        if parts.next().is_some() {
            return None;
        }
        let link = match (name, inside) {
            (b"exe", None) => Link::Exe,
            (b"cwd", None) => Link::Cwd,
            (b"root", None) => Link::Root,
            (b"fd", Some(fd)) if number(fd).is_some() => Link::Fd,
            (b"map_files", Some(_)) => Link::MapFile,
            (b"ns", Some(_)) => Link::Namespace,
            _ => return None,
        };
        Some(Self { link, pid })
    }

    /// Whether readlink(2) of it gives a host path, to be shown as [`View::to_guest`](crate::View::to_guest) says.
    #[must_use]
    pub fn shows_host_path(self) -> bool {
        matches!(self.link, Link::Exe | Link::Cwd | Link::Root | Link::Fd | Link::MapFile)
    }
}

/// A decimal number as `/proc` writes it.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0_u32, |value, digit| {
        digit.is_ascii_digit().then_some(())?;
        value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
    })
}

/// Writes `value` in decimal; returns its length. `out` has room for ten digits.
pub(crate) fn put_number(mut value: u32, out: &mut [u8]) -> usize {
    let mut digits = [0; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let len = digits.len() - at;
    out[..len].copy_from_slice(&digits[at..]);
    len
}
