//! Who the guest is, and what it sees of processes, names and networks.

mod common;

use std::{fs, os::unix::fs::MetadataExt, path::Path, thread::sleep, time::Duration};

use common::{
    action, as_root, bind, copy_on_write, directory, guest_action, print, run, script, shared_tree, spec, start,
    start_as, user, user_with_ranges,
};
use coracle_api::{Access, Devices, Ended, Engine, Identity, LaunchSpec, Unshare};
use coracle_namespaces::Namespaces;
use nix::sys::signal::{Signal, kill};

const ALONE: Unshare = Unshare { pid: true, ipc: true, uts: true, net: true };

#[test]
fn yourself_keeps_the_pid_and_has_no_power() {
    let Some(tree) = shared_tree() else { return };
    let running = start(&script(
        tree,
        "echo $$; id -u; id -g; ls -1 /proc/self/fd | tr '\n' ' '; echo; grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status",
    ));
    let pid = running.pid;
    let out = running.finish().success();
    let (uid, gid) = user();
    let none = "0000000000000000";
    let expected = format!(
        "{pid}\n{uid}\n{gid}\n0 1 2 3 \nCapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\n"
    );
    assert_eq!(out, expected);
}

#[test]
fn only_the_writable_guest_keeps_one_capability() {
    let Some(tree) = shared_tree() else { return };
    let mut spec = script(tree, "grep -E '^CapEff' /proc/self/status; cat /proc/1/environ 2>&1 | tail -n1");
    let _changes = copy_on_write(&mut spec);
    let out = run(&spec).success();
    assert!(out.starts_with("CapEff:\t0000000000000002\n"), "{out}"); // CAP_DAC_OVERRIDE
    assert!(out.contains("Permission denied"), "{out}");
}

#[test]
fn root_and_anybody() {
    let Some(tree) = shared_tree() else { return };
    let out = run(&as_root(script(tree, "id; stat -c '%U %G' /etc; grep CapEff /proc/self/status"))).success();
    assert!(out.starts_with("uid=0(root) gid=0(root)"), "{out}");
    assert!(out.contains("\nroot root\n") && out.contains("CapEff:\t000001ffffffffff"), "{out}");
    let mut spec = script(tree, "id -u; id -g; ls -ldn /etc | tr -s ' ' | cut -d' ' -f3,4");
    (spec.identity.uid, spec.identity.gid) = (33, 44);
    assert_eq!(run(&spec).success(), "33\n44\n33 44\n");
}

#[test]
fn root_with_one_id_may_give_files_away_and_make_devices_without_effect() {
    let Some(tree) = shared_tree() else { return };
    let mut spec = as_root(script(
        tree,
        "set -e; touch /f; chown 33:44 /f; chown -h nobody /f; stat -c %u:%g /f; mknod /d c 1 3; mknod /d2 b 1 3; mkfifo /p
         test -p /p; test ! -e /d; test ! -e /d2; mknod /p2 p; test -p /p2
         addgroup -S boat; adduser -S -D -H -G boat boat; su -s /bin/sh boat -c 'id -u'; chown boat:boat /f",
    ));
    let _changes = copy_on_write(&mut spec);
    assert_eq!(run(&spec).success(), "0:0\n0\n");
}

#[test]
fn ranges_of_ids() {
    let Some(tree) = shared_tree() else { return };
    let Some((uid, gid, ranges)) = user_with_ranges() else { return };
    let text = "set -e; id -u; touch /f; chown 33:44 /f; stat -c %u:%g /f; su -s /bin/sh nobody -c 'id -u; mkdir /tmp/own; touch /tmp/own/by-nobody'
        stat -c %u /tmp/own/by-nobody";
    let mut spec = as_root(script(tree, text));
    spec.identity = Identity { host_uid: uid, host_gid: gid, subordinate: Some(ranges.clone()), ..spec.identity };
    // A tree and changes of that user's own.
    let (copy, changes) = (directory(), directory());
    for command in [
        format!("cp -a {}/. {}", tree.display(), copy.path().display()),
        format!("chown -hR {uid}:{gid} {} {}", copy.path().display(), changes.path().display()),
        format!("chmod 1777 {}/tmp", copy.path().display()),
    ] {
        assert!(std::process::Command::new("sh").arg("-c").arg(command).status().expect("sh").success());
    }
    spec.root = copy.path().to_owned();
    spec.access = Access::CopyOnWrite { changes: changes.path().to_owned() };
    let running = start(&spec);
    let pid = running.pid;
    assert_eq!(running.finish().success(), "0\n33:44\n65534\n65534\n");
    assert_eq!(fs::metadata(changes.path().join("upper/f")).expect("stat").uid(), ranges.uids.0 + 32);
    // The user cannot remove what a guest's other users left; the engine can.
    let by_nobody = changes.path().join("upper/tmp");
    let removed = start_as((uid, gid), || {
        assert!(fs::remove_dir_all(&by_nobody).is_err());
        coracle_namespaces::remove_all(&by_nobody, &spec.identity).map(|()| Ended::Exited(0))
    });
    removed.finish().success();
    assert!(!by_nobody.exists());
    // Somebody in the middle of the range, and the pid is still the launcher's.
    spec.argv = ["/bin/sh", "-c", "echo $$; id -u; cat /proc/self/uid_map"].map(Into::into).into();
    (spec.identity.uid, spec.identity.gid) = (33, 33);
    let running = start(&spec);
    assert_ne!(running.pid, pid);
    let pid = running.pid;
    let out = running.finish().success();
    let rows: Vec<Vec<u32>> = out
        .lines()
        .skip(2)
        .map(|row| row.split_whitespace().map(|number| number.parse().expect("a number")).collect())
        .collect();
    let (first, count) = ranges.uids;
    assert_eq!(rows, [vec![0, first, 33], vec![33, uid, 1], vec![34, first + 33, count - 33]]);
    assert!(out.starts_with(&format!("{pid}\n33\n")), "{out}");
}

#[test]
fn real_root_has_all_ids() {
    let Some(tree) = shared_tree() else { return };
    if !nix::unistd::geteuid().is_root() {
        return common::skip("needs root");
    }
    let volume = directory();
    let mut spec = as_root(script(
        tree,
        "set -e; touch /mnt/f; chown 33:44 /mnt/f; su -s /bin/sh nobody -c 'id -u'; wc -l < /proc/self/uid_map; cat /proc/self/setgroups",
    ));
    (spec.identity.host_uid, spec.identity.host_gid) = (0, 0);
    spec.binds.push(bind(volume.path(), "/mnt"));
    spec.devices = Devices::Minimal { extra: Vec::new() };
    for unshare in [Unshare::default(), ALONE] {
        spec.unshare = unshare;
        assert_eq!(run(&spec).success(), "65534\n1\nallow\n");
        let meta = fs::metadata(volume.path().join("f")).expect("stat");
        assert_eq!((meta.uid(), meta.gid()), (33, 44));
    }
}

#[test]
fn ranges_that_are_not_granted_are_an_error() {
    let Some(tree) = shared_tree() else { return };
    let Some((uid, gid, mut ranges)) = user_with_ranges() else { return };
    ranges.uids.0 += 7_000_000;
    let mut spec = as_root(spec(tree, &["true"]));
    spec.identity = Identity { host_uid: uid, host_gid: gid, subordinate: Some(ranges), ..spec.identity };
    let err = run(&spec).failure(125);
    assert!(err.starts_with("map ids with /usr/bin/newuidmap: newuidmap: uid range"), "{err}");
    assert!(err.ends_with("and that the helper is set-user-id root\n"), "{err}");
}

#[test]
fn a_pid_namespace_has_its_own_processes_and_passes_on_how_the_guest_ended() {
    let Some(tree) = shared_tree() else { return };
    let alone = |text: &str| LaunchSpec { unshare: ALONE, ..script(tree, text) };
    let out = run(&alone(
        "echo $$; ls /proc | grep -c '^[0-9]'; sh -c 'sleep 0.1 &'; sleep 0.3; ps -o comm | grep -c '^sleep'",
    ))
    .ended;
    assert_eq!(out, Ended::Exited(1)); // grep found no orphan left: init reaped it
    assert!(run(&alone("echo $$")).success().starts_with("2\n"));
    for code in [0, 1, 7, 255] {
        assert_eq!(run(&alone(&format!("exit {code}"))).ended, Ended::Exited(code));
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSEGV, Signal::SIGUSR1] {
        assert_eq!(run(&alone(&format!("kill -{} $$", signal as i32))).ended, Ended::Signaled(signal as i32));
    }
    // What the guest leaves running ends with it.
    let mut running = start(&alone("sleep 1000 & echo started; exit 3"));
    assert_eq!(running.line(), "started");
    assert_eq!(running.finish().ended, Ended::Exited(3));
    let missing = run(&LaunchSpec { unshare: ALONE, ..spec(tree, &["no-such-program"]) }).failure(127);
    assert!(missing.contains("no-such-program: not found"), "{missing}");
    let denied = run(&LaunchSpec { unshare: ALONE, ..spec(tree, &["/etc/motd"]) }).failure(126);
    assert!(denied.contains("/etc/motd: cannot be executed: Permission denied"), "{denied}");
    let mut broken = alone("true");
    broken.cwd = "/not/there".into();
    let err = run(&broken).failure(125);
    assert!(err.contains("start in /not/there: No such file"), "{err}");
}

#[test]
fn signals_reach_a_guest_in_a_pid_namespace() {
    let Some(tree) = shared_tree() else { return };
    let mut spec =
        script(tree, "trap 'echo got; exit 9' USR1; trap 'echo term' TERM; echo ready; while :; do sleep 0.05; done");
    spec.unshare = ALONE;
    let mut running = start(&spec);
    assert_eq!(running.line(), "ready");
    kill(running.pid, Signal::SIGTERM).expect("kill");
    assert_eq!(running.line(), "term");
    kill(running.pid, Signal::SIGUSR1).expect("kill");
    assert_eq!(running.line(), "got");
    assert_eq!(running.finish().ended, Ended::Exited(9));
}

#[test]
fn a_killed_supervisor_takes_its_guest_along() {
    let Some(tree) = shared_tree() else { return };
    let mark = directory();
    let mut spec = script(tree, "echo ready; while :; do echo > /mnt/alive; sleep 0.05; done");
    spec.binds.push(bind(mark.path(), "/mnt"));
    spec.unshare = ALONE;
    let mut running = start(&spec);
    assert_eq!(running.line(), "ready");
    kill(running.pid, Signal::SIGKILL).expect("kill");
    // Its end of the pipe closes only when the guest is gone.
    assert_eq!(running.finish().ended, Ended::Signaled(libc::SIGKILL));
    let alive = mark.path().join("alive");
    let _ = fs::remove_file(&alive);
    sleep(Duration::from_millis(200));
    assert!(!alive.exists());
}

#[test]
fn own_name_network_and_ipc() {
    let Some(tree) = shared_tree() else { return };
    let mut spec = script(
        tree,
        "hostname; ip -o link | wc -l; ip -o addr show dev lo | grep -c 127.0.0.1; readlink /proc/self/ns/ipc; ping -c1 -W1 127.0.0.1 >/dev/null 2>&1
         nc -l -p 9 -e echo over-loopback 2>/dev/null & :",
    );
    spec.unshare = ALONE;
    spec.hostname = Some("coracle".into());
    let out = run(&spec).success();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..3], ["coracle", "1", "1"], "{out}");
    assert_ne!(Path::new(lines[3]), fs::read_link("/proc/self/ns/ipc").expect("readlink"));
    // A name alone asks for its namespace.
    let mut spec = script(tree, "hostname");
    spec.hostname = Some("only-a-name".into());
    assert_eq!(run(&spec).success(), "only-a-name\n");
}

#[test]
fn the_engine_runs_inside_the_engine() {
    let Some(tree) = shared_tree() else { return };
    for unshare in [Unshare::default(), Unshare { pid: true, ..Unshare::default() }] {
        for devices in [Devices::Host, Devices::Minimal { extra: Vec::new() }] {
            let mut spec = action(tree, "nested");
            spec.binds.push(bind(tree, "/inner/tree"));
            spec.unshare = unshare;
            spec.devices = devices;
            let out = run(&spec).success();
            assert!(out.contains("inside the inside: 3.20.3"), "{out}");
        }
    }
}

#[test]
fn two_guests_at_once_do_not_meet() {
    let Some(tree) = shared_tree() else { return };
    let text = "echo mine > /own; sleep 0.1; cat /own; ls /";
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let mut spec = script(tree, text);
            let changes = copy_on_write(&mut spec);
            (start(&spec), changes)
        })
        .collect();
    for (running, _changes) in runs {
        assert!(running.finish().success().starts_with("mine\n"));
    }
}

/// The guest's part of the tests above.
#[test]
fn guest_side() {
    match guest_action().as_deref() {
        Some("nested") => {
            let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            let volume = Path::new("/inner");
            let mut spec = script(
                &volume.join("tree"),
                "echo inside the inside: $(cat /made/for/it/etc/alpine-release); touch /x 2>/dev/null && echo WRITABLE; id -u",
            );
            spec.identity = Identity {
                uid: ids.0,
                gid: ids.1,
                groups: Vec::new(),
                host_uid: ids.0,
                host_gid: ids.1,
                subordinate: None,
            };
            spec.binds.push(bind(&volume.join("tree"), "/made/for/it"));
            let outcome = start_as(ids, || Namespaces.run(&spec)).finish();
            assert!(!outcome.out.contains("WRITABLE"), "{outcome:?}");
            print(&outcome.success());
        }
        Some(other) => panic!("{other}?"),
        None => {} // not a guest
    }
}

#[test]
fn without_a_pid_namespace_the_guest_is_the_launcher_and_gets_its_signals() {
    let Some(tree) = shared_tree() else { return };
    let mut running = start(&script(tree, "echo ready; exec sleep 1000"));
    assert_eq!(running.line(), "ready");
    kill(running.pid, Signal::SIGTERM).expect("kill");
    assert_eq!(running.finish().ended, Ended::Signaled(libc::SIGTERM));
}
