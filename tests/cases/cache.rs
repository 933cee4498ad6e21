//! The cache under stress: many starts at once, unpackers that are killed or stopped, cleaners, places that will not do.

use std::{
    fs,
    os::unix::{
        fs::{chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use harness::{Output, Sandbox, bundles, eventually, images, skip, user};

/// Files of the tree, each of a few bytes: many enough that unpacking can be caught at it.
const FILES: usize = 8000;

/// A bundle of many small files, built once. No case needs it to run a program: `explain` gets the tree ready too.
fn many_files(sandbox: &Sandbox) -> PathBuf {
    let root = sandbox.make_dir("work/root");
    for number in 0..FILES {
        let dir = root.join(format!("{:02}", number / 100));
        if number % 100 == 0 {
            fs::create_dir(&dir).unwrap();
        }
        fs::write(dir.join(format!("{number:05}")), number.to_string()).unwrap();
    }
    let bundle = sandbox.work("many.run");
    let (source, output) = (format!("rootfs:{}", root.display()), bundle.display().to_string());
    sandbox.coracle(["build", &source, "-o", &output, "--cmd", "[\"/none\"]"]).ok();
    bundle
}

fn start(sandbox: &Sandbox, bundle: &Path) -> Child {
    let mut command = sandbox.command(bundle);
    command.args(["--coracle-verbose", "--coracle-explain"]).stdout(Stdio::null()).stderr(Stdio::piped());
    command.process_group(0).spawn().unwrap()
}

fn stderr(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn signal(child: &Child, signal: i32) {
    let group = -i32::try_from(child.id()).unwrap();
    // SAFETY: kill touches no memory; the group was made for this child.
    assert_eq!(unsafe { libc::kill(group, signal) }, 0);
}

/// This user's directory in the sandbox's cache.
fn base(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join(format!("cache/coracle-{}", user::ordinary().uid))
}

/// Trees in the cache, whatever names them.
fn roots(sandbox: &Sandbox) -> usize {
    names(&base(sandbox), "root-").len()
}

/// Names in a directory that hold a text.
fn names(dir: &Path, part: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| name.contains(part)).collect()
}

/// The one tree in the cache.
fn tree(sandbox: &Sandbox) -> PathBuf {
    let trees: Vec<_> = names(&base(sandbox), "").into_iter().filter(|name| name.len() == 64).collect();
    assert_eq!(trees.len(), 1, "{trees:?}");
    base(sandbox).join(&trees[0])
}

fn files(dir: &Path) -> usize {
    let count = |dir: fs::DirEntry| fs::read_dir(dir.path()).map_or(0, Iterator::count);
    fs::read_dir(dir).unwrap().flatten().map(count).sum()
}

#[test]
fn fifty_starts_at_once_unpack_once() {
    let sandbox = Sandbox::new();
    let bundle = many_files(&sandbox);
    let children: Vec<_> = (0..50).map(|_| start(&sandbox, &bundle)).collect();
    let said: Vec<_> = children.into_iter().map(stderr).collect();
    assert!(said.iter().all(|(code, _)| *code == Some(0)), "{said:?}");
    let unpacked = said.iter().filter(|(_, text)| text.contains("coracle: unpacking ")).count();
    assert_eq!(unpacked, 1, "{said:?}");
    assert_eq!(files(&tree(&sandbox).join("root")), FILES);
    assert!(names(&base(&sandbox), ".new-").is_empty() && roots(&sandbox) == 1);
}

#[test]
fn a_killed_unpacker_leaves_nothing_that_counts() {
    let sandbox = Sandbox::new();
    let bundle = many_files(&sandbox);
    let killed = start(&sandbox, &bundle);
    eventually("unpacking begins", 20, || !names(&base(&sandbox), ".new-").is_empty());
    signal(&killed, libc::SIGKILL);
    let (code, _) = stderr(killed);
    assert_eq!(code, None, "it was done before it could be killed");
    assert_eq!(names(&base(&sandbox), ".new-").len(), 1);

    let (code, said) = stderr(start(&sandbox, &bundle));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(files(&tree(&sandbox).join("root")), FILES);
    assert!(names(&base(&sandbox), ".new-").is_empty(), "{:?}", names(&base(&sandbox), ".new-"));
    assert_eq!(roots(&sandbox), 1, "the half of it has gone");
}

#[test]
fn an_unpacker_told_to_end_tidies_up_and_dies_of_the_signal() {
    let sandbox = Sandbox::new();
    let bundle = many_files(&sandbox);
    let child = start(&sandbox, &bundle);
    eventually("unpacking begins", 20, || !names(&base(&sandbox), ".new-").is_empty());
    signal(&child, libc::SIGTERM);
    let output = child.wait_with_output().unwrap();
    let died_of = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(died_of, Some(libc::SIGTERM), "{output:?}");
    assert!(names(&base(&sandbox), ".new-").is_empty() && roots(&sandbox) == 0);
}

#[test]
fn a_stopped_unpacker_is_waited_for_and_then_passed() {
    let sandbox = Sandbox::new();
    let bundle = many_files(&sandbox);
    let stopped = start(&sandbox, &bundle);
    eventually("unpacking begins", 20, || !names(&base(&sandbox), ".new-").is_empty());
    signal(&stopped, libc::SIGSTOP);
    let pid = stopped.id();
    let (code, said) = stderr(start(&sandbox, &bundle));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("waiting for process {pid}")), "{said}");
    assert!(said.contains(&format!("process {pid} made no progress")), "{said}");
    assert_eq!(files(&tree(&sandbox).join("root")), FILES);
    // The other one finds the name taken, and is content.
    signal(&stopped, libc::SIGCONT);
    let (code, said) = stderr(stopped);
    assert_eq!(code, Some(0), "{said}");
    assert!(names(&base(&sandbox), ".new-").is_empty() && roots(&sandbox) == 1);
}

#[test]
fn what_a_cleaner_deleted_comes_back() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    sandbox.run(&bundle, ["true"]).ok();
    for victim in ["canary", "root/bin/busybox"] {
        let victim = tree(&sandbox).join(victim);
        fs::remove_file(&victim).unwrap();
        let again = sandbox.run(&bundle, ["/bin/busybox", "echo", "whole"]);
        assert_eq!(again.ok(), "whole");
        assert!(again.stderr.contains("unpacking it again"), "{again}");
        assert!(victim.exists());
    }
    assert_eq!(sandbox.run(&bundle, ["true"]).stderr, "");
}

/// Three bundles of about the same size, each with a tree of its own.
fn three() -> Option<Vec<PathBuf>> {
    ["etc/motd", "etc/issue", "etc/securetty"]
        .into_iter()
        .map(|file| bundles::of(images::ALPINE, &["--cmd", "[\"/bin/sh\"]", "--exclude", file]))
        .collect()
}

fn trees(sandbox: &Sandbox) -> Vec<String> {
    names(&base(sandbox), "").into_iter().filter(|name| name.len() == 64).collect()
}

fn tree_of(sandbox: &Sandbox, bundle: &Path) -> String {
    let info: serde_json::Value = serde_json::from_str(sandbox.run(bundle, ["--coracle-info=json"]).ok()).unwrap();
    info["manifest"]["index"]["sha256"].as_str().unwrap().to_owned()
}

#[test]
fn the_least_recently_used_tree_makes_room_and_one_in_use_stays() {
    let Some(bundles) = three() else { return };
    let mut sandbox = Sandbox::new();
    let names: Vec<_> = bundles.iter().map(|bundle| tree_of(&sandbox, bundle)).collect();
    // Room for two of about 9 MB.
    let config = sandbox.write("site.toml", "[run]\ncache-limit = \"23M\"\n");
    sandbox.set("CORACLE_CONFIG", config);
    sandbox.run(&bundles[0], ["true"]).ok();
    sandbox.run(&bundles[1], ["true"]).ok();
    assert_eq!(trees(&sandbox).len(), 2);
    // Used again: now the other one is the oldest.
    sandbox.run(&bundles[0], ["true"]).ok();
    let third = sandbox.run(&bundles[2], ["--coracle-verbose", "echo", "ran"]);
    assert_eq!(third.ok(), "ran");
    assert!(third.stderr.contains(&format!("{}, to keep to the cache's limit", names[1])), "{third}");
    assert!(!trees(&sandbox).contains(&names[1]) && trees(&sandbox).len() == 2, "{:?}", trees(&sandbox));

    // Both are in use, the oldest by a job whose stub is long gone.
    let mut jobs: Vec<_> = [0, 2]
        .into_iter()
        .map(|at| {
            let mut command = sandbox.command(&bundles[at]);
            command.args(["sh", "-c", &format!("touch began{at}; exec sleep 1000")]).stderr(Stdio::null());
            let job = command.stdout(Stdio::null()).spawn().unwrap();
            // One after the other, so that it is known which is used last.
            eventually("it runs", 20, || sandbox.work(&format!("began{at}")).exists());
            job
        })
        .collect();
    let over = sandbox.run(&bundles[1], ["--coracle-verbose", "echo", "ran"]);
    assert_eq!(over.ok(), "ran");
    assert!(over.stderr.contains("the trees in use take "), "{over}");
    assert_eq!(trees(&sandbox).len(), 3);
    for job in &mut jobs {
        job.kill().unwrap();
        job.wait().unwrap();
    }
    // One of the three has to go, and by another word all but one.
    let cleaned = sandbox.run(&bundles[0], ["--coracle-cleanup"]);
    assert!(cleaned.ok().contains(&names[0]), "{cleaned}");
    assert_eq!(trees(&sandbox).len(), 2);
    sandbox.run(&bundles[0], ["--coracle-cleanup", "--coracle-cache-limit=12M"]).ok();
    assert_eq!(trees(&sandbox), [names[1].as_str()]);
    sandbox.run(&bundles[0], ["--coracle-cleanup", "--coracle-cache-limit=none"]).ok();
    assert!(!base(&sandbox).exists(), "{:?}", self::names(&base(&sandbox), ""));
    sandbox.run(&bundles[0], ["--coracle-cache-limit=much", "true"]).fails_with(&["\"much\": no size"]);
}

#[test]
fn a_tree_larger_than_the_limit_is_one_runs_own() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    for _ in 0..2 {
        let output = sandbox.run(&bundle, ["--coracle-cache-limit=1M", "echo", "ran"]);
        assert_eq!(output.ok(), "ran");
        assert!(output.stderr.contains("the cache's limit is 1 MB: unpacking it for this run alone"), "{output}");
        assert_eq!(names(&base(&sandbox), ""), [""; 0]);
    }
    // What is there already serves.
    sandbox.run(&bundle, ["true"]).ok();
    assert_eq!(sandbox.run(&bundle, ["--coracle-cache-limit=1M", "echo", "ran"]).stderr, "");
}

#[test]
fn nothing_is_left_on_disk_but_the_cache_and_after_a_cleanup_nothing_at_all() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let left = || {
        let places = [sandbox.path().join("cache"), sandbox.path().join("tmp")];
        let mut left: Vec<_> = places.iter().flat_map(|place| names(place, "")).collect();
        left.extend(
            names(&base(&sandbox), "").into_iter().filter(|name| name.starts_with('.') || name.starts_with("root-")),
        );
        left.extend(names(&sandbox.path().join(format!("tmp/coracle-{}", user::ordinary().uid)), ""));
        left.retain(|name| !name.starts_with("coracle-"));
        left
    };
    let engines = ["--coracle-engine=namespaces", "--coracle-engine=ptrace"];
    for engine in engines {
        for option in [
            "--coracle-cache=none",
            "--coracle-cache=none --coracle-writable",
            "--coracle-cache=none --coracle-report=r",
        ] {
            // A daemon of the application's, too, goes with what it runs from.
            let script = "sleep 1000 & mkdir -m 0 /tmp/locked.$$ 2>/dev/null; rmdir /tmp/locked.$$; echo ran";
            let args = option.split(' ').chain([engine, "sh", "-c", script]);
            assert_eq!(sandbox.run(&bundle, args).ok(), "ran", "{option}");
            assert_eq!(left(), [""; 0], "{engine} {option}");
        }
        sandbox.run(&bundle, ["--coracle-cache=none", engine, "/no/such"]).fails_as(127, &["not found"]);
        assert_eq!(left(), [""; 0], "{engine}");
    }
    sandbox.run(&bundle, ["--coracle-cache=none", "--coracle-engine=trap", "true"]).code_is(125);
    assert_eq!(left(), [""; 0]);
    for engine in engines {
        assert_eq!(
            sandbox.run(&bundle, ["--coracle-writable", engine, "sh", "-c", "echo x > /etc/motd; cat /etc/motd"]).ok(),
            "x"
        );
    }
    assert_eq!(left().len(), 1, "the tree");
    let cleaned = sandbox.run(&bundle, ["--coracle-cleanup"]);
    // In the node's own places there may be something, too.
    let own = format!("removed {}/", sandbox.path().display());
    assert_eq!(cleaned.ok().lines().filter(|line| line.starts_with(&own)).count(), 1, "{cleaned}");
    assert_eq!(names(&sandbox.path().join("cache"), ""), [""; 0]);
    assert_eq!(names(&sandbox.path().join("tmp"), ""), [""; 0]);
}

#[test]
fn a_directory_that_somebody_else_put_there_is_passed_over() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    symlink(sandbox.path().join("home"), base(&sandbox)).unwrap();
    let through = sandbox.run(&bundle, ["echo", "ran"]);
    assert_eq!(through.ok(), "ran");
    assert!(through.stderr.contains("somebody put it there: using another place"), "{through}");
    assert!(names(&sandbox.path().join("home"), "").is_empty());
    if skip::unless_root() {
        return;
    }
    fs::remove_file(base(&sandbox)).unwrap();
    fs::create_dir(base(&sandbox)).unwrap();
    chown(base(&sandbox), Some(4711), Some(4711)).unwrap();
    let foreign = sandbox.run(&bundle, ["echo", "ran"]);
    assert_eq!(foreign.ok(), "ran");
    assert!(foreign.stderr.contains("belongs to user 4711: using another place"), "{foreign}");
}

/// Runs the bundle in a mount namespace where all default places are tmpfs mounted with `options`, and afterwards lists what
/// is left in them.
fn with_places(sandbox: &Sandbox, options: &str) -> Output {
    let user = user::ordinary();
    let script = format!(
        "mount --bind {sandbox} /mnt
         for place in /tmp /var/tmp; do mount -t tmpfs -o mode=1777,{options} tmpfs $place; done
         cd /
         setpriv --reuid {uid} --regid {gid} --clear-groups env -i PATH=/usr/bin:/bin HOME=/mnt/home \
             /mnt/work/many.run --coracle-explain
         status=$?
         find /tmp /var/tmp -name '.new-*' -o -name root
         exit $status",
        sandbox = sandbox.path().display(),
        uid = user.uid,
        gid = user.gid
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    Output::of(command)
}

#[test]
fn places_without_room_or_permission_to_execute_are_explained() {
    if skip::unless_root() || skip::lacks(&["unshare", "setpriv"]) {
        return;
    }
    let sandbox = Sandbox::new();
    many_files(&sandbox);

    let small = with_places(&sandbox, "size=1m");
    small.fails_with(&[
        "no directory to unpack to: /var/tmp (default)",
        "/tmp (default)",
        "MB are free and",
        "CORACLE_CACHE",
    ]);
    assert_eq!(small.stdout, "");
    let few = with_places(&sandbox, "size=100m,nr_inodes=1000");
    few.fails_with(&["inodes are free and"]);
    assert_eq!(few.stdout, "");
    let noexec = with_places(&sandbox, "size=100m,noexec");
    noexec.fails_with(&["programs cannot be executed there (mounted noexec)"]);
    assert_eq!(noexec.stdout, "");
    // Room by the file system's own word, and then the files take more than that: a page each.
    let runs_out = with_places(&sandbox, "size=24m");
    runs_out.fails_with(&["No space left on device", "CORACLE_CACHE"]);
    assert_eq!(runs_out.stdout, "", "something half-made was left");
    let fits = with_places(&sandbox, "size=100m");
    assert!(fits.ok().contains("/var/tmp/coracle-"), "{fits}");
}

#[test]
fn extracting_and_tar_give_the_image_s_files() {
    let Some(bundle) = bundles::alpine() else { return };
    if skip::lacks(&["zstd", "tail", "tar"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let offset: u64 = sandbox.run(&bundle, ["--coracle-offset"]).ok().parse().unwrap();
    let plain = sandbox.run(
        "sh",
        [
            "-c",
            &format!(
                "tail -c +{} {} | zstd -dc > by-hand.tar && mkdir by-hand && tar -C by-hand -xpf by-hand.tar",
                offset + 1,
                bundle.display()
            ),
        ],
    );
    plain.ok();
    sandbox.run(&bundle, ["--coracle-tar=out.tar"]).ok();
    let by_hand = fs::read(sandbox.work("by-hand.tar")).unwrap();
    assert!(fs::read(sandbox.work("out.tar")).unwrap() == by_hand);
    assert!(sandbox.run(&bundle, ["--coracle-tar"]).stdout_bytes == by_hand);

    sandbox.run(&bundle, ["--coracle-extract=extracted"]).ok();
    let listing = |dir: &str| {
        // Modes without set-id bits, which extracting leaves off.
        let script = "find . -printf '%P %y %s %l %T@ %m\\n' | sed -E 's/ [0-7]([0-7]{3})$/ \\1/' | sort; \
                      find . -type f -exec sha256sum {} + | sort";
        let mut command = sandbox.command("sh");
        command.args(["-c", script]).current_dir(sandbox.work(dir));
        Output::of(command).ok().lines().filter(|line| !line.contains(" d ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listing("extracted"), listing("by-hand"));
    sandbox.run(&bundle, ["--coracle-extract=extracted"]).fails_with(&["extracted: is not empty"]);
    sandbox.run(&bundle, ["--coracle-extract=none/such"]).fails_with(&["none/such: cannot be written"]);
    assert!(sandbox.run(&bundle, ["--coracle-verify"]).ok().contains("whole: stub, slot, trailer"));
}

#[test]
fn a_flipped_byte_in_the_payload_leaves_nothing_in_the_cache() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let offset: usize = sandbox.run(&bundle, ["--coracle-offset"]).ok().parse().unwrap();
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[offset + 5000] ^= 1;
    let damaged = sandbox.write("damaged.run", bytes);
    fs::set_permissions(&damaged, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    sandbox
        .run(&damaged, ["true"])
        .fails_with(&["frame 0 of the payload does not match its SHA-256", "copy or build it again"]);
    assert!(names(&base(&sandbox), ".new-").is_empty());
    sandbox.run(&damaged, ["--coracle-verify"]).fails_with(&["frame 0 of the payload"]);
}
