//! Containers in the background: `run -d`, `logs`, `stop`, `kill`, `wait`, `exec`, `attach`, `top`; and what a SIGKILL of
//! anything leaves behind.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use harness::{Sandbox, eventually, images};
use serde_json::Value;

struct World {
    sandbox: Sandbox,
    image: String,
}

impl World {
    fn new() -> Option<Self> {
        let tar = images::find(images::ALPINE)?;
        let sandbox = Sandbox::new();
        Some(Self { sandbox, image: format!("rootfs:{}", tar.display()) })
    }

    fn start(&self, name: &str, options: &[&str], script: &str) {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend_from_slice(options);
        args.extend([self.image.as_str(), "sh", "-c", script]);
        let printed = self.sandbox.coracle(args);
        assert_eq!(printed.ok().trim_end().len(), 32, "it prints the id");
    }

    fn status(&self, name: &str) -> String {
        let listed = self.sandbox.coracle(["ps", "--format", "{{.Names}} {{.Status}}"]);
        let line = listed.ok().lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
        line.unwrap_or_default()
    }

    fn logs(&self, name: &str) -> String {
        self.sandbox.coracle(["logs", name]).ok().to_owned()
    }

    /// The launcher's process id, and the container's directory.
    fn record(&self, name: &str) -> (i32, PathBuf) {
        let root = self.sandbox.coracle(["inspect", "-p", name]).ok().trim_end().to_owned();
        let directory = PathBuf::from(root).parent().unwrap().to_owned();
        let entry = fs::read_dir(directory.join("runs")).unwrap().flatten().next().unwrap();
        let record: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        (i32::try_from(record["pid"].as_i64().unwrap()).unwrap(), directory)
    }
}

#[test]
fn a_run_in_the_background_is_logged_and_its_end_is_known() {
    let Some(world) = World::new() else { return };
    world.start("a", &[], "echo out; echo err >&2; printf half; exit 5");
    assert_eq!(world.sandbox.coracle(["wait", "a"]).ok(), "5");
    assert!(world.status("a").starts_with("Exited (5)"), "{}", world.status("a"));
    let logs = world.sandbox.coracle(["logs", "a"]);
    assert_eq!((logs.ok(), logs.stderr.as_str()), ("out\nhalf", "err\n"));
    let stamped = world.sandbox.coracle(["logs", "-t", "--tail=1", "a"]);
    let line = stamped.ok();
    assert!(line.starts_with("20") && line.contains("Z ") && line.ends_with(" half"), "{line}");
    // Again, into the same log.
    assert_eq!(world.sandbox.coracle(["start", "a"]).ok(), "a");
    assert_eq!(world.sandbox.coracle(["wait", "a"]).ok(), "5");
    assert_eq!(world.logs("a"), "out\nhalfout\nhalf");
    world.sandbox.coracle(["run", "a", "true"]).ok();
    world.sandbox.coracle(["logs", "nosuch"]).fails_as(1, &["nosuch"]);
}

#[test]
fn what_cannot_be_started_is_said_at_once() {
    let Some(world) = World::new() else { return };
    for mode in ["R1", "P1"] {
        let said = world.sandbox.coracle(["run", "-d", "--execmode", mode, &world.image, "/no/such"]);
        said.fails_as(127, &["/no/such: not found"]);
        let said = world.sandbox.coracle(["run", "-d", "--rm", "--execmode", mode, &world.image, "/etc/passwd"]);
        said.code_is(126);
    }
    let said = world.sandbox.coracle(["run", "-d", "-u", "nobody-here", &world.image, "true"]);
    said.fails_with(&["nobody-here"]);
    assert!(world.sandbox.coracle(["ps", "-r", "--format", "{{.ID}}"]).ok().is_empty(), "nothing runs");
}

#[test]
fn logs_follow_until_the_end() {
    let Some(world) = World::new() else { return };
    world.start("f", &[], "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done");
    let since = Instant::now();
    assert_eq!(world.sandbox.coracle(["logs", "-f", "f"]).ok(), "1\n2\n3\n4\n5");
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[test]
fn stop_asks_first_and_kills_then() {
    let Some(world) = World::new() else { return };
    for (name, mode) in [("n", "R1"), ("p", "P1")] {
        let mode = format!("--execmode={mode}");
        world.start(name, &[&mode], "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.05; done");
        eventually("it is ready", 10, || world.logs(name) == "ready");
        assert!(world.status(name).starts_with("Up"), "{}", world.status(name));
        let refused = world.sandbox.coracle(["rm", name]);
        refused.fails_as(1, &["running"]);
        assert_eq!(world.sandbox.coracle(["stop", name]).ok(), name);
        assert!(world.status(name).starts_with("Exited (9)"), "{}", world.status(name));
        assert_eq!(world.logs(name), "ready\nasked");
        let deaf = format!("{name}-deaf");
        world.start(&deaf, &[&mode, "--stop-timeout=0"], "trap '' TERM; echo ready; while :; do sleep 0.05; done");
        eventually("it is ready", 10, || world.logs(&deaf) == "ready");
        world.sandbox.coracle(["stop", &deaf]).ok();
        assert!(world.status(&deaf).starts_with("Exited (137)"), "{}", world.status(&deaf));
    }
    world.start("s", &["--stop-signal=USR1"], "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done");
    eventually("it is ready", 10, || world.logs("s") == "ready");
    world.sandbox.coracle(["kill", "--signal", "SIGCONT", "s"]).ok();
    world.sandbox.coracle(["stop", "s"]).ok();
    assert!(world.status("s").starts_with("Exited (3)"), "{}", world.status("s"));
    world.sandbox.coracle(["stop", "s"]).ok();
    world.sandbox.coracle(["kill", "s"]).fails_as(1, &["not running"]);
    world.sandbox.coracle(["kill", "-s", "NONE", "s"]).fails_as(1, &["no such signal"]);
}

#[test]
fn exec_joins_what_runs() {
    let Some(world) = World::new() else { return };
    world.start("e", &["-e", "A=1", "-v", "/etc/passwd:/shown:ro", "-u", "nobody"], "sleep 100");
    let said = world.sandbox.coracle([
        "exec",
        "e",
        "sh",
        "-c",
        "echo $A; id -un; test -f /shown && echo shown; pgrep -x sleep >/dev/null && echo sees",
    ]);
    assert_eq!(said.ok(), "1\nnobody\nshown\nsees");
    let said = world.sandbox.coracle([
        "exec",
        "-u",
        "0",
        "-w",
        "/usr",
        "-e",
        "A=2",
        "e",
        "sh",
        "-c",
        "echo $A; id -u; pwd; exit 6",
    ]);
    said.code_is(6);
    assert_eq!(said.stdout, "2\n0\n/usr\n");
    assert!(world.status("e").starts_with("Up"), "an exec that ends does not end the container");
    let top = world.sandbox.coracle(["top", "e"]);
    assert!(top.ok().contains("sleep 100"), "{}", top.ok());
    world.sandbox.coracle(["exec", "-d", "e", "sh", "-c", "echo > /tmp/by-exec; sleep 100"]).ok();
    eventually("it ran", 10, || world.sandbox.coracle(["exec", "e", "test", "-e", "/tmp/by-exec"]).code == Some(0));
    world.sandbox.coracle(["kill", "e"]).ok();
    assert!(world.status("e").starts_with("Exited (137)"), "{}", world.status("e"));
    world.sandbox.coracle(["exec", "e", "true"]).fails_with(&["not running"]);
    world.sandbox.coracle(["rm", "e"]).ok();
}

#[test]
fn after_a_kill_of_anything_nothing_runs_and_nothing_is_locked() {
    let Some(world) = World::new() else { return };
    for mode in ["R1", "P1"] {
        // The launcher, its monitor, the program itself.
        for victim in ["launcher", "monitor", "program"] {
            let name = format!("{mode}-{victim}");
            world.start(&name, &[&format!("--execmode={mode}")], "sleep 100 & sleep 100");
            let (launcher, _) = world.record(&name);
            let pid = match victim {
                "launcher" => launcher,
                "monitor" => parent(launcher),
                _ => {
                    world.sandbox.coracle(["kill", "-s", "KILL", &name]).ok();
                    0
                }
            };
            if pid > 1 {
                // SAFETY: kill takes two integers; the process is one that this test started.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            let gone = || world.sandbox.coracle(["ps", "-r", "--format", "{{.Names}}"]).ok().is_empty();
            if victim == "monitor" {
                // Orphans of a killed pair are found by the lease that they hold.
                world.sandbox.coracle(["kill", &name]);
            }
            eventually(&format!("{name}: nothing runs"), 10, gone);
            world.sandbox.coracle(["rm", &name]).ok();
        }
    }
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_terminal_of_its_own_can_be_attached_to() {
    let Some(world) = World::new() else { return };
    world.start("t", &["-it"], "tty >/dev/null && echo terminal; read line; echo got $line; exit 4");
    eventually("it has a terminal", 10, || world.logs("t").contains("terminal"));
    let mut command = world.sandbox.command(harness::coracle());
    let mut attached = command.args(["attach", "t"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    attached.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let mut out = String::new();
    attached.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(attached.wait().unwrap().code(), Some(4), "{out}");
    assert!(out.contains("got hello"), "{out}");
    world.start("i", &["-i"], "cat");
    let mut command = world.sandbox.command(harness::coracle());
    let mut attached = command.args(["attach", "i"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    attached.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    eventually("cat echoed it", 10, || world.logs("i") == "one");
    world.sandbox.coracle(["stop", "-t", "5", "i"]).ok();
    assert_eq!(attached.wait().unwrap().code(), Some(143));
    world.sandbox.coracle(["attach", "i"]).fails_as(1, &["not running"]);
}

#[test]
fn rm_takes_the_container_with_its_end() {
    let Some(world) = World::new() else { return };
    world.start("gone", &["--rm"], "sleep 0.3");
    assert!(world.status("gone").starts_with("Up"));
    eventually("it is gone", 10, || world.status("gone").is_empty());
    // Two runs of one container at a time.
    world.start("twice", &[], "sleep 100");
    world.sandbox.coracle(["run", "twice", "sh", "-c", "pgrep -f 'sleep 100' > /dev/null"]).ok();
    assert!(world.status("twice").starts_with("Up"), "{}", world.status("twice"));
    world.sandbox.coracle(["rm", "-f", "twice"]).ok();
    assert!(world.status("twice").is_empty());
}
