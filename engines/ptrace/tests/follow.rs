//! The thread that alone is busy shares a processor with the tracer, and nobody else does; what a guest is told of that
//! is the matter of the probe `affinity`.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    thread::sleep,
    time::{Duration, Instant},
};

use common::*;
use harness::skip;

/// The processors that a thread may run on, as the kernel tells it to the host.
fn processors(thread: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("the kernel tells").trim().to_owned()
}

/// Waits up to ten seconds.
fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn whoever_is_alone_busy_shares_a_processor_and_nobody_else() {
    let Some(tree) = alpine() else { return };
    let all = processors(std::process::id().cast_signed());
    if all.parse::<u32>().is_ok() {
        skip::because("there is one processor");
        return;
    }
    for variant in ["P1", "P2"] {
        let dir = volume();
        let compute = "while :; do :; done";
        let script = format!(
            "echo $$; until [ -e /v/enough ]; do :; done; ({compute}) & echo $!; until [ -e /v/alone ]; do :; done; {compute}"
        );
        let mut spec = spec(tree, &["sh", "-c", &script]);
        spec.variant = Some(variant.to_owned());
        spec.binds.push(bind(dir.path(), "/v", false));
        let (front, output) = start(&spec);
        let mut lines = BufReader::new(output).lines();
        let mut next = || lines.next().and_then(|line| line.ok()?.parse::<i32>().ok()).expect("a process");
        let busy = next();
        soon("it is followed", || processors(busy) != all);
        assert!(processors(busy).parse::<u32>().is_ok() || processors(busy) == all, "to one processor");
        fs::write(dir.path().join("enough"), "").expect("write");
        // Made by one that was followed a moment ago, it never was.
        let child = next();
        for _ in 0..100 {
            assert_eq!(processors(child), all, "{variant}: it only computes");
            sleep(Duration::from_millis(1));
        }
        soon("one beside another that computes is followed", || processors(busy) != all);
        fs::write(dir.path().join("alone"), "").expect("write");
        soon("it is let go", || processors(busy) == all);
        for _ in 0..100 {
            assert_eq!((processors(busy), processors(child)), (all.clone(), all.clone()), "{variant}: both compute");
            sleep(Duration::from_millis(1));
        }
        // SAFETY: kill takes two integers.
        unsafe { libc::kill(front, libc::SIGKILL) };
        let _ = wait(front);
    }
}

#[test]
fn what_others_set_meanwhile_stays() {
    let Some(tree) = alpine() else { return };
    let all = processors(std::process::id().cast_signed());
    if !all.starts_with("0-") || skip::lacks(&["taskset"]) {
        return;
    }
    let dir = volume();
    let mut spec = spec(tree, &["sh", "-c", "echo $$; until [ -e /v/enough ]; do :; done; while :; do :; done"]);
    spec.binds.push(bind(dir.path(), "/v", false));
    let (front, output) = start(&spec);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    let busy: i32 = line.trim().parse().expect("a process");
    soon("it is followed", || processors(busy) != all);
    // To another processor than it is on: the same would be as if nothing had been set. It may have moved just then.
    let mut last = String::new();
    soon("the host's word counts", || {
        let now = processors(busy);
        last = if now == "0" { "1" } else { "0" }.to_owned();
        let done = std::process::Command::new("taskset").args(["-pc", &last, &busy.to_string()]).output();
        assert!(done.expect("taskset").status.success());
        now != all
            && (0..300).all(|_| {
                sleep(Duration::from_millis(1));
                processors(busy) == last
            })
    });
    fs::write(dir.path().join("enough"), "").expect("write");
    for _ in 0..100 {
        assert_eq!(processors(busy), last);
        sleep(Duration::from_millis(1));
    }
    // SAFETY: kill takes two integers.
    unsafe { libc::kill(front, libc::SIGKILL) };
    let _ = wait(front);
}
