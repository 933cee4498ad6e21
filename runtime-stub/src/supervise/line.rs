//! What front and guardian tell each other, through two pipes.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use coracle_api::Ended;
use serde::{Deserialize, Serialize};

use super::{Over, Usage};

/// From the guardian to the front.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum News {
    /// The guest's process, which is about to start the program.
    Guest(i32),
    /// It could not be made: the error's number.
    Failed(i32),
    /// It was stopped by this signal.
    Stopped(i32),
    /// It has ended, and is waited for when the front has answered.
    Ending,
    /// No guest is left.
    Over(Over),
}

/// One end: what is heard here is told there.
#[derive(Debug)]
pub(super) struct Line {
    from: File,
    to: File,
}

/// The front's end and the guardian's. Neither survives exec.
pub(super) fn pair() -> io::Result<(Line, Line)> {
    let ((from, to), (other_from, other_to)) = (io::pipe()?, io::pipe()?);
    let file = |fd: std::os::fd::OwnedFd| File::from(fd);
    let front = Line { from: file(from.into()), to: file(other_to.into()) };
    let guardian = Line { from: file(other_from.into()), to: file(to.into()) };
    Ok((front, guardian))
}

impl Line {
    /// The next news; none if the other one is no more.
    pub(super) fn hear(&self) -> Option<News> {
        let mut length = [0; 2];
        (&self.from).read_exact(&mut length).ok()?;
        let mut text = vec![0; usize::from(u16::from_ne_bytes(length))];
        (&self.from).read_exact(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Tells; whether there was anybody to be told.
    pub(super) fn tell(&self, news: &News) -> bool {
        let Ok(text) = serde_json::to_vec(news) else { return false };
        let Ok(length) = u16::try_from(text.len()) else { return false };
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&text);
        // Shorter than PIPE_BUF: all of it or nothing.
        (&self.to).write_all(&message).is_ok()
    }

    /// The front's only word.
    pub(super) fn answer(&self) {
        // A guardian that is no more need not be told.
        let _ = (&self.to).write_all(b"a");
    }

    /// Waits for that word; false if the front is no more.
    pub(super) fn is_answered(&self) -> bool {
        (&self.from).read_exact(&mut [0]).is_ok()
    }
}

/// As text, for [`Over`] is the supervisor's own and no file's.
#[derive(Serialize, Deserialize)]
struct OverText(Ended, Usage);

impl Serialize for Over {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OverText(self.ended, self.usage).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Over {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OverText(ended, usage) = OverText::deserialize(deserializer)?;
        Ok(Self { ended, usage })
    }
}
