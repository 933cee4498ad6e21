//! Containers of the store, one command after the other: create, ps, rm, names, clone, setup, protect, diff, inspect.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use harness::{
    Sandbox,
    oci::{Layer, OciImage},
};
use serde_json::{Value, json};

/// A sandbox with an image archive `image` in the working directory (a layout, two layers).
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let config = json!({
        "Cmd": ["/hello", "you"], "Env": ["A=b"], "WorkingDir": "/srv", "User": "5:6", "Labels": {"k": "v"},
        "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGINT",
    });
    let lower = Layer::new()
        .dir("etc/", 0o755)
        .file("etc/gone", 0o644, b"x")
        .file("etc/shadow", 0o000, b"secret")
        .file("bin/su", 0o4755, b"#!/bin/sh\n")
        .hard_link("bin/again", "bin/su")
        .dir("closed/", 0o000)
        .file("closed/file", 0o444, b"inside");
    let upper = Layer::new().whiteout("etc/gone").file("etc/new", 0o644, b"new").symlink("lib", "usr/lib");
    OciImage::new(config).layer(lower).layer(upper).write(&sandbox.work("image")).unwrap();
    sandbox
}

fn create(sandbox: &Sandbox, args: &[&str]) -> String {
    let all = [&["create"], args, &["oci:image:latest"]].concat();
    sandbox.coracle(all).ok().to_owned()
}

fn root(sandbox: &Sandbox, container: &str) -> PathBuf {
    PathBuf::from(sandbox.coracle(["inspect", "-p", container]).ok())
}

fn inspect(sandbox: &Sandbox, container: &str) -> Value {
    let all: Value = serde_json::from_str(sandbox.coracle(["inspect", container]).ok()).unwrap();
    all[0].clone()
}

fn names(sandbox: &Sandbox, format: &str) -> Vec<String> {
    let output = sandbox.coracle(["ps", "--format", format]);
    output.ok().lines().map(str::to_owned).collect()
}

#[test]
fn an_image_becomes_a_tree_that_its_user_can_change() {
    let sandbox = sandbox();
    let id = create(&sandbox, &["--name", "web"]);
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let root = root(&sandbox, "web");
    assert_eq!(fs::read(root.join("etc/new")).unwrap(), b"new");
    assert!(!root.join("etc/gone").exists());
    assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
    let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(meta("bin/su").ino(), meta("bin/again").ino());
    let modes = ["etc/shadow", "bin/su", "closed", "closed/file"].map(|name| meta(name).mode() & 0o7777);
    assert_eq!(modes, [0o600, 0o755, 0o700, 0o644], "its user can read and write all of it, and nothing is set-id");
    let shown = inspect(&sandbox, "web");
    assert_eq!(shown["Config"]["Cmd"], json!(["/hello", "you"]));
    assert_eq!(shown["Config"]["User"], "5:6");
    assert_eq!(shown["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!(
        (&shown["Id"], &shown["Name"], &shown["State"]["Status"]),
        (&json!(id), &json!("web"), &json!("created"))
    );
    // The list of owners has what the tree has not.
    let owners = fs::read(root.with_file_name("owners")).unwrap();
    let owners = String::from_utf8(owners).unwrap();
    assert!(owners.contains("100000 0 0 0:0 etc/shadow\0") && owners.contains("104755 0 0 0:0 bin/su\0"), "{owners:?}");
    // And an export gives it back.
    let tar = sandbox.work("web.tar");
    sandbox.coracle(["export", "-o", "web.tar", "web"]).ok();
    let listed = sandbox.run("tar", ["tvf", tar.to_str().unwrap()]);
    for line in ["---------- 0/0", "-rwsr-xr-x 0/0", "d--------- 0/0"] {
        assert!(listed.ok().contains(line), "{line}: {listed}");
    }
    assert!(listed.ok().contains("link to bin/"), "{listed}");
}

#[test]
fn names_are_given_changed_and_taken() {
    let sandbox = sandbox();
    let id = create(&sandbox, &["--name", "one"]);
    let other = create(&sandbox, &[]);
    for name in ["a/b", "..", "a b", "ü", "-x", "", "../../etc", "a\nb"] {
        let named = format!("--name={name}");
        sandbox.coracle(["create", named.as_str(), "oci:image:latest"]).fails_with(&["cannot name a container"]);
        sandbox.coracle(["name", "one", "--", name]).fails_as(1, &["cannot name a container"]);
    }
    sandbox.coracle(["create", "--name", "one", "oci:image:latest"]).fails_with(&["the name one is taken", &id[..12]]);
    let third = create(&sandbox, &["--name", "one", "--force"]);
    sandbox.coracle(["rm", &third]).ok();
    sandbox.coracle(["name", "one", "uno"]).ok();
    sandbox.coracle(["rename", "one", "first"]).ok();
    sandbox.coracle(["rename", &other[..6], "second"]).ok();
    let several = sandbox.coracle(["inspect", "-f", "{{.Id}}", "first", "nobody:1", "second"]);
    assert!(several.code != Some(0) && several.stdout.trim() == format!("{id}\n{other}"), "{several}");
    sandbox.coracle(["rename", "second", "first"]).fails_as(1, &["is taken"]);
    let listed = names(&sandbox, "{{.ID}} {{.Names}}");
    assert!(listed.contains(&format!("{} first,uno", &id[..12])), "{listed:?}");
    assert!(listed.contains(&format!("{} second", &other[..12])), "{listed:?}");
    sandbox.coracle(["rmname", "uno"]).ok();
    sandbox.coracle(["rmname", "uno"]).fails_as(1, &["no such container: uno"]);
    sandbox.coracle(["inspect", "-p", "uno"]).fails_with(&["no such container"]);
    assert_eq!(sandbox.coracle(["ps", "--filter", "name=sec", "-q"]).ok(), &other[..12]);
}

#[test]
fn lists_have_columns_templates_and_json() {
    let sandbox = sandbox();
    let id = create(&sandbox, &["--name", "web"]);
    let table = sandbox.coracle(["ps", "-m", "-s", "-p"]);
    let lines: Vec<&str> = table.ok().lines().collect();
    for heading in ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "MODE", "PLATFORM", "SIZE", "NAMES"] {
        assert!(lines[0].contains(heading), "{table}");
    }
    for part in [&id[..12], "oci:image:latest", "\"/hello you\"", "Created", "auto", "linux/amd64", "kB", "web"] {
        assert!(lines[1].contains(part), "{part}: {table}");
    }
    assert!(!table.stdout.contains('\u{1b}'), "no colours in a pipe");
    let line: Value = serde_json::from_str(sandbox.coracle(["ps", "--format", "json"]).ok()).unwrap();
    assert_eq!((&line["Names"], &line["State"]), (&json!("web"), &json!("created")));
    assert_eq!(sandbox.coracle(["ps", "-q", "--no-trunc"]).ok(), id);
    assert_eq!(names(&sandbox, "{{.Names}}\\t{{json .Image}}"), ["web\t\"oci:image:latest\""]);
    assert_eq!(names(&sandbox, "table {{.Names}}\t{{.State}}"), ["NAMES   STATE", "web     created"]);
    sandbox.coracle(["ps", "--format", "{{.Nope}}"]).fails_as(1, &["there is no field .Nope", ".Names"]);
    assert_eq!(sandbox.coracle(["inspect", "web", "-f", "{{.Config.WorkingDir}}"]).ok(), "/srv");
    assert_eq!(sandbox.coracle(["ps", "--filter", "status=running", "-q"]).ok(), "");
    assert_eq!(sandbox.coracle(["ps", "-r", "-q"]).ok(), "");
}

#[test]
fn containers_are_removed_whatever_is_in_them() {
    let sandbox = sandbox();
    create(&sandbox, &["--name", "web"]);
    let root = root(&sandbox, "web");
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o500)).unwrap();
    sandbox.coracle(["protect", "web"]).ok();
    sandbox.coracle(["rm", "-f", "web"]).fails_as(1, &["is protected", "unprotect"]);
    sandbox.coracle(["unprotect", "web"]).ok();
    let removed = sandbox.coracle(["rm", "web", "nope", "web"]);
    removed.fails_as(1, &["no such container"]);
    assert_eq!(removed.stdout, "web\n");
    assert!(!root.exists());
    for directory in ["containers", "trash"] {
        let left = sandbox.path().join("home/.coracle").join(directory);
        assert_eq!(fs::read_dir(left).unwrap().count(), 0, "{directory}");
    }
    assert_eq!(sandbox.coracle(["ps", "-q"]).ok(), "");
}

#[test]
fn a_container_in_use_stays() {
    let sandbox = sandbox();
    create(&sandbox, &["--name", "web"]);
    // What runs in a container holds its lease.
    let lease = root(&sandbox, "web").with_file_name("lease");
    let mut holder = sandbox.command("flock");
    holder.arg("--shared").arg(&lease).args(["sleep", "60"]);
    let mut holder = holder.spawn().unwrap();
    harness::eventually("it is held", 5, || sandbox.coracle(["ps", "-r", "-q"]).ok().len() == 12);
    sandbox.coracle(["rm", "web"]).fails_as(1, &["is running", "stop it", "-f"]);
    sandbox.coracle(["prune", "--containers", "-f"]).ok();
    assert!(sandbox.coracle(["ps"]).ok().contains("Up"));
    // flock's child holds it too; both are of our own making.
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn two_removals_of_one_container_remove_it_once() {
    let sandbox = sandbox();
    for _ in 0..5 {
        create(&sandbox, &["--name", "web"]);
        let both: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| sandbox.coracle(["rm", "web"]))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let removed = both.iter().filter(|output| output.code == Some(0)).count();
        assert_eq!(removed, 1, "{both:?}");
        for other in both.iter().filter(|output| output.code != Some(0)) {
            let text = &other.stderr;
            assert!(text.contains("no such container") || text.contains("is running"), "{other}");
        }
    }
    sandbox.coracle(["verify"]).ok();
}

#[test]
fn a_clone_is_another_container() {
    let sandbox = sandbox();
    let id = create(&sandbox, &["--name", "web"]);
    sandbox.coracle(["setup", "--execmode=P2", "web"]).ok();
    let was = root(&sandbox, "web");
    fs::write(was.join("etc/new"), "changed").unwrap();
    let copy = sandbox.coracle(["clone", "web", "--name", "copy"]).ok().to_owned();
    assert_ne!(id, copy);
    let is = root(&sandbox, "copy");
    assert_eq!(fs::read(is.join("etc/new")).unwrap(), b"changed");
    fs::write(is.join("etc/new"), "again").unwrap();
    assert_eq!(fs::read(was.join("etc/new")).unwrap(), b"changed");
    assert_eq!(fs::read(was.with_file_name("owners")).unwrap(), fs::read(is.with_file_name("owners")).unwrap());
    assert_eq!(sandbox.coracle(["setup", "copy"]).ok(), "engine: P2");
    assert_eq!(inspect(&sandbox, "copy")["Config"], inspect(&sandbox, "web")["Config"]);
}

#[test]
fn engines_are_chosen_and_trees_repaired() {
    let sandbox = sandbox();
    create(&sandbox, &["--name", "web"]);
    for mode in ["P1", "P2", "R1", "R2", "R3", "F1", "F2", "F3", "F4", "S1", "ptrace", "namespaces"] {
        sandbox.coracle(["setup", &format!("--execmode={mode}"), "web"]).ok();
        assert_eq!(sandbox.coracle(["setup", "web"]).ok(), format!("engine: {mode}"));
    }
    sandbox.coracle(["setup", "--execmode=auto", "web"]).ok();
    assert_eq!(sandbox.coracle(["setup", "web"]).ok(), "engine: auto");
    sandbox.coracle(["setup", "--execmode=X9", "web"]).fails_as(1, &["X9", "no such engine", "p1"]);
    let root = root(&sandbox, "web");
    fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o000)).unwrap();
    sandbox.coracle(["setup", "--fixperm", "web"]).ok();
    assert_eq!(fs::metadata(root.join("etc")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn what_a_container_changed_is_shown() {
    let sandbox = sandbox();
    // From an archive nothing is kept to compare with; from the store there is.
    create(&sandbox, &["--name", "loose"]);
    sandbox.coracle(["diff", "loose"]).fails_as(1, &["loose", "store"]);
    let tar = sandbox.run("tar", ["-C", "image", "-cf", "image.tar", "."]);
    tar.ok();
    sandbox.coracle(["load", "-i", "image.tar", "my:1"]).ok();
    sandbox.coracle(["create", "--name", "web", "my:1"]).ok();
    assert_eq!(sandbox.coracle(["diff", "web"]).ok(), "");
    let root = root(&sandbox, "web");
    fs::write(root.join("etc/added"), "x").unwrap();
    fs::write(root.join("etc/new"), "NEW").unwrap();
    fs::remove_dir_all(root.join("closed")).unwrap();
    fs::set_permissions(root.join("bin/su"), fs::Permissions::from_mode(0o700)).unwrap();
    let diff = sandbox.coracle(["diff", "web"]);
    assert_eq!(
        diff.ok().lines().collect::<Vec<_>>(),
        ["C /bin", "C /bin/again", "C /bin/su", "D /closed", "C /etc", "A /etc/added", "C /etc/new"],
        "{diff}"
    );
}

#[test]
fn a_container_becomes_a_bundle() {
    let sandbox = sandbox();
    create(&sandbox, &["--name", "web"]);
    fs::write(root(&sandbox, "web").join("etc/new"), "changed").unwrap();
    sandbox.coracle(["build", "container:web", "-o", "web.run"]).ok();
    let tar = sandbox.run("./web.run", ["--coracle-tar=web.tar"]);
    if tar.code != Some(0) {
        sandbox.coracle(["create", "--name", "back", "bundle:web.run"]).ok();
    } else {
        sandbox.coracle(["import", "--tocontainer", "--name", "back", "web.tar"]).ok();
    }
    assert_eq!(fs::read(root(&sandbox, "back").join("etc/new")).unwrap(), b"changed");
    sandbox.coracle(["create", "--name", "bundled", "bundle:web.run"]).ok();
    assert_eq!(inspect(&sandbox, "bundled")["Config"]["Cmd"], json!(["/hello", "you"]));
    let owners = |name: &str| fs::read(root(&sandbox, name).with_file_name("owners")).unwrap();
    assert_eq!(owners("bundled"), owners("web"), "owners and modes went with it");
}
