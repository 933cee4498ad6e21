//! Containers that stand on their image's tree: what they share, what they change, and what becomes of it under every
//! engine.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use harness::{Output, Sandbox, eventually, skip};

/// A store with Alpine as an image, and no container yet.
struct World {
    sandbox: Sandbox,
}

impl World {
    fn new() -> Option<Self> {
        let world = Self { sandbox: Sandbox::new() };
        world.sandbox.import_alpine()?;
        world.create("probe");
        if world.sharing("probe") != "image" {
            skip::because("containers share nothing on this file system");
            return None;
        }
        Some(world)
    }

    /// With an engine `namespaces` that can mount overlays.
    fn with_overlays() -> Option<Self> {
        let world = Self::new()?;
        if world.sandbox.coracle(["run", "--execmode=R1", "probe", "true"]).code != Some(0)
            || world.sharing("probe") != "overlay"
        {
            skip::because("no overlay can be mounted here");
            return None;
        }
        Some(world)
    }

    fn create(&self, name: &str) {
        self.sandbox.coracle(["create", "--name", name, "alpine:1"]).ok();
    }

    fn run(&self, options: &[&str], name: &str, script: &str) -> Output {
        let mut args = vec!["run"];
        args.extend_from_slice(options);
        args.extend([name, "sh", "-c", script]);
        self.sandbox.coracle(args)
    }

    fn sharing(&self, name: &str) -> String {
        self.sandbox.coracle(["inspect", "-f", "{{.Sharing}}", name]).ok().trim_end().to_owned()
    }

    fn store(&self) -> PathBuf {
        self.sandbox.path().join("home/.coracle")
    }

    /// The roots of all image trees.
    fn trees(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.store().join("trees")).unwrap();
        entries.map(|entry| entry.unwrap().path().join("root")).collect()
    }

    fn verify(&self) {
        assert!(self.sandbox.coracle(["verify"]).ok().ends_with("all whole"));
    }

    /// `export` as `tar tv` lists it, by path.
    fn exported(&self, name: &str, path: &str) -> String {
        self.sandbox.coracle(["export", "-o", "export.tar", name]).ok();
        let listed = self.sandbox.run("tar", ["tvf", "export.tar", "--numeric-owner"]);
        let line =
            listed.ok().lines().find(|line| line.ends_with(&format!(" {path}")) || line.contains(&format!(" {path} ")));
        let mut words = line.unwrap_or_default().split_whitespace();
        format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }
}

fn blocks(root: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        sum += meta.blocks();
        if meta.is_dir() {
            sum += blocks(&entry.path());
        }
    }
    sum
}

#[test]
fn a_second_container_takes_no_room_and_its_changes_are_its_own() {
    let Some(world) = World::with_overlays() else { return };
    world.create("one");
    world.create("two");
    let [tree] = world.trees().try_into().expect("one image, one tree");
    let before = blocks(&tree);
    for name in ["one", "two"] {
        let directory =
            world.store().join("containers").join(world.sandbox.coracle(["inspect", "-f", "{{.Id}}", name]).ok());
        assert!(blocks(&directory) * 20 < before, "{name} takes no room");
    }
    let script = "set -e; echo own > /etc/motd; rm -r /etc/apk; mkdir /etc/apk; echo n > /etc/apk/new; touch /new
        ln -s /new /link; mv /usr/share /usr/moved 2>/dev/null || echo exdev";
    world.run(&["--execmode=R1"], "one", script).ok();
    assert_eq!(world.run(&[], "two", "cat /etc/motd; ls /etc/apk /new 2>&1; :").ok().matches("own").count(), 0);
    assert_eq!((world.sharing("one"), world.sharing("probe")), ("overlay".to_owned(), "overlay".to_owned()));
    assert_eq!(blocks(&tree), before, "the image's tree is as it was");
    world.verify();
    let changed = world.sandbox.coracle(["diff", "one"]);
    for line in ["C /etc/motd", "A /etc/apk/new", "A /new", "A /link", "D /etc/apk/repositories"] {
        assert!(changed.ok().lines().any(|found| found == line), "{line}: {changed}");
    }
    assert!(!changed.stdout.contains("/bin"), "{changed}");
    assert!(
        !changed.stdout.contains("resolv.conf"),
        "what the run put there is no change of the application's: {changed}"
    );
    // What was changed in place shows, and not as a container's damage.
    let motd = tree.join("etc/motd");
    fs::write(&motd, "changed behind our back").unwrap();
    world.sandbox.coracle(["verify"]).fails_with(&["1 thing is damaged"]);
    let aside = tree.parent().unwrap().to_owned();
    fs::rename(&aside, world.store().join("aside")).unwrap();
    assert!(world.run(&[], "two", "cat /etc/motd").ok().contains("Welcome"), "made of the layers again");
    assert_eq!(world.run(&[], "one", "cat /etc/motd").ok().trim_end(), "own");
    world.verify();
}

#[test]
fn runs_at_the_same_time_and_copies_see_one_tree() {
    let Some(world) = World::with_overlays() else { return };
    world.create("box");
    let waits =
        "for i in $(seq 400); do test -e /from-exec -a -e /from-cp && break; sleep 0.05; done; cat /from-exec /from-cp";
    world.sandbox.coracle(["run", "-d", "box", "sh", "-c", waits]).ok();
    eventually("it runs", 20, || world.sandbox.coracle(["ps", "-q", "--filter", "status=running"]).ok().len() == 12);
    world.sandbox.coracle(["exec", "box", "sh", "-c", "echo exec > /from-exec; echo v > /tmp/seen"]).ok();
    fs::write(world.sandbox.work("file"), "copy\n").unwrap();
    world.sandbox.coracle(["cp", "file", "box:/from-cp"]).ok();
    assert_eq!(world.sandbox.coracle(["wait", "box"]).ok(), "0");
    assert_eq!(world.sandbox.coracle(["logs", "box"]).ok(), "exec\ncopy");
    world.sandbox.coracle(["cp", "box:/tmp/seen", "seen"]).ok();
    assert_eq!(fs::read_to_string(world.sandbox.work("seen")).unwrap(), "v\n");
    // Where nothing runs, too; a directory, over one of the image's.
    world.sandbox.write("etc/apk/mine", "m\n");
    world.sandbox.own(&world.sandbox.work("etc"));
    world.sandbox.coracle(["cp", "etc", "box:/"]).ok();
    let listed = world.run(&["--execmode=R1"], "box", "cat /etc/apk/mine; ls /etc/apk");
    assert!(listed.ok().starts_with("m\n") && listed.stdout.contains("repositories"), "{listed}");
    assert_eq!(world.sharing("box"), "overlay");
    world.sandbox.coracle(["cp", "file", "probe:/fresh"]).ok();
    assert_eq!(world.run(&["--execmode=R1"], "probe", "cat /fresh").ok(), "copy");
    world.verify();
}

#[test]
fn an_engine_that_intercepts_gets_hard_links_and_another_one_a_tree_of_its_own() {
    let Some(world) = World::with_overlays() else { return };
    world.create("box");
    let [tree] = world.trees().try_into().expect("one image, one tree");
    let inode = |path: PathBuf| fs::symlink_metadata(path).unwrap().ino();
    let busybox = inode(tree.join("bin/busybox"));
    let script = "set -e; echo own > /etc/motd; chown 33:34 /etc/passwd; chmod 4755 /etc/group; rm /etc/protocols
        mknod /null c 1 3; chmod 2750 /srv; chown 7:8 /srv";
    world.run(&["--execmode=P1"], "box", script).ok();
    assert_eq!(world.sharing("box"), "hardlink");
    let root = PathBuf::from(world.sandbox.coracle(["inspect", "-f", "{{.Root}}", "box"]).ok().trim_end());
    assert_eq!(inode(root.join("bin/busybox")), busybox);
    assert!(!fs::read_to_string(tree.join("etc/motd")).unwrap().contains("own"));
    world.verify();
    let listed = world.sandbox.coracle(["ps", "-a", "-s", "--filter", "name=box"]);
    assert!(listed.ok().contains("(virtual "), "{listed}");
    // What root set is what is exported, built and compared.
    let told = |world: &World, name: &str| {
        assert_eq!(world.exported(name, "etc/passwd"), "-rw-r--r-- 33/34");
        assert_eq!(world.exported(name, "etc/group"), "-rwsr-xr-x 0/0");
        assert_eq!(world.exported(name, "srv/"), "drwxr-s--- 7/8");
        let changed = world.sandbox.coracle(["diff", name]);
        for line in ["C /etc/passwd", "C /etc/group", "C /etc/motd", "D /etc/protocols", "A /null", "C /srv"] {
            assert!(changed.ok().lines().any(|found| found == line), "{line}: {changed}");
        }
    };
    told(&world, "box");
    // The shim's processes keep the same kind of view, and each engine goes on with what the other has left.
    world.create("shim");
    world.run(&["--execmode=F1"], "shim", script).ok();
    assert_eq!(world.sharing("shim"), "hardlink");
    told(&world, "shim");
    world.verify();
    let seen = "stat -c '%n %u:%g %a %F' /etc/passwd /etc/group /srv /null /etc/shadow; cat /etc/motd";
    let seen = ["P1", "F1"].map(|mode| {
        let mode = format!("--execmode={mode}");
        ["box", "shim"].map(|name| world.run(&[&mode], name, seen).ok().to_owned())
    });
    assert!(seen.iter().flatten().all(|text| *text == seen[0][0]) && seen[0][0].contains("33:34"), "{seen:?}");
    world.run(&["--execmode=P1"], "shim", "echo tracer >> /etc/motd; echo tracer > /etc/issue").ok();
    let both = world.run(
        &["--execmode=F1"],
        "shim",
        "echo shim >> /etc/motd; echo shim >> /etc/issue; cat /etc/motd /etc/issue",
    );
    assert_eq!(both.ok(), "own\ntracer\nshim\ntracer\nshim");
    assert_eq!(inode(tree.join("bin/busybox")), busybox);
    world.verify();
    world.sandbox.coracle(["clone", "box", "--name", "copy"]).ok();
    told(&world, "copy");
    assert_eq!(world.sharing("copy"), "copy");
    // A file copied over a shared one is the container's alone.
    fs::write(world.sandbox.work("issue"), "mine").unwrap();
    world.sandbox.coracle(["cp", "issue", "box:/etc/issue"]).ok();
    world.verify();
    // The kernel would write into shared files.
    let output = world.run(&["--execmode=R1"], "box", "cat /etc/motd /etc/issue; echo more >> /etc/profile;");
    assert!(output.stderr.contains("gets a tree of its own") && output.stdout.starts_with("own\nmine"), "{output}");
    assert_eq!(world.sharing("box"), "copy");
    world.run(&["--execmode=P1"], "box", "test $(stat -c %u:%a /etc/passwd) = 33:644 && test -c /null").ok();
    told(&world, "box");
    // And the other way: an overlay's changes.
    world.run(&["--execmode=R1"], "probe", "rm -r /etc/apk; echo x > /etc/motd").ok();
    let output = world.run(&["--execmode=P2"], "probe", "cat /etc/motd; ls /etc/apk 2>/dev/null || echo gone");
    assert_eq!(output.stdout.trim_end(), "x\ngone", "{output}");
    world.verify();
    // Nothing was changed: nothing to carry over.
    world.create("fresh");
    world.run(&["--execmode=R1"], "fresh", "true").ok();
    world.sandbox.coracle(["clone", "fresh", "--name", "twin"]).ok();
    world.run(&["--execmode=P1"], "twin", "true").ok();
    assert!(["hardlink", "copy"].contains(&world.sharing("twin").as_str()));
}

#[test]
fn a_tree_stays_as_long_as_a_container_stands_on_it() {
    let Some(world) = World::new() else { return };
    world.create("box");
    world.sandbox.coracle(["rm", "probe"]).ok();
    world.sandbox.coracle(["rmi", "alpine:1"]).ok();
    assert_eq!(world.trees().len(), 1);
    world.run(&[], "box", "cat /etc/alpine-release").ok();
    world.sandbox.coracle(["prune", "-f", "-a"]).ok();
    world.verify();
    // `inspect -p` promises a place with the whole tree, which whoever asked may write to.
    world.sandbox.coracle(["create", "--name", "two", "--pull=never", "alpine:1"]).code_is(125);
    world.sandbox.coracle(["clone", "box", "--name", "two"]).ok();
    let root = PathBuf::from(world.sandbox.coracle(["inspect", "-p", "two"]).ok().trim_end());
    assert!(root.join("etc/alpine-release").is_file());
    world.sandbox.coracle(["rm", "box"]).ok();
    assert_eq!(world.trees().len(), 0, "the last one that stood on it is gone");
    world.run(&[], "two", "cat /etc/alpine-release").ok();
    world.verify();
}

#[test]
fn a_run_read_only_and_volumes_of_a_tree_in_layers() {
    let Some(world) = World::with_overlays() else { return };
    world.create("box");
    world.run(&["--read-only"], "box", "touch /x 2>/dev/null || cat /etc/alpine-release").ok();
    assert_eq!(world.sharing("box"), "image");
    world.run(&["--execmode=R1"], "box", "mkdir -p /srv/data; echo d > /srv/data/file; rm /etc/motd").ok();
    world.run(&["-v", "first:/srv/data"], "box", "echo more > /srv/data/more").ok();
    let volume = world.store().join("volumes/first");
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "d\n");
    assert!(volume.join("more").exists());
    // A user of the container's own making is found before the layers are put together.
    world.run(&["--execmode=R1"], "box", "echo 'me:x:77:78::/srv:/bin/sh' >> /etc/passwd").ok();
    assert_eq!(world.run(&["-u", "me"], "box", "id -u; id -g; echo $HOME").ok(), "77\n78\n/srv");
    // Changes are there to be read only as well; that takes a tree of its own.
    let output =
        world.run(&["--read-only"], "box", "touch /x 2>/dev/null; cat /srv/data/file; ls /etc/motd 2>/dev/null");
    assert_eq!(output.stdout.trim_end(), "d", "{output}");
    world.verify();
}

#[test]
fn a_view_that_nobody_changed_serves_the_next_container() {
    let Some(world) = World::new() else { return };
    let tree = world.trees().remove(0);
    let spare = tree.with_file_name("spare");
    let inode = |path: &Path| fs::metadata(path).map(|meta| meta.ino()).ok();
    let once = |mode: &str, script: &str| {
        world.sandbox.coracle(["run", "--rm", mode, "alpine:1", "sh", "-c", script]).ok().to_owned()
    };
    once("--execmode=P1", "stat -c %U /etc/shadow");
    let kept = inode(&spare.join("root"));
    assert!(kept.is_some() && inode(&spare.join("root/bin/busybox")) == inode(&tree.join("bin/busybox")));
    // Whatever a container does to it, the next does not see.
    for (mode, script, look) in [
        ("--execmode=P1", "echo x >> /etc/motd", "grep -cx x /etc/motd || true"),
        ("--execmode=F3", "chown 5:6 /etc/motd /home; chmod 700 /srv", "stat -c %u:%g:%a /etc/motd /home /srv"),
        (
            "--execmode=P1",
            "mkdir /new; ln -s /new /opt/link; rm /etc/issue",
            "ls -d /new /opt/link /etc/issue 2>/dev/null | wc -l",
        ),
    ] {
        world.create("c");
        let before = once(mode, look);
        let first = inode(&spare.join("root"));
        assert!(first.is_some(), "{mode}: {script}");
        world.run(&[mode], "c", script).ok();
        assert!(!spare.exists(), "{script}: it is the container's now");
        let changed = world.run(&[mode], "c", look).ok().to_owned();
        world.sandbox.coracle(["rm", "c"]).ok();
        assert_ne!(changed, before, "{script}");
        assert_eq!(once(mode, look), before, "{script}");
    }
    // Edits are taken out before.
    once("--execmode=F3", "true");
    assert_eq!(inode(&spare.join("root/bin/busybox")), inode(&tree.join("bin/busybox")));
    assert!(world.sandbox.coracle(["verify"]).ok().ends_with("all whole"));
    world.sandbox.coracle(["prune", "-f"]).ok();
    assert!(!spare.exists());
}
