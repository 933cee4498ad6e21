//! Containers whose root gave files to others under `namespaces`: on disk these belong to the caller's subordinate ids, and
//! the caller can export, copy, bundle and remove them all the same.

use std::{fs, os::unix::fs::MetadataExt as _};

use harness::{skip, user};

use super::runs::World;

/// Files that the caller may not read, in directories that he may not enter.
const CLOSED: &str = "mkdir -p /d/e; echo secret > /d/e/f; touch /d/e/mine; chown -R games:games /d; chown 0:0 /d/e/mine; \
                      chmod 600 /d/e/f; chmod 700 /d /d/e; adduser -D bob";

fn has_subordinate_ids() -> bool {
    let Some(name) = &user::ordinary().name else { return false };
    ["/etc/subuid", "/etc/subgid"]
        .iter()
        .all(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("{name}:"))))
}

/// A world in which they lie; none where nobody has such ids.
fn world() -> Option<World> {
    if !has_subordinate_ids() || skip::lacks(&["newuidmap", "newgidmap", "tar"]) {
        skip::because("the ordinary user has no subordinate ids");
        return None;
    }
    let world = World::new()?;
    world.run(&["--execmode=R1"], CLOSED).ok();
    let closed = fs::metadata(world.root().join("d")).unwrap();
    assert!(closed.uid() != user::ordinary().uid && closed.uid() != 35, "{}", closed.uid());
    Some(world)
}

#[test]
fn what_belongs_to_subordinate_ids_is_exported_copied_and_bundled() {
    let Some(world) = world() else { return };
    let sandbox = &world.sandbox;
    let listing =
        ["drwx------ 35/35", "-rw------- 35/35", "d/e/f", "-rw-r--r-- 0/0", "drwxr-sr-x 1000/1000", "-rw-r----- 0/42"];
    let listed = |file: &str| {
        let listed = sandbox.run("tar", ["tvf", file]);
        listing.iter().for_each(|part| assert!(listed.ok().contains(part), "{part}: {listed}"));
    };
    sandbox.coracle(["export", "-o", "base.tar", "base"]).ok();
    listed("base.tar");
    let piped = format!("{} export base > piped.tar", harness::coracle().display());
    sandbox.run("sh", ["-c", &piped]).ok();
    assert!(fs::read(sandbox.work("piped.tar")).unwrap() == fs::read(sandbox.work("base.tar")).unwrap());
    // A clone has them as its root sees them, and clones again.
    sandbox.coracle(["clone", "base", "--name=copy"]).ok();
    let seen = sandbox.coracle([
        "run",
        "--execmode=R1",
        "copy",
        "sh",
        "-c",
        "stat -c '%u:%g %a' /d /d/e/f /home/bob; cat /d/e/f",
    ]);
    assert_eq!(seen.ok(), "35:35 700\n35:35 600\n1000:1000 2755\nsecret");
    sandbox.coracle(["export", "-o", "copy.tar", "copy"]).ok();
    listed("copy.tar");
    sandbox.coracle(["cp", "base:/d", "here"]).ok();
    assert_eq!(fs::read_to_string(sandbox.work("here/e/f")).unwrap(), "secret\n");
    assert_eq!(fs::metadata(sandbox.work("here/e/f")).unwrap().uid(), user::ordinary().uid);
    sandbox.coracle(["build", "container:base", "-o", "base.run"]).ok();
    sandbox.run("./base.run", ["--coracle-tar=bundle.tar"]).ok();
    listed("bundle.tar");
    sandbox.coracle(["verify", "base"]).ok();
    // And all of it can go.
    sandbox.coracle(["rm", "base", "copy"]).ok();
    for directory in ["containers", "trash"] {
        let left = sandbox.path().join("home/.coracle").join(directory);
        assert_eq!(fs::read_dir(left).unwrap().count(), 0, "{directory}");
    }
}

#[test]
fn a_tree_of_subordinate_ids_can_be_taken_back() {
    let Some(world) = world() else { return };
    // A tracer's root is the caller, who is told why he cannot look.
    let said = world.run(&["--execmode=P1"], "cat /d/e/f");
    said.code_is(1);
    assert!(said.stderr.contains("subordinate ids") && said.stderr.contains("setup --fixperm"), "{said}");
    world.sandbox.coracle(["setup", "--fixperm", "base"]).ok();
    world.says(&["--execmode=P1"], "cat /d/e/f", "secret");
    assert_eq!(fs::metadata(world.root().join("d/e/f")).unwrap().uid(), user::ordinary().uid);
    world.sandbox.coracle(["rm", "base"]).ok();
}
