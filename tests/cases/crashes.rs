//! Commands killed at each step that changes the store: it is whole afterwards, and the same command again does it.

use std::{fs, process::Command};

use harness::{Output, Sandbox, coracle, images, skip};

/// What changes names, or says that bytes are on disk.
const STEPS: &str = "rename renameat renameat2 link linkat unlink unlinkat mkdir mkdirat fsync fdatasync ftruncate";

/// A command, what makes its ground, and what it says the second time if the first was as good as done.
struct Deed {
    words: &'static str,
    ground: &'static [&'static str],
    done: &'static str,
}

const fn deed(words: &'static str, ground: &'static [&'static str], done: &'static str) -> Deed {
    Deed { words, ground, done }
}

const CREATED: &str = "create -q --pull=never --name two my:1";

const DEEDS: [Deed; 14] = [
    deed("import -q tree.tar my:2", &["rmi -f my:2"], ""),
    deed("import -q tree.tar new:1", &["rm -f one", "rm -f two", "rmi -f my:1", "rmi -f my:2", "rmi -f new:1"], ""),
    deed(CREATED, &["rm -f two", "import -q tree.tar my:1"], "is taken"),
    // The tree that containers stand on is made again, too.
    deed(
        "create -q --pull=never --name two new:1",
        &["rm -f two", "rmi -f new:1", "prune -q -a -f", "import -q tree.tar new:1", "import -q tree.tar my:1"],
        "is taken",
    ),
    deed("run -q --pull=never --name two my:1 /bin/busybox true", &["rm -f two"], "is taken"),
    deed("run -q --pull=never two /bin/busybox touch /made", &["rm -f two", CREATED], ""),
    deed("clone -q one --name two", &["rm -f two", "create -q --pull=never --name one my:1"], "is taken"),
    deed("rename two three", &["rm -f two", "rm -f three", CREATED], "no such container"),
    deed("setup --execmode=P2 two", &["rm -f two", "rm -f three", CREATED], ""),
    deed("setup --execmode=F3 two", &["rm -f two", CREATED], ""),
    deed("inspect -p two", &["rm -f two", CREATED], ""),
    deed("rm two", &["rm -f two", CREATED], "no such container"),
    deed("save -q -o saved.tar my:1", &["tag my:1 my:4"], ""),
    deed("build -q container:one -o one.run", &["tag my:1 my:4"], ""),
];

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ')
}

/// The command, killed at the n-th of its calls of one kind; false if it makes no more of them.
fn killed(sandbox: &Sandbox, line: &str, step: &str, number: u32) -> bool {
    let mut command: Command = sandbox.command("strace");
    // Not beyond the launcher: whoever is traced gets no help from set-user-id programs.
    command.args(["-f", "-qq", "-b", "execve", "-o", "/dev/null", "-e", &format!("trace={step}")]);
    command.args(["-e", &format!("inject={step}:signal=KILL:when={number}")]).arg(coracle()).args(words(line));
    let output = Output::of(command);
    assert!(matches!(output.code, None | Some(0 | 137)), "{line}: {output}");
    output.code != Some(0)
}

fn crashes(deeds: &[Deed], every: u32) {
    if skip::lacks(&["strace"]) {
        return;
    }
    let sandbox = Sandbox::new();
    if !images::small(&sandbox) {
        return;
    }
    for line in ["import -q tree.tar my:1", "create -q --pull=never --name one my:1"] {
        sandbox.coracle(words(line)).ok();
    }
    let mut kills = 0;
    for (place, deed) in deeds.iter().enumerate() {
        for step in STEPS.split(' ') {
            let first = u32::try_from(place).unwrap() % every + 1;
            for number in (first..).step_by(every as usize) {
                for line in deed.ground {
                    sandbox.coracle(words(line));
                }
                if !killed(&sandbox, deed.words, step, number) {
                    break;
                }
                kills += 1;
                let what = format!("{}, killed at {step} {number}", deed.words);
                let verified = sandbox.coracle(["verify"]);
                // An engine's edits are laid in place; what is half laid is named, and laid by the same command.
                let named = deed.words.contains("F3") && verified.stdout.contains("lays them anew");
                assert!(named || verified.ok().ends_with("all whole"), "{what}: {verified}");
                let again = sandbox.coracle(words(deed.words));
                let done = !deed.done.is_empty() && again.stderr.contains(deed.done);
                assert!(again.code == Some(0) || done, "{what}: {again}");
                let verified = sandbox.coracle(["verify"]);
                assert!(verified.ok().ends_with("all whole"), "{what}, and again: {verified}");
            }
        }
    }
    println!("{kills} kills");
    assert!(kills > deeds.len(), "{kills} kills");
    for container in sandbox.coracle(["ps", "-q"]).ok().lines() {
        sandbox.coracle(["rm", container]).ok();
    }
    sandbox.coracle(["prune", "-q", "-a", "-f", "--partial"]).ok();
    let store = sandbox.path().join("home/.coracle");
    for place in ["containers", "trees", "trash", "partial", "blobs/sha256", "names", "images"] {
        let left = fs::read_dir(store.join(place)).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name != ".lock").collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}

#[test]
fn killed_at_some_steps_a_command_can_be_given_again() {
    crashes(&DEEDS[2..3], 5);
    crashes(&DEEDS[11..12], 5);
}

#[test]
fn killed_at_every_step_a_command_can_be_given_again() {
    if skip::unless_slow() {
        return;
    }
    crashes(&DEEDS, 1);
}
