//! Records of runs: one line each, under every engine and however the run ends; and their sums.

use std::{
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{Output, Sandbox, bundles, eventually, user};
use serde_json::{Value, json};

const ENGINES: [&str; 4] = ["namespaces", "P1", "P2", "preload"];

fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn last(path: &Path) -> Value {
    records(path).pop().expect("a record was written")
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn kill(pid: u32, signal: i32) {
    // SAFETY: kill touches no memory; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) }, 0);
}

#[test]
fn a_run_leaves_a_record_of_what_it_was_and_what_it_used() {
    let Some(bundle) = bundles::alpine() else { return };
    let mut sandbox = Sandbox::new();
    sandbox.set("SLURM_JOB_ID", "4711").set("SLURM_ARRAY_JOB_ID", "4700").set("SLURM_ARRAY_TASK_ID", "11");
    let info: Value = serde_json::from_str(sandbox.run(&bundle, ["--coracle-info=json"]).ok()).unwrap();
    for (number, engine) in ENGINES.iter().enumerate() {
        let (engine, report) = (format!("--coracle-engine={engine}"), format!("--coracle-report={number}.json"));
        // A child's child uses memory and writes; the shell spins.
        let script = "dd if=/dev/zero of=/dev/null bs=64M count=2 2>/dev/null; dd if=/dev/zero of=file bs=1M count=8 2>&-; \
                      i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; exit 3";
        sandbox.run(&bundle, [engine.as_str(), &report, "sh", "-c", script, "secret"]).code_is(3);
        let record = last(&sandbox.work(&format!("{number}.json")));
        let same = |name: &str, value: Value| assert_eq!(record[name], value, "{name} of {record:#}");
        same("record", json!(1));
        same("exit", json!(3));
        same("signal", Value::Null);
        same("error", Value::Null);
        same("bundle", json!(bundle));
        same("manifest", info["manifest_digest"].clone());
        same("tree", json!(format!("sha256:{}", info["manifest"]["index"]["sha256"].as_str().unwrap())));
        same("program", json!("sh"));
        same("engine", json!(["namespaces", "ptrace", "ptrace", "preload"][number]));
        same("job", json!({"system": "slurm", "id": "4700", "task": "11"}));
        same("uid", json!(user::ordinary().uid));
        same("user", json!(user::ordinary().name));
        same("node", json!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim()));
        same("cache_hit", json!(number > 0));
        assert!(!record.to_string().contains("secret"), "arguments are nobody's business: {record:#}");
        let above = |path: &str, least: f64, most: f64| {
            let value = record.pointer(path).and_then(Value::as_f64).unwrap_or(-1.0);
            assert!(value >= least && value <= most, "{path} is {value}, of {record:#}");
        };
        above("/wall_s", 0.05, 60.0);
        above("/user_s", 0.02, 60.0);
        above("/system_s", 0.001, 60.0);
        above("/max_rss_bytes", 60e6, 200e6);
        above("/io/written_chars", 136e6, 400e6);
        above("/io/read_chars", 136e6, 400e6);
        let start = record["start"].as_str().unwrap();
        let now = Output::of({
            let mut date = Command::new("date");
            date.args(["-u", "+%Y-%m-%dT%H:"]);
            date
        });
        assert!(start.ends_with('Z') && start.len() == 24, "{start}");
        assert!(start[..11] == now.ok()[..11] || now.ok().ends_with("T00:"), "{start} {now}");
        if number == 0 {
            above("/unpack/bytes", 5e6, 50e6);
            above("/unpack/files", 100.0, 10_000.0);
            above("/unpack/seconds", 0.001, 60.0);
        } else {
            same("unpack", Value::Null);
        }
    }
}

#[test]
fn refusals_are_on_record_and_so_is_a_run_that_never_began() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let report = sandbox.work("report.json");
    // No namespace can number ports, so another engine is next.
    sandbox.run(&bundle, ["--coracle-report=report.json", "--coracle-publish=8080:80", "true"]).ok();
    let record = last(&report);
    assert_ne!(record["engine"], "namespaces");
    let refused = record["refusals"].as_array().unwrap();
    let reason = refused.iter().find(|one| one["engine"] == "namespaces").unwrap()["reason"].as_str().unwrap();
    assert!(reason.contains("a port has one number"), "{record:#}");

    sandbox.run(&bundle, ["--coracle-report=report.json", "/no/such"]).fails_as(127, &["/no/such: not found"]);
    assert_eq!(last(&report)["exit"], 127);
    let failed = sandbox.run(&bundle, ["--coracle-report=report.json", "--coracle-engine=apptainer", "true"]);
    if failed.code == Some(125) {
        let record = last(&report);
        assert_eq!(record["exit"], 125);
        let error = record["error"].as_str().unwrap();
        assert!(failed.stderr.contains(error), "{record:#} {failed}");
    }
}

#[test]
fn a_killed_application_leaves_its_record_and_so_does_a_job_that_is_told_to_end() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let report = sandbox.work("report.json");
    for (number, engine) in ENGINES.iter().enumerate() {
        let engine = format!("--coracle-engine={engine}");
        let killed = sandbox.run(&bundle, [&engine, "--coracle-report=report.json", "sh", "-c", "kill -9 $$"]);
        assert_eq!(killed.signal, Some(libc::SIGKILL), "{killed}");
        assert_eq!(records(&report).len(), 2 * number + 1);
        assert_eq!(last(&report)["signal"], libc::SIGKILL);

        let mut command = sandbox.command(&bundle);
        command.args([&engine, "--coracle-report=report.json", "sh", "-c", "touch began; exec sleep 1000"]);
        let began = sandbox.work("began");
        let child = spawn(command);
        eventually("the application runs", 20, || began.exists());
        kill(child.id(), libc::SIGTERM);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{output:?}");
        assert_eq!(last(&report)["signal"], libc::SIGTERM);
        fs::remove_file(began).unwrap();
    }
}

#[test]
fn whoever_ignores_its_children_gets_a_record_and_a_status_all_the_same() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    for engine in ENGINES {
        let mut command = sandbox.command(&bundle);
        command.args([&format!("--coracle-engine={engine}"), "--coracle-report=report.json"]);
        command.args(["grep", "SigIgn", "/proc/self/status", "/no/such"]);
        // SAFETY: signal is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                Ok(())
            });
        }
        let output = Output::of(command);
        output.code_is(2);
        let ignored = u64::from_str_radix(output.stdout.trim().rsplit('\t').next().unwrap(), 16).unwrap();
        assert_eq!(ignored & (1 << (libc::SIGCHLD - 1)), 1 << (libc::SIGCHLD - 1), "{output}");
        assert_eq!(last(&sandbox.work("report.json"))["exit"], 2);
    }
}

#[test]
fn forty_runs_at_once_share_a_file() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let runs: Vec<_> = (0..40)
        .map(|number| {
            let mut command = sandbox.command(&bundle);
            command.env("SLURM_JOB_ID", "1").env("SLURM_ARRAY_TASK_ID", number.to_string());
            command.args(["--coracle-report=report.json", "true"]);
            spawn(command)
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let records = records(&sandbox.work("report.json"));
    let mut tasks: Vec<u32> =
        records.iter().map(|record| record["job"]["task"].as_str().unwrap().parse().unwrap()).collect();
    tasks.sort_unstable();
    assert_eq!(tasks, (0..40).collect::<Vec<_>>());
    assert_eq!(records.iter().filter(|record| !record["unpack"].is_null()).count(), 1, "one of them unpacked");
}

#[test]
fn a_record_goes_to_stderr_or_a_directory_and_no_run_is_lost_for_want_of_one() {
    let Some(bundle) = bundles::alpine() else { return };
    let mut sandbox = Sandbox::new();
    for option in ["--coracle-report", "--coracle-report=-"] {
        let output = sandbox.run(&bundle, [option, "sh", "-c", "printf 'a\\000b'; echo own >&2"]);
        assert_eq!(output.stdout_bytes, b"a\0b", "{output}");
        let (own, record) = output.stderr.trim_end().split_once('\n').unwrap();
        assert_eq!((own, serde_json::from_str::<Value>(record).unwrap()["exit"].as_u64()), ("own", Some(0)));
    }
    sandbox.make_dir("work/records");
    sandbox.run(&bundle, ["--coracle-report=records", "true"]).ok();
    let node = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(last(&sandbox.work(&format!("records/{}.jsonl", node.trim())))["exit"], 0);

    let output = sandbox.run(&bundle, ["--coracle-report=no/such/file", "echo", "ran"]);
    assert_eq!(output.ok(), "ran");
    assert!(output.stderr.contains("the record of this run cannot be written: "), "{output}");
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    let full = sandbox.run(&bundle, ["--coracle-report=/dev/full", "echo", "ran"]);
    assert_eq!(full.ok(), "ran");
    assert!(full.stderr.contains("/dev/full: No space left"), "{full}");

    // A site's way: everybody's records in a place that the configuration names.
    let config = sandbox.write("site.toml", "[run]\nreport = \"$HOME/site.json\"\n");
    sandbox.set("CORACLE_CONFIG", config);
    sandbox.run(&bundle, ["true"]).ok();
    assert_eq!(last(&sandbox.path().join("home/site.json"))["exit"], 0);
}

#[test]
fn records_are_summed_as_table_json_and_csv() {
    let sandbox = Sandbox::new();
    let record = |user: &str, day: &str, manifest: &str, exit: Value, wall: f64, task: u32| {
        json!({"record": 1, "user": user, "uid": 7, "start": format!("{day}T10:00:00.000Z"), "manifest": manifest,
               "bundle": format!("/spool/{task}/app, the.run"), "exit": exit, "wall_s": wall, "user_s": 2.0, "system_s": 0.5,
               "max_rss_bytes": 1_000_000 * task, "io": {"read_chars": 10, "written_chars": 20},
               "unpack": if task == 1 { json!({"seconds": 1.5, "bytes": 100, "files": 3}) } else { Value::Null },
               "a field of another version": 1})
        .to_string()
    };
    let lines = [
        record("ann", "2026-11-20", "sha256:aaaaaaaaaaaaaaaa", json!(0), 3600.0, 1),
        record("ann", "2026-11-20", "sha256:aaaaaaaaaaaaaaaa", Value::Null, 125.0, 2),
        record("ann", "2026-11-21", "sha256:aaaaaaaaaaaaaaaa", json!(0), 1.0, 3),
    ];
    sandbox.make_dir("work/site/node2");
    sandbox.write("site/node1.jsonl", lines.join("\n") + "\n{\"torn");
    let other = record("bob", "2026-11-20", "sha256:bbbbbbbbbbbbbbbb", json!(1), 2.0, 4);
    let newer = record("bob", "2026-11-20", "sha256:bb", json!(1), 2.0, 4).replace("\"record\":1", "\"record\":99");
    sandbox.write("site/node2/x.json", format!("{other}\n\n{newer}\n"));
    sandbox.write("site/readme.txt", "no record");

    let table = sandbox.coracle(["accounting", "site"]);
    let lines: Vec<_> = table.ok().lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("DAY          USER   BUNDLE"), "{table}");
    let cells: Vec<_> = lines[1].split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        ["2026-11-20", "ann", "app, the.run (aaaaaaaaaaaa)", "2", "1", "1:02:05", "5.0s", "2MB", "20B", "40B", "1"]
    );
    assert!(lines[3].starts_with("2026-11-21   ann"), "{table}");
    assert!(table.stderr.contains("1 lines are no records") && table.stderr.contains("1 records are of a newer"));

    let json: Value =
        serde_json::from_str(sandbox.coracle(["-q", "accounting", "--format=json", "--by=user", "site"]).ok()).unwrap();
    assert_eq!(
        json,
        json!([
            {"user": "ann", "runs": 3, "failed": 1, "wall_s": 3726.0, "user_s": 6.0, "system_s": 1.5,
             "max_rss_bytes": 3_000_000, "read_chars": 30, "written_chars": 60, "read_bytes": 0, "written_bytes": 0,
             "unpacked": 1, "unpacked_bytes": 100, "unpack_s": 1.5},
            {"user": "bob", "runs": 1, "failed": 1, "wall_s": 2.0, "user_s": 2.0, "system_s": 0.5,
             "max_rss_bytes": 4_000_000, "read_chars": 10, "written_chars": 20, "read_bytes": 0, "written_bytes": 0,
             "unpacked": 0, "unpacked_bytes": 0, "unpack_s": 0.0},
        ])
    );
    let csv = sandbox.coracle(["-q", "accounting", "--format=csv", "--by=bundle", "--since=2026-11-21", "site"]);
    let (heading, line) = csv.ok().split_once('\n').unwrap();
    assert!(heading.starts_with("bundle,manifest,runs,failed,wall_s,"), "{csv}");
    assert!(line.starts_with("\"app, the.run\",sha256:aaaaaaaaaaaaaaaa,1,0,1.0,2.0,0.5,3000000,"), "{csv}");
    sandbox.coracle(["accounting", "none"]).fails_with(&["none: cannot be read"]);
    sandbox.coracle(["accounting", "--until=today", "site"]).fails_with(&["today: not a day"]);
}
