//! The inode ledger: what goes in comes out, whoever else is at it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use coracle_ledger::{Entry, Full, Inode, Ledger, Unusable, bytes_for};

const HOME: u64 = 0x803;

fn memory(capacity: u64) -> Vec<AtomicU64> {
    let words = bytes_for(capacity).expect("a size") / size_of::<u64>();
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn at(number: u64) -> Inode {
    Inode { device: HOME, number }
}

#[test]
fn what_is_recorded_is_found() {
    let words = memory(256);
    let ledger = Ledger::format(&words, HOME).expect("a ledger");
    assert!(ledger.is_empty() && !ledger.has_devices());
    assert_eq!(ledger.get(at(7)), None);
    ledger.set_owner(at(7), 33, u32::MAX - 1).expect("room");
    ledger.set_mode(at(7), Some(0o104_755)).expect("room");
    let entry = Entry { owner: Some((33, u32::MAX - 1)), mode: Some(0o104_755), device: None, shared: false };
    assert_eq!(ledger.get(at(7)), Some(entry));
    // The same number elsewhere is another file, and so is a neighbour.
    assert_eq!(ledger.get(Inode { device: HOME + 1, number: 7 }), None);
    assert_eq!(ledger.get(at(8)), None);
    ledger.set_shared(at(7), true).expect("room");
    ledger.set_mode(at(7), None).expect("room");
    assert_eq!(ledger.get(at(7)), Some(Entry { mode: None, shared: true, ..entry }));
    ledger.set_device(at(7), 0o020_666, 0x103).expect("room");
    ledger.set_shared(at(7), false).expect("room");
    assert_eq!(ledger.get(at(7)), Some(Entry { mode: Some(0o020_666), device: Some(0x103), ..entry }));
    assert!(ledger.has_devices());
    ledger.set_mode(at(7), None).expect("room");
    assert_eq!(ledger.get(at(7)).and_then(|entry| entry.mode), Some(0o020_666), "a device stays one");
    ledger.remove(at(7));
    assert_eq!(ledger.get(at(7)), None);
    // Its next life starts with nothing, in the same slot.
    let claimed = ledger.claimed();
    ledger.set_mode(at(7), Some(0o100_000)).expect("room");
    assert_eq!(ledger.get(at(7)), Some(Entry { mode: Some(0o100_000), ..Entry::default() }));
    assert_eq!(ledger.claimed(), claimed);
    // Nothing was asked to be made by these.
    ledger.remove(at(99));
    ledger.set_shared(at(99), false).expect("nothing to do");
    ledger.set_mode(at(99), None).expect("nothing to do");
    assert_eq!(ledger.claimed(), claimed);
}

#[test]
fn it_is_kept_and_grows_and_its_home_may_be_renumbered() {
    let words = memory(256);
    let ledger = Ledger::format(&words, HOME).expect("a ledger");
    let elsewhere = Inode { device: 5, number: 3 };
    let mut held = 0;
    for number in 1.. {
        match ledger.set_owner(at(number * 977), 1, 2) {
            Ok(()) => held = number,
            Err(Full) => break,
        }
    }
    assert_eq!(held, 192, "three quarters");
    assert_eq!(ledger.set_owner(elsewhere, 1, 2), Err(Full));
    ledger.set_owner(at(977), 5, 6).expect("what is there can change");
    for number in 100..=held {
        ledger.remove(at(number * 977));
    }
    let moved = Ledger::open(&words, 0x999).expect("kept");
    let larger = memory(512);
    let larger = Ledger::format(&larger, 0x999).expect("a ledger");
    moved.copy_to(&larger).expect("room");
    larger.set_owner(elsewhere, 1, 2).expect("room");
    assert_eq!(larger.claimed(), 100, "dead keys stay behind");
    let now = |number| Inode { device: 0x999, number };
    assert_eq!(larger.get(now(977)).and_then(|entry| entry.owner), Some((5, 6)));
    assert_eq!(larger.get(now(99 * 977)).and_then(|entry| entry.owner), Some((1, 2)));
    assert_eq!(larger.get(now(100 * 977)), None);
    assert_eq!(larger.entries().count(), 100);
    assert!(larger.entries().any(|(inode, _)| inode == elsewhere));
}

#[test]
fn what_is_no_ledger_is_refused() {
    let words = memory(64);
    assert_eq!(Ledger::open(&words, HOME).err(), Some(Unusable::Magic));
    assert_eq!(Ledger::open(&[], HOME).err(), Some(Unusable::Size));
    assert_eq!(Ledger::format(&words[1..], HOME).err(), Some(Unusable::Size));
    Ledger::format(&words, HOME).expect("a ledger");
    assert_eq!(Ledger::open(&words[..words.len() - 1], HOME).err(), Some(Unusable::Size), "cut short");
    for lie in [0, 63, 65, 128, u64::MAX, 1 << 63] {
        words[1].store(lie, Ordering::Relaxed);
        assert_eq!(Ledger::open(&words, HOME).err(), Some(Unusable::Size), "{lie}");
    }
    assert_eq!(bytes_for(63), None);
    assert_eq!(bytes_for(1 << 63), None);
}

/// Threads that all write the same keys and their own, while others read: every read is of something that was written.
#[test]
fn many_at_once() {
    const THREADS: u32 = 8;
    const KEYS: u64 = 2000;
    let words = memory(1 << 15);
    let ledger = Ledger::format(&words, HOME).expect("a ledger");
    thread::scope(|scope| {
        for me in 1..=THREADS {
            let ledger = &ledger;
            scope.spawn(move || {
                for number in 1..=KEYS {
                    // The same inode number on several devices, so that claims meet in the middle.
                    let own = Inode { device: u64::from(me), number };
                    ledger.set_owner(own, me, me * 7).expect("room");
                    ledger.set_owner(at(number), me, me * 7).expect("room");
                    let seen = ledger.get(at(number)).and_then(|entry| entry.owner).expect("written by somebody");
                    assert_eq!(seen.1, seen.0 * 7, "an owner is whole");
                    ledger.set_mode(at(number), Some(0o100_644)).expect("room");
                    if number % 3 == 0 {
                        ledger.remove(own);
                    }
                }
            });
        }
    });
    assert_eq!(ledger.claimed(), KEYS * u64::from(THREADS + 1), "no key has two slots");
    for number in 1..=KEYS {
        for me in 1..=THREADS {
            let entry = ledger.get(Inode { device: u64::from(me), number });
            let expected = (number % 3 != 0).then_some(Some((me, me * 7)));
            assert_eq!(entry.map(|entry| entry.owner), expected);
        }
        assert_eq!(ledger.get(at(number)).and_then(|entry| entry.mode), Some(0o100_644));
    }
}
