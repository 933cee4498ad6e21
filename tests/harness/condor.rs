//! HTCondor (Debian trixie's) on this machine: one pool in a tree of its own, ended with its guard. For the slow tier.
//!
//! The daemons see a Debian tree as their root, with the machine's `/tmp`, `/dev`, `/proc` and `/sys`, in process and mount
//! namespaces of their own: a real root, since a changed one (chroot) takes user namespaces from jobs. The first process of
//! these reads from the test, so all of them end when the test does, killed or not.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use crate::{Output, Sandbox, eventually, free_port, images, skip, user};

/// The first process: makes the tree its root, starts the daemons, and waits for the end of its standard input.
const INIT: &str = r#"
T=$1; exec 3<&0 </dev/null
mount --bind "$T" "$T"; cd "$T"
mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount --bind /tmp tmp
pivot_root . .; umount -l .; cd /
mkdir -p -m 1777 /run/lock
trap 'exit 0' TERM
(cat <&3 >/dev/null; kill -TERM 1) &
condor_master -f >/var/log/master.log 2>&1 &
while :; do wait; sleep 0.2; done
"#;

const LOCAL: &str = "/srv/local";

/// A running pool of one machine with four processors.
#[derive(Debug)]
pub struct Condor {
    dir: tempfile::TempDir,
    init: Child,
}

impl Condor {
    /// Starts a pool, or records a skip.
    ///
    /// # Panics
    /// If it is not ready in time.
    #[must_use]
    pub fn start() -> Option<Self> {
        let tar = images::debian_with("trixie", "condor", "minbase", "--include=condor,procps,python3-minimal")?;
        let Some(name) = &user::ordinary().name else {
            skip::because("HTCondor runs jobs of accounts only: make the account coracle-tester");
            return None;
        };
        if skip::lacks(&["unshare", "nsenter", "setpriv", "pivot_root"]) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("coracle-condor-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut untar = Command::new("tar");
        Output::of({
            untar.args(["--exclude=./dev/*", "-xf"]).arg(&tar).arg("-C").arg(dir.path());
            untar
        })
        .ok();
        let (at, user) = (|path: &str| dir.path().join(path), user::ordinary());
        for (file, line) in [
            ("etc/passwd", format!("{name}:x:{}:{}::/tmp:/bin/sh\n", user.uid, user.gid)),
            ("etc/group", format!("{name}:x:{}:\n", user.gid)),
            ("etc/subuid", format!("{name}:100000:65536\n")),
            ("etc/subgid", format!("{name}:100000:65536\n")),
        ] {
            let text = fs::read_to_string(at(file)).unwrap_or_default();
            fs::write(at(file), text + &line).unwrap();
        }
        fs::write(
            at("etc/condor/config.d/99-test.config"),
            format!(
                "DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD\nCONDOR_HOST = 127.0.0.1\n\
                 NETWORK_INTERFACE = 127.0.0.1\nCOLLECTOR_HOST = 127.0.0.1:{}\nNUM_CPUS = 4\nMEMORY = 4000\n\
                 use FEATURE : PartitionableSlot\nSTART = TRUE\nNEGOTIATOR_INTERVAL = 2\nNEGOTIATOR_CYCLE_DELAY = 1\n\
                 NEGOTIATOR_MIN_INTERVAL = 1\nSCHEDD_INTERVAL = 2\nSCHEDD_MIN_INTERVAL = 1\nUPDATE_INTERVAL = 5\n\
                 KILLING_TIMEOUT = 5\nMachineMaxVacateTime = 5\n",
                free_port()
            ),
        )
        .unwrap();
        fs::create_dir(at(&LOCAL[1..])).unwrap();
        fs::set_permissions(at(&LOCAL[1..]), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(at("init"), INIT).unwrap();
        let log = fs::File::create(at("init.log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-m", "-p", "-f", "--kill-child=KILL", "--propagation", "private", "sh"]).arg(at("init"));
        command.arg(dir.path()).stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let condor = Self { init: command.spawn().unwrap(), dir };
        let sandbox = Sandbox::new();
        eventually("HTCondor has a machine", 60, || {
            condor.run(&sandbox, "condor_status", ["-af", "Name"]).stdout.contains('@')
        });
        Some(condor)
    }

    /// A command as the ordinary user, in the pool's tree, with the sandbox's environment and working directory.
    pub fn command(&self, sandbox: &Sandbox, program: impl AsRef<OsStr>) -> Command {
        let user = user::ordinary();
        let children = format!("/proc/{0}/task/{0}/children", self.init.id());
        let first = fs::read_to_string(children).unwrap_or_default().trim().to_owned();
        let mut command = Command::new("nsenter");
        let of_sandbox = sandbox.command("true");
        command.env_clear().envs(of_sandbox.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.args(["--target", &first, "--mount", "--pid", "--root"]);
        command.args(["setpriv", "--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups"]);
        command.args(["sh", "-c", r#"cd "$0" && exec "$@""#]).arg(sandbox.work("")).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs such a command to its end.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        sandbox: &Sandbox,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Output {
        let mut command = self.command(sandbox, program);
        command.args(args);
        Output::of(command)
    }

    /// Submits a description, and returns the cluster's number.
    ///
    /// # Panics
    /// If HTCondor does not take it.
    #[must_use]
    pub fn submit(&self, sandbox: &Sandbox, description: &str) -> String {
        sandbox.write("job.sub", description);
        let submitted = self.run(sandbox, "condor_submit", ["-terse", "job.sub"]);
        submitted.ok().split(['.', ' ']).next().unwrap_or_default().to_owned()
    }

    /// Attributes of a cluster's jobs that are still in the queue, a line per job.
    #[must_use]
    pub fn queue(&self, sandbox: &Sandbox, cluster: &str, attributes: &[&str]) -> Vec<String> {
        let args = [&[cluster, "-af"], attributes].concat();
        self.run(sandbox, "condor_q", args).stdout.lines().map(str::to_owned).collect()
    }

    /// Attributes of a cluster's jobs that have left the queue, a line per job.
    #[must_use]
    pub fn history(&self, sandbox: &Sandbox, cluster: &str, attributes: &[&str]) -> Vec<String> {
        let args = [&[cluster, "-af"], attributes].concat();
        self.run(sandbox, "condor_history", args).stdout.lines().map(str::to_owned).collect()
    }

    /// Where running jobs have their own directories.
    #[must_use]
    pub fn spool(&self) -> std::path::PathBuf {
        self.dir.path().join("var/lib/condor/execute")
    }

    /// A directory of the node that all jobs see, as they name it: each has a `/tmp` and a `/var/tmp` of its own.
    #[must_use]
    pub fn local(&self) -> &'static str {
        LOCAL
    }

    /// The same directory, seen from outside.
    #[must_use]
    pub fn disk(&self) -> std::path::PathBuf {
        self.dir.path().join(&LOCAL[1..])
    }
}

impl Drop for Condor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in
                ["init.log", "var/log/master.log", "var/log/condor/StarterLog.slot1_1", "var/log/condor/SchedLog"]
            {
                let text = fs::read_to_string(self.dir.path().join(log)).unwrap_or_default();
                let last: Vec<&str> = text.lines().rev().take(30).collect();
                eprintln!("== {log}");
                last.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        // The first process ends when nobody writes to it any more, and the kernel ends all others then.
        drop(self.init.stdin.take());
        let _ = self.init.wait();
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.dir.path()).stderr(Stdio::null()).status();
    }
}
