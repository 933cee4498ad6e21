//! Every folder of `examples/` is run as its README says, and prints what it promises.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use harness::{
    Condor, Output, Sandbox, Slurm, coracle, hello,
    images::{self, ALPINE, workspace},
    mpi, skip,
};

/// Runs an example's script, as it was written or from a copy of its folder: the workspace may lie where only its owner can
/// read.
fn run(name: &str, sandbox: &mut Sandbox, source: &Path) {
    run_by(name, sandbox, |sandbox, script| sandbox.run("sh", [script.as_ref(), source.as_os_str()]));
}

fn run_by(name: &str, sandbox: &mut Sandbox, start: impl FnOnce(&Sandbox, &Path) -> Output) {
    sandbox
        .set("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", coracle().parent().unwrap().display()));
    let example = workspace().join("examples").join(name);
    for file in fs::read_dir(&example).unwrap().map(Result::unwrap) {
        sandbox.write(&format!("{name}/{}", file.file_name().display()), fs::read(file.path()).unwrap());
    }
    let output = start(sandbox, format!("{name}/run.sh").as_ref());
    let expected = fs::read_to_string(example.join("expected.txt")).unwrap();
    assert_eq!(output.ok(), expected.trim_end(), "{output}");
}

fn on_alpine(name: &str, needs: &[&str]) {
    let Some(image) = images::find(ALPINE) else { return };
    if skip::lacks(needs) {
        return;
    }
    let source = PathBuf::from(format!("rootfs:{}", image.display()));
    run(name, &mut Sandbox::new(), &source);
}

#[test]
fn hello() {
    let mut sandbox = Sandbox::new();
    hello::write_image(&sandbox.work("hello.oci"));
    run("hello", &mut sandbox, Path::new("hello.oci"));
}

#[test]
fn capture() {
    run("capture", &mut Sandbox::new(), Path::new("none"));
}

#[test]
fn parallel() {
    on_alpine("parallel", &["xargs", "parallel"]);
}

#[test]
fn cron() {
    on_alpine("cron", &[]);
}

#[test]
fn signed() {
    on_alpine("signed", &[]);
}

#[test]
fn pipes() {
    on_alpine("pipes", &["zstd"]);
}

#[test]
fn slurm() {
    let Some(image) = images::find(ALPINE) else { return };
    let mut sandbox = Sandbox::new();
    let Some(slurm) = Slurm::start(&mut sandbox) else { return };
    sandbox.set("CORACLE_CACHE", slurm.local());
    run("slurm", &mut sandbox, &PathBuf::from(format!("rootfs:{}", image.display())));
}

#[test]
fn htcondor() {
    let Some(image) = images::find(ALPINE) else { return };
    let Some(condor) = Condor::start() else { return };
    let mut sandbox = Sandbox::new();
    // What the tests set for their commands is none of the jobs'.
    for name in ["CORACLE_CACHE", "TMPDIR"] {
        sandbox.unset(name);
    }
    // The pool's tree has no Alpine, but the machine's /tmp.
    let source = sandbox.write("image.tar.gz", fs::read(image).unwrap());
    let source = format!("rootfs:{}", source.display());
    run_by("htcondor", &mut sandbox, |sandbox, script| {
        condor.run(sandbox, "sh", [script.as_os_str(), source.as_ref()])
    });
}

#[test]
fn ci() {
    let Some(tar) = images::debian("bookworm") else { return };
    run("ci", &mut Sandbox::new(), &PathBuf::from(format!("rootfs:{}", tar.display())));
}

#[test]
fn mpi() {
    if mpi::Library::OpenMpi.is_missing() {
        return;
    }
    let mut sandbox = Sandbox::new();
    let program = mpi::compile(&sandbox, mpi::Library::OpenMpi, "examples/mpi/ranks.c".as_ref(), "linked");
    let root = sandbox.work("tree");
    mpi::lay_out(&root, &[&program]);
    run("mpi", &mut sandbox, &PathBuf::from(format!("rootfs:{}", root.display())));
}

#[test]
fn no_example_is_left_out() {
    let folders = fs::read_dir(workspace().join("examples")).unwrap().map(|entry| entry.unwrap().file_name());
    let run = ["capture", "ci", "cron", "hello", "htcondor", "mpi", "parallel", "pipes", "signed", "slurm"];
    assert_eq!(folders.collect::<BTreeSet<_>>(), run.iter().map(Into::into).collect());
}
