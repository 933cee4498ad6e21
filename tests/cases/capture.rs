//! `coracle capture`: a run of the host's becomes a bundle that repeats it where the run's files are gone.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use harness::{Output, Sandbox, skip};
use serde_json::Value;

/// Engines that can let a run change its files.
const ENGINES: [&str; 3] = ["namespaces", "ptrace", "preload"];

/// A place for a run, and a way to have it gone.
struct Scene {
    sandbox: Sandbox,
}

impl Scene {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        // The distribution's own programs, not somebody's wrappers around them.
        sandbox.set("PATH", "/usr/bin:/bin");
        Self { sandbox }
    }

    /// Captures a command in the working directory.
    fn capture(&self, options: &[&str], command: &[&str]) -> Output {
        let output = self.bundle();
        let before = ["capture", "-o", output.to_str().unwrap()];
        self.sandbox.coracle(before.iter().chain(options).chain(&["--"]).chain(command))
    }

    fn bundle(&self) -> PathBuf {
        self.sandbox.path().join("run.run")
    }

    /// Runs `test` while home, temporary and working directory are gone from their places.
    fn elsewhere<T>(&self, test: impl FnOnce(&Sandbox) -> T) -> T {
        let mut node = Sandbox::new();
        node.set("PATH", "/usr/bin:/bin");
        let names = ["work", "home", "tmp"];
        let at = |name: &str| (self.sandbox.path().join(name), self.sandbox.path().join(format!("gone-{name}")));
        for name in names {
            let (here, gone) = at(name);
            fs::rename(here, gone).unwrap();
        }
        let answer = test(&node);
        for name in names {
            let (here, gone) = at(name);
            fs::rename(gone, here).unwrap();
        }
        answer
    }

    /// Repeats the run elsewhere, by every engine.
    fn repeat(&self, args: &[&str], check: impl Fn(&Output)) {
        self.elsewhere(|node| {
            for engine in ENGINES {
                let engine = format!("--coracle-engine={engine}");
                check(&node.run(self.bundle(), [engine.as_str()].iter().chain(args)));
            }
        });
    }

    /// What the bundle says of the run.
    fn record(&self) -> Value {
        let info: Value =
            serde_json::from_str(self.sandbox.run(self.bundle(), ["--coracle-info", "--json"]).ok()).unwrap();
        let inspected: Value = serde_json::from_str(
            self.sandbox.coracle(["inspect".as_ref(), "--json".as_ref(), self.bundle().as_os_str()]).ok(),
        )
        .unwrap();
        assert_eq!(info["manifest"], inspected["manifest"]);
        info["manifest"].clone()
    }

    fn files(&self) -> Vec<String> {
        let tar = self.sandbox.path().join("files.tar");
        let option = format!("--coracle-tar={}", tar.display());
        self.sandbox.run(self.bundle(), [option]).ok();
        let listed = self.sandbox.run("tar", ["tf".as_ref(), tar.as_os_str()]);
        listed.ok().lines().map(|line| format!("/{}", line.trim_start_matches("./").trim_end_matches('/'))).collect()
    }

    fn work(&self, name: &str) -> String {
        self.sandbox.work(name).display().to_string()
    }
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn a_pipeline_is_repeated_with_its_directory_variables_and_status() {
    let mut scene = Scene::new();
    scene.sandbox.set("SETTING", "kept").set("MY_TOKEN", "hidden").set("OTHER_TOKEN", "wanted").set("NOISE", "x");
    scene.sandbox.set("PROXY_URL", "http://me:word@proxy:3128/");
    scene.sandbox.write("in.txt", "b\na\nc\n");
    let script = "sort in.txt | tr a-z A-Z | tee out.txt; pwd; \
                  echo \"$SETTING ${MY_TOKEN-none} ${OTHER_TOKEN-none} ${NOISE-none} ${PROXY_URL-none}\"; exit 7";
    let first = scene.capture(&["--keep-env=OTHER_*", "--redact=NOISE"], &["sh", "-c", script]);
    let directory = scene.work("");
    let directory = directory.trim_end_matches('/');
    assert_eq!(first.code, Some(7), "{first}");
    assert_eq!(first.stdout, format!("A\nB\nC\n{directory}\nkept hidden wanted x http://me:word@proxy:3128/\n"));
    assert!(first.stderr.contains("looks like a secret: MY_TOKEN PROXY_URL:"), "{first}");
    scene.repeat(&[], |again| {
        assert_eq!(again.code, Some(7), "{again}");
        assert_eq!(again.stdout, format!("A\nB\nC\n{directory}\nkept none wanted none none\n"), "{again}");
    });
    // The same program with other arguments.
    scene.repeat(&["-c", "echo other; cat <in.txt"], |again| assert!(again.stdout.starts_with("other"), "{again}"));
    let manifest = scene.record();
    let capture = &manifest["provenance"]["capture"];
    assert_eq!(capture["status"], 7);
    assert_eq!(capture["directory"], directory);
    assert_eq!(names(&capture["made"]), [scene.work("out.txt")]);
    assert!(names(&capture["programs"]).iter().any(|path| path.ends_with("/sort")), "{capture}");
    let left = names(&capture["variables_left_out"]);
    assert!(["MY_TOKEN", "NOISE", "PROXY_URL"].iter().all(|name| left.contains(name)), "{capture}");
    let whole = fs::read(scene.bundle()).unwrap();
    assert!(!String::from_utf8_lossy(&whole[..]).contains("me:word@proxy"), "the secret is in the file");
}

#[test]
fn python_finds_its_modules_and_its_data() {
    if skip::lacks(&["/usr/bin/python3"]) {
        return;
    }
    let scene = Scene::new();
    scene.sandbox.write("lib/helper.py", "def total(name):\n    return sum(map(int, open(name)))\n");
    scene.sandbox.write(
        "main.py",
        "import json, sys\nsys.path.insert(0, 'lib')\nimport helper\n\
         print(json.dumps({'total': helper.total(sys.argv[1])}))\nopen('result', 'w').write('made')\n",
    );
    scene.sandbox.write("numbers", "1\n2\n3\n");
    scene.sandbox.write("more", "40\n2\n");
    let first = scene.capture(&["--fixed=2", "-i", "more"], &["/usr/bin/python3", "main.py", "numbers"]);
    assert_eq!(first.ok(), r#"{"total": 6}"#);
    scene.repeat(&[], |again| assert_eq!(again.ok(), r#"{"total": 6}"#, "{again}"));
    scene.repeat(&["more"], |again| assert_eq!(again.ok(), r#"{"total": 42}"#, "{again}"));
    // What a run makes stays where it is asked to.
    scene.elsewhere(|node| {
        let kept = node.path().join("work/kept");
        node.run(scene.bundle(), [format!("--coracle-writable={}", kept.display())]).ok();
        // What the kernel keeps for itself beside it nobody may look into.
        let found = node.run("find", ["kept", "-name", "result"]);
        assert_eq!(found.stdout.lines().count(), 1, "{found}");
    });
    assert!(!scene.files().contains(&scene.work("result")));
}

#[test]
fn a_compiler_has_its_headers_and_tools() {
    if skip::lacks(&["/usr/bin/gcc"]) {
        return;
    }
    let scene = Scene::new();
    scene.sandbox.write("hello.h", "#define WORD \"compiled\"\n");
    scene
        .sandbox
        .write("hello.c", "#include <stdio.h>\n#include \"hello.h\"\nint main(void) { return puts(WORD) < 0; }\n");
    let first = scene.capture(&[], &["sh", "-c", "gcc -o hello hello.c && ./hello"]);
    assert_eq!(first.ok(), "compiled");
    scene.repeat(&[], |again| assert_eq!(again.ok(), "compiled", "{again}"));
}

#[test]
fn what_a_run_changes_is_kept_as_it_was() {
    let scene = Scene::new();
    let write = |name: &str| scene.sandbox.write(name, format!("{name} before\n"));
    for name in ["appended", "replaced", "removed", "moved", "linked", "dir/inner"] {
        write(name);
    }
    let one = write("one");
    fs::hard_link(&one, scene.sandbox.work("two")).unwrap();
    write("mode");
    scene.sandbox.run("chmod", ["444", "mode"]).ok();
    let script = "set -e
        cat appended replaced removed moved linked dir/inner two; stat -c %a mode
        echo more >>appended; echo new >tmp; mv tmp replaced; rm removed; mv moved elsewhere
        ln linked other; echo x >other; mv dir newdir; echo x >newdir/inner; echo x >one; chmod 700 mode
        mkdir made; echo x >made/f; mv made made2; cat made2/f >/dev/null; rm -r made2; echo done";
    let expected = "appended before\nreplaced before\nremoved before\nmoved before\nlinked before\n\
                    dir/inner before\none before\n444\ndone";
    let first = scene.capture(&[], &["sh", "-c", script]);
    assert_eq!(first.ok(), expected, "{first}");
    scene.repeat(&[], |again| assert_eq!(again.ok(), expected, "{again}"));
    let files = scene.files();
    for (name, is_in) in [("removed", true), ("dir/inner", true), ("newdir", false), ("made", false), ("tmp", false)] {
        assert_eq!(files.contains(&scene.work(name)), is_in, "{name}: {files:?}");
    }
    let manifest = scene.record();
    let changed = names(&manifest["provenance"]["capture"]["changed"]);
    for name in ["appended", "replaced", "removed", "moved", "linked", "dir/inner", "one"] {
        assert!(changed.contains(&scene.work(name).as_str()), "{name}: {changed:?}");
    }
}

#[test]
fn links_modes_and_times_are_kept() {
    let scene = Scene::new();
    scene.sandbox.write("real/deep/file", "through links\n");
    symlink("real", scene.sandbox.work("first")).unwrap();
    symlink(scene.sandbox.work("first/deep"), scene.sandbox.work("second")).unwrap();
    symlink("nowhere", scene.sandbox.work("dangling")).unwrap();
    scene.sandbox.write("script", "#!/usr/bin/env -S sh -e\necho from a script; readlink dangling\n");
    scene
        .sandbox
        .run("sh", ["-c", "chmod 500 script; chmod 400 real/deep/file; touch -d @1000000000 real/deep/file"])
        .ok();
    let script = "cat second/file; stat -c '%a %Y' first/deep/file; ./script; readlink second first";
    let first = scene.capture(&[], &["sh", "-c", script]);
    assert!(first.ok().starts_with("through links\n400 1000000000\nfrom a script\nnowhere\n"), "{first}");
    scene.repeat(&[], |again| assert_eq!(again.stdout, first.stdout, "{again}"));
}

#[test]
fn files_are_left_out_referred_to_and_taken_as_asked() {
    let scene = Scene::new();
    scene.sandbox.write("a.log", "log\n");
    scene.sandbox.write("large", "x".repeat(100_000));
    scene.sandbox.write("list/one", "1\n");
    scene.sandbox.write("list/two", "2\n");
    scene
        .sandbox
        .run("sh", ["-c", "mkdir $HOME/.ssh; echo key >$HOME/.ssh/id_x; echo host >$HOME/.ssh/known_hosts"])
        .ok();
    let script = "cat a.log $HOME/.ssh/id_x $HOME/.ssh/known_hosts; wc -c <large; echo list/*";
    let command = ["sh", "-c", script];
    let first = scene.capture(&["-x", "*.log", "--reference-larger=64K"], &command);
    assert_eq!(first.ok(), "log\nkey\nhost\n100000\nlist/one list/two");
    let key = scene.sandbox.path().join("home/.ssh/id_x").display().to_string();
    assert!(first.stderr.contains(&format!("looks like a secret: {key}")), "{first}");
    let files = scene.files();
    for (path, is_in) in [
        (scene.work("a.log"), false),
        (scene.work("large"), false),
        (scene.work("list"), true),
        (scene.work("list/one"), false),
        (key.clone(), false),
        (scene.sandbox.path().join("home/.ssh/known_hosts").display().to_string(), true),
    ] {
        assert_eq!(files.contains(&path), is_in, "{path}: {files:?}");
    }
    let manifest = scene.record();
    let capture = &manifest["provenance"]["capture"];
    assert_eq!(names(&capture["files_left_out"]).len(), 2, "{capture}");
    let reference = &capture["references"][0];
    assert_eq!((reference["path"].as_str(), reference["size"].as_u64()), (Some(&*scene.work("large")), Some(100_000)));
    assert_eq!(reference["sha256"].as_str().map(str::len), Some(64));
    // There, it is shown; elsewhere, its absence is told, and a volume takes its place.
    let here = scene.sandbox.run(scene.bundle(), Vec::<&str>::new());
    assert!(here.stdout.contains("100000\n") && !here.stderr.contains("--coracle-volume"), "{here}");
    scene.elsewhere(|node| {
        let there = node.run(scene.bundle(), Vec::<&str>::new());
        assert!(there.stderr.contains("is not in this file, and not here: give it with --coracle-volume="), "{there}");
        let own = node.write("own", "four");
        let volume = format!("--coracle-volume={}:{}", own.display(), scene.work("large"));
        let given = node.run(scene.bundle(), [volume]);
        assert!(
            given.stdout.contains("\n4\n") || given.stdout.starts_with("4\n") || given.stdout.contains("host\n4"),
            "{given}"
        );
    });
    // All that was listed, and a secret by name.
    let second = scene.capture(&["--listed", "--include", &key], &command);
    second.ok();
    assert!(!second.stderr.contains("secret"), "{second}");
    scene.repeat(&[], |again| assert_eq!(again.ok(), first.ok(), "{again}"));
}

#[test]
fn endings_are_the_commands_own() {
    let scene = Scene::new();
    assert_eq!(scene.capture(&[], &["sh", "-c", "kill -TERM $$"]).code, Some(128 + 15));
    let manifest = scene.record();
    assert_eq!(manifest["provenance"]["capture"]["signal"], 15);
    fs::remove_file(scene.bundle()).unwrap();
    // What cannot be run leaves nothing behind.
    scene.capture(&[], &["no-such-program"]).fails_as(127, &["no-such-program: not found"]);
    scene.sandbox.write("data", "no program\n");
    scene.capture(&[], &["./data"]).fails_as(126, &["./data"]);
    assert!(!scene.bundle().exists());
    // Neither does what is wrong with our own arguments, before anything runs.
    let ran = ["sh", "-c", "touch ran"];
    scene.capture(&["-i", "nowhere"], &ran).fails_with(&["--include ", "nowhere"]);
    scene.capture(&["-x", "["], &ran).fails_with(&["correct the pattern"]);
    scene.capture(&["--fixed=9"], &ran).fails_with(&["--fixed 9"]);
    scene.sandbox.coracle(["capture", "-o", "-", "--", "true"]).fails_with(&["-o -"]);
    scene.sandbox.coracle(["capture", "-o", "nowhere/x", "--", "touch", "ran"]).fails_with(&["nowhere"]);
    assert!(!scene.sandbox.work("ran").exists());
    let temporary = fs::read_dir(scene.sandbox.path().join("tmp")).unwrap().count();
    assert_eq!(temporary, 0, "something is left in $TMPDIR");
}

#[test]
fn small_limits_and_any_umask_are_met_or_named_and_nothing_is_left() {
    let scene = Scene::new();
    scene.sandbox.write("private", "before\n");
    let capture = format!("{} capture -q -o {}", harness::coracle().display(), scene.bundle().display());
    let left = || fs::read_dir(scene.sandbox.path().join("tmp")).unwrap().count();
    // A file that may not grow is an error that is told, and the command's own affair only where the command meets it.
    for blocks in [0, 20, 2000] {
        let output = scene.sandbox.run("bash", ["-c", &format!("ulimit -f {blocks}; {capture} -- echo ran")]);
        output.fails_as(125, &["File too large"]);
        assert!(!scene.bundle().exists() && left() == 0, "{blocks}: {output}");
    }
    let own = "trap - XFSZ; ulimit -f 1; head -c 9000 /dev/zero >grown; echo $?";
    let output = scene.sandbox.run("bash", ["-c", &format!("{capture} -- bash -c '{own}'")]);
    assert_eq!(output.ok(), "153", "the signal is the command's as it was: {output}");
    // What is kept of a run is its user's alone.
    let script =
        "echo x >>private; ls -ld $TMPDIR/coracle-capture-*; stat -c %a $TMPDIR/coracle-capture-*/recording/saved/0";
    let output = scene.sandbox.run("sh", ["-c", &format!("umask 0; {capture} -- sh -c '{script}'")]);
    assert!(output.ok().starts_with("drwx------ ") && output.stdout.ends_with("\n600\n"), "{output}");
    // Few descriptors, and none of the usual ones.
    let output = scene.sandbox.run("sh", ["-c", &format!("ulimit -n 24; {capture} -- cat private <&- | cat")]);
    assert_eq!(output.ok(), "before\nx");
    scene.sandbox.run("sh", ["-c", &format!("{capture} -- true <&- >&- 2>&-")]).ok();
    assert_eq!(left(), 0);
}

#[test]
fn streams_and_signals_pass_untouched() {
    let scene = Scene::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let bundle = scene.bundle();
    let args = ["capture", "-q", "-o", bundle.to_str().unwrap(), "--", "cat"];
    let through = scene.sandbox.run_with_input(harness::coracle(), args, &bytes);
    assert!(through.code == Some(0) && through.stdout_bytes == bytes && through.stderr.is_empty());
    scene.sandbox.write("words", "b\na\n");
    let line = format!("{} capture -o {} -- sort <words", harness::coracle().display(), bundle.display());
    let sorted = scene.sandbox.run("sh", ["-c", &line]);
    assert_eq!(sorted.ok(), "a\nb");
    assert!(sorted.stderr.contains(&format!("standard input was {}", scene.work("words"))), "{sorted}");
    assert_eq!(scene.elsewhere(|node| node.run_with_input(&bundle, [""; 0], b"d\nc\n")).ok(), "c\nd");
    let script = "trap 'echo caught; exit 3' TERM; echo $PPID >pid; while :; do sleep 0.1; done";
    let driver = format!(
        "{} capture -q -o {} -- sh -c \"$1\" & p=$!; while ! [ -s pid ]; do sleep 0.05; done; kill -TERM $p; wait $p",
        harness::coracle().display(),
        bundle.display()
    );
    let output = scene.sandbox.run("sh", ["-c", &driver, "sh", script]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(3), "caught\n"), "{output}");
}

#[test]
fn a_capture_that_is_killed_leaves_nothing() {
    let scene = Scene::new();
    scene.sandbox.write("in", "before\n");
    let driver = format!(
        "{} capture -q -o {} -- sh -c 'echo x >>in; echo $$ >pid; sleep 100' & p=$!
         while ! [ -s pid ]; do sleep 0.05; done
         kill -KILL $p; wait $p
         n=0; while kill -0 $(cat pid) 2>/dev/null || [ \"$(ls -A $TMPDIR)\" ]; do sleep 0.1; n=$((n+1)); [ $n -lt 100 ]; done
         echo over; ls -A $TMPDIR",
        harness::coracle().display(),
        scene.bundle().display()
    );
    let output = scene.sandbox.run("sh", ["-ec", &driver.replace("wait $p", "wait $p || true")]);
    assert_eq!(output.ok(), "over", "{output}");
    assert!(!scene.bundle().exists());
}

#[test]
fn a_run_leaves_the_host_as_it_would_without() {
    let scene = Scene::new();
    let script = "umask; id -u; id -g; env | sort; echo made >made; ln -s made link; cat link; stat -c %a made";
    let strip = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("_=")).map(str::to_owned).collect()
    };
    let plain = scene.sandbox.run("sh", ["-c", script]);
    fs::remove_file(scene.sandbox.work("made")).unwrap();
    fs::remove_file(scene.sandbox.work("link")).unwrap();
    let captured = scene.capture(&[], &["sh", "-c", script]);
    assert_eq!(strip(captured.ok()), strip(plain.ok()));
    let made = fs::metadata(scene.sandbox.work("made")).unwrap();
    assert_eq!(made.uid(), fs::metadata(scene.sandbox.work("")).unwrap().uid());
    assert!(Path::new(&scene.work("link")).exists());
}
