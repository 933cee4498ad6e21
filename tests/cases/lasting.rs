//! What runs in the background for long: its health, its log, its terminal's size; starting it again; and what is left when
//! what stayed beside it was killed.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use harness::{
    eventually, images,
    oci::{Layer, OciImage},
};
use serde_json::{Value, json};

use super::{runs::World, terminal::Terminal};

impl World {
    fn status(&self, name: &str) -> String {
        let filter = format!("name={name}");
        self.sandbox.coracle(["ps", "-f", &filter, "--format", "{{.Status}}"]).ok().to_owned()
    }

    fn background(&self, options: &[&str], script: &str) {
        let mut args = vec!["run", "-d"];
        args.extend_from_slice(options);
        args.extend(["base", "sh", "-c", script]);
        self.sandbox.coracle(args).ok();
    }
}

#[test]
fn a_start_in_the_background_is_told_at_once_by_every_engine() {
    let Some(world) = World::new() else { return };
    for options in [&["--execmode=R1"][..], &["--execmode=P1"], &["--execmode=P2"], &["--pid=private"]] {
        let mut quickest = Duration::MAX;
        for _ in 0..3 {
            let since = Instant::now();
            world.background(options, "sleep 100");
            quickest = quickest.min(since.elapsed());
            world.sandbox.coracle(["stop", "-t0", "base"]).ok();
        }
        assert!(quickest < Duration::from_millis(400), "{options:?}: {quickest:?}");
        let mut args = vec!["run", "-d"];
        args.extend_from_slice(options);
        world.sandbox.coracle(args.iter().copied().chain(["base", "/no/such"])).fails_as(127, &["/no/such: not found"]);
        world.sandbox.coracle(args.into_iter().chain(["base", "/etc/passwd"])).code_is(126);
    }
}

#[test]
fn health_is_asked_for_and_shown() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    let options = ["--health-cmd=test -e /well", "--health-interval=200ms", "--health-retries=2"];
    world.background(&options, "sleep 100");
    let up = |word: &str| world.status("base").ends_with(&format!("({word})"));
    assert!(world.status("base").starts_with("Up"), "{}", world.status("base"));
    eventually("two failures make it unhealthy", 10, || up("unhealthy"));
    sandbox.coracle(["exec", "base", "touch", "/well"]).ok();
    eventually("one success makes it healthy", 10, || up("healthy"));
    assert_eq!(sandbox.coracle(["ps", "-q", "-f", "health=unhealthy"]).ok(), "");
    assert_eq!(sandbox.coracle(["ps", "-q", "-f", "health=healthy"]).ok().lines().count(), 1);
    let state = sandbox.coracle(["inspect", "base", "-f", "{{json .State.Health}}"]);
    let state: Value = serde_json::from_str(state.ok()).unwrap();
    assert_eq!((&state["Status"], &state["FailingStreak"]), (&json!("healthy"), &json!(0)));
    let log = state["Log"].as_array().unwrap();
    assert!(log.len() <= 5 && log.iter().any(|check| check["ExitCode"] == 0), "{state}");
    sandbox.coracle(["stop", "-t0", "base"]).ok();
    assert!(world.status("base").starts_with("Exited (143)"), "{}", world.status("base"));
    // A check that takes too long has failed.
    let options = ["--health-cmd=sleep 50", "--health-interval=100ms", "--health-timeout=200ms", "--health-retries=1"];
    world.background(&options, "sleep 100");
    eventually("a check that hangs makes it unhealthy", 10, || up("unhealthy"));
    assert!(sandbox.coracle(["inspect", "base"]).ok().contains("took too long"));
    sandbox.coracle(["kill", "base"]).ok();
    sandbox.coracle(["run", "-d", "--health-interval=1x", "base", "true"]).fails_with(&["--health-interval 1x", "30s"]);
}

#[test]
fn the_images_healthcheck_is_honoured_or_named() {
    let Some(tar) = images::find(images::BUSYBOX_MUSL) else { return };
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    let unpacked = tempfile::tempdir().unwrap();
    assert!(
        std::process::Command::new("tar")
            .arg("-C")
            .arg(unpacked.path())
            .arg("-xzf")
            .arg(&tar)
            .status()
            .unwrap()
            .success()
    );
    let busybox = fs::read(unpacked.path().join("bin/busybox")).unwrap();
    let layer = Layer::new().dir("bin/", 0o755).file("bin/busybox", 0o755, &busybox);
    let config = json!({
        "Cmd": ["/bin/busybox", "sleep", "100"],
        "Healthcheck": {"Test": ["CMD", "/bin/busybox", "true"], "Interval": 200_000_000, "Retries": 1},
    });
    OciImage::new(config).layer(layer).write(&sandbox.work("image")).unwrap();
    sandbox.coracle(["run", "-d", "--name=asked", "oci:image:latest"]).ok();
    eventually("it is healthy", 10, || world.status("asked").ends_with("(healthy)"));
    let check = sandbox.coracle(["inspect", "asked", "-f", "{{json .Config.Healthcheck.Test}}"]);
    assert_eq!(check.ok(), r#"["CMD","/bin/busybox","true"]"#);
    // In the foreground it is not asked, and that is said.
    let said = sandbox.coracle(["run", "--rm", "oci:image:latest", "/bin/busybox", "true"]);
    assert!(said.stderr.contains("HEALTHCHECK is not run"), "{said}");
    let said = sandbox.coracle(["run", "--rm", "--no-healthcheck", "oci:image:latest", "/bin/busybox", "true"]);
    assert!(said.ok().is_empty() && said.stderr.is_empty(), "{said}");
    sandbox.coracle(["run", "-d", "--name=deaf", "--no-healthcheck", "oci:image:latest"]).ok();
    assert!(!world.status("deaf").contains("health"), "{}", world.status("deaf"));
    // It travels with an image that is made of a container.
    sandbox.coracle(["export", "-o", "asked.tar", "asked"]).ok();
    let change = "HEALTHCHECK --interval=2s CMD test -e /x";
    sandbox.coracle(["import", "-c", change, "asked.tar", "again:1"]).ok();
    sandbox.coracle(["create", "--name=again", "again:1"]).ok();
    let check = sandbox.coracle(["inspect", "again", "-f", "{{json .Config.Healthcheck}}"]);
    assert!(check.ok().contains(r#""Interval":2000000000"#) && check.ok().contains("test -e /x"), "{check}");
    sandbox.coracle(["rm", "-f", "asked", "deaf"]).ok();
}

#[test]
fn a_log_is_bounded_and_keeps_the_newest() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    world.background(
        &["--log-opt", "max-size=20k", "--log-opt", "max-file=3"],
        "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done",
    );
    let followed = sandbox.coracle(["logs", "-f", "base"]);
    assert!(followed.ok().ends_with("line 4999"), "{followed}");
    let kept = sandbox.coracle(["logs", "base"]);
    let lines: Vec<&str> = kept.ok().lines().collect();
    assert_eq!(lines.last(), Some(&"line 4999"));
    assert!(lines.len() > 500 && lines.len() < 5000, "{} lines", lines.len());
    let first: usize = lines[0].trim_start_matches("line ").parse().unwrap();
    assert_eq!(lines.len(), 5000 - first, "no line is missing of what is kept");
    assert_eq!(sandbox.coracle(["logs", "--tail=2", "base"]).ok(), "line 4998\nline 4999");
    let logs = world.root().with_file_name("logs");
    let files = fs::read_dir(logs).unwrap().flatten();
    let bytes: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 60 << 10, "{bytes}");
    sandbox.coracle(["run", "-d", "--log-opt=max-size=x", "base", "true"]).fails_with(&["max-size=x", "is no size"]);
}

#[test]
fn containers_are_started_again() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    sandbox.coracle(["create", "--name=again", &world.image, "sh", "-c", "echo began >> /log; exec sleep 100"]).ok();
    for times in 1..=3 {
        assert_eq!(sandbox.coracle(["restart", "-t0", "again"]).ok(), "again");
        assert!(world.status("again").starts_with("Up"));
        eventually("it began", 10, || {
            sandbox.coracle(["exec", "again", "cat", "/log"]).stdout.lines().count() == times
        });
    }
    sandbox.coracle(["restart", "nosuch"]).fails_as(1, &["no such container: nosuch"]);
    sandbox.coracle(["rm", "-f", "again"]).ok();
}

#[test]
fn a_killed_launcher_takes_all_along_and_is_on_record() {
    let Some(world) = World::new() else { return };
    for mode in ["R1", "P1"] {
        let mut command = world.sandbox.command(harness::coracle());
        command.args(["run", &format!("--execmode={mode}"), "base", "sh", "-c", "sleep 4721 & echo ready; sleep 4722"]);
        let mut launcher = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(launcher.stdout.as_mut().unwrap(), &mut ready).unwrap();
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        eventually("it is on record", 10, || world.status("base").starts_with("Exited (137)"));
        let sleepers = world.sandbox.run("pgrep", ["-f", "sleep 472[12]"]).stdout;
        assert_eq!(sleepers, "");
    }
}

#[test]
fn what_a_killed_launcher_leaves_is_dead_and_can_be_ended() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    for end in [&["stop", "base"][..], &["start", "base"], &["rm", "-f", "base"]] {
        let mut command = sandbox.command(harness::coracle());
        command.args(["run", "base", "sh", "-c", "sleep 4711 & echo ready; sleep 4712"]).stdout(Stdio::piped());
        let mut launcher = command.spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(launcher.stdout.as_mut().unwrap(), &mut ready).unwrap();
        // Whoever watches over it is killed, too, before either can do anything. Both are stopped first, and the
        // launcher dies last: the kernel continues a stopped process whose parent dies (setpgid(2), orphaned process
        // groups).
        let guardian = Command::new("pgrep").args(["-P", &launcher.id().to_string()]).output().unwrap();
        let guardian: i32 = String::from_utf8_lossy(&guardian.stdout).trim().parse().unwrap();
        let parent = i32::try_from(launcher.id()).unwrap();
        for (process, signal) in [(parent, libc::SIGSTOP), (guardian, libc::SIGSTOP), (guardian, libc::SIGKILL)] {
            // SAFETY: kill touches no memory; the launcher was not waited for, and so neither was its child.
            assert_eq!(unsafe { libc::kill(process, signal) }, 0);
        }
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        let sleepers = || sandbox.run("pgrep", ["-f", "sleep 471[12]"]).stdout.lines().count();
        // The program dies with its launcher; what that left behind does not, without namespaces of its own.
        eventually("the program is gone", 10, || world.status("base").starts_with("Dead"));
        sandbox.coracle(["rm", "base"]).fails_as(1, &["is running"]);
        sandbox.coracle(["exec", "base", "true"]).fails_with(&["not running"]);
        assert_eq!(sandbox.coracle(["wait", "base"]).ok(), "137");
        assert_eq!(sandbox.coracle(["ps", "-q", "-f", "status=dead"]).ok().lines().count(), 1);
        sandbox.coracle(end).ok();
        eventually("nothing of it is left", 10, || sleepers() == 0);
        if end[0] == "start" {
            sandbox.coracle(["stop", "-t0", "base"]).ok();
        }
    }
    assert_eq!(world.status("base"), "", "it is removed");
}

#[test]
fn a_run_in_the_foreground_is_removed_by_force() {
    let Some(world) = World::new() else { return };
    for mode in ["R1", "P1"] {
        world.sandbox.coracle(["create", "--name=live", &world.image]).ok();
        let mut command = world.sandbox.command(harness::coracle());
        let mode = format!("--execmode={mode}");
        let mut live = command.args(["run", &mode, "live", "sleep", "4713"]).spawn().unwrap();
        eventually("it runs", 10, || world.status("live").starts_with("Up"));
        world.sandbox.coracle(["rm", "live"]).fails_as(1, &["is running", "-f"]);
        assert_eq!(world.sandbox.coracle(["rm", "-f", "live"]).ok(), "live");
        assert!(!live.wait().unwrap().success());
        assert_eq!(world.status("live"), "");
        eventually("its program is gone", 10, || world.sandbox.run("pgrep", ["-f", "sleep 4713"]).stdout.is_empty());
    }
}

#[test]
fn attaching_tells_the_size_of_the_window() {
    let Some(world) = World::new() else { return };
    world.background(&["-it"], "trap 'stty size' WINCH; while :; do read x && stty size; done");
    let mut command = world.sandbox.command(harness::coracle());
    command.args(["attach", "base"]).env("TERM", "dumb");
    let terminal = Terminal::start(command);
    terminal.resize(33, 101);
    let mut terminal = terminal;
    eventually("it is attached", 10, || {
        terminal.send("x\n");
        std::thread::sleep(Duration::from_millis(200));
        terminal.look().contains("33 101")
    });
    terminal.resize(44, 155);
    eventually("the new size arrives", 10, || {
        terminal.send("x\n");
        std::thread::sleep(Duration::from_millis(200));
        terminal.look().contains("44 155")
    });
    // Ctrl-P Ctrl-Q leaves it alone.
    terminal.send("\x10\x11");
    eventually("attach has ended", 10, || terminal.has_ended());
    assert!(world.status("base").starts_with("Up"), "{}", world.status("base"));
    world.sandbox.coracle(["kill", "base"]).ok();
}
