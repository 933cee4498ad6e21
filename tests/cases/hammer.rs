//! One store under many hands: processes that make, change, list and remove what others use at the same time, and are
//! killed in the middle. Afterwards the store is whole.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command as Process, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Sandbox, coracle, images,
    oci::{Layer, OciImage},
    skip,
};
use serde_json::json;

const HANDS: u64 = 8;
const NAMES: u64 = 5;

/// A small generator (xorshift); the same seed gives the same commands.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn images(sandbox: &Sandbox) -> Option<()> {
    let tar = images::find(images::BUSYBOX_MUSL)?;
    let unpacked = tempfile::tempdir().unwrap();
    let status = Process::new("tar").arg("-C").arg(unpacked.path()).arg("-xzf").arg(tar).status();
    assert!(status.unwrap().success());
    let busybox = fs::read(unpacked.path().join("bin/busybox")).unwrap();
    for number in 0..3_u8 {
        let shared = Layer::new().file("bin/busybox", 0o755, &busybox).dir("closed/", 0o000);
        let own = Layer::new().file(&format!("etc/own{number}"), 0o600, &[number; 100_000]);
        let layout = sandbox.work(&format!("image{number}"));
        OciImage::new(json!({"Cmd": ["/x"]})).layer(shared).layer(own).write(&layout).unwrap();
        let file = format!("image{number}.tar");
        sandbox.run("tar", ["-C", &format!("image{number}"), "-cf", &file, "."]).ok();
    }
    Some(())
}

/// Some command on the things that all know.
fn command(dice: &mut Dice) -> Vec<String> {
    let name = format!("c{}", dice.roll(NAMES));
    let other = format!("c{}", dice.roll(NAMES));
    let image = dice.roll(3);
    let tag = format!("my/image{image}:{}", dice.roll(2));
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    const BUSYBOX: &str = "/bin/busybox";
    match dice.roll(28) {
        0..=2 => words(&["create", "--pull=never", "--name", &name, &tag]),
        3 | 4 => words(&["load", "-q", "-i", &format!("image{image}.tar"), &tag]),
        5 | 6 => words(&["rm", "-f", &name]),
        7 => words(&["rmi", "-f", &tag]),
        8 => words(&["clone", &name, "--name", &other]),
        9 => words(&["rename", &name, &other]),
        10 => words(&["ps", "-s"]),
        11 => words(&["prune", "-q"]),
        12 => words(&["tag", &tag, &format!("my/image{image}:0")]),
        13 => words(&["setup", "--execmode=P2", &name]),
        // A tree of its own, in place of what it shares.
        25 => words(&["inspect", "-p", &name]),
        26 => words(&["prune", "-q", "-f", "--images"]),
        15 => words(&["run", "--pull=never", &name, BUSYBOX, "touch", "/ran"]),
        16 => words(&["run", "--pull=never", "--rm", &tag, BUSYBOX, "true"]),
        17 => words(&["run", "--pull=never", "-d", "--name", &name, &tag, BUSYBOX, "sleep", "0.3"]),
        18 => words(&["start", &name]),
        19 => words(&["exec", &name, BUSYBOX, "true"]),
        20 => words(&["stop", "-t0", &name]),
        21 => words(&["restart", "-t0", &name]),
        22 => words(&["kill", &name]),
        23 => words(&["export", "-o", &format!("export{name}.tar"), &name]),
        24 => words(&["logs", &name]),
        14 => words(&["save", "-o", &format!("save{name}.tar"), &tag]),
        _ => words(&["create", "--name", &name, &format!("oci:image{image}:latest")]),
    }
}

/// Ends as told, or is killed after a while.
fn end(mut child: Child, kill_after: Option<Duration>) -> (Option<i32>, String) {
    if let Some(after) = kill_after {
        thread::sleep(after);
        let _ = child.kill();
    }
    let since = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(since.elapsed() < Duration::from_secs(120), "a command hangs");
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let killed = output.status.signal().is_some();
    (output.status.code().filter(|_| !killed), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn hammer(seconds: u64) {
    let sandbox = Sandbox::new();
    if images(&sandbox).is_none() {
        return;
    }
    let (done, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|scope| {
        for hand in 0..HANDS {
            let (sandbox, done, killed) = (&sandbox, &done, &killed);
            scope.spawn(move || {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (hand + 1) << 32);
                while Instant::now() < until {
                    let words = command(&mut dice);
                    let kill_after = (dice.roll(3) == 0).then(|| Duration::from_millis(dice.roll(60)));
                    let mut command = sandbox.command(coracle());
                    command.args(&words).stdout(Stdio::null()).stderr(Stdio::piped());
                    let (code, said) = end(command.spawn().unwrap(), kill_after);
                    let count = if code.is_some() { done } else { killed };
                    count.fetch_add(1, Ordering::Relaxed);
                    // What fails says why, in one line of ours; nothing panics.
                    if code.is_some_and(|code| code != 0) {
                        assert!(said.lines().all(|line| line.starts_with("coracle: ")), "{words:?}: {said}");
                        assert!(!said.contains("panicked") && !said.contains("damaged"), "{words:?}: {said}");
                    }
                }
            });
        }
    });
    println!("{} commands, {} killed", done.load(Ordering::Relaxed), killed.load(Ordering::Relaxed));
    assert!(done.load(Ordering::Relaxed) > 20 && killed.load(Ordering::Relaxed) > 5);
    // What runs in the background has ended, or is ended now.
    for container in sandbox.coracle(["ps", "-q", "-r"]).ok().lines() {
        sandbox.coracle(["stop", "-t0", container]).ok();
    }
    assert_eq!(sandbox.coracle(["ps", "-q", "-r"]).ok(), "");
    let verified = sandbox.coracle(["verify"]);
    assert!(verified.ok().ends_with("all whole"), "{verified}");
    // Everything that is listed is whole, and all can be removed, so that nothing is left.
    let listed = sandbox.coracle(["ps", "-q"]);
    assert_eq!(listed.stderr, "");
    for container in listed.ok().lines() {
        sandbox.coracle(["export", "-o", "export.tar", container]).ok();
        sandbox.coracle(["rm", container]).ok();
    }
    sandbox.coracle(["prune", "--images", "--partial", "-f"]).ok();
    let store = sandbox.path().join("home/.coracle");
    for place in ["containers", "trees", "trash", "partial", "blobs/sha256"] {
        let left: Vec<_> = fs::read_dir(store.join(place)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
    for place in ["names", "images"] {
        let left = fs::read_dir(store.join(place)).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name != ".lock").collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}

#[test]
fn eight_hands_and_kills_leave_the_store_whole() {
    hammer(8);
}

#[test]
fn eight_hands_and_kills_for_a_minute() {
    if skip::unless_slow() {
        return;
    }
    hammer(60);
}
