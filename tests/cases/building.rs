//! `coracle build` and what it promises of its output: the same bytes everywhere, whole or not at all.

use std::{
    fs,
    io::Read as _,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::Stdio,
    time::Duration,
};

use harness::{Output, Sandbox, coracle, eventually, hello, skip, user};

/// A small root file system in the working directory.
fn small_tree(sandbox: &Sandbox) -> String {
    sandbox.write("tree/etc/motd", "hello\n");
    sandbox.write("tree/bin/tool", vec![7; 3_000_000]);
    let tool = sandbox.work("tree/bin/tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let link = sandbox.run("ln", ["-s", "../bin/tool", "tree/etc/link"]);
    link.ok();
    "rootfs:tree".to_owned()
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_same_bytes_whatever_the_surroundings() {
    let mut sandbox = Sandbox::new();
    hello::write_image(&sandbox.work("hello.oci"));
    let tree = small_tree(&sandbox);
    for (number, source) in ["oci:hello.oci", tree.as_str()].into_iter().enumerate() {
        let at = |name: &str| sandbox.work(&format!("{name}-{number}"));
        sandbox.coracle(["build", "-q", source, "-o", at("one").to_str().unwrap()]).ok();
        sandbox.coracle(["build", "-q", source, "-o", at("two").to_str().unwrap(), "-j", "3"]).ok();
        let one = fs::read(at("one")).unwrap();
        assert!(one == fs::read(at("two")).unwrap(), "{source}: a second build differs");
    }
    let (tmp, home) = (sandbox.make_dir("other-tmp"), sandbox.make_dir("other-home"));
    sandbox.set("TMPDIR", tmp).set("HOME", home).set("LANG", "C").set("TZ", "Asia/Tokyo");
    // The clock has whole seconds in some of the places where it could leak.
    std::thread::sleep(Duration::from_millis(1100));
    for (number, source) in ["oci:hello.oci", tree.as_str()].into_iter().enumerate() {
        let script = r#"umask 077; exec "$0" build -q "$1" -j 1 -o elsewhere"#;
        sandbox.run("sh", ["-c", script, coracle().to_str().unwrap(), source]).ok();
        let same =
            fs::read(sandbox.work(&format!("one-{number}"))).unwrap() == fs::read(sandbox.work("elsewhere")).unwrap();
        assert!(same, "{source}: the surroundings changed the bytes");
        assert_eq!(fs::metadata(sandbox.work("elsewhere")).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}

#[test]
fn standard_output_gets_the_same_bytes() {
    let sandbox = Sandbox::new();
    let tree = small_tree(&sandbox);
    sandbox.coracle(["build", "-q", &tree, "-o", "file"]).ok();
    let piped = sandbox.coracle(["build", "-q", &tree, "-o", "-"]);
    piped.ok();
    assert!(piped.stdout_bytes == fs::read(sandbox.work("file")).unwrap());
}

#[test]
fn outputs_that_cannot_be_are_named_and_nothing_is_left() {
    let sandbox = Sandbox::new();
    let tree = small_tree(&sandbox);
    let build = |output: &str| sandbox.coracle(["build", "-q", &tree, "-o", output]);
    sandbox.make_dir("work/folder");
    build("folder").fails_with(&["folder", "is a directory"]);
    build("absent/app.run").fails_with(&["absent", "No such file or directory", "check the path"]);
    build("tree/etc/motd/app.run").fails_with(&["tree/etc/motd", "Not a directory"]);
    build("/dev/full").fails_with(&["/dev/full", "No space left"]);
    build("/proc/app.run").fails_with(&["/proc"]);
    let closed = sandbox.make_dir("work/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    build("closed/app.run").fails_with(&["closed", "Permission denied"]);
    assert_eq!(names_in(&sandbox.work("")), ["closed", "folder", "tree"]);
    assert!(names_in(&closed).is_empty() && names_in(&sandbox.work("folder")).is_empty());
}

#[test]
fn an_old_output_stays_when_a_build_fails_and_goes_when_it_succeeds() {
    let sandbox = Sandbox::new();
    let tree = small_tree(&sandbox);
    sandbox.write("app.run", "old");
    sandbox.coracle(["build", "-q", "rootfs:absent", "-o", "app.run"]).fails_with(&["absent"]);
    assert_eq!(fs::read(sandbox.work("app.run")).unwrap(), b"old");
    // Through a symbolic link, the file it names is replaced.
    sandbox.run("ln", ["-s", "app.run", "link"]).ok();
    sandbox.coracle(["build", "-q", &tree, "-o", "link"]).ok();
    assert!(fs::symlink_metadata(sandbox.work("link")).unwrap().is_symlink());
    assert!(fs::read(sandbox.work("app.run")).unwrap().starts_with(b"\x7fELF"));
    assert_eq!(names_in(&sandbox.work("")), ["app.run", "link", "tree"]);
}

#[test]
fn a_full_disk_is_named_and_the_old_output_stays() {
    if skip::unless_root() || skip::lacks(&["unshare", "setpriv", "mount"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let tree = small_tree(&sandbox);
    // Does not compress, and is larger than the file system.
    let mut noise = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(6_000_000).read_to_end(&mut noise).unwrap();
    sandbox.write("tree/noise", noise);
    let small = sandbox.make_dir("small");
    let user = user::ordinary();
    let script = r#"
        mount -t tmpfs -o size=4m,mode=1777 none "$1" && printf old > "$1/app.run" && chown "$2" "$1/app.run" || exit 99
        setpriv --reuid "$2" --regid "$3" --clear-groups "$0" build -q "$4" -o "$1/app.run"
        status=$?; cat "$1/app.run"; ls -A "$1"; exit $status"#;
    let output = std::process::Command::new("unshare")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", sandbox.path().join("home"))
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(coracle())
        .arg(&small)
        .args([user.uid.to_string(), user.gid.to_string()])
        .arg(tree)
        .current_dir(sandbox.work(""))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "oldapp.run\n", "{output:?}");
    assert!(stderr.starts_with("coracle: ") && stderr.contains("No space left on device: free"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// Ends a build that waits for its source by a signal, and returns what is left in the output's folder.
fn interrupted(sandbox: &Sandbox, mut command: std::process::Command, signal: i32) -> Vec<String> {
    let folder = sandbox.make_dir("work/out");
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let id = child.id();
    let opened = || {
        let links = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).any(|link| link.starts_with(&folder))
    };
    eventually("the output is open", 60, opened);
    // SAFETY: kill takes no pointers; the process is our child and not yet waited for, so its id is still its own.
    assert_eq!(unsafe { libc::kill(libc::pid_t::try_from(id).unwrap(), signal) }, 0);
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(signal), "{status:?}");
    names_in(&folder)
}

#[test]
fn a_signal_leaves_nothing() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGKILL] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(coracle());
        command.args(["build", "-", "-o"]).arg(sandbox.work("out/app.run"));
        assert!(interrupted(&sandbox, command, signal).is_empty(), "signal {signal}");
    }
}

#[test]
fn a_signal_leaves_nothing_where_every_file_has_a_name() {
    if skip::lacks(&["strace"]) {
        return;
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let sandbox = Sandbox::new();
        let folder = sandbox.work("out");
        // As a file system without O_TMPFILE answers the first open of the folder itself.
        let mut command = sandbox.command("strace");
        command.args(["-D", "-f", "-o", "/dev/null", "-e", "trace=openat", "-P"]).arg(&folder);
        command.args(["-e", "inject=openat:error=EOPNOTSUPP:when=1"]).arg(coracle());
        command.args(["build", "-", "-o"]).arg(folder.join("app.run"));
        let left = interrupted(&sandbox, command, signal);
        assert!(left.is_empty(), "signal {signal}: {left:?}");
    }
}

#[test]
fn a_file_system_without_unnamed_files_gets_the_same_bytes() {
    if skip::lacks(&["strace"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let tree = small_tree(&sandbox);
    let folder = sandbox.make_dir("work/out");
    sandbox.coracle(["build", "-q", &tree, "-o", "plain"]).ok();
    let inject = "inject=openat:error=EOPNOTSUPP:when=1";
    let mut args = vec!["-f", "-o", "/dev/null", "-e", "trace=openat", "-P", folder.to_str().unwrap(), "-e", inject];
    let output = folder.join("app.run");
    args.extend([coracle().to_str().unwrap(), "build", "-q", &tree, "-o", output.to_str().unwrap()]);
    sandbox.run("strace", args).ok();
    assert!(fs::read(sandbox.work("plain")).unwrap() == fs::read(&output).unwrap());
    assert_eq!(names_in(&folder), ["app.run"]);
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn inspect_and_verify_tell_what_a_bundle_is() {
    let sandbox = Sandbox::new();
    let tree = small_tree(&sandbox);
    sandbox.coracle(["build", "-q", &tree, "-o", "app.run", "--cmd", r#"["/bin/tool"]"#, "--env", "A=b"]).ok();
    let output = sandbox.coracle(["inspect", "--json", "app.run"]);
    let found: serde_json::Value = serde_json::from_str(output.ok()).unwrap();
    let size = fs::metadata(sandbox.work("app.run")).unwrap().len();
    assert_eq!(found["size"], size);
    assert_eq!(found["manifest"]["config"]["cmd"], serde_json::json!(["/bin/tool"]));
    assert_eq!(found["manifest"]["provenance"]["options"], serde_json::json!([r#"--cmd=["/bin/tool"]"#, "--env=A=b"]));
    assert_eq!((&found["counts"]["files"], &found["counts"]["symlinks"]), (&2.into(), &1.into()), "{found}");
    let human = sandbox.coracle(["inspect", "app.run"]);
    assert!(human.ok().contains(r#"["/bin/tool"]"#) && human.stdout.contains("2 files"), "{human}");
    // Whoever closes the pipe has read enough.
    let script = r#"set -o pipefail; "$0" inspect --json app.run | head -c 1"#;
    assert_eq!(sandbox.run("bash", ["-c", script, coracle().to_str().unwrap()]).ok(), "{");

    assert!(sandbox.coracle(["verify", "app.run"]).ok().contains("whole"));
    let offset = found["regions"]["payload"]["offset"].as_u64().unwrap() + 100;
    let mut bytes = fs::read(sandbox.work("app.run")).unwrap();
    bytes[usize::try_from(offset).unwrap()] ^= 1;
    sandbox.write("damaged.run", bytes);
    sandbox.coracle(["verify", "damaged.run"]).fails_with(&["damaged.run", "frame 0", "copy or build it again"]);
    sandbox.coracle(["verify", "tree/etc/motd"]).fails_with(&["tree/etc/motd", "no Coracle bundle"]);
    sandbox.coracle(["inspect", "absent.run"]).fails_with(&[]);
}

#[test]
fn arguments_that_make_no_sense_are_our_own_failure() {
    let sandbox = Sandbox::new();
    let wrong: [&[&str]; 4] =
        [&[], &["no-such-command"], &["build", "-o", "x"], &["build", "x", "-o", "y", "--compression=40"]];
    for args in wrong {
        let output = sandbox.coracle(args);
        assert!(output.code == Some(125) && !output.stderr.is_empty(), "{output}");
    }
    for args in
        [&["--help"][..], &["build", "--help"], &["--version"], &["version"], &["completions", "bash"], &["man"]]
    {
        let output = sandbox.coracle(args);
        assert!(!output.ok().is_empty() && output.stderr.is_empty(), "{output}");
    }
}

#[test]
fn the_program_is_static() {
    if skip::lacks(&["ldd"]) {
        return;
    }
    let output: Output = Sandbox::new().run("ldd", [coracle()]);
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(text.contains("statically linked") || text.contains("not a dynamic executable"), "{output}");
}

#[test]
fn files_beyond_four_gibibytes_keep_their_size() {
    if skip::unless_slow() {
        return;
    }
    let sandbox = Sandbox::new();
    let tree = small_tree(&sandbox);
    let huge = sandbox.write("tree/huge", "");
    fs::OpenOptions::new().write(true).open(huge).unwrap().set_len(9 << 30).unwrap();
    sandbox.coracle(["build", "-q", &tree, "-o", "app.run", "--compression", "1"]).ok();
    let found: serde_json::Value =
        serde_json::from_str(sandbox.coracle(["inspect", "--json", "app.run"]).ok()).unwrap();
    let offset = found["regions"]["payload"]["offset"].as_u64().unwrap() + 1;
    let script = format!("tail -c +{offset} app.run | zstd -dc | tar -tv | grep huge");
    let listed = sandbox.run("sh", ["-c", &script]);
    assert!(listed.ok().contains(" 9663676416 "), "{listed}");
    sandbox.coracle(["verify", "app.run"]).ok();
}
