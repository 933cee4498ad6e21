//! Bundles as jobs of Slurm, on a controller and two nodes: arrays, steps, signals, limits, requeues, accounts.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::Duration,
};

use harness::{Sandbox, Slurm, bundles, eventually, skip, user};
use serde_json::Value;

use super::killing::{alive, locked};

/// A cluster, a sandbox whose commands submit to it, and a bundle whose cache and scratch are on the nodes' own disks.
struct Site {
    slurm: Slurm,
    sandbox: Sandbox,
    bundle: PathBuf,
}

/// Ways of running a program in a job: natively, and by the bundle (`$APP`) under engines with and without somebody
/// beside it.
const WAYS: [&str; 5] = [
    "",
    "$APP --coracle-engine=namespaces",
    "$APP --coracle-engine=ptrace",
    "$APP --coracle-engine=preload",
    "$APP --coracle-engine=namespaces --coracle-report=report.json",
];

impl Site {
    fn new() -> Option<Self> {
        let (bundle, mut sandbox) = (bundles::alpine()?, Sandbox::new());
        let slurm = Slurm::start(&mut sandbox)?;
        Some(Self::on(slurm, sandbox, bundle))
    }

    fn on(slurm: Slurm, mut sandbox: Sandbox, bundle: PathBuf) -> Self {
        sandbox.set("CORACLE_CACHE", slurm.local()).set("TMPDIR", slurm.local()).set("APP", &bundle);
        Self { slurm, sandbox, bundle }
    }

    fn submit(&self, options: &[&str], script: &str) -> String {
        self.slurm.submit(&self.sandbox, options, script)
    }

    fn ended(&self, id: &str) -> HashMap<String, String> {
        self.slurm.ended(&self.sandbox, id, 60)
    }

    /// Our own directory on a node's disk.
    fn place(&self, node: &str) -> PathBuf {
        self.slurm.disk(node).join(format!("coracle-{}", user::ordinary().uid))
    }

    /// What is in the caches of both nodes whose names start with `start`.
    fn entries(&self, is: impl Fn(&str) -> bool) -> Vec<(usize, String)> {
        let entries = self.slurm.nodes().iter().enumerate().flat_map(|(number, node)| {
            let entries = fs::read_dir(self.place(node)).into_iter().flatten().flatten();
            entries.map(move |entry| (number, entry.file_name().to_string_lossy().into_owned()))
        });
        entries.filter(|(_, name)| is(name)).collect()
    }

    fn half_made(&self) -> Vec<(usize, String)> {
        self.entries(|name| name.starts_with('.'))
    }

    /// Waits until no process has the word among its arguments and nobody holds a lock in a cache.
    fn is_quiet(&self, word: &str) {
        let held = || self.slurm.nodes().iter().flat_map(|node| locked(&self.place(node))).collect::<Vec<_>>();
        eventually(&format!("{word} ends: {:?} {:?}", alive(word), held()), 20, || {
            alive(word).is_empty() && held().is_empty()
        });
    }

    fn records(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.sandbox.work(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A word for the arguments of a test's processes, to know them by.
fn word(number: u32) -> String {
    format!("{}.7{number}", 200_000 + std::process::id())
}

#[test]
fn sixty_four_tasks_at_once_unpack_once_on_each_node() {
    let Some(site) = Site::new() else { return };
    let sandbox = &site.sandbox;
    sandbox.run("sh", ["-c", "mkdir ready out; mkfifo go"]).ok();
    for (number, engine) in ["auto", "preload"].into_iter().enumerate() {
        let report = format!("{engine}.jsonl");
        let script = format!(
            ": > ready/{engine}$SLURM_ARRAY_TASK_ID; cat go
             exec $APP --coracle-engine={engine} --coracle-report={report} sh -c 'hostname > out/{engine}$SLURM_ARRAY_TASK_ID'"
        );
        let job = site.submit(&["--array=0-63", "-o", "log", "--open-mode=append"], &script);
        let count = |dir: &str| {
            let names = fs::read_dir(sandbox.work(dir)).unwrap().flatten().map(|entry| entry.file_name());
            names.filter(|name| name.to_string_lossy().starts_with(engine)).count()
        };
        eventually("all tasks run", 60, || count("ready") == 64);
        // Whoever waits for the gate sees it open and shut.
        let gate = || File::options().write(true).custom_flags(libc::O_NONBLOCK).open(sandbox.work("go"));
        eventually("all tasks are done", 60, || {
            drop(gate());
            site.records(&report).len() == 64
        });
        eventually("the array has ended", 60, || sandbox.run("squeue", ["-h", "-j", &job]).stdout.is_empty());
        // Whoever waits for long for the one that unpacks says so.
        let log = fs::read_to_string(sandbox.work("log")).unwrap();
        assert!(log.lines().all(|line| line.starts_with("coracle: waiting for process ")), "{log}");

        let records = site.records(&report);
        let mut tasks: Vec<u32> = records
            .iter()
            .map(|record| {
                assert_eq!(record["job"]["system"], "slurm");
                assert_eq!(record["job"]["id"], job.as_str());
                assert_eq!(record["exit"], 0);
                record["job"]["task"].as_str().unwrap().parse().unwrap()
            })
            .collect();
        tasks.sort_unstable();
        assert_eq!(tasks, (0..64).collect::<Vec<_>>());
        for node in site.slurm.nodes() {
            let here: Vec<_> = records.iter().filter(|record| record["node"] == node.as_str()).collect();
            assert_eq!(here.len(), 32, "{records:#?}");
            // The second engine finds what the first unpacked.
            let unpacked = here.iter().filter(|record| !record["unpack"].is_null()).count();
            let missed = here.iter().filter(|record| record["cache_hit"] == false).count();
            assert_eq!((unpacked, missed), if number == 0 { (1, 1) } else { (0, 0) }, "{here:#?}");
            for record in here {
                let out = format!("out/{engine}{}", record["job"]["task"].as_str().unwrap());
                assert_eq!(fs::read_to_string(sandbox.work(&out)).unwrap().trim(), node);
            }
        }
        let trees = site.entries(|name| name.len() == 64);
        assert_eq!(trees.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [0, 1], "{trees:?}");
        assert_eq!(site.half_made(), []);
    }
    for node in site.slurm.nodes() {
        let views = fs::read_dir(site.place(node)).unwrap().flatten().flat_map(|tree| fs::read_dir(tree.path()));
        let views = views.flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let views: Vec<String> = views.filter(|name| name.starts_with("view-") && !name.contains(".lock")).collect();
        assert_eq!(views.len(), 1, "{views:?}");
        assert_eq!(locked(&site.place(node)), Vec::<PathBuf>::new());
    }
}

#[test]
fn exit_statuses_and_signals_pass_through_as_a_native_programs() {
    let Some(site) = Site::new() else { return };
    let endings = ["exit 0", "exit 7", "exit 255", "kill -9 $$", "kill -TERM $$", "kill -SEGV $$"];
    let mut jobs = Vec::new();
    for ending in endings {
        for way in WAYS {
            for srun in ["", "srun -n1 "] {
                let script = format!("exec {srun}{way} sh -c '{ending}'");
                jobs.push((ending, srun, way, site.submit(&["-o", "log", "--open-mode=append"], &script)));
            }
        }
    }
    let mut natives = HashMap::new();
    for (ending, srun, way, id) in jobs {
        let job = site.ended(&id);
        let end = (job["JobState"].clone(), job["ExitCode"].clone());
        let native = natives.entry((ending, srun)).or_insert_with(|| end.clone());
        assert_eq!(&end, native, "{srun}{way} {ending}");
    }
    assert_eq!(natives[&("exit 7", "")], ("FAILED".into(), "7:0".into()));
    assert_eq!(natives[&("kill -9 $$", "")], ("FAILED".into(), "0:9".into()));
}

#[test]
fn steps_of_a_job_are_bundles_too() {
    let Some(site) = Site::new() else { return };
    let sandbox = &site.sandbox;
    let app = site.bundle.to_str().unwrap();
    for engine in ["namespaces", "ptrace", "preload"] {
        let engine = format!("--coracle-engine={engine}");
        let run = |options: &[&str], script: &str, input: &[u8]| {
            let args = options.iter().copied().chain([app, &engine, "sh", "-c", script]);
            sandbox.run_with_input("srun", args, input)
        };
        let output = run(&["-N2", "-n8"], "echo $SLURM_PROCID $SLURM_STEP_NODELIST $(hostname)", b"");
        let mut lines: Vec<&str> = output.ok().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines.len(), 8, "{output}");
        for node in site.slurm.nodes() {
            assert!(lines.iter().any(|line| line.ends_with(node)), "{output}");
        }
        // The largest status of the tasks is the step's; each task reads a copy of the input.
        run(&["-n4"], "exit $SLURM_PROCID", b"").code_is(3);
        let output = run(&["-n2", "-l"], "cat; echo err >&2", b"line 1\nline 2\n");
        let mut lines: Vec<&str> = output.ok().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["0: line 1", "0: line 2", "1: line 1", "1: line 2"], "{output}");
        assert_eq!(output.stderr.lines().filter(|line| line.ends_with(": err")).count(), 2, "{output}");
        let output = run(&["-n1"], "kill -9 $$", b"");
        assert_eq!(output.code, Some(137), "{output}");
    }
    // Four steps of one job side by side.
    let script = "for i in 1 2 3 4; do srun -n1 --exact $APP sh -c 'echo step $SLURM_STEP_ID' & done; wait";
    let id = site.submit(&["-n4", "-o", "steps"], script);
    assert_eq!(site.ended(&id)["ExitCode"], "0:0");
    let text = fs::read_to_string(sandbox.work("steps")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["step 0", "step 1", "step 2", "step 3"], "{text}");
    assert_eq!(site.half_made(), []);
}

/// What a job's bundle is told besides, and what must be beside the application then.
const KINDS: [&str; 8] = [
    "--coracle-engine=namespaces",
    "--coracle-engine=ptrace",
    "--coracle-engine=preload",
    "--coracle-engine=namespaces --coracle-report=report.json",
    "--coracle-engine=namespaces --coracle-writable",
    "--coracle-engine=ptrace --coracle-writable",
    "--coracle-engine=namespaces --coracle-cache=none",
    "--coracle-engine=ptrace --coracle-cache=none",
];

#[test]
fn a_cancelled_job_hears_of_it_and_leaves_nothing() {
    let Some(site) = Site::new() else { return };
    let sandbox = &site.sandbox;
    sandbox.run("sh", ["-c", "mkdir began told"]).ok();
    for (round, stubborn) in [false, true].into_iter().enumerate() {
        let word = word(u32::try_from(round).unwrap());
        let jobs: Vec<String> = KINDS
            .iter()
            .map(|options| {
                let trap = if stubborn {
                    "trap \"\" TERM".to_owned()
                } else {
                    format!("trap \"echo told > told/{round}.$SLURM_JOB_ID; exit 5\" TERM")
                };
                let script = format!(
                    "exec $APP {options} sh -c '{trap}; (sleep {word} &) ; setsid sleep {word} & sleep {word} &
                     echo > began/{round}.$SLURM_JOB_ID; while :; do wait; done'"
                );
                site.submit(&["-o", "log", "--open-mode=append"], &script)
            })
            .collect();
        for (id, options) in jobs.iter().zip(KINDS) {
            let began = sandbox.work(&format!("began/{round}.{id}"));
            eventually(&format!("{options} runs"), 60, || began.exists());
        }
        assert!(alive(&word).len() >= 4 * KINDS.len(), "{:?}", alive(&word));
        sandbox.run("scancel", &jobs).ok();
        for (id, options) in jobs.iter().zip(KINDS) {
            let job = site.ended(id);
            assert_eq!(job["JobState"], "CANCELLED", "{options}");
            assert_eq!(sandbox.work(&format!("told/{round}.{id}")).exists(), !stubborn, "{options}");
        }
        site.is_quiet(&word);
        if !stubborn {
            assert_eq!(site.half_made(), [], "whoever is told to end tidies up");
        }
    }
    // What those left that were killed with all that was beside them counts for nothing, and goes at the next start.
    let node = ["-N2", "-n2", site.bundle.to_str().unwrap(), "--coracle-writable", "sh", "-c", "ls -R /bin >/dev/null"];
    sandbox.run("srun", node).ok();
    assert_eq!(site.half_made(), []);

    // Other signals reach the application as well, and only they.
    for way in WAYS {
        let script = format!(
            "exec {way} sh -c 'trap \"echo usr1 > told/$SLURM_JOB_ID; exit 9\" USR1; echo > began/$SLURM_JOB_ID
             while :; do sleep 0.1; done'"
        );
        let id = site.submit(&["-o", "log"], &script);
        eventually("it runs", 60, || sandbox.work(&format!("began/{id}")).exists());
        sandbox.run("scancel", ["--full", "--signal=USR1", &id]).ok();
        let job = site.ended(&id);
        assert_eq!((job["JobState"].as_str(), job["ExitCode"].as_str()), ("FAILED", "9:0"), "{way}");
        assert!(sandbox.work(&format!("told/{id}")).exists(), "{way}");
    }
}

#[test]
fn a_requeued_job_goes_on_where_it_was() {
    let Some(site) = Site::new() else { return };
    let sandbox = &site.sandbox;
    let word = word(3);
    for engine in ["namespaces", "ptrace"] {
        // What the application keeps is in a directory that the job names, on a file system of the nodes' all.
        let script = format!(
            "exec $APP --coracle-engine={engine} --coracle-writable=$PWD/kept.{engine} sh -c '
                cat /var/step 2>/dev/null; echo step of run ${{SLURM_RESTART_COUNT:-0}} >> /var/step
                echo > began.{engine}; [ \"$SLURM_RESTART_COUNT\" ] || sleep {word}; cat /var/step'"
        );
        let out = format!("out.{engine}");
        let id = site.submit(&["--requeue", "-o", &out, "--open-mode=append"], &script);
        eventually("it runs", 60, || sandbox.work(&format!("began.{engine}")).exists());
        sandbox.run("scontrol", ["requeue", &id]).ok();
        eventually("it waits again", 60, || site.slurm.job(sandbox, &id)["JobState"] == "PENDING");
        site.is_quiet(&word);
        // It would wait for two minutes, so that what made it fail may pass. A node refuses to start a job in the very
        // second in which it has killed it ("already killed"), and then the job is said to have failed.
        sandbox.run("scontrol", ["update", &format!("JobId={id}"), "StartTime=now+2"]).ok();
        let job = site.ended(&id);
        let text = fs::read_to_string(sandbox.work(&out)).unwrap();
        assert_eq!((job["JobState"].as_str(), job["Restarts"].as_str()), ("COMPLETED", "1"), "{engine}: {text}");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("step of")).collect();
        assert_eq!(lines, ["step of run 0", "step of run 0", "step of run 1"], "{text}");
    }
    assert_eq!(site.half_made(), []);
}

#[test]
fn a_job_that_takes_more_memory_than_it_was_given_is_killed_alone() {
    let Some(site) = Site::new() else { return };
    if !site.slurm.controls() {
        return skip::because("Slurm kills for memory by control groups of version 1, which cannot be made here");
    }
    let word = word(4);
    for way in WAYS {
        let taking = format!("exec {way} dd if=/dev/zero of=/dev/null bs=200M count=1");
        let with_others =
            format!("exec {way} sh -c 'sleep {word} & dd if=/dev/zero of=/dev/null bs=200M count=1; wait'");
        let small = format!("{way} sh -c 'echo small'");
        let _ = fs::remove_file(site.sandbox.work("report.json"));
        // Nothing is unpacked yet for the first: also that fits.
        let submit = |script: &str, out: &str| site.submit(&["--mem=40M", "-o", out, "-e", "log"], script);
        let (small, one, two) = (submit(&small, "small"), submit(&taking, "one"), submit(&with_others, "two"));
        assert_eq!(site.ended(&small)["JobState"], "COMPLETED", "{way}");
        assert_eq!(fs::read_to_string(site.sandbox.work("small")).unwrap(), "small\n", "{way}");
        assert_eq!(site.ended(&one)["JobState"], "OUT_OF_MEMORY", "{way}");
        // The scheduler may not have come to it yet.
        let state = || site.slurm.job(&site.sandbox, &two)["JobState"].clone();
        eventually("the second job begins", 60, || state() != "PENDING");
        if state() == "RUNNING" {
            // Its shell lives, and waits for its child.
            site.sandbox.run("scancel", [&two]).ok();
        }
        let _ = site.ended(&two);
        site.is_quiet(&word);
        if way.contains("report") {
            let ends: Vec<_> = site.records("report.json").iter().map(|record| record["signal"].clone()).collect();
            assert!(ends.contains(&Value::from(libc::SIGKILL)), "{ends:?}");
        }
    }
    assert_eq!(site.half_made(), []);
}

/// Uses two seconds of processor time, then keeps 60 MB for four seconds.
const USE: &str = "n=0; while [ $n -lt 200 ]; do i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done
    read a b c d e f g h i j k l m n rest < /proc/self/stat; n=$(cut -d\" \" -f14 /proc/$$/stat); done
    dd if=/dev/zero bs=60M count=1 2>/dev/null | sleep 4";

fn seconds(time: &str) -> f64 {
    let parts = time.rsplit([':', '-']).zip([1.0, 60.0, 3600.0, 86400.0]);
    parts.map(|(part, unit)| part.parse::<f64>().unwrap_or(f64::NAN) * unit).sum()
}

fn kilobytes(size: &str) -> f64 {
    let unit = [("K", 1.0), ("M", 1024.0), ("G", 1_048_576.0)].into_iter().find(|(unit, _)| size.ends_with(unit));
    unit.map_or(f64::NAN, |(unit, factor)| size.trim_end_matches(unit).parse::<f64>().unwrap_or(f64::NAN) * factor)
}

#[test]
fn slurm_sees_what_an_application_uses_as_it_sees_it_of_a_native_program() {
    let Some(site) = Site::new() else { return };
    site.sandbox.run("srun", ["-N2", "-n2", site.bundle.to_str().unwrap(), "true"]).ok();
    let jobs: Vec<_> = WAYS
        .iter()
        .map(|way| (*way, site.submit(&["-o", "log", "--mem=200M"], &format!("srun {way} sh -c '{USE}'"))))
        .collect();
    let mut most: HashMap<&str, (f64, f64)> = HashMap::new();
    eventually("all jobs end", 90, || {
        for (way, id) in &jobs {
            let shown = site.sandbox.run("sstat", ["-nP", "-o", "AveCPU,MaxRSS", "-j", &format!("{id}.0")]);
            if let Some((time, memory)) = shown.stdout.trim().split_once('|') {
                let seen = most.entry(way).or_insert((0.0, 0.0));
                // A step that was not looked at yet shows numbers without bounds.
                let bounded = |value: f64| if value < 1e9 { value } else { 0.0 };
                *seen = (seen.0.max(bounded(seconds(time))), seen.1.max(bounded(kilobytes(memory))));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
        site.sandbox.run("squeue", ["-h"]).stdout.is_empty()
    });
    println!("{most:#?}");
    for way in WAYS {
        let (time, memory) = most[way];
        assert!((2.0..6.0).contains(&time), "{way}: {most:?}");
        assert!((60_000.0..120_000.0).contains(&memory), "{way}: {most:?}");
    }
}

#[test]
fn the_accounts_of_a_job_are_as_a_native_programs() {
    if skip::unless_slow() {
        return;
    }
    let (Some(bundle), mut sandbox) = (bundles::alpine(), Sandbox::new()) else { return };
    let Some(slurm) = Slurm::start_with_database(&mut sandbox) else { return };
    let site = Site::on(slurm, sandbox, bundle);
    site.sandbox.run("srun", ["-N2", "-n2", site.bundle.to_str().unwrap(), "true"]).ok();
    let script = |way: &str| format!("srun {way} sh -c '{USE}'; exit 3");
    let jobs: Vec<_> = WAYS.iter().map(|way| (*way, site.submit(&["-o", "log", "--mem=200M"], &script(way)))).collect();
    for (way, id) in jobs {
        let _ = site.ended(&id);
        let mut row = Vec::new();
        eventually("the account is there", 30, || {
            let shown = site
                .sandbox
                .run("sacct", ["-nP", "-j", &format!("{id}.0"), "-o", "State,ExitCode,UserCPU,TotalCPU,MaxRSS"]);
            row = shown.stdout.trim().split('|').map(str::to_owned).collect();
            row.len() == 5 && row[0] == "COMPLETED"
        });
        println!("{way}: {row:?}");
        assert!((1.9..6.0).contains(&seconds(&row[2])), "{way}: {row:?}");
        assert!((2.0..6.0).contains(&seconds(&row[3])), "{way}: {row:?}");
        assert!((60_000.0..120_000.0).contains(&kilobytes(&row[4])), "{way}: {row:?}");
        let job = site.sandbox.run("sacct", ["-nPX", "-j", &id, "-o", "State,ExitCode,User"]);
        assert_eq!(job.ok(), format!("FAILED|3:0|{}", user::ordinary().name.as_ref().unwrap()), "{way}");
    }
}

#[test]
fn a_job_whose_time_is_up_is_warned_and_ended() {
    if skip::unless_slow() {
        return;
    }
    let Some(site) = Site::new() else { return };
    site.sandbox.run("srun", ["-N2", "-n2", site.bundle.to_str().unwrap(), "true"]).ok();
    let word = word(5);
    let jobs: Vec<_> = KINDS
        .iter()
        .map(|options| {
            let script = format!(
                "exec $APP {options} sh -c 'trap \"echo warned\" USR1; trap \"echo ended; exit 4\" TERM
                 setsid sleep {word} & while :; do sleep 0.1; done'"
            );
            let out = format!("out.{}", options.replace(['/', ' '], ""));
            (site.submit(&["--time=1", "--signal=B:USR1@30", "-o", &out], &script), out)
        })
        .collect();
    for (id, out) in jobs {
        let job = site.slurm.ended(&site.sandbox, &id, 150);
        assert_eq!((job["JobState"].as_str(), job["ExitCode"].as_str()), ("TIMEOUT", "4:0"), "{out}");
        let text = fs::read_to_string(site.sandbox.work(&out)).unwrap();
        let said: Vec<&str> = text.lines().filter(|line| !line.starts_with("slurmstepd")).collect();
        assert_eq!(said, ["warned", "ended"], "{text}");
    }
    site.is_quiet(&word);
    assert_eq!(site.half_made(), []);
}
