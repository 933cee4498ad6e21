//! Images and containers as files: save and load in both forms, with skopeo and podman on the other side; import, export,
//! clones through a pipe.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use harness::{
    Output, Sandbox, coracle,
    oci::{Layer, OciImage},
    skip,
};
use serde_json::{Value, json};

/// An image in the working directory: a layout `name`.
fn write(sandbox: &Sandbox, name: &str, word: &str) {
    let config = json!({"Cmd": ["/bin/hello", word], "Env": ["A=b"], "Labels": {"word": word}, "StopSignal": "SIGINT"});
    let lower = Layer::new()
        .file("bin/hello", 0o755, b"#!/bin/sh\necho hello\n")
        .hard_link("bin/hi", "bin/hello")
        .file("etc/gone", 0o600, b"x");
    let upper = Layer::new().whiteout("etc/gone").file("etc/word", 0o4640, word.as_bytes()).symlink("lib", "usr/lib");
    OciImage::new(config).layer(lower).layer(upper).write(&sandbox.work(name)).unwrap();
}

fn skopeo(sandbox: &Sandbox, args: &[&str]) -> Output {
    let output = sandbox.run("skopeo", [&["--insecure-policy"], args].concat());
    output.ok();
    output
}

/// An image's config and the digests of its plain layers, by skopeo.
fn seen_by_skopeo(sandbox: &Sandbox, source: &str) -> (Value, Value) {
    let config: Value = serde_json::from_str(skopeo(sandbox, &["inspect", "--config", source]).ok()).unwrap();
    (config["config"].clone(), config["rootfs"]["diff_ids"].clone())
}

/// The listing of an image's tree: names, modes, owners, link targets and contents' sums, by a container of it.
fn tree(sandbox: &Sandbox, image: &str) -> BTreeMap<String, String> {
    let name = format!("t{}", image.bytes().map(u32::from).sum::<u32>());
    sandbox.coracle(["create", "--name", &name, "--pull=never", image]).ok();
    let mut export = sandbox.command(coracle());
    export.args(["export", &name]).stdout(Stdio::piped());
    let output = Output::of(export);
    output.ok();
    let mut archive = tar::Archive::new(output.stdout_bytes.as_slice());
    let mut entries = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        let header = entry.header();
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        let line = format!(
            "{:?} {:o} {}:{} {} {link:?} {:?}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            String::from_utf8_lossy(&content),
        );
        entries.insert(entry.path().unwrap().display().to_string(), line);
    }
    sandbox.coracle(["rm", &name]).ok();
    // The implicit root is made at another time.
    entries.remove("./");
    entries.remove("");
    entries
}

fn field(sandbox: &Sandbox, image: &str, field: &str) -> String {
    let format = format!("{{{{.{field}}}}}");
    sandbox.coracle(["inspect", "--pull=never", image, "-f", &format]).ok().to_owned()
}

#[test]
fn what_we_save_skopeo_reads_and_what_it_writes_we_load() {
    if skip::lacks(&["skopeo"]) {
        return;
    }
    let mut sandbox = Sandbox::new();
    write(&sandbox, "one", "first");
    write(&sandbox, "two", "second");
    for (layout, name) in [("one", "example/one:1"), ("two", "localhost:5000/two:x")] {
        let (source, target) = (format!("oci:{layout}:latest"), format!("docker-archive:{layout}.tar:{name}"));
        skopeo(&sandbox, &["copy", &source, &target]);
        sandbox.coracle(["load", "-i", &format!("{layout}.tar")]).ok();
    }
    let wanted = ["one", "two"].map(|layout| seen_by_skopeo(&sandbox, &format!("oci:{layout}:latest")));
    let (ours, theirs) =
        (["example/one:1", "localhost:5000/two:x"], ["docker.io/example/one:1", "localhost:5000/two:x"]);
    let trees = ours.map(|name| tree(&sandbox, name));
    assert!(trees[0]["etc/word"].contains("4640 0:0") && !trees[0].contains_key("etc/gone"), "{:?}", trees[0]);
    let stores = [sandbox.path().join("home/.coracle"), sandbox.make_dir("other"), sandbox.make_dir("third")];
    let forms = [("docker-archive", "both.tar"), ("oci-archive", "both.oci")];
    for ((form, file), other) in forms.into_iter().zip(&stores[1..]) {
        sandbox.set("CORACLE_DIR", &stores[0]);
        sandbox.coracle(["save", "--format", form, "-o", file, ours[0], ours[1]]).ok();
        let again = sandbox.work("again");
        fs::write(&again, "old").unwrap();
        sandbox.own(&again);
        sandbox.coracle(["save", "--format", form, "-o", "again", ours[0], ours[1]]).ok();
        assert!(fs::read(sandbox.work(file)).unwrap() == fs::read(&again).unwrap(), "the same images, the same bytes");
        for (name, wanted) in theirs.iter().zip(&wanted) {
            let source = format!("{form}:{file}:{name}");
            assert_eq!(seen_by_skopeo(&sandbox, &source), *wanted, "{source}");
            // Copying reads every byte of every layer, and checks it.
            let copy = sandbox.work("copy");
            let _ = fs::remove_dir_all(&copy);
            skopeo(&sandbox, &["copy", &source, "dir:copy"]);
        }
        // Into another store, through a pipe.
        let bytes = fs::read(sandbox.work(file)).unwrap();
        sandbox.set("CORACLE_DIR", other);
        let loaded = sandbox.run_with_input(coracle(), ["load"], &bytes);
        assert_eq!(loaded.ok(), "Loaded image: example/one:1\nLoaded image: localhost:5000/two:x");
        for (name, was) in ours.iter().zip(&trees) {
            assert_eq!(tree(&sandbox, name), *was, "{form} {name}");
        }
        assert_eq!(field(&sandbox, ours[0], "config.cmd"), "[/bin/hello first]");
        assert_eq!(field(&sandbox, ours[0], "config.stop_signal"), "SIGINT");
        sandbox.coracle(["verify"]).ok();
    }
    // An image has one id, whatever carried it.
    let ids = stores.map(|store| {
        sandbox.set("CORACLE_DIR", store);
        sandbox.coracle(["images", "-q", "--no-trunc"]).ok().lines().map(str::to_owned).collect::<Vec<_>>()
    });
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[test]
fn podman_loads_what_we_save_and_we_load_what_it_saves() {
    if skip::lacks(&["podman", "skopeo"]) || skip::unless_root() {
        return;
    }
    let mut sandbox = Sandbox::new();
    write(&sandbox, "one", "first");
    sandbox.run("tar", ["-C", "one", "-cf", "one.tar", "."]).ok();
    sandbox.coracle(["load", "-i", "one.tar", "example/one:1"]).ok();
    let was = tree(&sandbox, "example/one:1");
    let podman = |args: &[&str]| {
        let at = |name: &str| sandbox.path().join(name).display().to_string();
        let mut command = std::process::Command::new("podman");
        command.args(["--root", &at("p/root"), "--runroot", &at("p/run"), "--storage-driver=vfs"]);
        command.args(["--cgroup-manager=cgroupfs", "--events-backend=file"]).args(args);
        command.current_dir(sandbox.path().join("work"));
        Output::of(command)
    };
    for form in ["docker-archive", "oci-archive"] {
        sandbox.coracle(["save", "--format", form, "-o", form, "example/one:1"]).ok();
        podman(&["load", "-i", form]).ok();
        let command = podman(&["image", "inspect", "docker.io/example/one:1", "--format", "{{json .Config.Cmd}}"]);
        assert_eq!(command.ok(), "[\"/bin/hello\",\"first\"]", "{form}");
        let back = format!("{form}.back");
        podman(&["save", "--format", form, "-o", &back, "docker.io/example/one:1"]).ok();
        podman(&["rmi", "docker.io/example/one:1"]).ok();
    }
    // Several in one file, there and back.
    write(&sandbox, "two", "second");
    sandbox.run("tar", ["-C", "two", "-cf", "two.tar", "."]).ok();
    sandbox.coracle(["load", "-i", "two.tar", "localhost:5000/two:x"]).ok();
    let wases = [was.clone(), tree(&sandbox, "localhost:5000/two:x")];
    sandbox.coracle(["save", "-o", "many.tar", "example/one:1", "localhost:5000/two:x"]).ok();
    podman(&["load", "-i", "many.tar"]).ok();
    podman(&["save", "-m", "-o", "many.back", "docker.io/example/one:1", "localhost:5000/two:x"]).ok();
    let ids = sandbox.coracle(["images", "-q", "--no-trunc"]).ok().to_owned();
    let theirs = podman(&["images", "-q", "--no-trunc"]).ok().to_owned();
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&theirs), sorted(&ids), "an image has one id");
    podman(&["unshare", "true"]);
    let other = sandbox.make_dir("other");
    sandbox.set("CORACLE_DIR", &other);
    for form in ["docker-archive", "oci-archive"] {
        let back = sandbox.work(&format!("{form}.back"));
        sandbox.own(&back);
        assert_eq!(sandbox.coracle(["load", "-i", back.to_str().unwrap()]).ok(), "Loaded image: example/one:1");
        assert_eq!(tree(&sandbox, "example/one:1"), was, "{form}");
        assert_eq!(field(&sandbox, "example/one:1", "config.labels"), "map[word:first]");
        sandbox.coracle(["rmi", "example/one:1"]).ok();
    }
    sandbox.own(&sandbox.work("many.back"));
    let said = sandbox.coracle(["load", "-i", "many.back"]);
    assert_eq!(sorted(said.ok()), ["Loaded image: example/one:1", "Loaded image: localhost:5000/two:x"]);
    for (name, was) in ["example/one:1", "localhost:5000/two:x"].into_iter().zip(wases) {
        assert_eq!(tree(&sandbox, name), was, "{name}");
    }
    let _ = std::process::Command::new("rm").arg("-rf").arg(sandbox.path().join("p")).status();
}

/// A tar of a small root file system.
fn root_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, uid, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    };
    add("bin/", tar::EntryType::Directory, 0o755, 0, b"");
    add("bin/hello", tar::EntryType::Regular, 0o2755, 7, b"#!/bin/sh\n");
    add("etc/name with spaces \u{fc}", tar::EntryType::Regular, 0o644, 0, b"x");
    builder.into_inner().unwrap()
}

#[test]
fn roots_are_imported_and_exported() {
    let sandbox = Sandbox::new();
    sandbox.write("root.tar", root_tar());
    let named = sandbox.coracle(["import", "root.tar", "my/root:1", "-c", "CMD [\"/bin/hello\"]", "-c", "ENV A=b c"]);
    assert!(named.ok().starts_with("sha256:"), "{named}");
    assert_eq!(field(&sandbox, "my/root:1", "config.cmd"), "[/bin/hello]");
    assert_eq!(field(&sandbox, "my/root:1", "config.env"), "[A=b c]");
    let was = tree(&sandbox, "my/root:1");
    assert!(was["bin/hello"].contains("2755 7:7 1000000000"), "{was:?}");
    assert!(was.contains_key("etc/name with spaces \u{fc}"), "{was:?}");
    // Compressed, through a pipe, as a container; out again, in again.
    let gz = sandbox.run("sh", ["-c", "gzip -c root.tar > root.tar.gz && cat root.tar.gz"]);
    gz.ok();
    let id = sandbox.run_with_input(coracle(), ["import", "--tocontainer", "--name", "c", "-"], &gz.stdout_bytes);
    assert_eq!(id.ok().len(), 32);
    let export = sandbox.coracle(["export", "-", "c"]);
    export.ok();
    sandbox.run_with_input(coracle(), ["import", "-", "back"], &export.stdout_bytes).ok();
    assert_eq!(tree(&sandbox, "back"), was);
    sandbox.coracle(["import", "--mv", "root.tar.gz", "moved"]).ok();
    assert!(!sandbox.work("root.tar.gz").exists());
    assert_eq!(tree(&sandbox, "moved"), was);
    sandbox.coracle(["import", "root.tar"]).fails_as(1, &["no name for the image"]);
    sandbox.coracle(["import", "root.tar", "Up/Case"]).fails_as(1, &["upper-case"]);
    sandbox.coracle(["import", "none.tar", "x"]).fails_as(1, &["none.tar"]);
    sandbox.run_with_input(coracle(), ["import", "-", "x"], b"rubbish").fails_as(1, &["standard input"]);
    sandbox.coracle(["verify"]).ok();
}

#[test]
fn a_clone_travels_with_its_settings() {
    let mut sandbox = Sandbox::new();
    write(&sandbox, "one", "first");
    sandbox.coracle(["create", "--name", "web", "oci:one:latest"]).ok();
    sandbox.coracle(["setup", "--execmode=P2", "web"]).ok();
    let clone = sandbox.coracle(["export", "--clone", "-", "web"]);
    clone.ok();
    let plain = sandbox.coracle(["export", "web"]);
    let other = sandbox.make_dir("other");
    sandbox.set("CORACLE_DIR", &other);
    sandbox.run_with_input(coracle(), ["import", "--clone", "--name", "web", "-"], &clone.stdout_bytes).ok();
    assert_eq!(sandbox.coracle(["setup", "web"]).ok(), "engine: P2");
    assert_eq!(sandbox.coracle(["inspect", "web", "-f", "{{json .Config.Cmd}}"]).ok(), "[\"/bin/hello\",\"first\"]");
    let again = sandbox.coracle(["export", "web"]);
    assert!(again.stdout_bytes == plain.stdout_bytes, "the same tree, byte for byte");
    sandbox
        .run_with_input(coracle(), ["import", "--clone", "-"], &plain.stdout_bytes)
        .fails_as(1, &["no container that was exported with --clone"]);
    assert_eq!(sandbox.coracle(["ps", "-q"]).ok().lines().count(), 1, "nothing is left of what failed");
}

#[test]
fn archives_cut_short_or_damaged_are_refused_and_leave_nothing() {
    let sandbox = Sandbox::new();
    write(&sandbox, "one", "first");
    sandbox.run("tar", ["-C", "one", "-cf", "one.tar", "."]).ok();
    sandbox.coracle(["load", "-i", "one.tar", "a:1"]).ok();
    sandbox.coracle(["save", "-o", "whole.tar", "a:1"]).ok();
    sandbox.coracle(["rmi", "a:1"]).ok();
    let whole = fs::read(sandbox.work("whole.tar")).unwrap();
    let mut damaged = whole.clone();
    let at = whole.windows(10).position(|window| window == b"echo hello").unwrap();
    damaged[at] ^= 1;
    sandbox.write("damaged.tar", damaged);
    sandbox.write("short.tar", &whole[..whole.len() / 2]);
    sandbox.coracle(["load", "-i", "damaged.tar"]).fails_as(1, &["layer"]);
    sandbox.coracle(["load", "-i", "short.tar"]).code_is(1);
    sandbox.coracle(["load", "-i", "none.tar"]).fails_as(1, &["none.tar"]);
    assert_eq!(sandbox.coracle(["images", "-q"]).ok(), "");
    sandbox.coracle(["prune", "--partial"]).ok();
    assert_eq!(files(&sandbox.path().join("home/.coracle/blobs/sha256")), 0);
    assert_eq!(files(&sandbox.path().join("home/.coracle/partial")), 0);
    sandbox.coracle(["load", "-i", "whole.tar"]).ok();
    sandbox.coracle(["save", "-o", "none/x.tar", "a:1"]).fails_as(1, &["none"]);
    sandbox.coracle(["save", "-o", "x.tar", "b:1"]).fails_as(1, &["no such image: b:1"]);
    assert!(!sandbox.work("x.tar").exists());
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}
