//! Bundles as jobs of HTCondor's vanilla universe: shipped by its file transfer, removed, held, evicted and restarted.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use harness::{Condor, Sandbox, bundles, eventually, skip};
use serde_json::Value;

use super::killing::{alive, locked};

/// What every description begins with: the bundle is the executable, and goes to the node as any job's does.
const JOB: &str = "executable = app.run\ntransfer_executable = true\nshould_transfer_files = YES\nlog = log\n\
                   request_memory = 50M\nrequest_disk = 50M\nrequest_cpus = 1\nenvironment = \"CORACLE_CACHE=/srv/local CORACLE_VOLUME=/srv/local\"\n";

/// Engines, with and without somebody beside the application.
const KINDS: [&str; 5] = [
    "--coracle-engine=namespaces",
    "--coracle-engine=ptrace",
    "--coracle-engine=preload",
    "--coracle-engine=namespaces --coracle-writable",
    "--coracle-engine=ptrace --coracle-cache=none",
];

struct Site {
    condor: Condor,
    sandbox: Sandbox,
}

impl Site {
    fn new() -> Option<Self> {
        if skip::unless_slow() {
            return None;
        }
        let (bundle, mut sandbox) = (bundles::alpine()?, Sandbox::new());
        // The pool's places are the jobs' own; what tests set for their commands is none of theirs.
        for name in ["CORACLE_CACHE", "TMPDIR", "CORACLE_DIR"] {
            sandbox.unset(name);
        }
        symlink(bundle, sandbox.work("app.run")).unwrap();
        Some(Self { condor: Condor::start()?, sandbox })
    }

    /// Where bundles are unpacked.
    fn cache(&self) -> PathBuf {
        self.condor.disk().join(format!("coracle-{}", harness::user::ordinary().uid))
    }

    fn work(&self, name: &str) -> PathBuf {
        self.sandbox.work(name)
    }

    fn is_quiet(&self, word: &str) {
        eventually(&format!("{word} ends: {:?}", alive(word)), 30, || {
            alive(word).is_empty() && locked(&self.cache()).is_empty()
        });
        let entries = || {
            let places = [self.cache(), self.condor.spool()];
            let entries = places.into_iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let is_left = |name: &String| name.starts_with('.') || name.starts_with("dir_");
        eventually(&format!("all is gone: {:?}", entries()), 30, || !entries().iter().any(is_left));
    }

    /// Waits until a cluster's jobs have this status: 1 idle, 2 running, 5 held.
    fn are(&self, cluster: &str, status: &str, seconds: u64) {
        eventually(&format!("jobs of {cluster} get the status {status}"), seconds, || {
            let jobs = self.condor.queue(&self.sandbox, cluster, &["JobStatus"]);
            !jobs.is_empty() && jobs.iter().all(|job| job == status)
        });
    }
}

fn word(number: u32) -> String {
    format!("{}.8{number}", 200_000 + std::process::id())
}

#[test]
fn twenty_jobs_with_arguments_input_and_exit_statuses() {
    let Some(site) = Site::new() else { return };
    let (sandbox, condor) = (&site.sandbox, &site.condor);
    sandbox.write("in.txt", "shipped\n");
    sandbox.write(
        "task.sh",
        "printf '%s\\n' \"$@\"; cat in.txt; echo made > made.txt; id -u; echo err >&2; exit $(($1 % 7))\n",
    );
    let cluster = condor.submit(
        sandbox,
        &format!(
            "{JOB}arguments = \"--coracle-report=record.json sh task.sh $(Process) 'two words' 'it''s' ''\"\n\
             transfer_input_files = in.txt,task.sh\nwhen_to_transfer_output = ON_EXIT\noutput = out.$(Process)\n\
             error = err.$(Process)\ntransfer_output_remaps = \"record.json=record.$(Process).json;made.txt=made.$(Process)\"\n\
             queue 20\n"
        ),
    );
    condor.run(sandbox, "condor_wait", ["-wait", "150", "log"]).ok();
    let mut ends = Vec::new();
    eventually("all jobs are history", 30, || {
        ends = condor.history(sandbox, &cluster, &["ProcId", "ExitCode", "ExitBySignal"]);
        ends.len() == 20
    });
    ends.sort_unstable();
    let mut expected: Vec<String> = (0..20).map(|job| format!("{job} {} false", job % 7)).collect();
    expected.sort_unstable();
    assert_eq!(ends, expected);
    let mut unpacked = 0;
    for job in 0..20 {
        let read = |name: &str| fs::read_to_string(site.work(&format!("{name}.{job}"))).unwrap_or_default();
        let uid = harness::user::ordinary().uid;
        assert_eq!(read("out"), format!("{job}\ntwo words\nit's\n\nshipped\n{uid}\n"));
        let err = read("err");
        assert!(err.lines().all(|line| line == "err" || line.starts_with("coracle: waiting for ")), "{err}");
        assert_eq!(read("made"), "made\n");
        let record: Value =
            serde_json::from_str(&fs::read_to_string(site.work(&format!("record.{job}.json"))).unwrap()).unwrap();
        assert_eq!(record["job"]["system"], "htcondor", "{record:#}");
        assert_eq!((&record["job"]["id"], &record["job"]["task"]), (&cluster.as_str().into(), &job.to_string().into()));
        assert_eq!(record["exit"], job % 7);
        unpacked += usize::from(!record["unpack"].is_null());
    }
    assert_eq!(unpacked, 1, "all jobs of a node share one tree, though each brought its own copy of the bundle");
    site.is_quiet("task.sh");
}

#[test]
fn removed_held_and_released_jobs_hear_of_it_and_leave_nothing() {
    let Some(site) = Site::new() else { return };
    let (sandbox, condor, word) = (&site.sandbox, &site.condor, word(1));
    let (told, began) = (condor.disk().join("told"), condor.disk().join("began"));
    fs::write(&told, "").unwrap();
    fs::write(&began, "").unwrap();
    sandbox.own(&told);
    sandbox.own(&began);
    let count = |file: &PathBuf| fs::read_to_string(file).unwrap().lines().count();
    sandbox.write(
        "task.sh",
        format!(
            "trap 'echo told >> {0}/told; exit 5' TERM; setsid sleep {word} & sleep {word} & (sleep {word} &)\n\
             echo began >> {0}/began; while :; do sleep 0.1; done\n",
            condor.local(),
        ),
    );
    for options in KINDS {
        let (had, heard) = (count(&began), count(&told));
        let cluster = condor.submit(
            sandbox,
            &format!("{JOB}arguments = \"{options} sh task.sh\"\ntransfer_input_files = task.sh\noutput = out\nerror = err\nqueue 2\n"),
        );
        eventually(&format!("{options}: both run"), 60, || count(&began) == had + 2);
        condor.run(sandbox, "condor_hold", [&cluster]).ok();
        site.are(&cluster, "5", 30);
        eventually(&format!("{options}: both were told"), 30, || count(&told) == heard + 2);
        site.is_quiet(&word);
        condor.run(sandbox, "condor_release", [&cluster]).ok();
        eventually(&format!("{options}: both run again"), 60, || count(&began) == had + 4);
        condor.run(sandbox, "condor_rm", [&cluster]).ok();
        eventually(&format!("{options}: both are gone"), 30, || {
            condor.queue(sandbox, &cluster, &["ProcId"]).is_empty()
        });
        eventually(&format!("{options}: both were told"), 30, || count(&told) == heard + 4);
        site.is_quiet(&word);
    }
}

#[test]
fn an_evicted_job_takes_its_files_along_and_starts_again() {
    let Some(site) = Site::new() else { return };
    let (sandbox, condor, word) = (&site.sandbox, &site.condor, word(2));
    sandbox.write(
        "task.sh",
        format!(
            "[ -e step ] && {{ cat step; echo step of $(cat step) starts; exit 3; }}\n\
             trap 'echo one > step; exit 0' TERM; echo > {}/began; sleep {word} & while :; do sleep 0.1; done\n",
            condor.local()
        ),
    );
    for options in KINDS {
        let _ = fs::remove_file(condor.disk().join("began"));
        let cluster = condor.submit(
            sandbox,
            &format!(
                "{JOB}arguments = \"{options} sh task.sh\"\ntransfer_input_files = task.sh\noutput = out\nerror = err\n\
                 when_to_transfer_output = ON_EXIT_OR_EVICT\nqueue\n"
            ),
        );
        eventually(&format!("{options}: it runs"), 60, || condor.disk().join("began").exists());
        condor.run(sandbox, "condor_vacate_job", [&cluster]).ok();
        let mut end = Vec::new();
        eventually(&format!("{options}: it has started again and ended"), 90, || {
            end = condor.history(sandbox, &cluster, &["ExitCode", "NumJobStarts"]);
            !end.is_empty()
        });
        assert_eq!(end, ["3 2"], "{options}");
        assert_eq!(fs::read_to_string(site.work("out")).unwrap(), "one\nstep of one starts\n", "{options}");
        site.is_quiet(&word);
    }
}
