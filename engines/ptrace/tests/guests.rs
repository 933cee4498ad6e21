//! Programs of real trees under the engine, as an ordinary user: what they print, what they may not, how they end.

mod common;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

use common::*;
use coracle_api::{Access, Devices, Ended};
use nix::unistd::Uid;

#[test]
fn the_guest_sees_its_own_tree() {
    expect(
        "cat /etc/alpine-release; ls -d /etc/apk /bin/sh; pwd; cd /usr/bin/../lib; pwd -P; echo $SHOWN",
        "3.20.3\n/bin/sh\n/etc/apk\n/\n/usr/lib\nyes\n",
    );
}

#[test]
fn proc_shows_the_guests_names() {
    expect(
        "readlink /proc/self/exe; cd /etc; readlink /proc/self/cwd; exec 3</etc/hosts; readlink /proc/self/fd/3; \
         cat /proc/self/comm; readlink /proc/self/root; ls -l /proc/self/exe | sed 's/.*-> //'; cat /dev/fd/3 | wc -l",
        "/bin/busybox\n/etc\n/etc/hosts\ncat\n/\n/bin/busybox\n2\n",
    );
}

#[test]
fn arguments_may_be_as_many_as_the_kernel_takes() {
    // Two megabytes, as they lie on the stack; then more than that.
    expect(
        "set -- $(seq 1 120000); /bin/busybox echo \"$@\" | md5sum | cut -c1-8; X=\"$(seq 1 20000)\" /bin/busybox env | wc -l; \
         /bin/busybox sh -c 'echo $# $1' \"$@\"; set -- $(seq 1 250000); /bin/busybox echo \"$@\" 2>&1 | sed 's/.*: //'",
        "f8537c37\n20004\n119999 2\nArgument list too long\n",
    );
}

#[test]
fn a_read_only_tree_answers_erofs() {
    let Some(output) =
        sh("touch /new; echo x >/etc/hosts; rm /etc/hosts; mkdir /etc/hosts; mkdir /m; mv /etc /e; ln -s a /s; \
         chmod 777 /etc; rmdir /srv; ln /etc/hosts /h; : >>/etc/motd; touch -c /missing")
    else {
        return;
    };
    let errors: Vec<&str> = output.text.lines().map(|line| line.rsplit(": ").next().unwrap_or(line)).collect();
    let ro = "Read-only file system";
    assert_eq!(errors, [ro, ro, ro, "File exists", ro, ro, ro, ro, ro, ro, ro], "{}", output.text);
}

#[test]
fn nothing_changes_in_a_read_only_tree() {
    let Some(tree) = alpine() else { return };
    let listing = || {
        let out = Command::new("find").arg(&tree.root).args(["-printf", "%p %i %m %s %T@ %C@\n"]).output();
        out.expect("find").stdout
    };
    let before = listing();
    run(&spec(
        tree,
        &[
            "sh",
            "-c",
            "chmod -R 700 /etc; touch /etc/*; rm -rf /usr /etc; echo >/bin/busybox; exec 3</etc/hosts; chmod 0 /dev/fd/3; echo x >/dev/fd/3",
        ],
    ));
    assert!(before == listing(), "the tree is as before");
}

#[test]
fn statuses_and_signals_are_passed_on() {
    let Some(output) = sh("exit 42") else { return };
    assert_eq!(output.ended, Ended::Exited(42));
    assert_eq!(sh("kill -TERM $$").map(|output| output.ended), Some(Ended::Signaled(15)));
    assert_eq!(sh("kill -KILL $$").map(|output| output.ended), Some(Ended::Signaled(9)));
    expect(
        "sh -c 'kill -SEGV $$'; echo $?; trap 'echo caught' USR1; kill -USR1 $$; (exit 3); echo $?",
        "Segmentation fault\n139\ncaught\n3\n",
    );
}

#[test]
fn a_stopped_process_goes_on() {
    // The SIGCONT comes again and again, since it may come before the stop.
    expect(
        "sh -c 'kill -STOP $$; echo on' & p=$!; sleep 0.5; echo before; \
         (while sleep 0.1; do kill -CONT $p || exit; done) 2>/dev/null & wait $p; echo $?",
        "before\non\n0\n",
    );
}

#[test]
fn programs_that_cannot_be_started() {
    let Some(tree) = alpine() else { return };
    let missing = run(&spec(tree, &["no-such-program"]));
    assert!(missing.text.starts_with("no-such-program: not found in the image"), "{}", missing.text);
    let no_program = run(&spec(tree, &["/etc/hosts"]));
    assert!(no_program.text.contains("Permission denied"), "{}", no_program.text);
    expect(
        "/no/such; echo $?; /etc/hosts; echo $?",
        "sh: /no/such: not found\n127\nsh: /etc/hosts: Permission denied\n126\n",
    );
}

#[test]
fn scripts_run_by_the_guests_interpreters() {
    let Some(tree) = alpine() else { return };
    let dir = volume();
    for (name, text) in [
        ("one", "#!/bin/sh -e\necho \"$0 $#: $*\"; cat /proc/$$/comm\n"),
        ("two", "#!/v/one with args\n"),
        ("loop", "#!/v/loop\n"),
        ("plain", "echo plain\n"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let script = "/v/one a 'b c'; cd /v; ./one; ./two x; ./plain; ./loop || echo $?";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(dir.path(), "/v", false));
    let output = run(&spec);
    let expected = "/v/one 2: a b c\none\n./one 0: \none\n/v/one 3: with args ./two x\ntwo\nplain\n";
    assert!(output.text.starts_with(expected), "{}", output.text);
    assert!(output.text.contains("Too many") || output.text.contains("Symbolic link loop"), "{}", output.text);
}

#[test]
fn volumes_are_written_unless_read_only() {
    let Some(tree) = alpine() else { return };
    let (open, shut) = (volume(), volume());
    fs::write(shut.path().join("f"), "here\n").expect("write");
    let script = "echo out >/data/deep/x; cat /data/deep/x /ro/f; ls /data; echo a >/ro/f; rm /ro/f; mv /ro/f /data/deep/f; \
                  cp /ro/f /data/deep/f; ls /data/deep; ln /ro/f /data/deep/g; cd /data/deep; ls ..; pwd; umount /ro; rmdir /ro";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(open.path(), "/data/deep", false));
    spec.binds.push(bind(shut.path(), "/ro", true));
    let output = run(&spec);
    assert_eq!(fs::read_to_string(open.path().join("x")).expect("the guest's file"), "out\n");
    assert_eq!(fs::read_to_string(shut.path().join("f")).expect("the host's file"), "here\n");
    assert_eq!(fs::read_to_string(open.path().join("f")).expect("the copied file"), "here\n");
    assert!(output.text.starts_with("out\nhere\ndeep\n"), "{}", output.text);
    assert!(output.text.matches("Read-only file system").count() >= 3, "{}", output.text);
    assert!(output.text.contains("deep\n/data/deep\n"), "{}", output.text);
}

#[test]
fn a_tree_of_its_own_can_be_changed() {
    let Some(tree) = extract("busybox-musl-x86_64") else { return };
    let mut spec = spec(
        &tree,
        &["sh", "-c", "mkdir -p /a/b; echo x >/a/b/c; mv /a /z; ln -s /z/b /l; cat /l/c; rm /z/b/c; ls /z"],
    );
    spec.access = Access::Direct;
    spec.cwd = "/made/here".into();
    spec.make_cwd = true;
    assert_eq!(run(&spec), Output { text: "x\nb\n".to_owned(), ended: Ended::Exited(0) });
    assert!(tree.root.join("made/here").is_dir() && tree.root.join("z/b").is_dir());
}

#[test]
fn other_libraries_and_the_other_word_size() {
    for (image, expected) in [
        ("alpine-3.9.6-x86_64", "/bin/busybox\n"),
        ("alpine-3.20.3-i386", "/bin/busybox\n"),
        ("busybox-glibc-x86_64", "/bin/sh\n"),
        ("busybox-musl-x86_64", "/bin/sh\n"),
        ("busybox-uclibc-x86_64", "/bin/sh\n"),
    ] {
        let Some(tree) = extract(image) else { continue };
        let script = "cd /bin; (cd ..; test \"$(pwd)\" = /) && [ -e sh ] && readlink -f /proc/self/cwd >/dev/null; \
                      sh -c 'exec /bin/sh -c \"readlink /proc/\\$\\$/exe\"'";
        for variant in ["P1", "P2"] {
            let mut spec = spec(&tree, &["sh", "-c", script]);
            spec.variant = Some(variant.to_owned());
            let output = run(&spec);
            assert_eq!(output.ended, Ended::Exited(0), "{image} {variant}: {}", output.text);
            // Hard links of one program: any of its names may be the one that was executed.
            if expected == "/bin/busybox\n" {
                assert_eq!(output.text, expected, "{image} {variant}");
            }
        }
    }
}

#[test]
fn a_guest_that_takes_itself_for_root() {
    let Some(tree) = alpine() else { return };
    let mut spec =
        spec(tree, &["sh", "-c", "id -u; id -g; stat -c %u:%g /etc/hosts; cd /etc; stat -c %u . ; chroot / echo in"]);
    (spec.identity.uid, spec.identity.gid) = (0, 0);
    assert_eq!(run(&spec).text, "0\n0\n0:0\n0\nin\n");
}

#[test]
fn a_host_name_of_its_own() {
    let Some(tree) = alpine() else { return };
    let mut spec = spec(tree, &["uname", "-n"]);
    spec.hostname = Some("lighthouse".into());
    assert_eq!(run(&spec).text, "lighthouse\n");
}

#[test]
fn many_short_processes_leave_nothing_behind() {
    expect("i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done; echo done", "done\n");
}

#[test]
fn a_table_of_names_is_believed_if_it_is_whole() {
    use coracle_paths::table::{Kind, build};
    let Some(tree) = alpine() else { return };
    // One that knows only the shell, so that what is asked of it can be told from what is asked of the kernel.
    let known = [
        (&b"bin"[..], Kind::Directory),
        (b"bin/busybox", Kind::File),
        (b"bin/sh", Kind::Symlink(b"/bin/busybox")),
        (b"etc", Kind::Directory),
        (b"lib", Kind::Directory),
        (b"lib/ld-musl-x86_64.so.1", Kind::File),
    ];
    let bytes = build(known).expect("a table");
    let dir = volume();
    let table = dir.path().join("names");
    let mut spec = spec(tree, &["sh", "-c", "[ -e /etc/hosts ]; echo $?; exec 2>&1; cd /usr && echo in"]);
    spec.names = Some(table.clone());
    let answers = |what: &str| run(&spec).text.lines().next().map(str::to_owned).expect(what);
    assert_eq!(answers("none there"), "0");
    fs::write(&table, &bytes).expect("write");
    chown(&table, Some(NOBODY_IN_PARTICULAR), None).ok();
    fs::set_permissions(&table, fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(answers("whole"), "1");
    let mut damaged = bytes.clone();
    damaged[100] ^= 1;
    fs::write(&table, &damaged).expect("write");
    assert_eq!(answers("damaged"), "0");
    fs::write(&table, &bytes[..bytes.len() / 2]).expect("write");
    assert_eq!(answers("cut"), "0");
    fs::write(&table, "").expect("write");
    assert_eq!(answers("empty"), "0");
    fs::write(&table, &bytes).expect("write");
    fs::set_permissions(&table, fs::Permissions::from_mode(0o666)).expect("chmod");
    assert_eq!(answers("anybody may write to it"), "0");
}

#[test]
fn a_small_dev() {
    let Some(tree) = alpine() else { return };
    let mut spec =
        spec(tree, &["sh", "-c", "ls /dev; echo x >/dev/null; head -c 3 /dev/zero | wc -c; echo y >/dev/stdout"]);
    spec.devices = Devices::Minimal { extra: Vec::new() };
    let output = run(&spec);
    assert_eq!(
        output.text,
        "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n3\ny\n"
    );
}

#[test]
fn sockets_of_the_unix_family() {
    // The scratch directory's own path is long enough that only an alias of it fits an address.
    for image in ["alpine-3.20.3-x86_64", "alpine-3.20.3-i386"] {
        let Some(tree) = extract(image) else { continue };
        let script = "syslogd -n -S -O /dev/out & p=$!; i=0; until [ -S /dev/log ] || [ $i -gt 100 ]; do sleep 0.1; i=$((i+1)); done; \
                      logger -t who 'it is heard'; i=0; until grep -q heard /dev/out || [ $i -gt 100 ]; do sleep 0.1; i=$((i+1)); done; \
                      grep -o 'who: it is heard' /dev/out; kill $p";
        let mut spec = spec(&tree, &["sh", "-c", script]);
        let deep = spec.scratch.join("d".repeat(100));
        fs::create_dir(&deep).expect("mkdir");
        if Uid::effective().is_root() {
            chown(&deep, Some(NOBODY_IN_PARTICULAR), None).expect("chown");
        }
        spec.scratch = deep;
        spec.devices = Devices::Minimal { extra: Vec::new() };
        assert_eq!(run(&spec).text, "who: it is heard\n", "{image}");
    }
}
