//! Runs that meet are in the same namespaces, and read each other's memory; nobody believes what a meeting's file says.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{
    Running, action, as_root, copy_on_write, directory, guest_action, make, print, run, script, shared_tree, start,
};
use coracle_api::{LaunchSpec, Unshare};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

/// What a rank tells: its namespaces.
const NAMESPACES: &str = "echo $(readlink /proc/self/ns/user) $(readlink /proc/self/ns/mnt);";

/// A directory for meetings, and one in it.
fn meeting() -> (TempDir, PathBuf) {
    let dir = directory();
    let file = dir.path().join("0123");
    (dir, file)
}

/// A run that goes there.
fn at(file: &Path, spec: LaunchSpec) -> LaunchSpec {
    LaunchSpec { meeting: Some(file.to_owned()), ..spec }
}

/// One that says where it is and stays until it is killed.
fn stay(tree: &Path, file: &Path) -> (Running, String) {
    let mut rank = start(&at(file, script(tree, &format!("{NAMESPACES} exec sleep 60"))));
    let told = rank.line();
    assert!(told.starts_with("user:["), "{told}");
    (rank, told)
}

fn end(rank: Running) {
    kill(rank.pid, Signal::SIGKILL).expect("it runs");
    rank.finish();
}

/// Runs inside the guest: shows a number in its memory, or reads one from another process.
#[test]
fn guest_side() {
    const NUMBER: u64 = 0x0123_4567_89ab_cdef;
    let Some(action) = guest_action() else { return };
    let number = Box::new(NUMBER);
    if action == "show" {
        print(&format!("\nnumber {} {}\n", std::process::id(), &raw const *number as usize));
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let (process, address) = action.split_once(' ').expect("two numbers");
    let mut read = 0_u64;
    let local = libc::iovec { iov_base: (&raw mut read).cast(), iov_len: size_of::<u64>() };
    let remote = libc::iovec {
        iov_base: address.parse::<usize>().expect("a number") as *mut libc::c_void,
        iov_len: size_of::<u64>(),
    };
    // SAFETY: the local vector describes `read`, which outlives the call; the remote one is the other process's affair.
    let done = unsafe {
        libc::process_vm_readv(process.parse().expect("a number"), &raw const local, 1, &raw const remote, 1, 0)
    };
    let error = std::io::Error::last_os_error();
    print(&if done == 8 && read == NUMBER { "read\n".to_owned() } else { format!("{error}\n") });
}

/// What a run with this meeting, or none, gets of the memory of another one's guest.
fn read_of_other(tree: &Path, first: Option<&Path>, second: Option<&Path>) -> String {
    let with = |spec: LaunchSpec, file: Option<&Path>| LaunchSpec { meeting: file.map(Path::to_owned), ..spec };
    let mut shows = start(&with(action(tree, "show"), first));
    // The harness of a test speaks first.
    let place = (0..9).find_map(|_| shows.line().strip_prefix("number ").map(str::to_owned)).expect("it shows one");
    let out = run(&with(action(tree, &place), second)).success();
    end(shows);
    out
}

#[test]
fn siblings_are_kept_from_each_others_memory_unless_they_meet() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let apart = read_of_other(tree, None, None);
    assert!(apart.contains("Operation not permitted"), "{apart}");
    let other = file.with_file_name("4567");
    let apart = read_of_other(tree, Some(&file), Some(&other));
    assert!(apart.contains("Operation not permitted"), "{apart}");
    let met = read_of_other(tree, Some(&file), Some(&file));
    assert!(met.contains("read\n"), "{met}");
}

#[test]
fn many_at_once_are_in_one_place_and_keep_their_own_directory_and_credentials() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let rights = "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status | tr -d '\n'; pwd";
    let alone = run(&script(tree, rights)).success().trim_end().to_owned();
    let text = format!("{NAMESPACES} {rights}; exec sleep 60");
    let mut ranks: Vec<Running> = (0..24)
        .map(|number| {
            let mut spec = at(&file, script(tree, &text));
            spec.cwd = if number % 2 == 0 { "/".into() } else { "/etc".into() };
            start(&spec)
        })
        .collect();
    let told: BTreeSet<String> = ranks.iter_mut().map(Running::line).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let rights: BTreeSet<String> = ranks.iter_mut().map(Running::line).collect();
    let etc = alone.replace("NoNewPrivs:\t1/", "NoNewPrivs:\t1/etc");
    assert_eq!(rights, BTreeSet::from([alone, etc]));
    assert_eq!(fs::read_to_string(&file).expect("readable").lines().count(), 24);
    ranks.into_iter().for_each(end);
}

#[test]
fn who_comes_when_all_have_ended_begins_anew_and_the_first_may_go_first() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let (first, place) = stay(tree, &file);
    let (second, joined) = stay(tree, &file);
    assert_eq!(place, joined);
    end(first);
    let (third, joined) = stay(tree, &file);
    assert_eq!(place, joined, "the second stands for the first");
    end(second);
    end(third);
    let (fourth, new) = stay(tree, &file);
    assert_ne!(place, new);
    assert_eq!(fs::read_to_string(&file).expect("readable").lines().count(), 1, "who has ended is not listed");
    end(fourth);
}

#[test]
fn what_a_file_says_is_not_believed() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let (rank, place) = stay(tree, &file);
    let line = fs::read_to_string(&file).expect("readable");
    let [process, start, user, mount] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
    let own = |name: &str| {
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(format!("/proc/self/ns/{name}")).expect("ours");
        format!("{}:{}", meta.dev(), meta.ino())
    };
    let stat = fs::read_to_string("/proc/self/stat").expect("ours");
    let began = stat.rsplit_once(')').expect("a name").1.split_whitespace().nth(22 - 3).expect("a start");
    let (own_user, own_mount, test) = (own("user"), own("mnt"), std::process::id());
    for wrong in [
        "\0\0\0\0\n".to_owned(),
        "x".repeat(40_000),
        format!("{process} {start}\n"),
        format!("{process} {start} {user}\n"),
        format!("{process} {}1 {user} {mount}\n", start),
        format!("{process} {start} {user} {own_mount}\n"),
        format!("{process} {start} {own_user} {own_mount}\n"),
        // The host's namespaces are not what the user has made.
        format!("{test} {began} {own_user} {own_mount}\n"),
        format!("1 0 {user} {mount}\n-1 0 {user} {mount}\n0 0 {user} {mount}\n"),
    ] {
        make(file.clone(), Some(&wrong));
        let out = run(&at(&file, script(tree, NAMESPACES))).success();
        assert!(out.starts_with("user:[") && out.trim_end() != place.trim_end(), "{wrong}: {out}");
    }
    // A whole line after rubbish counts.
    make(file.clone(), Some(&format!("rubbish\n12\n{line}")));
    assert_eq!(run(&at(&file, script(tree, NAMESPACES))).success().trim_end(), place.trim_end());
    // Also after bytes that are no text.
    fs::write(&file, [b"\xff\xfe\n", line.as_bytes()].concat()).expect("ours");
    assert_eq!(run(&at(&file, script(tree, NAMESPACES))).success().trim_end(), place.trim_end());
    // A link is not followed, a file that others may write to is not read, a directory is no file.
    let elsewhere = make(file.with_file_name("elsewhere"), Some(&line));
    fs::remove_file(&file).expect("ours");
    std::os::unix::fs::symlink(&elsewhere, &file).expect("ours");
    let out = run(&at(&file, script(tree, NAMESPACES))).success();
    assert_ne!(out.trim_end(), place.trim_end());
    assert_eq!(fs::read_to_string(&elsewhere).expect("readable"), line);
    let out = run(&at(&file.join("none/x"), script(tree, NAMESPACES))).success();
    assert_ne!(out.trim_end(), place.trim_end());
    end(rank);
}

#[test]
fn who_is_killed_at_any_moment_leaves_no_meeting_that_hinders() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let mut seed = 0x2545_f491_u32;
    for round in 0..60 {
        let ranks: Vec<Running> = (0..3).map(|_| start(&at(&file, script(tree, "exec sleep 60")))).collect();
        for rank in &ranks {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            std::thread::sleep(Duration::from_micros(u64::from(seed >> 20)));
            kill(rank.pid, Signal::SIGKILL).expect("it runs");
        }
        for rank in ranks {
            rank.finish();
        }
        if round % 10 == 9 {
            let began = std::time::Instant::now();
            let (rank, _) = stay(tree, &file);
            assert!(began.elapsed() < Duration::from_secs(5), "the lock is held by nobody");
            end(rank);
        }
    }
}

#[test]
fn who_wants_processes_of_its_own_meets_nobody() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let (rank, place) = stay(tree, &file);
    for unshare in [Unshare { pid: true, ..Unshare::default() }, Unshare { ipc: true, ..Unshare::default() }] {
        let spec = LaunchSpec { unshare, ..at(&file, script(tree, NAMESPACES)) };
        assert_ne!(run(&spec).success().trim_end(), place.trim_end());
    }
    end(rank);
}

#[test]
fn roots_and_names_are_shared_too() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let text = format!("{NAMESPACES} hostname; id -u; chown 1:1 /tmp/x 2>&1; exec sleep 60");
    let mut spec = at(&file, as_root(script(tree, &text)));
    spec.hostname = Some("ranks".into());
    let told = [start(&spec), start(&spec)].map(|mut rank| {
        let told = [rank.line(), rank.line(), rank.line()];
        (rank, told)
    });
    let [(one, told), (two, again)] = told;
    assert_eq!(told, again);
    assert_eq!(told[1..], ["ranks".to_owned(), "0".to_owned()]);
    end(one);
    end(two);
}

#[test]
fn changes_are_shared_also_with_who_does_not_meet() {
    let Some(tree) = shared_tree() else { return };
    let (_dir, file) = meeting();
    let mut first = script(tree, "echo one > /one; echo; until [ -e /three ]; do sleep 0.01; done; cat /three");
    let changes = copy_on_write(&mut first);
    let access = first.access.clone();
    let mut first = start(&at(&file, first));
    first.line();
    let second = script(tree, "cat /one; echo two > /two; echo; until [ -e /three ]; do sleep 0.01; done; cat /three");
    let mut second = start(&at(&file, LaunchSpec { access: access.clone(), ..second }));
    assert_eq!(second.line(), "one");
    second.line();
    // The second has the overlay when it is on its list: a run of no job that comes last takes it from there.
    let list = fs::read_to_string(changes.path().join("overlay.runs")).expect("readable");
    for rank in [first.pid, second.pid] {
        assert!(list.lines().any(|line| line.split(' ').nth(1) == Some(&rank.to_string())), "{list}");
    }
    let third = LaunchSpec { access, ..script(tree, "cat /one /two; echo three > /three") };
    assert_eq!(run(&third).success(), "one\ntwo\n");
    assert_eq!(first.finish().success(), "three\n");
    assert_eq!(second.finish().success(), "three\n");
}

#[test]
fn meetings_that_are_over_are_swept_away() {
    let Some(tree) = shared_tree() else { return };
    let (dir, file) = meeting();
    let (live, _) = stay(tree, &file);
    let over = make(dir.path().join("over"), Some("1 2 3:4 5:6\n"));
    let fresh = make(dir.path().join("fresh"), Some("1 2 3:4 5:6\n"));
    let past = std::time::SystemTime::now() - Duration::from_secs(3600);
    for path in [&file, &over] {
        fs::File::options().write(true).open(path).expect("ours").set_modified(past).expect("ours");
    }
    let (next, _) = stay(tree, &dir.path().join("next"));
    assert!(file.exists() && fresh.exists() && !over.exists());
    end(live);
    end(next);
}
