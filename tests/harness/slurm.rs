//! Slurm (Debian's) on this machine: a controller and two nodes, ended with their guard.
//!
//! Every cluster is alone: its daemons are in process and mount namespaces of their own, and end with the first process of
//! these, which reads from the test and so ends when the test does, killed or not. Each node has a name of its own and its
//! own local disk: [`Slurm::local`] is one directory to jobs, and another one on each node. Where version 1 of control
//! groups can be written, nodes use them to hold their jobs' processes and memory, as clusters do.

use std::{
    collections::HashMap,
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{Output, Sandbox, eventually, free_port, skip, user};

/// The first process: daemons, then a wait for the end of its standard input.
const INIT: &str = r#"
S=$1; cd "$S"; exec 3<&0 </dev/null
trap 'exit 0' TERM
(cat <&3 >/dev/null; kill -TERM 1) &
hostname coracle-test
munged -F --force --key-file="$S/key" --socket="$S/munge/socket" --pid-file="$S/munge/pid" --seed-file="$S/munge/seed" \
    --log-file="$S/munge/log" >munged.log 2>&1 &
until [ -S "$S/munge/socket" ]; do sleep 0.02; done
if [ -e dbd ]; then . ./dbd; fi
slurmctld -D >slurmctld.log 2>&1 &
for n in $2; do
    unshare -m -u sh -c 'hostname "$1"; mount --bind "$2/disk/$1" "$2/local"; exec slurmd -D -N "$1"' sh "$n" "$S" >"$n.log" 2>&1 &
done
while :; do wait; sleep 0.2; done
"#;

/// The database of accounts, for `sacct`: the init's `dbd`.
const DATABASE: &str = r#"
mkdir db; chown mysql db
mariadb-install-db --no-defaults --user=mysql --datadir="$S/db/data" --auth-root-authentication-method=normal >mariadb.log 2>&1
mariadbd --no-defaults --user=mysql --datadir="$S/db/data" --socket="$S/db/s" --bind-address=127.0.0.1 --port=@SQL@ \
    --pid-file="$S/db/pid" >>mariadb.log 2>&1 &
until mariadb-admin --no-defaults -S "$S/db/s" ping; do sleep 0.1; done >/dev/null 2>&1
mariadb --no-defaults -S "$S/db/s" -e "create database acct; create user s@localhost identified by 'p'; grant all on acct.* to s@localhost"
slurmdbd -D >slurmdbd.log 2>&1 &
until sacctmgr -n list cluster; do sleep 0.1; done >/dev/null 2>&1
sacctmgr -i add cluster t >>slurmdbd.log 2>&1
"#;

/// A running cluster.
#[derive(Debug)]
pub struct Slurm {
    dir: tempfile::TempDir,
    init: Child,
    nodes: [String; 2],
    controls: bool,
}

/// Processors that each node pretends to have.
const PROCESSORS: u32 = 32;

impl Slurm {
    /// Starts a cluster, and makes it the one of the sandbox's commands; or records a skip.
    ///
    /// # Panics
    /// If it is not ready in time.
    #[must_use]
    pub fn start(sandbox: &mut Sandbox) -> Option<Self> {
        Self::start_with(sandbox, false)
    }

    /// As [`start`](Self::start), with a database for `sacct`.
    ///
    /// # Panics
    /// If it is not ready in time.
    #[must_use]
    pub fn start_with_database(sandbox: &mut Sandbox) -> Option<Self> {
        if skip::lacks(&["slurmdbd", "mariadbd", "mariadb-install-db"]) {
            return None;
        }
        Self::start_with(sandbox, true)
    }

    fn start_with(sandbox: &mut Sandbox, database: bool) -> Option<Self> {
        if skip::unless_root() || skip::lacks(&["slurmctld", "slurmd", "sbatch", "srun", "munged", "unshare"]) {
            return None;
        }
        if user::ordinary().name.is_none() {
            skip::because("Slurm runs jobs of accounts only: make the account coracle-tester");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("coracle-slurm-").tempdir_in("/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let ports: [u16; 5] = std::array::from_fn(|_| free_port());
        // Control groups bear the nodes' names.
        let nodes = [format!("a{}", ports[1]), format!("b{}", ports[2])];
        for name in ["state", "local", "munge", "spool", "tmp", "disk"] {
            fs::create_dir(at(name)).unwrap();
        }
        for node in &nodes {
            fs::create_dir(at("spool").join(node)).unwrap();
            for name in ["tmp", "disk"] {
                let path = at(name).join(node);
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
            }
        }
        let (key, mut secret) = (at("key"), [0; 128]);
        fs::File::open("/dev/urandom").unwrap().read_exact(&mut secret).unwrap();
        fs::write(&key, secret).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        let controls = can_control();
        fs::write(at("slurm.conf"), configuration(dir.path(), &nodes, ports, controls, database)).unwrap();
        fs::write(
            at("cgroup.conf"),
            "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint=/sys/fs/cgroup\nConstrainRAMSpace=yes\n\
             ConstrainSwapSpace=yes\nAllowedSwapSpace=0\n",
        )
        .unwrap();
        if database {
            fs::write(at("dbd"), DATABASE.replace("@SQL@", &ports[4].to_string())).unwrap();
            let path = at("slurmdbd.conf");
            let s = dir.path().display();
            fs::write(
                &path,
                format!(
                    "DbdHost=localhost\nDbdPort={}\nSlurmUser=root\nAuthType=auth/munge\nAuthInfo=socket={s}/munge/socket\n\
                     StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={}\nStorageUser=s\n\
                     StoragePass=p\nStorageLoc=acct\nPidFile={s}/slurmdbd.pid\n",
                    ports[3], ports[4],
                ),
            )
            .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(at("init"), INIT).unwrap();
        sandbox.set("SLURM_CONF", at("slurm.conf"));
        let log = fs::File::create(at("init.log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-m", "-u", "-p", "-f", "--kill-child=KILL", "--mount-proc", "sh"]).arg(at("init"));
        command.arg(dir.path()).arg(nodes.join(" ")).env("SLURM_CONF", at("slurm.conf"));
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let slurm = Self { init: command.spawn().unwrap(), dir, nodes, controls };
        let seconds = if database { 60 } else { 30 };
        eventually("two nodes of Slurm are idle", seconds, || {
            sandbox.run("sinfo", ["-hN", "-t", "idle"]).stdout.lines().count() == 2
        });
        Some(slurm)
    }

    /// Names of the nodes.
    #[must_use]
    pub fn nodes(&self) -> &[String; 2] {
        &self.nodes
    }

    /// Processors of one node.
    #[must_use]
    pub fn processors(&self) -> u32 {
        PROCESSORS
    }

    /// The directory that is a node's own disk, as jobs name it.
    #[must_use]
    pub fn local(&self) -> PathBuf {
        self.dir.path().join("local")
    }

    /// The local disk of a node, seen from outside.
    #[must_use]
    pub fn disk(&self, node: &str) -> PathBuf {
        self.dir.path().join("disk").join(node)
    }

    /// Whether nodes hold jobs in control groups, and so kill one that uses more memory than it was given.
    #[must_use]
    pub fn controls(&self) -> bool {
        self.controls
    }

    /// What `scontrol` knows of a job: `JobState`, `ExitCode`…
    #[must_use]
    pub fn job(&self, sandbox: &Sandbox, id: &str) -> HashMap<String, String> {
        let shown = sandbox.run("scontrol", ["-o", "show", "job", id]);
        let fields = shown.ok().split_whitespace().filter_map(|field| field.split_once('='));
        fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Submits a script, and returns the job's number.
    ///
    /// # Panics
    /// If Slurm does not take it.
    #[must_use]
    pub fn submit(&self, sandbox: &Sandbox, options: &[&str], script: &str) -> String {
        let mut args = vec!["--parsable"];
        args.extend_from_slice(options);
        let submitted: Output = sandbox.run_with_input("sbatch", &args, format!("#!/bin/sh\n{script}\n").as_bytes());
        submitted.ok().to_owned()
    }

    /// Waits until a job has ended in whatever way, and returns what is known of it.
    ///
    /// # Panics
    /// If it does not end in time.
    #[must_use]
    pub fn ended(&self, sandbox: &Sandbox, id: &str, seconds: u64) -> HashMap<String, String> {
        const GOING: [&str; 7] =
            ["SIGNALING", "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED"];
        let mut job = HashMap::new();
        eventually(&format!("job {id} ends"), seconds, || {
            job = self.job(sandbox, id);
            !GOING.contains(&job["JobState"].as_str())
        });
        job
    }

    /// Everything that the daemons wrote, for messages.
    #[must_use]
    pub fn logs(&self) -> String {
        let entries = fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let logs = entries.filter(|entry| entry.path().extension().is_some_and(|name| name == "log"));
        logs.map(|entry| {
            format!("== {:?}\n{}", entry.file_name(), fs::read_to_string(entry.path()).unwrap_or_default())
        })
        .collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // The first process ends when nobody writes to it any more, and the kernel ends all others then.
        drop(self.init.stdin.take());
        let _ = self.init.wait();
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for node in &self.nodes {
                remove_groups(&controller.path().join(format!("slurm_{node}")));
            }
        }
    }
}

/// Removes a control group with those in it.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Whether there are control groups of version 1, and this machine lets root make some.
fn can_control() -> bool {
    ["memory", "freezer", "cpuset"].iter().all(|controller| {
        let group = Path::new("/sys/fs/cgroup").join(controller).join(format!("coracle-try-{}", free_port()));
        let limits = *controller != "memory" || Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
        limits && fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).is_ok()
    })
}

fn configuration(dir: &Path, nodes: &[String; 2], ports: [u16; 5], controls: bool, database: bool) -> String {
    let s = dir.display();
    let (track, task) = if controls {
        ("proctrack/cgroup", "task/cgroup")
    } else {
        ("proctrack/linuxproc", "task/none\nJobAcctGatherParams=OverMemoryKill")
    };
    let accounts = if database {
        format!(
            "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n\
             AccountingStoragePort={}\nAccountingStoragePass={s}/munge/socket\n",
            ports[3]
        )
    } else {
        String::new()
    };
    let node = |index: usize| {
        format!(
            "NodeName={0} NodeHostname={0} NodeAddr=127.0.0.1 Port={1} CPUs={PROCESSORS} RealMemory=8000\n",
            nodes[index],
            ports[1 + index]
        )
    };
    format!(
        "ClusterName=t\nSlurmctldHost=coracle-test(127.0.0.1)\nSlurmctldPort={}\nSlurmUser=root\n\
         AuthInfo=socket={s}/munge/socket\nProctrackType={track}\nTaskPlugin={task}\n\
         JobAcctGatherType=jobacct_gather/linux\nJobAcctGatherFrequency=1\nSelectType=select/cons_tres\n\
         SelectTypeParameters=CR_Core_Memory\nDefMemPerCPU=100\nReturnToService=2\nMailProg=/bin/true\n\
         SlurmdParameters=config_overrides\nStateSaveLocation={s}/state\nSlurmdSpoolDir={s}/spool/%n\nTmpFS={s}/tmp/%n\n\
         SlurmctldPidFile={s}/slurmctld.pid\nSlurmdPidFile={s}/%n.pid\nMaxArraySize=1001\n\
         SchedulerParameters=sched_interval=5,batch_sched_delay=1,default_queue_depth=1000\nKillWait=2\n{accounts}{}{}\
         PartitionName=debug Nodes={} Default=YES State=UP\n",
        ports[0],
        node(0),
        node(1),
        nodes.join(","),
    )
}
