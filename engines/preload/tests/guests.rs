//! Programs of real trees under the engine, as an ordinary user: how they are entered, what they see of it, what cannot be.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use common::*;
use coracle_api::{Access, Ended, LaunchSpec};

#[test]
fn the_guest_sees_its_own_tree_and_nothing_of_how_it_came_there() {
    expect(
        "cat /etc/alpine-release; pwd; readlink /proc/self/exe; cat /proc/self/comm; env | sort; echo $0 $1",
        "3.20.3\n/\n/bin/busybox\ncat\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\nSHLVL=1\nSHOWN=yes\nsh\n",
    );
}

#[test]
fn a_guest_that_clears_its_environment_stays_inside() {
    expect("env -i /bin/sh -c 'cat /etc/alpine-release; /usr/bin/env'", "3.20.3\nSHLVL=1\nPWD=/\n");
    expect("env - PATH=/bin busybox env", "PATH=/bin\n");
}

#[test]
fn proc_shows_the_guests_mounts() {
    let Some(tree) = alpine() else { return };
    let dir = volume();
    let script = "grep -c ' / / \\| / ro' /proc/self/mountinfo; awk '$2 == \"/v\" {print substr($4, 1, 2)}' /proc/mounts; \
        awk '$2 == \"/r\" {print substr($4, 1, 2)}' /proc/self/mounts; grep -c ' /sys ' /proc/$$/mountinfo; df /v | wc -l; \
        echo x 2>/dev/null >/proc/self/mountinfo || echo no";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(dir.path(), "/v", false));
    spec.binds.push(bind(dir.path(), "/r", true));
    assert_eq!(run(&spec).text, "1\nrw\nro\n1\n2\nno\n");
}

#[test]
fn a_guests_own_library_is_loaded_beside_the_shim() {
    expect(
        "LD_PRELOAD=/lib/libz.so.1 sh -c 'echo $LD_PRELOAD; grep -c libz.so /proc/self/maps; cat /etc/alpine-release' | \
         sed 's/^[1-9]$/some/'",
        "/lib/libz.so.1\nsome\n3.20.3\n",
    );
    expect(
        "LD_LIBRARY_PATH=/etc:/lib sh -c 'env | grep ^LD_; cat /etc/alpine-release'",
        "LD_LIBRARY_PATH=/etc:/lib\n3.20.3\n",
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
        ("lost", "#!/no/such\n"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let of = |argv: &[&str]| {
        let mut spec = spec(tree, argv);
        spec.binds.push(bind(dir.path(), "/v", false));
        run(&spec)
    };
    let output = of(&["sh", "-c", "/v/one a 'b c'; cd /v; ./one; ./two x; ./plain; ./loop || echo $?"]);
    let expected = "/v/one 2: a b c\none\n./one 0: \none\n/v/one 3: with args ./two x\ntwo\nplain\n";
    assert!(output.text.starts_with(expected), "{}", output.text);
    // The run's first program, too.
    assert_eq!(of(&["/v/two", "x"]).text, "/v/one 3: with args /v/two x\ntwo\n");
    let lost = of(&["/v/lost"]);
    assert!(lost.text.contains("the image does not have its interpreter /no/such"), "{}", lost.text);
}

#[test]
fn programs_that_cannot_be_started() {
    let Some(tree) = alpine() else { return };
    let missing = run(&spec(tree, &["no-such-program"]));
    assert!(missing.text.starts_with("no-such-program: not found in the image"), "{}", missing.text);
    let no_program = run(&spec(tree, &["/etc/hosts"]));
    assert!(no_program.text.contains("ermission denied"), "{}", no_program.text);
    expect(
        "/no/such; echo $?; /etc/hosts; echo $?",
        "sh: /no/such: not found\n127\nsh: /etc/hosts: Permission denied\n126\n",
    );
}

/// A program that no loader brings anything into.
fn with_static(argv: &[&str]) -> Option<(LaunchSpec, tempfile::TempDir)> {
    if harness::skip::lacks(&["gcc"]) {
        return None;
    }
    let tree = alpine()?;
    let dir = volume();
    let source = dir.path().join("s.c");
    fs::write(&source, "#include <stdio.h>\nint main(int c, char **v) { return printf(\"%s %d\\n\", v[0], c) < 0; }\n")
        .expect("write");
    let program = dir.path().join("static");
    let made = Command::new("gcc").args(["-static", "-o"]).arg(&program).arg(&source).status().expect("gcc");
    assert!(made.success());
    let mut spec = spec(tree, argv);
    spec.binds.push(bind(dir.path(), "/v", true));
    Some((spec, dir))
}

#[test]
fn a_static_program_is_an_error_that_names_the_way_out() {
    let Some((spec, _dir)) = with_static(&["/v/static"]) else { return };
    let first = run(&spec);
    assert_eq!(first.ended, Ended::Exited(ENGINE_FAILED.try_into().expect("a status")));
    for word in ["/v/static", "linked statically", "--coracle-engine=ptrace"] {
        assert!(first.text.contains(word), "{}", first.text);
    }
    let Some((spec, _dir)) = with_static(&["sh", "-c", "/v/static; echo $?"]) else { return };
    let later = run(&spec).text;
    for word in ["coracle: ", "/v/static", "linked statically", "--coracle-engine=ptrace", "\n126\n"] {
        assert!(later.contains(word), "{later}");
    }
}

#[test]
fn a_static_program_is_handed_to_whoever_takes_it() {
    let Some((mut spec, dir)) = with_static(&["sh", "-c", "cd /etc; /v/static a; echo $?"]) else { return };
    // In place of the stub: what it is told, and where.
    let taker = dir.path().join("taker");
    fs::write(
        &taker,
        "#!/bin/sh\necho \"$1 $(head -c 6 \"$2\") $3 $4 $5; $(pwd); $SHOWN; ${LD_PRELOAD-none}\"\nexit 3\n",
    )
    .expect("write");
    fs::set_permissions(&taker, fs::Permissions::from_mode(0o755)).expect("chmod");
    spec.handover = vec![taker.into(), "--take".into()];
    let etc = spec.root.canonicalize().expect("there").join("etc");
    let expected = format!("--take CORRUN /v/static /v/static a; {}; yes; none\n3\n", etc.display());
    assert_eq!(run(&spec).text, expected);
}

#[test]
fn a_loader_that_the_guest_asks_is_told_the_guests_places() {
    expect("ldd /bin/busybox | grep -o 'libc.musl-x86_64.so.1'", "libc.musl-x86_64.so.1\n");
    expect("/lib/ld-musl-x86_64.so.1 /bin/cat /etc/alpine-release", "3.20.3\n");
}

#[test]
fn a_tree_whose_path_cannot_stand_in_a_list_gets_another_name() {
    let Some(mut tree) = extract("alpine-3.20.3-x86_64") else { return };
    let odd = tree.root.with_file_name("a b:c;d");
    fs::rename(&tree.root, &odd).expect("rename");
    tree.root = odd;
    let output = run(&spec(&tree, &["sh", "-c", "cat /etc/alpine-release; sh -c 'pwd; ls -d /etc/apk'"]));
    assert_eq!(output.text, "3.20.3\n/\n/etc/apk\n");
}

#[test]
fn older_and_newer_musl_and_a_moved_tree() {
    for image in ["alpine-3.9.6-x86_64", "alpine-3.20.3-x86_64"] {
        let Some(mut tree) = extract(image) else { continue };
        let script = "readlink -f /proc/self/exe; cd /usr/bin/../lib; pwd -P; sh -c 'exec sh -c \"echo \\$0\"' ; ls /etc/apk | head -1";
        let expected = "/bin/busybox\n/usr/lib\nsh\narch\n";
        assert_eq!(run(&spec(&tree, &["sh", "-c", script])).text, expected, "{image}");
        let moved = tree.root.with_file_name("moved");
        fs::rename(&tree.root, &moved).expect("rename");
        tree.root = moved;
        assert_eq!(run(&spec(&tree, &["sh", "-c", script])).text, expected, "{image}, moved");
    }
}

#[test]
fn a_read_only_tree_answers_erofs_and_a_volume_is_written() {
    let Some(tree) = alpine() else { return };
    let dir = volume();
    let mut spec = spec(tree, &["sh", "-c", "touch /new; echo x >/etc/hosts; rm /etc/hosts; echo out >/data/x"]);
    spec.binds.push(bind(dir.path(), "/data", false));
    let output = run(&spec);
    assert_eq!(output.text.matches("Read-only file system").count(), 3, "{}", output.text);
    assert_eq!(fs::read_to_string(dir.path().join("x")).expect("written"), "out\n");
}

#[test]
fn a_tree_of_its_own_can_be_changed() {
    let Some(tree) = extract("alpine-3.20.3-x86_64") else { return };
    let mut spec = spec(&tree, &["sh", "-c", "mkdir -p /a/b; echo x >/a/b/c; mv /a /z; ln -s /z/b /l; cat /l/c; pwd"]);
    spec.access = Access::Direct;
    spec.cwd = "/made/here".into();
    spec.make_cwd = true;
    assert_eq!(run(&spec).text, "x\n/made/here\n");
    assert!(tree.root.join("made/here").is_dir() && tree.root.join("z/b").is_dir());
}

#[test]
fn a_guest_that_takes_itself_for_root() {
    let Some(tree) = alpine() else { return };
    let script = "id -u; stat -c %u:%g /etc/hosts; touch /tmp/f; chown 5:6 /tmp/f; stat -c %u:%g /tmp/f; sh -c 'stat -c %u /tmp/f'";
    let mut spec = spec(tree, &["sh", "-c", script]);
    let dir = volume();
    spec.binds.push(bind(dir.path(), "/tmp", false));
    (spec.identity.uid, spec.identity.gid) = (0, 0);
    assert_eq!(run(&spec).text, "0\n0:0\n5:6\n5\n");
}

#[test]
fn statuses_and_signals_are_passed_on() {
    let Some(tree) = alpine() else { return };
    assert_eq!(run(&spec(tree, &["sh", "-c", "exit 42"])).ended, Ended::Exited(42));
    assert_eq!(run(&spec(tree, &["sh", "-c", "kill -TERM $$"])).ended, Ended::Signaled(15));
}
