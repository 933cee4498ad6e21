//! A bundle as its user meets it: arguments, environment, identity, files, exit status. What runs inside is Alpine's shell.

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStringExt, fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use harness::{Sandbox, bundles, skip, user};

/// A sandbox with a copy of the Alpine bundle called `app.run`. `CORACLE_TEST_ENGINE` runs all cases by that engine.
fn alpine() -> Option<(Sandbox, PathBuf)> {
    let bundle = bundles::alpine()?;
    let mut sandbox = Sandbox::new();
    if let Ok(engine) = std::env::var("CORACLE_TEST_ENGINE") {
        sandbox.set("CORACLE_ENGINE", engine);
    }
    let path = sandbox.work("app.run");
    fs::copy(bundle, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Some((sandbox, path))
}

/// Whether this node lets the namespaces engine run; if not, the test is recorded as skipped.
fn lacks_namespaces(sandbox: &Sandbox, bundle: &PathBuf) -> bool {
    let refused = !sandbox.run(bundle, ["--coracle-explain"]).stdout.contains("namespaces: accepted, would run");
    if refused {
        skip::because("this node refuses user namespaces");
    }
    refused
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let Some((sandbox, app)) = alpine() else { return };
    let script = r#"printf '<%s>' "$@""#;
    let odd = std::ffi::OsString::from_vec(b"\xff\n'".to_vec());
    let args = ["--coracle-quiet", "sh", "-c", script, "-", "", "--coracle-help", " a  b "].map(Into::into);
    let output = sandbox.run(&app, args.into_iter().chain([odd]));
    assert_eq!(output.stdout_bytes, b"<><--coracle-help>< a  b ><\xff\n'>", "{output}");
}

#[test]
fn you_are_yourself_with_a_name_even_without_a_passwd_entry() {
    let Some((mut sandbox, app)) = alpine() else { return };
    sandbox.unset("HOME").unset("USER").unset("CORACLE_DIR");
    let output = sandbox.run(&app, ["sh", "-c", "id -u; id -g; id -un; id -gn; echo $HOME"]);
    let user = user::ordinary();
    let mut lines = output.ok().lines();
    assert_eq!(lines.next(), Some(user.uid.to_string().as_str()), "{output}");
    assert_eq!(lines.next(), Some(user.gid.to_string().as_str()), "{output}");
    let name = user.name.clone().unwrap_or_else(|| format!("user{}", user.uid));
    assert_eq!(lines.next(), Some(name.as_str()), "{output}");
    assert!(lines.next().is_some_and(|group| !group.is_empty()), "{output}");
    assert!(lines.next().is_some_and(|home| home.starts_with('/')), "{output}");
}

#[test]
fn the_hosts_environment_passes_less_the_loaders_and_the_images_path_wins() {
    let Some((mut sandbox, app)) = alpine() else { return };
    sandbox.set("EDITOR", "vi").set("LD_LIBRARY_PATH", "/host/lib").set("PATH", "/host/bin:/usr/bin:/bin");
    sandbox.set("CORACLE_ENV", "A=1,2\nEDITOR").set("CORACLE_HOSTNAME", "");
    fs::write(sandbox.work("vars"), "# a comment\nFROM_FILE=x y\nA=lower\n").unwrap();
    let output = sandbox.run(&app, ["--coracle-env-file=vars", "--coracle-env=LD_LIBRARY_PATH", "env"]);
    let env: Vec<&str> = output.ok().lines().collect();
    for line in ["EDITOR=vi", "A=1,2", "FROM_FILE=x y", "LD_LIBRARY_PATH=/host/lib"] {
        assert!(env.contains(&line), "no {line}: {output}");
    }
    assert!(env.iter().any(|line| line.starts_with("PATH=/usr/local/sbin:")), "{output}");
    assert!(env.contains(&format!("CORACLE_BUNDLE={}", app.display()).as_str()), "{output}");
    assert!(!env.iter().any(|line| line.starts_with("CORACLE_ENV")), "{output}");
    let output = sandbox.run(&app, ["env"]);
    assert!(!output.ok().contains("LD_LIBRARY_PATH"), "{output}");
}

#[test]
fn files_of_the_home_and_the_working_directory_are_the_hosts() {
    let Some((sandbox, app)) = alpine() else { return };
    sandbox.write("input", "42");
    let output = sandbox.run(&app, ["sh", "-c", "pwd; cat input; echo out > output; echo h > $HOME/made"]);
    assert_eq!(output.ok(), format!("{}\n42", sandbox.path().join("work").display()), "{output}");
    assert_eq!(fs::read_to_string(sandbox.work("output")).unwrap(), "out\n");
    assert_eq!(fs::read_to_string(sandbox.path().join("home/made")).unwrap(), "h\n");
}

#[test]
fn the_image_is_read_only_and_says_so() {
    let Some((sandbox, app)) = alpine() else { return };
    let output = sandbox.run(&app, ["sh", "-c", "echo x > /etc/motd; echo $?; echo x > /etc/passwd; echo $?"]);
    assert_eq!(output.ok(), "1\n1");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
}

#[test]
fn a_volume_shows_a_host_directory() {
    let Some((mut sandbox, app)) = alpine() else { return };
    sandbox.write("data/file", "d");
    let script = "cat /in/file /other/file; echo x > /in/new; echo $?; echo x > /other/new; echo $?";
    sandbox.set("CORACLE_VOLUME", "data:/other");
    let output = sandbox.run(&app, ["--coracle-volume=./data:/in:ro", "sh", "-c", script]);
    assert_eq!(output.ok(), "dd1\n0", "{output}");
    sandbox.run(&app, ["--coracle-volume=/no/such", "true"]).fails_with(&["/no/such", "No such file"]);
}

#[test]
fn the_configuration_file_stands_below_the_environment() {
    let Some((mut sandbox, app)) = alpine() else { return };
    let file = sandbox.write("conf.toml", "[run]\nenv = [\"A=config\", \"B=config\"]\nvolum = 1\n");
    sandbox.set("CORACLE_CONFIG", file).set("CORACLE_ENV", "B=environment");
    let output = sandbox.run(&app, ["sh", "-c", "echo $A $B"]);
    assert_eq!(output.ok(), "config environment");
    assert!(output.stderr.contains("did you mean volume?"), "{output}");
    sandbox.write("conf.toml", "[run\n");
    sandbox.run(&app, ["true"]).fails_with(&["conf.toml"]);
}

#[test]
fn the_exit_status_is_the_applications() {
    let Some((sandbox, app)) = alpine() else { return };
    sandbox.run(&app, ["sh", "-c", "exit 7"]).code_is(7);
    assert_eq!(sandbox.run(&app, ["sh", "-c", "kill -USR1 $$"]).signal, Some(libc::SIGUSR1));
    sandbox.run(&app, ["no-such-program"]).code_is(127);
    sandbox.run(&app, ["/etc/motd"]).code_is(126);
    sandbox.run(&app, ["--coracle-nonsense"]).fails_with(&["--coracle-nonsense", "no such option"]);
    sandbox.run(&app, ["--coracle-engine=R9"]).fails_with(&["R9", "namespaces (R1)"]);
    sandbox.run(&app, ["--coracle-engine=trap"]).fails_with(&["engine trap: not in this version", "`auto`"]);
}

#[test]
fn a_link_named_like_a_program_runs_that_program() {
    let Some((sandbox, _)) = alpine() else { return };
    for link in ["expr", "expr.run"] {
        std::os::unix::fs::symlink("app.run", sandbox.work(link)).unwrap();
        assert_eq!(sandbox.run(sandbox.work(link), ["6", "*", "7"]).ok(), "42", "{link}");
    }
    std::os::unix::fs::symlink("app.run", sandbox.work("no-such-program")).unwrap();
    assert_eq!(sandbox.run(sandbox.work("no-such-program"), ["echo", "x"]).ok(), "x");
}

/// Runs a command with descriptor 9 open, a umask, SIGPIPE at its default and SIGUSR2 ignored.
fn with_inheritance(sandbox: &Sandbox, program: &Path, args: &[&str]) -> String {
    let nine = fs::File::open(sandbox.write("nine", "ninth\n")).unwrap();
    let fd = nine.as_raw_fd();
    let mut command = sandbox.command(program);
    command.args(args);
    // SAFETY: between fork and exec these are plain system calls on integers.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(fd, 9);
            libc::umask(0o027);
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
            Ok(())
        });
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_a_process_inherits_passes_through() {
    let Some((sandbox, app)) = alpine() else { return };
    let signals = ["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"];
    // Not through a shell, for shells ignore signals of their own.
    let inside = with_inheritance(&sandbox, &app, &signals);
    assert_eq!(inside, with_inheritance(&sandbox, Path::new("/usr/bin/env"), &signals));
    let ignored = inside.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:\t")?, 16).ok());
    let bit = |signal: i32| 1_u64 << (signal - 1);
    assert!(ignored.is_some_and(|set| set & bit(libc::SIGPIPE) == 0 && set & bit(libc::SIGUSR2) != 0), "{inside}");
    let others = with_inheritance(&sandbox, &app, &["sh", "-c", "umask; cat <&9"]);
    assert_eq!(others, "0027\nninth\n");
}

#[test]
fn the_application_inherits_no_descriptor_of_ours_but_the_lease() {
    let Some((sandbox, app)) = alpine() else { return };
    let inside = with_inheritance(&sandbox, &app, &["ls", "/proc/self/fd"]);
    let outside = with_inheritance(&sandbox, Path::new("/bin/ls"), &["/proc/self/fd"]);
    let new: Vec<u32> =
        inside.lines().filter(|fd| !outside.lines().any(|old| old == *fd)).map(|fd| fd.parse().unwrap()).collect();
    assert!(
        inside.lines().any(|fd| fd == "9") && new.len() <= 1 && new.iter().all(|fd| *fd > 100),
        "{inside}{outside}"
    );
}

#[test]
fn closed_standard_descriptors_get_nothing_of_ours() {
    let Some((sandbox, app)) = alpine() else { return };
    let mut command = sandbox.command(&app);
    command.args(["sh", "-c", "readlink /proc/self/fd/0; readlink /proc/self/fd/2"]).stdout(Stdio::piped());
    // SAFETY: close takes an integer.
    unsafe {
        command.pre_exec(|| {
            libc::close(0);
            libc::close(2);
            Ok(())
        });
    }
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/dev/null\n/dev/null\n");
}

#[test]
fn the_application_replaces_the_stub_and_keeps_its_pid() {
    let Some((sandbox, app)) = alpine() else { return };
    if lacks_namespaces(&sandbox, &app) {
        return;
    }
    let child = sandbox.command(&app).args(["sh", "-c", "echo $$"]).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{pid}\n"));
}

#[test]
fn a_writable_run_leaves_nothing_unless_it_is_told_where() {
    let Some((sandbox, app)) = alpine() else { return };
    if lacks_namespaces(&sandbox, &app) {
        return;
    }
    sandbox.run(&app, ["--coracle-writable", "true"]).ok();
    let before = everything_in(&sandbox);
    let output = sandbox.run(&app, ["--coracle-writable", "sh", "-c", "echo new > /etc/motd && cat /etc/motd"]);
    assert_eq!(output.ok(), "new");
    assert_eq!(sandbox.run(&app, ["--coracle-writable", "sh", "-c", "kill -KILL $$"]).signal, Some(libc::SIGKILL));
    assert_eq!(everything_in(&sandbox), before);
    sandbox.run(&app, ["--coracle-writable=kept", "sh", "-c", "echo new > /etc/motd"]).ok();
    assert_eq!(sandbox.run(&app, ["--coracle-writable=kept", "cat", "/etc/motd"]).ok(), "new");
    assert_ne!(sandbox.run(&app, ["cat", "/etc/motd"]).ok(), "new");
}

/// Names of all that is in the sandbox's cache and temporary directory, but for trees.
fn everything_in(sandbox: &Sandbox) -> Vec<String> {
    let output = sandbox.run("find", ["../tmp", "../cache", "-name", "root*", "-prune", "-o", "-print"]);
    let mut names: Vec<String> = output.ok().lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn no_cache_means_nothing_is_kept() {
    let Some((sandbox, app)) = alpine() else { return };
    let output = sandbox.run(&app, ["--coracle-cache=none", "sh", "-c", "exit 9"]);
    output.code_is(9);
    assert!(!everything_in(&sandbox).iter().any(|name| name.contains("/.run-")), "{:?}", everything_in(&sandbox));
}

#[test]
fn isolated_shows_nothing_of_the_host() {
    let Some((mut sandbox, app)) = alpine() else { return };
    if lacks_namespaces(&sandbox, &app) {
        return;
    }
    sandbox.set("SECRET", "x");
    let script =
        "id -u; pwd; echo $SECRET$HOME; ls -A /tmp /home /root | wc -w; echo t > /tmp/t && cat /tmp/t; hostname";
    let output = sandbox.run(&app, ["--coracle-isolated", "--coracle-hostname=box", "sh", "-c", script]);
    // `ls` prints a heading for each of three directories.
    assert_eq!(output.ok(), "0\n/\n/root\n3\nt\nbox", "{output}");
}

#[test]
fn another_user_of_the_image_can_be_asked_for() {
    let Some((sandbox, app)) = alpine() else { return };
    let output = sandbox.run(&app, ["--coracle-user=root", "id", "-u"]);
    assert_eq!(output.ok(), "0");
    sandbox.run(&app, ["--coracle-user=mallory", "id"]).fails_with(&["mallory", "/etc/passwd"]);
}

#[test]
fn a_home_that_cannot_be_written_or_is_not_there_is_no_obstacle() {
    let Some((mut sandbox, app)) = alpine() else { return };
    let home = sandbox.make_dir("sealed");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o555)).unwrap();
    sandbox.set("HOME", &home);
    assert_eq!(sandbox.run(&app, ["echo", "x"]).ok(), "x");
    sandbox.set("HOME", "/no/such/home");
    assert_eq!(sandbox.run(&app, ["echo", "x"]).ok(), "x");
}

#[test]
fn a_port_is_published_by_the_engine_that_can() {
    let Some((sandbox, app)) = alpine() else { return };
    let explain = |port: &str| sandbox.run(&app, [format!("--coracle-publish={port}").as_str(), "--coracle-explain"]);
    let output = explain("8080:80");
    assert!(output.ok().contains("namespaces: refused: the network is the host's here"), "{output}");
    let output = explain("8080:8080");
    assert!(!output.ok().contains("the network is the host's here"), "{output}");
    sandbox.run(&app, ["--coracle-publish=80:0", "true"]).fails_with(&["--coracle-publish", "1 to 65535"]);
    if explain("8080:80").stdout.contains("ptrace: refused") {
        return skip::because("this node refuses ptrace");
    }
    let free = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let script = format!(
        "(nc -l -p 80 -e echo served &); i=0; until nc 127.0.0.1 {free} </dev/null || [ $i -gt 100 ]; do sleep 0.1; i=$((i+1)); done"
    );
    let output = sandbox.run(&app, [&format!("--coracle-publish={free}:80"), "sh", "-c", &script]);
    assert_eq!(output.ok(), "served", "{output}");
}

#[test]
fn explain_names_every_bind_and_every_engine() {
    let Some((sandbox, app)) = alpine() else { return };
    let output = sandbox.run(&app, ["--coracle-volume=.:/here:ro", "--coracle-explain"]);
    let text = output.ok();
    for part in
        ["/here <- ", "(ro, volume)", "default: temporary files", "trap: refused: ", "volume=.:/here:ro (command line)"]
    {
        assert!(text.contains(part), "no {part:?}: {output}");
    }
}

#[test]
fn what_a_batch_system_names_is_shown() {
    let Some((mut sandbox, app)) = alpine() else { return };
    // Outside /tmp, /var/tmp and the home, which are shown anyway.
    let Ok(spool) = tempfile::tempdir_in("/var/spool") else {
        return skip::because("/var/spool is not writable for whoever runs the tests");
    };
    fs::set_permissions(spool.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(spool.path().join("token"), "secret").unwrap();
    sandbox.set("BEARER_TOKEN_FILE", spool.path().join("token")).set("_CONDOR_SCRATCH_DIR", spool.path());
    let output = sandbox.run(&app, ["sh", "-c", "cat $BEARER_TOKEN_FILE; ls $_CONDOR_SCRATCH_DIR"]);
    assert_eq!(output.ok(), "secrettoken", "{output}");
}
