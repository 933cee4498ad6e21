//! Ranks of one parallel job on one node: where those meet that are to see each other's memory.
//!
//! Launchers of parallel programs tell each rank by variables which job it belongs to. Runs of the same job, of the same
//! tree, with the same view of it, by the same user in the same place of the node get the same name of a file
//! ([`LaunchSpec::meeting`]); anything else that differs gives another name, so nobody ever gets another view than he asked
//! for. What is a rank's own affair (arguments, environment) is left out.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::RawFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use coracle_api::LaunchSpec;

use super::{Caller, files};
use crate::options::Join;

/// Directories of meetings begin with this; what follows names the boot, since nodes may share a cache.
const PREFIX: &str = "ranks-";
/// After this time a directory of another boot is nobody's.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// The job whose ranks this run is to meet, if any.
pub(super) fn job(asked: &Join, caller: &Caller) -> Option<String> {
    match asked {
        Join::Auto => of(|name| caller.var(name)),
        Join::Never => None,
        Join::Named(name) => Some(format!("named {name:?}")),
    }
}

/// The job by what its launcher says, the nearest one first: one may have been started by another's rank.
fn of<'a>(var: impl Fn(&str) -> Option<&'a OsStr>) -> Option<String> {
    let text = |name: &str| var(name).and_then(OsStr::to_str).filter(|value| !value.is_empty());
    // A PMI server has one socket for each rank, which it made itself.
    if text("PMI_RANK").or(text("PMI_ID")).is_some() {
        if let Some(server) = text("PMI_FD").and_then(|fd| server(fd.parse().ok()?)) {
            return Some(format!("pmi {server}"));
        }
        if let Some(port) = text("PMI_PORT") {
            return Some(format!("pmi {port}"));
        }
    }
    if let Some(namespace) = text("PMIX_NAMESPACE").or(text("OMPI_MCA_ess_base_jobid")) {
        return Some(format!("pmix {}", family(namespace)));
    }
    if let Some(job) = text("PALS_APID") {
        return Some(format!("pals {job}"));
    }
    let several = |name: &str| text(name).and_then(|count| count.parse().ok()).is_some_and(|count: u32| count > 1);
    if text("SLURM_PROCID").is_some() && (several("SLURM_STEP_NUM_TASKS") || several("SLURM_NTASKS")) {
        return Some(format!("slurm {}.{}", text("SLURM_JOB_ID")?, text("SLURM_STEP_ID")?));
    }
    None
}

/// What a job has in common with those that it spawns (`MPI_Comm_spawn`): Open MPI 4 counts them in the lower 16 bits of a
/// number, PRRTE behind an `@`.
fn family(namespace: &str) -> String {
    match namespace.parse::<u32>() {
        Ok(number) => (number >> 16).to_string(),
        Err(_) => namespace.split('@').next().unwrap_or_default().to_owned(),
    }
}

/// The process that made this socket, and its start time.
fn server(fd: RawFd) -> Option<String> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `peer`, which is that long and outlives the call; a number that is
    // no socket is an error.
    let done =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len) };
    if done != 0 || peer.pid <= 0 {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", peer.pid)).unwrap_or_default();
    // The name in parentheses may hold anything; what follows it starts with field 3.
    let start = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(22 - 3)).unwrap_or("?");
    Some(format!("{}@{start}", peer.pid))
}

/// The file by which the ranks of `job` with this specification meet, in the directory that all of them share; none where
/// the node does not tell what they have in common.
pub(super) fn meeting(spec: &LaunchSpec, job: &str, shared: &Path) -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let dir = shared.join(format!("{PREFIX}{}", files::digest_name(boot.as_bytes())));
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => remove_old(shared, &dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(_) => return None,
    }
    let mut common = format!("{job}\n");
    for kind in ["user", "mnt", "pid"] {
        common.push_str(fs::read_link(format!("/proc/self/ns/{kind}")).ok()?.to_str()?);
    }
    let view = view(spec);
    common.push_str(&serde_json::to_string(&view).ok()?);
    // What a path means may change while the job runs.
    for path in view.binds.iter().map(|bind| &bind.host).chain([&view.root]) {
        let place = fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        common.push_str(&format!("{place:?}"));
    }
    Some(dir.join(files::digest_name(common.as_bytes())))
}

/// The specification, less what does not show in the namespaces.
fn view(spec: &LaunchSpec) -> LaunchSpec {
    LaunchSpec {
        argv: Vec::new(),
        program: None,
        handover: Vec::new(),
        env: Vec::new(),
        // It is made where the image lacks it.
        cwd: if spec.make_cwd { spec.cwd.clone() } else { PathBuf::new() },
        host_path: None,
        variant: None,
        started: None,
        recording: None,
        meeting: None,
        ..spec.clone()
    }
}

/// Removes directories of boots long ago, this node's or another's.
fn remove_old(shared: &Path, own: &Path) {
    for entry in fs::read_dir(shared).into_iter().flatten().flatten() {
        let other = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) && entry.path() != own;
        let modified = entry.metadata().and_then(|meta| meta.modified());
        if other && modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > OLD)) {
            // Litter; another run may remove it at once.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use coracle_api::{Bind, BindOrigin, Identity};

    use super::*;

    fn job_of(vars: &[(&str, &str)]) -> Option<String> {
        of(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsStr::new(*value)))
    }

    #[test]
    fn each_launcher_names_its_job() {
        let is = |vars: &[(&str, &str)], job: &str| assert_eq!(job_of(vars).as_deref(), Some(job), "{vars:?}");
        is(&[("PMIX_NAMESPACE", "slurm.pmix.7.0"), ("SLURM_JOB_ID", "7")], "pmix slurm.pmix.7.0");
        is(&[("PMIX_NAMESPACE", "1929052161"), ("PMIX_RANK", "1")], "pmix 29435");
        is(&[("OMPI_MCA_ess_base_jobid", "1929052162")], "pmix 29435");
        is(&[("PMIX_NAMESPACE", "prterun-n1-77@2")], "pmix prterun-n1-77");
        is(&[("PMI_RANK", "0"), ("PMI_FD", "9999"), ("PMI_PORT", "n1:4000")], "pmi n1:4000");
        let step =
            [("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")];
        is(&step, "slurm 7.0");
        is(&[("PALS_APID", "a-b")], "pals a-b");
        // A batch script, a step of one task, a number of a descriptor and nothing else.
        assert_eq!(job_of(&[("SLURM_JOB_ID", "7"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")]), None);
        assert_eq!(job_of(&[("SLURM_STEP_NUM_TASKS", "1"), step[0], step[1], step[2]]), None);
        assert_eq!(job_of(&[("PMI_FD", "0")]), None);
        assert_eq!(job_of(&[]), None);
    }

    #[test]
    fn a_pmi_socket_tells_who_made_it() {
        use std::os::{fd::AsRawFd, unix::net::UnixStream};
        let (one, _other) = UnixStream::pair().expect("descriptors are left");
        let fd = one.as_raw_fd().to_string();
        let job = job_of(&[("PMI_RANK", "0"), ("PMI_FD", &fd)]).expect("it is a socket");
        assert!(job.starts_with(&format!("pmi {}@", std::process::id())) && !job.ends_with('?'), "{job}");
    }

    #[test]
    fn only_the_same_view_gives_the_same_meeting() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let root = dir.path().join("root");
        fs::create_dir(&root).expect("it is empty");
        let spec = LaunchSpec { argv: vec!["a".into()], ..LaunchSpec::new(root, Identity::launcher(1, 2)) };
        let at = |spec: &LaunchSpec, job: &str| meeting(spec, job, dir.path()).expect("the node tells");
        let first = at(&spec, "x");
        let rank = LaunchSpec {
            argv: vec!["b".into()],
            env: vec![(OsString::from("RANK"), OsString::from("1"))],
            cwd: "/elsewhere".into(),
            ..spec.clone()
        };
        assert_eq!(first, at(&rank, "x"));
        assert!(first.parent().is_some_and(Path::is_dir) && !first.exists());
        let bound = dir.path().join("bound");
        fs::create_dir(&bound).expect("it is ours");
        let bind = Bind {
            host: bound.clone(),
            guest: "/data".into(),
            read_only: false,
            optional: true,
            origin: BindOrigin::Volume,
        };
        let with_bind = LaunchSpec { binds: vec![bind], ..spec.clone() };
        let bound_first = at(&with_bind, "x");
        fs::rename(&bound, dir.path().join("old")).expect("it is ours");
        fs::create_dir(&bound).expect("it is ours");
        let others = [
            at(&spec, "y"),
            bound_first,
            at(&with_bind, "x"),
            at(&LaunchSpec { identity: Identity::launcher(1, 3), ..spec.clone() }, "x"),
            at(&LaunchSpec { hostname: Some("n".into()), ..spec.clone() }, "x"),
            at(&LaunchSpec { make_cwd: true, cwd: "/elsewhere".into(), ..spec.clone() }, "x"),
            first,
        ];
        let different: std::collections::BTreeSet<_> = others.iter().collect();
        assert_eq!(different.len(), others.len(), "{others:?}");
    }
}
