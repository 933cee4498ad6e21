//! What a batch system grants a job is what its application gets, and what unpacking takes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{Sandbox, bundles, skip};

use super::extremes::{ALL, clean, limit, prepared};

/// Threads that unpacked, by the record of a run with nothing in the cache.
fn threads(sandbox: &Sandbox, bundle: &Path, prepare: impl Fn() + Send + Sync + 'static) -> u64 {
    clean(sandbox, bundle);
    let _ = fs::remove_file(sandbox.work("report.json"));
    prepared(sandbox, bundle, ["--coracle-report=report.json", "true"], prepare).ok();
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(sandbox.work("report.json")).unwrap()).unwrap();
    record["unpack"]["threads"].as_u64().unwrap()
}

fn on_one_processor() {
    // SAFETY: both calls use one initialised set of this function's own.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        let first = (0..1024).find(|cpu| libc::CPU_ISSET(*cpu, &set)).unwrap_or(0);
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(first, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

#[test]
fn unpacking_uses_the_processors_that_the_job_may_use() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let all = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    assert_eq!(threads(&sandbox, &bundle, || {}), all);
    assert_eq!(threads(&sandbox, &bundle, on_one_processor), 1);
    if skip::unless_root() {
        return;
    }
    // A quota of one processor, by whichever version of cgroups there is.
    let group = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"]
        .map(|base| PathBuf::from(base).join(format!("coracle-test-{}", std::process::id())))
        .into_iter()
        .find(|group| {
            let quota = |file: &str, value: &str| fs::write(group.join(file), value).is_ok();
            fs::create_dir(group).is_ok()
                && (quota("cpu.max", "100000 100000")
                    || quota("cpu.cfs_quota_us", "100000")
                    || fs::remove_dir(group).is_err())
        });
    let Some(group) = group else { return skip::because("no cgroup with a quota can be made here") };
    let Ok(procs) = fs::File::options().write(true).open(group.join("cgroup.procs")) else {
        let _ = fs::remove_dir(&group);
        return skip::because("nothing can be put into a cgroup here");
    };
    let fd = std::os::fd::AsRawFd::as_raw_fd(&procs);
    let used = threads(&sandbox, &bundle, move || {
        // SAFETY: writes one byte of a constant; 0 means the writer.
        unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) };
    });
    fs::remove_dir(&group).unwrap();
    assert_eq!(used, 1);
}

#[test]
fn limits_niceness_and_processors_are_the_jobs() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let prepare = || {
        limit(libc::RLIMIT_NOFILE, 777);
        limit(libc::RLIMIT_CORE, 0);
        limit(libc::RLIMIT_STACK, 3 << 20);
        limit(libc::RLIMIT_AS, 3 << 30);
        on_one_processor();
        // SAFETY: nice takes an integer.
        unsafe { libc::nice(7) };
    };
    let script = "cat /proc/self/limits; grep Cpus_allowed_list /proc/self/status; cut -d' ' -f19 /proc/self/stat; cat /proc/self/cgroup";
    let native = prepared(&sandbox, Path::new("/bin/sh"), ["-c", script], prepare);
    for engine in ALL {
        for option in ["--coracle-quiet", "--coracle-report=report.json"] {
            let inside = prepared(&sandbox, &bundle, [engine, option, "sh", "-c", script], prepare);
            assert_eq!(inside.ok(), native.ok(), "{engine} {option}");
        }
    }
}
