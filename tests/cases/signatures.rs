//! Signed bundles: who made them is found by a program that was there before, and minisign agrees.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use harness::{Sandbox, bundles, coracle, skip};
use serde_json::Value;

/// A copy of Alpine's bundle that the user may change, and a pair of keys.
fn signed(sandbox: &Sandbox) -> Option<PathBuf> {
    let path = copy(sandbox, "app.run", &[])?;
    sandbox.coracle(["keygen", "-W", "alice"]).ok();
    sandbox.coracle(["sign", "--key", "alice.key", "--comment", "version 1", "app.run"]).ok();
    Some(path)
}

fn copy(sandbox: &Sandbox, name: &str, options: &[&str]) -> Option<PathBuf> {
    let bytes = fs::read(bundles::of(harness::images::ALPINE, options)?).unwrap();
    let path = sandbox.write(name, bytes);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Some(path)
}

fn inspect(sandbox: &Sandbox, name: &str) -> Value {
    serde_json::from_str(sandbox.coracle(["inspect", "--json", name]).ok()).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn what_is_signed_runs_and_says_so() {
    let sandbox = Sandbox::new();
    let Some(path) = signed(&sandbox) else { return };
    let output = sandbox.coracle([
        "run",
        "--require-key",
        "alice.pub",
        "app.run",
        "sh",
        "-c",
        "echo \"$0,$1,$#\"; exit 7",
        "a b",
        "",
    ]);
    assert_eq!((output.code, &*output.stdout), (Some(7), "a b,,1\n"), "{output}");
    assert!(sandbox.coracle(["verify", "--key", "alice.pub", "app.run"]).ok().ends_with("app.run: signed: version 1"));
    let own = sandbox.run(&path, ["--coracle-verify", "--coracle-key=alice.pub"]);
    assert!(own.ok().contains("signed: version 1"), "{own}");
    assert_eq!(sandbox.run(&path, ["--coracle-key=alice.pub", "echo", "ran"]).ok(), "ran");
    // The line with the key is enough, as minisign's -P has it.
    let key = fs::read_to_string(sandbox.work("alice.pub")).unwrap();
    sandbox.write("line", key.lines().nth(1).unwrap());
    sandbox.coracle(["verify", "--key", "line", "app.run"]).ok();
    if !skip::lacks(&["zstd"]) {
        let p = inspect(&sandbox, "app.run")["regions"]["payload"]["offset"].as_u64().unwrap() + 1;
        let listed = sandbox.run("sh", ["-c", &format!("tail -c +{p} app.run | zstd -d | tar t")]);
        assert!(listed.ok().contains("etc/alpine-release"), "{listed}");
    }
}

#[test]
fn what_is_not_signed_so_does_not_run() {
    let sandbox = Sandbox::new();
    let Some(path) = signed(&sandbox) else { return };
    sandbox.coracle(["keygen", "-W", "mallory"]).ok();
    let run = |key: &str, name: &str| sandbox.coracle(["run", "--require-key", key, name, "echo", "ran"]);
    run("mallory.pub", "app.run").fails_with(&["app.run: is signed, but not with the key mallory.pub"]);
    let Some(_) = copy(&sandbox, "bare.run", &[]) else { return };
    run("alice.pub", "bare.run").fails_with(&["bare.run: is not signed"]);
    run("bare.run", "app.run").fails_with(&["bare.run"]);
    run("alice.key", "app.run").fails_with(&["alice.key: is no public key"]);
    run("missing", "app.run").fails_with(&["missing: cannot be read"]);

    // Someone else's application with Alice's signature behind it.
    let Some(other) = copy(&sandbox, "other.run", &["--cmd", "[\"/bin/sh\"]"]) else { return };
    let (a, b) = (inspect(&sandbox, "app.run"), inspect(&sandbox, "other.run"));
    assert_ne!(a["statement"], b["statement"]);
    sandbox.coracle(["sign", "--key", "mallory.key", "other.run"]).ok();
    let text = |value: &Value| value["signatures"][0].as_str().unwrap().to_owned();
    let theirs = text(&inspect(&sandbox, "other.run"));
    let hers = text(&a);
    let mut bytes = fs::read(&other).unwrap();
    let at = bytes.windows(theirs.len()).position(|window| window == theirs.as_bytes()).unwrap();
    // As long as hers: only the comment differs, which the signature's owner chose.
    let padded =
        hers.replace("version 1", &format!("{:1$}", "version 1", "version 1".len() + theirs.len() - hers.len()));
    bytes[at..at + theirs.len()].copy_from_slice(padded.as_bytes());
    fs::write(&other, bytes).unwrap();
    run("alice.pub", "other.run").fails_with(&["other.run", "signatures"]);

    // Changed since: in the stub, whose digest the manifest has, and in the payload, which the index vouches for.
    let slot = a["manifest"]["stub"]["slot"].as_u64().unwrap();
    let payload = a["regions"]["payload"]["offset"].as_u64().unwrap();
    flip(&path, slot - 200);
    run("alice.pub", "app.run").fails_with(&["is not what the owner of the key alice.pub signed"]);
    flip(&path, slot - 200);
    flip(&path, payload + 100);
    sandbox.coracle(["verify", "--key", "alice.pub", "app.run"]).fails_with(&["frame 0"]);
    flip(&path, payload + 100);
    run("alice.pub", "app.run").ok();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    run("alice.pub", "app.run").fails_with(&["others than you may change it"]);
    sandbox.coracle(["verify", "--key", "alice.pub", "alpine:3"]).fails_with(&["is no bundle"]);
}

#[test]
fn several_may_sign_and_each_once() {
    let sandbox = Sandbox::new();
    let Some(path) = signed(&sandbox) else { return };
    let len = || fs::metadata(&path).unwrap().len();
    let once = len();
    sandbox.coracle(["sign", "--key", "alice.key", "--comment", "version 2", "app.run"]).ok();
    assert_eq!(len(), once);
    sandbox.run("sh", ["-c", &format!("echo secret | {} keygen --password-stdin bob", coracle().display())]).ok();
    let mode = fs::metadata(sandbox.work("bob.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let sign = |password: &str| {
        let line = format!(
            "echo {password} | {} sign --key bob.key --password-stdin -o both.run app.run",
            coracle().display()
        );
        sandbox.run("sh", ["-c", &line])
    };
    sign("wrong").fails_with(&["bob.key: is no usable secret key"]);
    assert!(!sandbox.work("both.run").exists());
    sign("secret").ok();
    for key in ["alice.pub", "bob.pub"] {
        sandbox.coracle(["verify", "--key", key, "both.run"]).ok();
    }
    assert!(sandbox.coracle(["verify", "--key", "alice.pub", "both.run"]).ok().ends_with("version 2"));
    sandbox.coracle(["keygen", "-W", "alice"]).fails_with(&["alice.key: it is there already"]);
}

#[test]
fn minisign_has_the_same_keys_and_signatures() {
    if skip::lacks(&["minisign"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let Some(_) = copy(&sandbox, "app.run", &[]) else { return };
    sandbox.run("minisign", ["-G", "-W", "-p", "carol.pub", "-s", "carol.key"]).ok();
    sandbox.coracle(["sign", "--key", "carol.key", "app.run"]).ok();
    let shown = inspect(&sandbox, "app.run");
    sandbox.write("statement", shown["statement"].as_str().unwrap());
    sandbox.write("statement.minisig", shown["signatures"][0].as_str().unwrap());
    let checked = sandbox.run("minisign", ["-V", "-p", "carol.pub", "-m", "statement"]);
    assert!(checked.ok().contains("verified"), "{checked}");
    sandbox.coracle(["run", "--require-key", "carol.pub", "app.run", "true"]).ok();
}
