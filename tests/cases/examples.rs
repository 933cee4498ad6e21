//! Every folder of `examples/` is run as its README says, and prints what it promises.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use harness::{
    Sandbox, Slurm, coracle, hello,
    images::{self, ALPINE, workspace},
    skip,
};

/// Runs an example's script, as it was written or from a copy of its folder: the workspace may lie where only its owner can
/// read.
fn run(name: &str, sandbox: &mut Sandbox, source: &Path) {
    sandbox
        .set("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", coracle().parent().unwrap().display()));
    let example = workspace().join("examples").join(name);
    for file in fs::read_dir(&example).unwrap().map(Result::unwrap) {
        sandbox.write(&format!("{name}/{}", file.file_name().display()), fs::read(file.path()).unwrap());
    }
    let script = format!("{name}/run.sh");
    let output = sandbox.run("sh", [script.as_ref(), source.as_os_str()]);
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
fn parallel() {
    on_alpine("parallel", &["xargs"]);
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
fn no_example_is_left_out() {
    let folders = fs::read_dir(workspace().join("examples")).unwrap().map(|entry| entry.unwrap().file_name());
    let run = ["cron", "hello", "parallel", "pipes", "signed", "slurm"];
    assert_eq!(folders.collect::<BTreeSet<_>>(), run.iter().map(Into::into).collect());
}
