//! The bare stub as a launcher for others: an order through a descriptor, a tree, a program that runs in it.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use coracle_api::{ORDER_VERSION, Order, Temporary};

/// A directory with the Alpine tree, or a reason why there is none.
fn alpine() -> Option<tempfile::TempDir> {
    let tar = harness::images::find(harness::images::ALPINE)?;
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    fs::create_dir(dir.path().join("root")).expect("it is empty");
    let status = Command::new("tar").arg("-C").arg(dir.path().join("root")).arg("-xzf").arg(tar).status();
    assert!(status.is_ok_and(|status| status.success()), "tar failed");
    Some(dir)
}

fn order(dir: &Path, script: &str) -> Order {
    // SAFETY: these take no argument, touch no memory and cannot fail (getuid(2)).
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Order {
        made: Some(dir.join("made")),
        argv: ["sh", "-c", script].map(Into::into).into(),
        user: Some(format!("{uid}:{gid}")),
        ..Order::new(dir.join("root"))
    }
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
    order.engine = Some("ptrace".to_owned());
    let output = carry_out(&serde_json::to_vec(&order).expect("an order is JSON"));
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn how_the_run_ended_goes_on_record_and_then_the_last_command_runs() {
    let Some(dir) = alpine() else { return };
    let record = dir.path().join("record.json");
    for (script, status) in [("exit 7", 7), ("kill -9 $$", 137)] {
        fs::write(&record, r#"{"pid": 5, "command": ["x"]}"#).expect("writable");
        let order = Order {
            record: Some(record.clone()),
            temporary: vec![Temporary::new("/scratch".into(), 0o1777)],
            finally: ["cp".into(), record.clone().into(), dir.path().join("copy").into()].into(),
            ..order(dir.path(), &format!("echo > /scratch/x; ls -ld /scratch; {script}"))
        };
        let output = carry_out(&serde_json::to_vec(&order).expect("an order is JSON"));
        assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("drwxrwxrwt"), "a directory of the run's own");
        let text = fs::read(dir.path().join("copy")).expect("the last command ran after the record was written");
        let value: serde_json::Value = serde_json::from_slice(&text).expect("the record is JSON");
        assert_eq!((value["status"].as_i64(), value["pid"].as_i64()), (Some(status.into()), Some(5)), "{value}");
        assert!(value["ended"].as_u64() > Some(1_700_000_000), "{value}");
    }
}

#[test]
fn users_variables_and_an_empty_command_are_resolved_in_the_tree() {
    let Some(dir) = alpine() else { return };
    let said = |order: &Order| {
        let output = carry_out(&serde_json::to_vec(order).expect("an order is JSON"));
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let base = order(dir.path(), "id -un; echo $A-$B-$HOME; hostname; cat /etc/hostname; tail -1 /etc/hosts");
    let order = Order {
        user: Some("nobody:daemon".to_owned()),
        image_env: vec!["A=1".to_owned(), "B=2".to_owned()],
        env: vec![("A".into(), None), ("B".into(), Some("3".into()))],
        hostname: Some("boat".into()),
        hosts: vec!["10.0.0.1\tthere".to_owned()],
        ..base.clone()
    };
    assert_eq!(said(&order), "nobody\n-3-/\nboat\nboat\n10.0.0.1\tthere\n");
    let nobody = Order { user: Some("nobody-of-that-name".to_owned()), ..base.clone() };
    assert!(said(&nobody).contains("the image's /etc/passwd has no"), "{}", said(&nobody));
    let shell = Order { argv: Vec::new(), ..base };
    assert_eq!(said(&shell), "", "the tree's shell reads the end of its input");
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
    order.version = ORDER_VERSION + 1;
    let output = carry_out(&serde_json::to_vec(&order).expect("an order is JSON"));
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("of version"));
}
