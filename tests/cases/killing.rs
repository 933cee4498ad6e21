//! Jobs killed at random moments: afterwards nothing of them runs, no lock is held, and no half of a tree is left.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use harness::{Sandbox, bundles, eventually, skip, user};

/// What a job is: options, and what the application does, with a word in its arguments to know it by.
struct Job {
    options: &'static [&'static str],
    /// Whether the stub stays beside the application, and so takes along all that this leaves behind.
    supervised: bool,
}

const JOBS: [Job; 12] = [
    Job { options: &["--coracle-engine=namespaces"], supervised: false },
    Job { options: &["--coracle-engine=ptrace"], supervised: false },
    Job { options: &["--coracle-engine=namespaces", "--coracle-report=report.json"], supervised: true },
    Job { options: &["--coracle-engine=ptrace", "--coracle-report=report.json"], supervised: true },
    Job { options: &["--coracle-engine=namespaces", "--coracle-writable"], supervised: true },
    Job { options: &["--coracle-engine=ptrace", "--coracle-writable"], supervised: true },
    Job { options: &["--coracle-engine=namespaces", "--coracle-cache=none"], supervised: true },
    Job { options: &["--coracle-engine=ptrace", "--coracle-cache=none"], supervised: true },
    Job { options: &["--coracle-engine=namespaces", "--coracle-isolated"], supervised: true },
    Job { options: &["--coracle-engine=preload"], supervised: false },
    Job { options: &["--coracle-engine=preload", "--coracle-report=report.json"], supervised: true },
    Job { options: &["--coracle-engine=preload", "--coracle-writable"], supervised: true },
];

/// Numbers by xorshift: the same ones each time, from a seed that a failure names.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn base(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join(format!("cache/coracle-{}", user::ordinary().uid))
}

/// Processes that have the word among their arguments, this test's own left out.
pub(crate) fn alive(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (pid != std::process::id() && line.contains(word)).then(|| format!("{pid}: {line}"))
    });
    lines.collect()
}

/// Files below a directory on which somebody holds a lock.
pub(crate) fn locked(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with("root")) {
            found.extend(locked(&path));
        } else if let Ok(file) = File::open(&path)
            // SAFETY: flock touches no memory; the descriptor is open.
            && unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0
        {
            found.push(path);
        }
    }
    found
}

fn half_made(sandbox: &Sandbox) -> Vec<String> {
    let places = [base(sandbox), sandbox.path().join(format!("tmp/coracle-{}", user::ordinary().uid))];
    let entries = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with('.')).collect()
}

fn start(sandbox: &Sandbox, bundle: &Path, job: &Job, word: &str) -> Child {
    let began = sandbox.work("began");
    let began = began.display();
    let script = if job.supervised {
        format!("(sleep {word} &) ; setsid sleep {word} & sleep {word} & touch {began}; sleep {word}; echo no")
    } else {
        // Without anybody beside it, what it leaves behind goes on, as a native program's does.
        format!("touch {began}; exec sleep {word}")
    };
    let mut command: Command = sandbox.command(bundle);
    command.arg(format!("--coracle-volume={}", sandbox.path().join("work").display()));
    command.args(job.options).args(["sh", "-c", &script]).process_group(0);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// One job, killed after a while. What its end was.
fn kill_one(sandbox: &Sandbox, bundle: &Path, random: &mut Random, number: u64) {
    let job = &JOBS[usize::try_from(random.below(JOBS.len() as u64)).unwrap()];
    let cold = random.below(2) == 0;
    let signal = if random.below(2) == 0 { libc::SIGTERM } else { libc::SIGKILL };
    let group = random.below(3) == 0;
    // Half of them before the application runs, as far as chance has it.
    let wait = random.below(2) == 0;
    let delay = Duration::from_micros(random.below(if wait { 60_000 } else { 250_000 }));
    let what =
        format!("number {number}: {:?}, signal {signal}, cold {cold}, group {group}, {wait} {delay:?}", job.options);
    let word = format!("{}.{number}", 100_000 + std::process::id());
    let _ = fs::remove_file(sandbox.work("began"));
    if cold {
        sandbox.run(bundle, ["--coracle-cleanup"]).ok();
    }
    let mut child = start(sandbox, bundle, job, &word);
    if wait {
        eventually(&format!("{what}: it runs"), 60, || sandbox.work("began").exists());
    }
    sleep(delay);
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: kill touches no memory; the child has not been waited for.
    unsafe { libc::kill(if group { -pid } else { pid }, signal) };
    let status = child.wait().unwrap();
    assert!(!status.success(), "{what}: {status}");
    let end = Instant::now() + Duration::from_secs(20);
    // One that is just ending has no arguments any more, and its files for a moment longer.
    while !alive(&word).is_empty() || !locked(&base(sandbox)).is_empty() {
        let (alive, locked) = (alive(&word), locked(&base(sandbox)));
        assert!(Instant::now() < end, "{what}: still alive: {alive:?}, still locked: {locked:?}");
        sleep(Duration::from_millis(5));
    }
    let left = half_made(sandbox);
    if signal == libc::SIGTERM {
        // Whoever is told to end tidies up.
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    // What a start of the same bundle finds is whole, and nothing of what was left counts.
    let next = sandbox.run(
        bundle,
        ["--coracle-writable", "sh", "-c", "ls -R /bin /etc /lib /usr >/dev/null && test -s /etc/alpine-release"],
    );
    assert_eq!(next.code, Some(0), "{what}: {next}");
    assert_eq!(next.stderr, "", "{what}: {next}");
    let left = half_made(sandbox);
    assert!(left.is_empty(), "{what}: {left:?}");
}

fn kill_many(count: u64, seed: u64) {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let mut random = Random(seed);
    for number in 0..count {
        kill_one(&sandbox, &bundle, &mut random, number);
    }
    let whole = sandbox.run(&bundle, ["--coracle-extract=tree"]);
    whole.ok();
    let tree = fs::read_dir(base(&sandbox)).unwrap().flatten().find(|entry| entry.file_name().len() == 64).unwrap();
    let mut difference = Command::new("diff");
    difference
        .args(["-r", "--no-dereference"])
        .arg(tree.path().join("root").canonicalize().unwrap())
        .arg(sandbox.work("tree"));
    let output = difference.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    sandbox.run(&bundle, ["--coracle-cleanup"]).ok();
    assert!(!base(&sandbox).exists(), "{:?}", fs::read_dir(base(&sandbox)).unwrap().collect::<Vec<_>>());
}

#[test]
fn jobs_killed_at_random_moments_leave_nothing_behind() {
    kill_many(20, 0x9E37_79B9_7F4A_7C15);
}

#[test]
fn two_hundred_jobs_killed_at_random_moments_leave_nothing_behind() {
    if skip::unless_slow() {
        return;
    }
    let seed = u64::from(std::process::id()) << 20 | 1;
    println!("seed {seed}");
    kill_many(200, seed);
}
