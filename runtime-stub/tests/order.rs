//! The bare stub as a launcher for others: an order through a descriptor, a tree, a program that runs in it.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use coracle_api::{Access, Devices, Identity, ImageFacts, LaunchSpec, Order, Request, SPEC_VERSION, Unshare};

/// A directory with the Alpine tree, or a reason why there is none.
fn alpine() -> Option<tempfile::TempDir> {
    let tar = harness::images::find(harness::images::ALPINE)?;
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    fs::create_dir(dir.path().join("root")).expect("it is empty");
    fs::create_dir(dir.path().join("scratch")).expect("it is empty");
    let status = Command::new("tar").arg("-C").arg(dir.path().join("root")).arg("-xzf").arg(tar).status();
    assert!(status.is_ok_and(|status| status.success()), "tar failed");
    Some(dir)
}

fn order(dir: &Path, script: &str) -> Order {
    // SAFETY: these take no argument, touch no memory and cannot fail (getuid(2)).
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let spec = LaunchSpec {
        version: SPEC_VERSION,
        root: dir.join("root"),
        names: None,
        access: Access::Direct,
        scratch: dir.join("scratch"),
        argv: ["sh", "-c", script].map(Into::into).into(),
        env: vec![("PATH".into(), "/bin:/usr/bin".into())],
        cwd: "/".into(),
        make_cwd: false,
        identity: Identity { uid, gid, groups: Vec::new(), host_uid: uid, host_gid: gid, subordinate: None },
        binds: Vec::new(),
        devices: Devices::Host,
        unshare: Unshare::default(),
        hostname: None,
        ports: Vec::new(),
        ledger: None,
        variant: None,
    };
    Order { spec, request: Request::default(), facts: ImageFacts::default(), remove_scratch: false, verbose: false }
}

fn carry_out(bytes: &[u8]) -> Output {
    let mut file = tempfile::tempfile().expect("the temporary directory is writable");
    file.write_all(bytes).and_then(|()| file.seek(SeekFrom::Start(0)).map(|_| ())).expect("writable");
    run(&file)
}

fn run(file: &File) -> Output {
    let fd = file.as_raw_fd();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle-stub"));
    command.arg("--coracle-launch=7").stdin(Stdio::null());
    // SAFETY: dup2 takes integers; the copy has no close-on-exec flag.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(fd, 7);
            Ok(())
        });
    }
    command.output().expect("the stub was built")
}

#[test]
fn a_program_runs_in_the_tree_and_its_status_comes_back() {
    let Some(dir) = alpine() else { return };
    let mut order = order(dir.path(), "cat /etc/alpine-release; echo x > /new; ls /proc/self/fd | grep -c 7; exit 5");
    let output = carry_out(&serde_json::to_vec(&order).expect("an order is JSON"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3.20.3\n0\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(5));
    assert!(dir.path().join("root/new").exists(), "the tree is the guest's own");
    order.remove_scratch = true;
    order.spec.variant = Some("ptrace".to_owned());
    let output = carry_out(&serde_json::to_vec(&order).expect("an order is JSON"));
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!dir.path().join("scratch").exists());
}

#[test]
fn what_is_no_order_is_refused_in_one_line() {
    for (bytes, part) in [(&b"{"[..], "cannot be read"), (b"", "cannot be read")] {
        let output = carry_out(bytes);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{message}");
        assert!(
            message.starts_with("coracle: ") && message.contains(part) && message.lines().count() == 1,
            "{message}"
        );
    }
    let output = Command::new(env!("CARGO_BIN_EXE_coracle-stub")).arg("--coracle-launch=99").output();
    let output = output.expect("the stub was built");
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not an open descriptor"));
}

#[test]
fn an_order_of_another_version_is_refused() {
    let mut order = order(Path::new("/nowhere"), "true");
    order.spec.version = SPEC_VERSION + 1;
    let output = carry_out(&serde_json::to_vec(&order).expect("an order is JSON"));
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("of version"));
}
