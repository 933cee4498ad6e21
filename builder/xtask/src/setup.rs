//! What the tests need of the system: installed on Debian as root, named elsewhere.

use std::{fs, path::Path, process::Command};

use harness::user;

use crate::cargo::run;

/// A program (or a file, by its whole path) that tests need, and the Debian package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
}

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// For the quick tests.
const QUICK: &[Need] = &[
    need("umoci", "umoci"),
    need("skopeo", "skopeo"),
    need("docker-registry", "docker-registry"),
    need("htpasswd", "apache2-utils"),
    need("podman", "podman"),
    need("newuidmap", "uidmap"),
    need("zstd", "zstd"),
    need("minisign", "minisign"),
    need("mkfs.xfs", "xfsprogs"),
    need("mkfs.btrfs", "btrfs-progs"),
    need("xz", "xz-utils"),
    need("strace", "strace"),
    need("gdb", "gdb"),
    need("setfattr", "attr"),
    need("script", "bsdutils"),
    need("strip", "binutils"),
    need("sbatch", "slurm-wlm"),
    need("/usr/lib/x86_64-linux-gnu/slurm-wlm/task_cgroup.so", "slurm-wlm-basic-plugins"),
    need("munged", "munge"),
    need("parallel", "parallel"),
    need("make", "make"),
    need("gcc", "gcc"),
    need("rpmbuild", "rpm"),
    need("db5.3_load", "db5.3-util"),
    need("mpirun.openmpi", "openmpi-bin"),
    need("mpicc.openmpi", "libopenmpi-dev"),
    need("mpirun.mpich", "mpich"),
    need("mpicc.mpich", "libmpich-dev"),
    need("/usr/lib32/libc.a", "gcc-multilib"),
    need("musl-gcc", "musl-tools"),
];

/// For the slow tier and the benchmarks.
const SLOW: &[Need] = &[
    need("bwrap", "bubblewrap"),
    need("mksquashfs", "squashfs-tools"),
    need("mmdebstrap", "mmdebstrap"),
    need("buildah", "buildah"),
    need("crun", "crun"),
    need("pip3", "python3-pip"),
    need("gdb", "gdb"),
    need("proot", "proot"),
    need("fakechroot", "fakechroot"),
    need("slurmdbd", "slurmdbd"),
    need("mariadbd", "mariadb-server"),
];

/// Installs or names what is missing; never fails, since a test that lacks something says so by name.
pub(crate) fn prepare(slow: bool) {
    let wanted = QUICK.iter().chain(if slow { SLOW } else { &[] });
    let missing: Vec<&Need> = wanted.filter(|need| !installed(need.program)).collect();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        if user::is_root() && Path::new("/etc/debian_version").exists() {
            eprintln!("xtask: installing with apt, for the tests: {}", packages.join(" "));
            if let Err(error) = install(&packages) {
                eprintln!("xtask: {error:#}: the tests that need these are skipped by name");
            }
        } else {
            eprintln!("xtask: missing (Debian's package names): {}", packages.join(" "));
            eprintln!("xtask: the tests that need these are skipped by name; their names follow at the end");
        }
    }
    if user::is_root() && user::ordinary().name.is_none() {
        eprintln!("xtask: making the account coracle-tester: the tests run as an ordinary user");
        if let Err(error) = run(Command::new("useradd").args(["--create-home", "coracle-tester"])) {
            eprintln!("xtask: {error:#}: a uid without an account is used");
        }
    }
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // The packages bring services that nobody here wants started.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        run(Command::new("chmod").arg("755").arg(policy))?;
    }
    let done = run(apt().args(["update", "-q"]))
        .and_then(|()| run(apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(packages)));
    if ours {
        fs::remove_file(policy)?;
    }
    done
}

fn installed(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}
