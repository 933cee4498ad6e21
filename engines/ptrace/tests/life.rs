//! Births, stops and deaths: what outlives the first program and what does not, and what whoever waits is told.

mod common;

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use common::*;
use coracle_api::{Ended, Engine, Host, Request};
use coracle_ptrace::Ptrace;

/// Sends a signal to a process that is not waited for yet, or was never ours.
fn kill(process: i32, signal: i32) {
    // SAFETY: kill takes two integers.
    unsafe { libc::kill(process, signal) };
}

/// Waits up to ten seconds.
fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(5));
    }
}

/// Processes whose environment holds `marker`.
fn marked(marker: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    ids.filter(|id: &i32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.windows(marker.len()).any(|part| part == marker.as_bytes())
    })
    .collect()
}

#[test]
fn a_daemon_outlives_the_first_program() {
    let Some(tree) = alpine() else { return };
    for variant in ["P1", "P2"] {
        let dir = volume();
        let script = "(until [ -e /v/told ]; do sleep 0.05; done; cat /etc/alpine-release >/v/late; ls /v/late >>/v/late; sh -c 'echo new; exit 3' >>/v/late; \
                      echo $? >>/v/late; mv /v/late /v/whole) </dev/null >/dev/null 2>&1 & echo early; exit 7";
        let mut spec = spec(tree, &["sh", "-c", script]);
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(dir.path(), "/v", false));
        // It waits for what comes only when the first program's end has been told.
        assert_eq!(run(&spec), Output { text: "early\n".to_owned(), ended: Ended::Exited(7) });
        fs::write(dir.path().join("told"), "").expect("write");
        soon("the daemon's file", || dir.path().join("whole").exists());
        assert_eq!(fs::read_to_string(dir.path().join("whole")).expect("it"), "3.20.3\n/v/late\nnew\n3\n");
    }
}

#[test]
fn nothing_survives_the_one_who_waits_or_the_tracer() {
    let Some(tree) = alpine() else { return };
    for round in 0..40_u64 {
        let marker = format!("SURVIVOR={}-{round}", std::process::id());
        let script = "echo $PPID; while :; do /bin/true & (cat /etc/hosts; ls /etc | wc -l) >/dev/null; done";
        let mut spec = spec(tree, &["sh", "-c", script]);
        let (key, value) = marker.split_once('=').expect("it has one");
        spec.env.push((key.into(), value.into()));
        let (front, output) = start(&spec);
        let mut output = BufReader::new(output);
        let mut tracer = String::new();
        output.read_line(&mut tracer).expect("the tracer's id");
        sleep(Duration::from_millis(round * 7 % 40));
        assert!(!marked(&marker).is_empty(), "it runs");
        if round % 2 == 0 {
            kill(front, libc::SIGKILL);
        } else {
            kill(tracer.trim().parse().expect("a number"), libc::SIGKILL);
        }
        assert_eq!(wait(front), Ok(Ended::Signaled(libc::SIGKILL)));
        soon("all are gone", || marked(&marker).is_empty());
        output.read_to_end(&mut Vec::new()).expect("nobody holds the pipe");
    }
}

#[test]
fn every_signal_that_ends_it_is_told() {
    let Some(tree) = alpine() else { return };
    // Busybox's shell ignores SIGQUIT, and the C library keeps three to itself.
    let harmless = [libc::SIGQUIT, libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT];
    let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    for signal in (1..=31).chain(35..=64).filter(|signal| !harmless.contains(signal) && !stops.contains(signal)) {
        let script = format!("ulimit -c 0; kill -{signal} $$; sleep 1");
        let ended = run(&spec(tree, &["sh", "-c", &script])).ended;
        assert_eq!(ended, Ended::Signaled(signal));
    }
}

#[test]
fn signals_reach_the_guest_and_stops_are_seen() {
    let Some(tree) = alpine() else { return };
    for variant in ["P1", "P2"] {
        let script = "trap 'echo usr1' USR1; trap 'echo alarm' ALRM; trap 'echo rt; exit 5' 40; echo ready; kill -STOP $$; echo on; \
                      while :; do sleep 0.1; done";
        let mut spec = spec(tree, &["sh", "-c", script]);
        spec.variant = Some(variant.to_owned());
        let (front, output) = start(&spec);
        assert_eq!(wait(front), Err(libc::SIGSTOP), "the guest's stop is ours");
        kill(front, libc::SIGCONT);
        let mut lines = BufReader::new(output).lines().map(|line| line.expect("a line"));
        assert_eq!(lines.next().as_deref(), Some("ready"));
        assert_eq!(lines.next().as_deref(), Some("on"));
        for (signal, word) in [(libc::SIGUSR1, "usr1"), (libc::SIGALRM, "alarm"), (40, "rt")] {
            kill(front, signal);
            assert_eq!(lines.next().as_deref(), Some(word));
        }
        assert_eq!(wait(front), Ok(Ended::Exited(5)));
    }
}

#[test]
fn stopping_the_process_that_is_seen_stops_the_guest() {
    let Some(tree) = alpine() else { return };
    for variant in ["P1", "P2"] {
        // It makes no call between two lines but those that write them, and hardly any time passes.
        let script =
            "trap 'exit 3' USR1; echo ready; while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; done";
        let mut spec = spec(tree, &["sh", "-c", script]);
        spec.variant = Some(variant.to_owned());
        let (front, output) = start(&spec);
        let (lines, told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| lines.send(line).unwrap_or(()));
        });
        assert_eq!(told.recv().as_deref(), Ok("ready"));
        for _ in 0..3 {
            kill(front, libc::SIGSTOP);
            assert_eq!(wait(front), Err(libc::SIGSTOP));
            soon("the guest stops", || told.recv_timeout(Duration::from_millis(700)).is_err());
            kill(front, libc::SIGCONT);
            told.recv_timeout(Duration::from_secs(10)).expect("the guest goes on");
        }
        kill(front, libc::SIGUSR1);
        assert_eq!(wait(front), Ok(Ended::Exited(3)));
        reader.join().expect("all was read");
    }
}

#[test]
fn a_job_that_is_suspended_as_a_whole_goes_on_as_a_whole() {
    // As batch systems do it: every process of the job is stopped, and later continued, in whatever order.
    let Some(tree) = alpine() else { return };
    let script = "trap 'exit 3' USR1; echo $$ $PPID; while :; do cat /etc/alpine-release; done";
    let (front, output) = start(&spec(tree, &["sh", "-c", script]));
    let mut lines = BufReader::new(output).lines().map(|line| line.expect("a line"));
    let first = lines.next().expect("the first line");
    let mut processes: Vec<i32> = first.split(' ').map(|id| id.parse().expect("a number")).collect();
    processes.push(front);
    let (told, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || lines.for_each(|line| told.send(line).unwrap_or(())));
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (round, order) in orders.iter().flat_map(|order| [order; 3]).enumerate() {
        processes.iter().for_each(|process| kill(*process, libc::SIGSTOP));
        sleep(Duration::from_millis([0, 20, 300][round % 3]));
        while heard.try_recv().is_ok() {}
        for at in order {
            kill(processes[*at], libc::SIGCONT);
            sleep(Duration::from_millis([0, 1, 30][round / 3 % 3]));
        }
        for _ in 0..20 {
            heard.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("{order:?} goes on"));
        }
    }
    kill(front, libc::SIGUSR1);
    soon("its end", || {
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        let waited = unsafe { libc::waitpid(front, &raw mut status, libc::WNOHANG) };
        assert!(waited == 0 || libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 3, "{status:x}");
        waited == front
    });
    reader.join().expect("all was read");
}

#[test]
fn few_descriptors_for_the_guest_are_not_few_for_the_tracer() {
    let Some(tree) = alpine() else { return };
    let spec = spec(tree, &["sh", "-c", "ulimit -n; ulimit -Hn; grep 'Max open files' /proc/$PPID/limits"]);
    let (front, mut output) = start_after(&spec, || {
        // SAFETY: reads one struct rlimit.
        let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 50, rlim_max: 1000 }) };
        assert_eq!(done, 0);
    });
    let mut text = String::new();
    output.read_to_string(&mut text).expect("its output");
    assert_eq!(wait(front), Ok(Ended::Exited(0)));
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, ["50", "1000", "Max", "open", "files", "1000", "1000", "files"]);
}

#[test]
fn the_tracer_keeps_nothing_of_those_who_have_gone() {
    // The tracer is the first program's parent. It holds programs open while they are being loaded, so the shell counts
    // itself.
    let script = "f() { set -- /proc/$PPID/fd/*; echo $#; sed -n 's/VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$PPID/status; }; \
                  w() { i=0; while [ $i -lt $1 ]; do /bin/true & cat /etc/hosts /none >/dev/null 2>&1; i=$((i+1)); done; wait; }; \
                  w 50; f; w 300; f";
    let Some(output) = sh_either(script) else { return };
    let numbers: Vec<u64> = output.text.lines().map(|line| line.trim().parse().expect(&output.text)).collect();
    let [files, memory, files_later, memory_later] = numbers[..] else { panic!("{}", output.text) };
    assert_eq!(files, files_later, "descriptors");
    assert!(memory_later < memory + 512, "{memory} KiB, then {memory_later} KiB");
}

/// Runs a script under P1 alone.
fn sh_either(script: &str) -> Option<Output> {
    let tree = alpine()?;
    let output = run(&spec(tree, &["sh", "-c", script]));
    assert_eq!(output.ended, Ended::Exited(0), "{}", output.text);
    Some(output)
}

#[test]
fn more_calls_that_block_than_there_are_slots() {
    let Some(tree) = alpine() else { return };
    for variant in ["P1", "P2"] {
        let dir = volume();
        let script = "#!/bin/sh\nmkfifo /v/f; i=0; while [ $i -lt 600 ]; do (read x </v/f) & i=$((i+1)); done; sleep 1; \
                      cat /etc/hosts >/dev/null && sh -c 'echo others go on'; exec 3>/v/f; exec 3>&-; wait; echo all\n";
        // A process has the name of its program, which may be any bytes: of them is read who sleeps.
        let name = OsStr::from_bytes(b"any) R\xff");
        fs::write(dir.path().join(name), script).expect("write");
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).expect("chmod");
        let mut spec = spec(tree, &[]);
        spec.argv = vec![Path::new("/v").join(name).into_os_string()];
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(dir.path(), "/v", false));
        assert_eq!(run(&spec), Output { text: "others go on\nall\n".to_owned(), ended: Ended::Exited(0) });
    }
}

/// Keeps seccomp filters from this process and its children, as a sandbox does that knows nothing of us.
fn refuse_filters() {
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    // prctl(PR_SET_SECCOMP) and seccomp(2): EPERM.
    let code = [
        step(0x20, 0, 0, 0),
        step(0x15, 4, 0, 317),
        step(0x15, 0, 2, 157),
        step(0x20, 0, 0, 16),
        step(0x15, 1, 0, 22),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | 1),
    ];
    let program = libc::sock_fprog { len: 7, filter: code.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call that reads it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(done, "the sandbox");
}

#[test]
fn where_filters_are_refused_every_call_stops() {
    let Some(tree) = alpine() else { return };
    let mut spec = spec(tree, &["sh", "-c", "grep Seccomp: /proc/self/status; cat /etc/alpine-release"]);
    spec.variant = Some("P1".to_owned());
    let (front, mut output) = start_after(&spec, || {
        refuse_filters();
        let notes = Ptrace.notes(&Host::read(None), &Request::default());
        let told = notes.first().is_some_and(|note| note.contains("Operation not permitted") && note.contains("P2"));
        assert!(told, "{notes:?}");
    });
    let mut text = String::new();
    output.read_to_string(&mut text).expect("its output");
    assert_eq!((text.as_str(), wait(front)), ("Seccomp:\t2\n3.20.3\n", Ok(Ended::Exited(0))));
}

#[test]
fn thousands_of_processes() {
    if harness::skip::unless_slow() {
        return;
    }
    let script = "f() { ls /proc/$PPID/fd 2>/dev/null | wc -l; sed -n 's/VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$PPID/status; }; \
                  w() { i=0; while [ $i -lt $1 ]; do /bin/true; i=$((i+1)); done; }; \
                  b() { i=0; while [ $i -lt $1 ]; do sleep $2 & i=$((i+1)); done; wait; }; \
                  w 50; b 2000 10; f; w 10000; b 2000 10; f";
    let Some(output) = sh_either(script) else { return };
    let numbers: Vec<u64> = output.text.lines().map(|line| line.trim().parse().expect(&output.text)).collect();
    let [files, memory, files_later, memory_later] = numbers[..] else { panic!("{}", output.text) };
    assert_eq!(files, files_later, "descriptors");
    assert!(memory_later < memory + 2048, "{memory} KiB, then {memory_later} KiB");
}
