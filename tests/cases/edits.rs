//! Containers whose programs are edited for the `preload` engine (F3, F4): laid, taken out, and never seen by anybody else.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use harness::{Output, Sandbox};

struct World {
    sandbox: Sandbox,
}

impl World {
    /// A container `c` of Alpine, in mode F3.
    fn new() -> Option<Self> {
        let world = Self { sandbox: Sandbox::new() };
        world.sandbox.import_alpine()?;
        world.coracle(&["create", "--name=c", "alpine:1"]).ok();
        world.coracle(&["setup", "--execmode=F3", "c"]).ok();
        Some(world)
    }

    fn coracle(&self, args: &[&str]) -> Output {
        self.sandbox.coracle(args)
    }

    fn run(&self, mode: &str, script: &str) -> Output {
        self.coracle(&["run", mode, "c", "sh", "-c", script])
    }

    fn edited(&self) -> usize {
        self.coracle(&["inspect", "-f", "{{.EditedFiles}}", "c"]).ok().trim().parse().unwrap()
    }

    fn directory(&self) -> PathBuf {
        let id = self.coracle(&["inspect", "-f", "{{.Id}}", "c"]);
        self.sandbox.path().join("home/.coracle/containers").join(id.ok().trim())
    }

    /// Its own tree, or its view of the image's.
    fn root(&self) -> PathBuf {
        PathBuf::from(self.coracle(&["inspect", "-f", "{{.Root}}", "c"]).ok().trim())
    }

    /// Whether a program of the tree names its loader by a path of the host's.
    fn is_edited(&self, program: &str) -> bool {
        let root = self.root();
        let bytes = fs::read(root.join(program)).unwrap();
        let place = root.as_os_str().as_encoded_bytes();
        bytes.windows(place.len()).any(|window| window == place)
    }
}

#[test]
fn edits_are_laid_for_f3_taken_out_for_others_and_never_leave_the_container() {
    let Some(world) = World::new() else { return };
    assert!(world.edited() > 3 && world.is_edited("bin/busybox"));
    assert_eq!(world.coracle(&["inspect", "-f", "{{.Sharing}}", "c"]).ok(), "hardlink", "the rest is the image's");
    // The program itself runs, and not a loader that is told of it.
    assert_eq!(world.run("--execmode=F3", "tr '\\0' ' ' </proc/self/cmdline").ok().trim(), "tr \\");
    world.run("--execmode=F4", "echo mine > /mine; cp /etc/motd /etc/motd2; chmod 700 /usr/bin/ssl_client; id -u").ok();
    assert!(world.is_edited("bin/busybox"), "F4 leaves them");
    let changes = world.coracle(&["diff", "c"]);
    let programs: Vec<_> = changes.ok().lines().filter(|line| line.contains("bin")).collect();
    assert_eq!(programs, ["C /usr/bin", "C /usr/bin/ssl_client"], "what the guest changed, and no more");
    world.coracle(&["export", "-o", "c.tar", "c"]).ok();
    world.coracle(&["clone", "--name=copy", "c"]).ok();
    let sums = "tar xf c.tar ./bin/busybox ./lib/ld-musl-x86_64.so.1 2>/dev/null || tar xf c.tar bin/busybox lib/ld-musl-x86_64.so.1
        md5sum < bin/busybox; md5sum < lib/ld-musl-x86_64.so.1";
    let exported = world.sandbox.run("sh", ["-c", sums]).ok().to_owned();
    assert_eq!(world.coracle(&["inspect", "-f", "{{.Engine}} {{.EditedFiles}}", "copy"]).ok(), "F3 0");
    assert!(world.coracle(&["verify"]).ok().ends_with("all whole"));

    // Another engine, for one run: everything is as it was, with what the guest changed.
    let sums = "md5sum < /bin/busybox; md5sum < /lib/ld-musl-x86_64.so.1";
    assert_eq!(world.run("--execmode=P1", sums).ok(), exported);
    assert!(world.edited() == 0 && !world.is_edited("bin/busybox"));
    assert_eq!(world.run("--execmode=R1", "cat /mine; stat -c %a /usr/bin/ssl_client").ok(), "mine\n700");
    // That one needed a tree of the container's own. And back, by the container's own mode.
    world.coracle(&["run", "c", "true"]).ok();
    assert!(world.edited() > 3);
    assert_eq!(world.run("--execmode=F3", "stat -c %a /usr/bin/ssl_client").ok(), "700");
    world.coracle(&["setup", "--execmode=auto", "c"]).ok();
    assert_eq!(world.edited(), 0);
    assert!(!world.directory().join("edits").exists());
}

#[test]
fn what_is_to_be_edited_in_an_image_is_found_out_once() {
    let Some(world) = World::new() else { return };
    let edited = |name: &str, mode: &str| -> usize {
        world.coracle(&["create", &format!("--name={name}"), mode, "alpine:1"]).ok();
        world.coracle(&["run", name, "true"]).ok();
        world.coracle(&["inspect", "-f", "{{.EditedFiles}}", name]).ok().trim().parse().unwrap()
    };
    let all = world.edited();
    let trees = fs::read_dir(world.sandbox.path().join("home/.coracle/trees")).unwrap();
    let plan = trees.map(|tree| tree.unwrap().path().join("edits")).find(|plan| plan.exists()).unwrap();
    let kept = fs::read(&plan).unwrap();
    assert_eq!(edited("second", "--execmode=F3"), all);
    assert_eq!(fs::read(&plan).unwrap(), kept);
    // A plan of nothing shows that it is followed.
    let mut empty: serde_json::Value = serde_json::from_slice(&kept[16..]).unwrap();
    empty["files"] = serde_json::json!([]);
    let empty = serde_json::to_vec(&empty).unwrap();
    fs::write(&plan, [format!("{:016x}", coracle_api::content_sum(&empty)).as_bytes(), &empty].concat()).unwrap();
    assert_eq!(edited("third", "--execmode=F3"), 0);
    // Not by a container that has changed something.
    assert_eq!(edited("changed", "--execmode=P1"), 0);
    world.coracle(&["run", "changed", "cp", "/bin/busybox", "/opt/mine"]).ok();
    world.coracle(&["run", "--execmode=F3", "changed", "true"]).ok();
    let count = world.coracle(&["inspect", "-f", "{{.EditedFiles}}", "changed"]).ok().to_owned();
    assert_eq!(count.trim(), (all + 1).to_string());
    // A damaged one is made anew.
    fs::write(&plan, &kept[..kept.len() / 2]).unwrap();
    assert_eq!(edited("fourth", "--execmode=F3"), all);
    assert_eq!(fs::read(&plan).unwrap(), kept);
    assert!(world.coracle(&["verify"]).ok().ends_with("all whole"));
}

#[test]
fn what_a_guest_replaced_stays_replaced() {
    let Some(world) = World::new() else { return };
    let script =
        "rm /sbin/apk; echo '#!/bin/sh' > /sbin/apk; rm /usr/bin/scanelf; mkdir /usr/bin/scanelf; rm /usr/bin/getconf";
    world.run("--execmode=F3", script).ok();
    let said = world.run("--execmode=R1", "cat /sbin/apk; ls -d /usr/bin/scanelf/. /usr/bin/getconf 2>/dev/null; true");
    assert_eq!(said.ok(), "#!/bin/sh\n/usr/bin/scanelf/.");
    assert!(!world.directory().join("edits").exists());
}

#[test]
fn owners_follow_a_file_into_its_copy_and_back() {
    let Some(world) = World::new() else { return };
    let owner = |mode: &str| world.run(mode, "stat -c '%u:%g %a' /sbin/apk").ok().to_owned();
    world.run("--execmode=P1", "chown 3:4 /sbin/apk; chmod 4711 /sbin/apk").ok();
    assert_eq!(owner("--execmode=F3"), "3:4 4711");
    world.run("--execmode=F3", "chown 5:6 /sbin/apk; chmod 711 /sbin/apk").ok();
    assert_eq!(owner("--execmode=P1"), "5:6 711");
    assert_eq!(owner("--execmode=F3"), "5:6 711");
    // The image's file is as it was, and the next container sees that.
    world.coracle(&["create", "--name=other", "--execmode=P1", "alpine:1"]).ok();
    assert_eq!(world.coracle(&["run", "other", "stat", "-c", "%u:%g %a", "/sbin/apk"]).ok(), "0:0 755");
    assert!(world.coracle(&["verify"]).ok().ends_with("all whole"));
}

#[test]
fn half_laid_moved_and_busy() {
    let Some(world) = World::new() else { return };
    let edits = world.directory().join("edits");
    // As a command leaves it that was killed: some files replaced, and no record.
    fs::remove_file(edits.join("laid.json")).unwrap();
    let said = world.coracle(&["verify"]);
    assert!(said.code == Some(125) && said.stdout.contains("never whole"), "{said}");
    world.run("--execmode=R1", "true").ok();
    assert!(!edits.exists() && !world.is_edited("bin/busybox"));
    world.coracle(&["setup", "--execmode=F3", "c"]).ok();
    fs::remove_file(edits.join("laid.json")).unwrap();
    world.coracle(&["run", "c", "true"]).ok();
    assert!(edits.join("laid.json").exists() && world.is_edited("bin/busybox"));

    // Another engine would see edited programs, while these run.
    world.coracle(&["run", "-d", "c", "sleep", "100"]).ok();
    world.coracle(&["exec", "c", "true"]).ok();
    let said = world.run("--execmode=P1", "true");
    said.fails_as(125, &["edited for the preload engine", "--execmode=F3"]);
    assert_eq!(said.stderr.lines().count(), 1, "{said}");
    world.coracle(&["stop", "-t", "1", "c"]).ok();

    // A store that was moved: the paths in the files are wrong.
    let mut sandbox = world.sandbox;
    let (old, new) = (sandbox.path().join("home/.coracle"), sandbox.path().join("home/moved"));
    fs::rename(&old, &new).unwrap();
    sandbox.set("CORACLE_DIR", &new);
    let world = World { sandbox };
    world.coracle(&["run", "c", "true"]).ok();
    assert!(world.is_edited("bin/busybox") && world.root().starts_with(&new));
    world.coracle(&["verify"]).ok();
}

#[test]
fn verify_sees_a_change_of_any_setting() {
    let Some(world) = World::new() else { return };
    let path = world.directory().join("container.json");
    let whole = fs::read_to_string(&path).unwrap();
    let damage = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from} in {whole}");
        fs::write(&path, whole.replacen(from, to, 1)).unwrap();
        for said in [world.coracle(&["verify"]), world.coracle(&["verify", "c"])] {
            let all = format!("{}{}", said.stdout, said.stderr);
            assert!(said.code == Some(125) && all.contains("container.json"), "{from}: {said}");
        }
        fs::write(&path, &whole).unwrap();
    };
    damage("\"options\": {", "\"options\": {\"unheard\": \"of\", ");
    damage("\"engine\": \"F3\"", "\"engine\": \"P3\"");
    damage("alpine:1", "alpine:2");
    damage("\"created\": 1", "\"created\": 2");
    world.coracle(&["verify"]).ok();
    // An older version's has no digest.
    let sum = whole.lines().find(|line| line.contains("\"sum\"")).unwrap().to_owned();
    let older = whole.replace(&format!("{sum}\n"), "").replace(",\n}", "\n}");
    fs::write(&path, older).unwrap();
    world.coracle(&["verify"]).ok();
    assert_eq!(mode_of(&path), 0o600);
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}
