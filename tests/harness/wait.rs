//! Waiting, bounded in time.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

/// Waits until `condition` holds, at most `seconds`.
///
/// # Panics
/// If it does not hold in time; `what` says what was waited for.
#[track_caller]
pub fn eventually(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < end, "waited {seconds} s in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
