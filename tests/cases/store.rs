//! The store: images by name and id, what is freed and what stays, damage and how it is told, places that are full or
//! closed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{
    Fake, Output, Registry, Reply, Sandbox,
    oci::{Layer, OciImage},
    skip,
};
use serde_json::{Value, json};

/// A sandbox with the image `a:1` in its store.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    load(&sandbox, "a:1", b"first");
    sandbox
}

fn load(sandbox: &Sandbox, name: &str, content: &[u8]) {
    let layout = sandbox.work("image");
    let _ = fs::remove_dir_all(&layout);
    let shared = Layer::new().file("shared", 0o644, &[b's'; 5000]);
    let own = Layer::new().file("own", 0o644, content);
    OciImage::new(json!({"Cmd": ["/x"]})).layer(shared).layer(own).write(&layout).unwrap();
    sandbox.run("tar", ["-C", "image", "-cf", "image.tar", "."]).ok();
    sandbox.coracle(["load", "-i", "image.tar", name]).ok();
}

fn store(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join("home/.coracle")
}

fn blobs(sandbox: &Sandbox) -> usize {
    fs::read_dir(store(sandbox).join("blobs/sha256")).unwrap().count()
}

#[test]
fn images_are_named_listed_and_removed() {
    let sandbox = sandbox();
    load(&sandbox, "localhost:5000/b:2", b"second");
    assert_eq!(blobs(&sandbox), 7, "the layer that both have is there once");
    let listed = sandbox.coracle(["images", "-p", "--digests"]);
    for part in ["REPOSITORY", "IMAGE ID", "DIGEST", "localhost:5000/b", "linux/amd64", "sha256:"] {
        assert!(listed.ok().contains(part), "{part}: {listed}");
    }
    let layers = sandbox.coracle(["images", "-l", "a"]);
    assert!(layers.ok().lines().count() == 3 && layers.ok().contains("a:1 (linux/amd64)"), "{layers}");
    let id = sandbox.coracle(["images", "--format", "{{.ID}}", "a"]).ok().to_owned();
    sandbox.coracle(["tag", &id, "c:3"]).ok();
    sandbox.coracle(["tag", "a:1", "b@sha256:00"]).code_is(1);
    sandbox.coracle(["tag", "nope", "x"]).fails_as(1, &["no such image: nope"]);
    sandbox.coracle(["rmi", &id]).fails_as(1, &["has 2 names"]);
    sandbox.coracle(["protect", "c:3"]).ok();
    sandbox.coracle(["rmi", "c:3"]).fails_as(1, &["is protected"]);
    sandbox.coracle(["tag", "localhost:5000/b:2", "c:3"]).fails_as(1, &["is protected"]);
    assert_eq!(sandbox.coracle(["images", "--format", "{{.Protected}}", "c"]).ok(), "P");
    sandbox.coracle(["unprotect", "c:3"]).ok();
    let both = sandbox.coracle(["rmi", "nope", "a:1"]);
    both.fails_as(1, &["no such image: nope"]);
    assert_eq!((both.stdout.as_str(), blobs(&sandbox)), ("a:1\n", 7), "c:3 needs them still");
    sandbox.coracle(["rmi", "c:3"]).ok();
    assert_eq!(blobs(&sandbox), 4);
    sandbox.coracle(["rmi", "-f", "c:3"]).ok();
    sandbox.coracle(["create", "--name", "kept", "localhost:5000/b:2", "--pull=never"]).ok();
    // What a container was made of is not needed for it to live.
    sandbox.coracle(["rmi", "localhost:5000/b:2"]).ok();
    assert_eq!(blobs(&sandbox), 0);
    let root = sandbox.coracle(["inspect", "-p", "kept"]).ok().to_owned();
    assert_eq!(fs::read(Path::new(&root).join("own")).unwrap(), b"second");
}

#[test]
fn what_nothing_needs_is_freed() {
    let sandbox = sandbox();
    load(&sandbox, "b:1", b"second");
    sandbox.coracle(["create", "--name", "of-b", "b:1"]).ok();
    sandbox.coracle(["prune", "-a"]).fails_as(1, &["no terminal to ask at", "-f"]);
    let pruned = sandbox.coracle(["prune", "-a", "-f"]);
    assert!(pruned.ok().contains("removed image a:1") && !pruned.ok().contains("b:1"), "{pruned}");
    assert_eq!(blobs(&sandbox), 4);
    let at = |name: &str| store(&sandbox).join(name);
    fs::create_dir_all(at("containers/.new-0123/ROOT")).unwrap();
    fs::create_dir_all(at("trash/x/closed")).unwrap();
    fs::write(at("partial/sha256-0"), "half").unwrap();
    fs::write(at("names/dangling"), "0".repeat(32)).unwrap();
    for path in [
        "trash",
        "containers/.new-0123",
        "containers/.new-0123/ROOT",
        "trash/x",
        "trash/x/closed",
        "partial/sha256-0",
        "names/dangling",
    ] {
        sandbox.own(&at(path));
    }
    fs::set_permissions(at("trash/x/closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let verified = sandbox.coracle(["verify"]);
    assert!(verified.ok().ends_with("all whole") && verified.stderr.contains("2 leftovers"), "{verified}");
    assert!(sandbox.coracle(["prune"]).ok().contains("3 leftovers"));
    assert!(at("partial/sha256-0").exists(), "a download could go on tomorrow");
    sandbox.coracle(["prune", "--partial"]).ok();
    assert!(!at("partial/sha256-0").exists() && !at("trash/x").exists() && !at("names/dangling").exists());
    assert!(sandbox.coracle(["prune", "--containers", "-f"]).ok().contains("removed container"));
    assert_eq!(sandbox.coracle(["ps", "-q"]).ok(), "");
}

#[test]
fn damage_is_found_and_told_with_what_mends_it() {
    let sandbox = sandbox();
    let id = sandbox.coracle(["create", "--name", "web", "a:1"]).ok().to_owned();
    sandbox.coracle(["create", "--name", "well", "a:1"]).ok();
    let at = |name: &str| store(&sandbox).join(name);
    let layers = sandbox.coracle(["images", "-l"]).ok().to_owned();
    let layer = layers.lines().nth(1).unwrap().split_whitespace().next().unwrap().replace(':', "/");
    let layer = at("blobs").join(layer);
    let whole = fs::read(&layer).unwrap();
    // A layer deleted by hand.
    fs::remove_file(&layer).unwrap();
    sandbox.coracle(["verify"]).fails_with(&["1 thing is damaged"]);
    let told = sandbox.coracle(["verify", "a:1"]);
    assert!(told.stdout.contains("a:1 is missing: pull or load the image again"), "{told}");
    sandbox.coracle(["save", "-o", "x.tar", "a:1"]).fails_as(1, &["a:1 lacks sha256:", "pull or load it again"]);
    // Its tree is there, and enough for a container; without it, nothing is left to make one of.
    sandbox.coracle(["create", "--pull=never", "--name", "third", "a:1"]).ok();
    fs::rename(at("trees"), at("away")).unwrap();
    sandbox.coracle(["create", "--pull=never", "a:1"]).code_is(125);
    let told = sandbox.coracle(["verify"]);
    assert!(told.stdout.contains("stands on the tree of a:1, which is gone: pull or load"), "{told}");
    sandbox.coracle(["rm", "third"]).ok();
    let _ = fs::remove_dir_all(at("trees"));
    fs::rename(at("away"), at("trees")).unwrap();
    // A bit that fell over.
    let mut damaged = whole.clone();
    damaged[600] ^= 1;
    fs::write(&layer, damaged).unwrap();
    assert!(sandbox.coracle(["verify"]).stdout.contains("is damaged: pull or load the image again"));
    sandbox.coracle(["save", "-o", "x.tar", "a:1"]).fails_as(1, &["is damaged"]);
    assert!(!sandbox.work("x.tar").exists());
    // Loading it again mends it.
    sandbox.coracle(["load", "-i", "image.tar", "a:1"]).ok();
    assert_eq!(fs::read(&layer).unwrap(), whole);
    sandbox.coracle(["verify"]).ok();
    // Settings that cannot be read.
    let json = at("containers").join(&id).join("container.json");
    fs::write(&json, "{\"version\":1,").unwrap();
    let told = sandbox.coracle(["verify"]);
    assert!(told.stdout.contains(&format!("container {id} is damaged")) && told.stdout.contains("/ROOT"), "{told}");
    let listed = sandbox.coracle(["ps", "--format", "{{.Names}}"]);
    assert_eq!(listed.ok(), "well", "the others are listed: {listed}");
    assert!(listed.stderr.contains("is damaged"), "{listed}");
    sandbox.coracle(["inspect", "web"]).fails_with(&["is damaged", "coracle rm -f"]);
    sandbox.coracle(["rm", "web"]).fails_as(1, &["is damaged"]);
    sandbox.coracle(["rm", "-f", "web"]).ok();
    // What a container has beside its settings and its tree.
    let run = sandbox.coracle(["run", "--execmode=P1", "well", "/own"]);
    assert!(run.code.is_some());
    let well = at("containers").join(sandbox.coracle(["inspect", "-f", "{{.Id}}", "well"]).ok());
    let runs = fs::read_dir(well.join("runs")).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
    for (file, told) in [
        (well.join("ledger"), "the ledger of what root gave away is damaged"),
        (runs, "the record of a run is damaged"),
    ] {
        sandbox.coracle(["verify", "well"]).ok();
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..3]).unwrap();
        let verified = sandbox.coracle(["verify", "well"]);
        verified.fails_with(&[told]);
        fs::remove_file(&file).unwrap();
    }
    // An image's record.
    let record = fs::read_dir(at("images")).unwrap().map(|entry| entry.unwrap().path());
    let record = record.into_iter().find(|path| path.extension().is_some()).unwrap();
    fs::write(&record, "[]").unwrap();
    assert!(sandbox.coracle(["verify"]).stdout.contains("the record of an image is damaged"));
    sandbox.coracle(["images"]).ok();
    sandbox.coracle(["prune"]).ok();
    sandbox.coracle(["verify"]).ok();
}

#[test]
fn stores_of_others_and_of_later_versions() {
    let mut sandbox = sandbox();
    sandbox.coracle(["create", "--name", "web", "a:1"]).ok();
    // To be read only: what only reads works.
    let closed = |mode: &str| {
        let changed = Command::new("chmod").args(["-R", mode]).arg(store(&sandbox)).status().unwrap();
        assert!(changed.success());
    };
    closed("a-w");
    for words in [
        &["ps", "-s"][..],
        &["images"],
        &["inspect", "web"],
        &["verify"],
        &["export", "-o", "x.tar", "web"],
        &["save", "-o", "y.tar", "a:1"],
    ] {
        sandbox.coracle(words).ok();
    }
    sandbox.coracle(["create", "a:1"]).fails_with(&["Permission denied"]);
    sandbox.coracle(["rm", "web"]).fails_as(1, &["Permission denied"]);
    closed("u+w");
    let newer = sandbox.make_dir("newer");
    fs::write(newer.join("version"), "99\n").unwrap();
    sandbox.set("CORACLE_DIR", &newer);
    for words in [
        &["ps"][..],
        &["images"],
        &["create", "a:1"],
        &["rm", "x"],
        &["prune"],
        &["verify"],
        &["load", "-i", "image.tar", "x"],
    ] {
        let output = sandbox.coracle(words);
        assert!(output.code != Some(0) && output.stderr.contains("it has version 99"), "{output}");
    }
    assert_eq!(fs::read_dir(&newer).unwrap().count(), 1, "untouched");
    let made = sandbox.path().join("work/made");
    assert!(sandbox.coracle(["mkrepo", "made"]).ok().ends_with("/work/made"));
    sandbox.coracle(["mkrepo", "made"]).fails_as(1, &["there already"]);
    sandbox.set("CORACLE_DIR", &made);
    assert!(sandbox.coracle(["showconf"]).ok().contains("/work/made"));
    assert_eq!(sandbox.coracle(["ps", "-q"]).ok(), "");
}

#[test]
fn a_full_disk_loses_nothing() {
    if skip::unless_root() {
        return;
    }
    let mut sandbox = sandbox();
    let image = Layer::new().file("large", 0o644, &vec![b'l'; 3 << 20]);
    OciImage::new(json!({})).layer(image).write(&sandbox.work("large")).unwrap();
    sandbox.run("tar", ["-C", "large", "-cf", "large.tar", "."]).ok();
    let disk = sandbox.make_dir("disk");
    for options in ["size=4m,mode=0777", "size=64m,nr_inodes=24,mode=0777"] {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "coracle-test"]).arg(&disk).status().unwrap();
        if !mount.success() {
            skip::because("no file system can be mounted here");
            return;
        }
        sandbox.set("CORACLE_DIR", disk.join("store"));
        let outputs: Vec<Output> = vec![
            sandbox.coracle(["load", "-i", "image.tar", "a:1"]),
            sandbox.coracle(["create", "--name", "small", "a:1"]),
            sandbox.coracle(["load", "-i", "large.tar", "large"]),
            sandbox.coracle(["create", "--name", "large", "oci:large:latest"]),
            sandbox.coracle(["clone", "small", "--name", "again"]),
            sandbox.coracle(["create", "--name", "large2", "oci:large:latest"]),
            sandbox.coracle(["clone", "small", "--name", "more"]),
        ];
        let listed = sandbox.coracle(["ps", "--format", "{{.Names}}"]);
        let verified = sandbox.coracle(["verify"]);
        let left = fs::read_dir(disk.join("store/containers")).map_or(0, Iterator::count);
        let unmounted = Command::new("umount").arg(&disk).status().unwrap();
        assert!(unmounted.success());
        let failed = outputs.iter().filter(|output| output.code != Some(0));
        let failed: Vec<&Output> = failed.collect();
        assert!(!failed.is_empty(), "{options}: nothing was full");
        for output in failed {
            let last = output.stderr.lines().last().unwrap_or_default();
            let full = last.contains("No space left") || last.contains("no such container: small");
            assert!(last.starts_with("coracle: ") && full, "{options}: {output}");
        }
        assert_eq!(listed.ok().lines().count(), left, "{options}: what is not listed takes no room");
        assert!(verified.ok().ends_with("all whole"), "{options}: {verified}");
    }
}

#[test]
fn registries_are_searched() {
    if skip::lacks(&["docker-registry", "skopeo"]) {
        return;
    }
    let sandbox = sandbox();
    let registry = Registry::open();
    for name in ["lib/hello:1", "lib/hello:2", "other/thing:x"] {
        registry.push("oci:image:latest".replace("image", sandbox.work("image").to_str().unwrap()).as_str(), name, &[]);
    }
    let at = registry.address();
    let found = sandbox.coracle(["search", "--registry", &at, "hello", "--format", "{{.Name}}"]);
    assert_eq!(found.ok(), format!("{at}/lib/hello"));
    let tags = sandbox.coracle(["search", "--list-tags", &format!("{at}/lib/hello"), "-q"]);
    let mut tags: Vec<&str> = tags.ok().lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, [format!("{at}/lib/hello:1"), format!("{at}/lib/hello:2")]);
    sandbox.coracle(["search", "--list-tags", &format!("{at}/lib/none")]).fails_as(1, &["lib/none"]);
    for words in [&["manifest", "inspect"][..], &["manifest-inspect"]] {
        let image = format!("{at}/lib/hello:1");
        let output = sandbox.coracle([words, &[&image]].concat());
        let manifest: Value = serde_json::from_str(output.ok()).unwrap();
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2, "{output}");
    }
    // As Docker's own registry answers.
    let hub = Fake::start(|request| {
        match request.path.split('?').next() {
        Some("/v2/") => Reply::new(200, "{}"),
        Some("/v1/search") => Reply::new(
            200,
            json!({"results": [{"name": "alpine", "description": "d".repeat(80), "star_count": 7, "is_official": true}]}).to_string(),
        ),
        _ => Reply::new(404, ""),
    }
    });
    let found = sandbox.coracle(["search", "--registry", &hub.address(), "alp"]);
    for part in ["DESCRIPTION", "STARS", "/alpine", "7", "[OK]", "ddd…"] {
        assert!(found.ok().contains(part), "{part}: {found}");
    }
}

#[test]
fn a_pulled_image_becomes_a_container_without_asking_again() {
    if skip::lacks(&["docker-registry", "skopeo"]) {
        return;
    }
    let sandbox = sandbox();
    let image;
    {
        let registry = Registry::open();
        let layout = sandbox.work("image");
        registry.push(&format!("oci:{}:latest", layout.display()), "lib/hello:1", &[]);
        image = format!("{}/lib/hello:1", registry.address());
        sandbox.coracle(["create", "--name", "one", &image]).ok();
    }
    // The registry is gone.
    sandbox.coracle(["create", "--name", "two", &image]).ok();
    sandbox.coracle(["create", "--pull=always", &image]).code_is(125);
    assert_eq!(sandbox.coracle(["ps", "--filter", &format!("ancestor={image}"), "-q"]).ok().lines().count(), 2);
}

#[test]
fn help_maps_udocker_and_completions_know_the_commands() {
    let sandbox = Sandbox::new();
    let help = sandbox.coracle(["help", "udocker"]).ok().to_owned();
    for command in ["mkrepo", "rmname", "import --tocontainer", "setup --execmode", "manifest inspect"] {
        assert!(help.contains(command), "{command}");
    }
    assert!(sandbox.coracle(["help", "create"]).ok().contains("--name"));
    sandbox.coracle(["help", "nope"]).fails_with(&["no command nope"]);
    for shell in ["bash", "zsh", "fish"] {
        let text = sandbox.coracle(["completions", shell]);
        for word in ["create", "import-udocker", "no-trunc"] {
            assert!(text.ok().contains(word), "{shell}: {word}");
        }
    }
    sandbox.make_dir("work/man");
    sandbox.coracle(["man", "man"]).ok();
    for page in ["coracle-create.1", "coracle-export.1", "coracle-prune.1"] {
        assert!(sandbox.work("man").join(page).is_file(), "{page}");
    }
}

#[test]
fn udockers_images_and_containers_are_copied() {
    let sandbox = sandbox();
    // As udocker 1.3 lays them out: pulled (manifest, blobs by digest) and loaded (ancestry, layers by id).
    let index: Value = serde_json::from_slice(&fs::read(sandbox.work("image/index.json")).unwrap()).unwrap();
    let blob = |digest: &str| {
        fs::read(sandbox.work("image/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())).unwrap()
    };
    let manifest = blob(index["manifests"][0]["digest"].as_str().unwrap());
    let parsed: Value = serde_json::from_slice(&manifest).unwrap();
    let config = parsed["config"]["digest"].as_str().unwrap();
    let layers: Vec<&str> =
        parsed["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap()).collect();
    for digest in layers.iter().chain([&config]) {
        sandbox.write(&format!("udocker/repos/quay.io/lib/pulled/1/{digest}"), blob(digest));
    }
    sandbox.write("udocker/repos/quay.io/lib/pulled/1/manifest", &manifest);
    sandbox.write("udocker/repos/quay.io/lib/pulled/1/TAG", "quay.io/lib/pulled:1");
    let loaded = "udocker/repos/loaded/latest";
    sandbox.write(&format!("{loaded}/TAG"), "/home/u/.udocker/repos/loaded:latest");
    sandbox.write(&format!("{loaded}/container.json"), blob(config));
    sandbox.write(&format!("{loaded}/ancestry"), json!(["top", "base"]).to_string());
    sandbox.write(&format!("{loaded}/base.layer"), blob(layers[0]));
    sandbox.write(&format!("{loaded}/top.layer"), blob(layers[1]));
    // What it imports has no container.json, and the digest of the compressed layer for the plain one's.
    let imported = "udocker/repos/imported/1";
    let config_of_import = json!({"id": "a", "comment": "created by udocker", "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layers[0].to_owned()]}, "config": {"Env": null, "Cmd": null}});
    sandbox.write(&format!("{imported}/TAG"), "/home/u/.udocker/repos/imported:1");
    sandbox.write(&format!("{imported}/ancestry"), json!(["a"]).to_string());
    sandbox.write(&format!("{imported}/a.json"), config_of_import.to_string());
    sandbox.write(&format!("{imported}/a.layer"), blob(layers[0]));
    sandbox.write(&format!("{imported}/PROTECT"), "");
    sandbox.write("udocker/repos/broken/1/TAG", "broken:1");
    let container = "udocker/containers/4ca0f363-b31f-3a95-9f9c-000000000001";
    sandbox.write(&format!("{container}/ROOT/etc/word"), "kept");
    sandbox.write(&format!("{container}/container.json"), blob(config));
    sandbox.write(&format!("{container}/imagerepo.name"), "loaded:latest");
    sandbox.write(&format!("{container}/execmode"), "F1\n");
    sandbox.write(&format!("{container}/PROTECT"), "");
    let absolute = sandbox.work(&format!("{container}/ROOT/etc/word"));
    std::os::unix::fs::symlink(&absolute, sandbox.work(&format!("{container}/ROOT/link"))).unwrap();
    std::os::unix::fs::symlink("4ca0f363-b31f-3a95-9f9c-000000000001", sandbox.work("udocker/containers/mine"))
        .unwrap();
    let copied = sandbox.coracle(["import-udocker", "udocker"]);
    copied.code_is(1);
    assert!(copied.stderr.contains("image broken:1 cannot be copied"), "{copied}");
    for line in ["image quay.io/lib/pulled:1", "image loaded:latest", "image imported:1", "mine"] {
        assert!(copied.stdout.contains(line), "{line}: {copied}");
    }
    sandbox.coracle(["verify"]).ok();
    sandbox.coracle(["rm", "mine"]).fails_as(1, &["protected"]);
    sandbox.coracle(["rmi", "imported:1"]).fails_as(1, &["protected"]);
    sandbox.coracle(["create", "--pull=never", "imported:1"]).ok();
    for (name, image) in [("p", "quay.io/lib/pulled:1"), ("l", "loaded")] {
        sandbox.coracle(["create", "--name", name, "--pull=never", image]).ok();
        let root = sandbox.coracle(["inspect", "-p", name]).ok().to_owned();
        assert_eq!(fs::read(Path::new(&root).join("own")).unwrap(), b"first");
    }
    let root = PathBuf::from(sandbox.coracle(["inspect", "-p", "mine"]).ok());
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/word"));
    assert_eq!(sandbox.coracle(["setup", "mine"]).ok(), "engine: F1");
    sandbox.coracle(["import-udocker", "nowhere"]).fails_as(1, &["there is no udocker repository"]);
}

#[test]
fn a_file_system_without_locks_or_links_will_do() {
    if skip::lacks(&["strace"]) {
        return;
    }
    for (calls, error) in [("flock", "ENOLCK"), ("link,linkat", "EPERM")] {
        let sandbox = sandbox();
        let on_it = |args: &[&str]| {
            let mut command = sandbox.command("strace");
            command.args(["-f", "-q", "-o", "calls", "-e", &format!("trace={calls}"), "-e"]);
            command.arg(format!("inject={calls}:error={error}")).arg(harness::coracle()).args(args);
            let output = Output::of(command);
            output.ok();
            output
        };
        on_it(&["create", "--name", "one", "a:1"]);
        let refused = sandbox.coracle(["create", "--name", "one", "a:1"]);
        refused.fails_as(125, &["the name one is taken"]);
        on_it(&["clone", "--name", "two", "one"]);
        on_it(&["rename", "two", "three"]);
        on_it(&["tag", "a:1", "b:1"]);
        on_it(&["rm", "one", "three"]);
        on_it(&["rmi", "a:1"]);
        let pruned = on_it(&["prune"]);
        assert_eq!(pruned.stderr.contains("this file system has no locks"), calls == "flock", "{pruned}");
        assert!(fs::read_to_string(sandbox.work("calls")).unwrap().contains("INJECTED") || calls != "flock");
        sandbox.coracle(["verify"]).ok();
        assert_eq!(sandbox.coracle(["ps", "-q"]).ok(), "");
    }
}
