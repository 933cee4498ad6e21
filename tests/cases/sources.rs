//! Every source but registries: layouts, archives whole, odd and damaged, standard input, directories, bundles, daemons.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use harness::{
    Output, Sandbox, eventually,
    oci::{Layer, OciImage},
    skip, user,
};
use serde_json::{Value, json};

/// A layout with one image of two layers, with the tag `latest`.
fn layout(sandbox: &Sandbox, name: &str, word: &str) -> PathBuf {
    let layout = sandbox.path().join(name);
    OciImage::new(json!({"Cmd": ["/hello"], "Env": [format!("WORD={word}")]}))
        .layer(Layer::new().dir("etc", 0o755).file("etc/word", 0o644, word.as_bytes()).file("draft", 0o644, b"x"))
        .layer(Layer::new().whiteout("draft").file("hello", 0o755, b"#!/bin/sh\n"))
        .write(&layout)
        .unwrap();
    layout
}

fn build(sandbox: &Sandbox, source: &str) -> Output {
    let _ = fs::remove_file(sandbox.work("x.run"));
    sandbox.coracle(["build", "-q", source, "-o", "x.run"])
}

/// The bundle that a source gives, which depends on the tree, the config and the provenance.
fn tree(sandbox: &Sandbox, source: &str) -> String {
    build(sandbox, source).ok();
    index(sandbox)
}

/// The digest of the tree in the last bundle.
fn index(sandbox: &Sandbox) -> String {
    let output = sandbox.coracle(["inspect", "--json", "./x.run"]);
    let manifest: Value = serde_json::from_str(output.ok()).unwrap();
    find(&manifest, "index").unwrap_or_else(|| panic!("no index in {output}"))
}

/// The SHA-256 of the index, wherever `inspect` puts it.
fn find(value: &Value, member: &str) -> Option<String> {
    match value {
        Value::Object(members) => members.iter().find_map(|(name, inner)| {
            if name == member {
                inner.as_str().map(str::to_owned).or_else(|| inner["sha256"].as_str().map(str::to_owned))
            } else {
                find(inner, member)
            }
        }),
        _ => None,
    }
}

fn shell(dir: &Path, script: &str) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn skopeo(source: &str, destination: &str) {
    let output =
        Command::new("skopeo").args(["--insecure-policy", "copy", "-q", source, destination]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_layout_and_its_archives_give_one_tree() {
    if skip::lacks(&["skopeo", "gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let dir = layout(&sandbox, "layout", "one");
    let shown = dir.display();
    let expected = tree(&sandbox, &format!("oci:{shown}"));
    let same = |source: &str| assert_eq!(tree(&sandbox, source), expected, "{source}");
    same(&format!("oci:{shown}:latest"));
    same(&shown.to_string());
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    same(&format!("oci:{shown}@{}", index["manifests"][0]["digest"].as_str().unwrap()));
    let work = sandbox.work("");
    skopeo(&format!("oci:{shown}:latest"), &format!("docker-archive:{}:lib/hello:1", work.join("d.tar").display()));
    skopeo(&format!("oci:{shown}:latest"), &format!("oci-archive:{}:latest", work.join("o.tar").display()));
    shell(&work, "for a in d o; do gzip -k $a.tar; xz -k $a.tar; zstd -qk $a.tar; bzip2 -k $a.tar; done; chmod a+r *");
    for end in ["", ".gz", ".xz", ".zst", ".bz2"] {
        same(&format!("docker-archive:d.tar{end}"));
        same(&format!("docker-archive:d.tar{end}:lib/hello:1"));
        same(&format!("oci-archive:o.tar{end}:latest"));
        same(&format!("./d.tar{end}"));
        same(&format!("o.tar{end}"));
        for archive in ["d", "o"] {
            let bytes = fs::read(work.join(format!("{archive}.tar{end}"))).unwrap();
            let output = sandbox.run_with_input(harness::coracle(), ["build", "-q", "-", "-o", "x.run"], &bytes);
            output.ok();
            assert_eq!(self::index(&sandbox), expected, "{archive}.tar{end} by a pipe");
        }
    }
    assert!(fs::read_dir(sandbox.path().join("tmp")).unwrap().next().is_none(), "nothing is left in TMPDIR");
    assert!(!sandbox.path().join("home/.coracle").exists(), "the store has no part in this");
}

#[test]
fn what_an_archive_does_not_hold_is_named() {
    let sandbox = Sandbox::new();
    let dir = layout(&sandbox, "layout", "one");
    let shown = dir.display();
    build(&sandbox, &format!("oci:{shown}:other")).fails_with(&["has no image \"other\"", "latest"]);
    build(&sandbox, "oci:/no/such/place").fails_with(&["/no/such/place", "No such file"]);
    build(&sandbox, "docker-archive:/no/such/file.tar").fails_with(&["/no/such/file.tar", "No such file"]);
    build(&sandbox, "./nothing").fails_with(&["./nothing", "No such file"]);
    build(&sandbox, "Nonsense").fails_with(&["upper-case"]);
    build(&sandbox, "sif:x").fails_with(&["sif:", "docker-archive:"]);
    build(&sandbox, "").fails_with(&["empty"]);
    sandbox.write("empty", "");
    build(&sandbox, "docker-archive:empty").fails_with(&["no tar"]);
    sandbox.write("text", "hello world\n".repeat(100));
    build(&sandbox, "./text").fails_with(&["no image archive"]);
    let nothing = sandbox.run_with_input(harness::coracle(), ["build", "-", "-o", "x.run"], b"");
    nothing.fails_with(&["standard input", "nothing came"]);
    assert!(!sandbox.work("x.run").exists());
}

#[test]
fn damage_is_seen_before_anything_is_built() {
    if skip::lacks(&["skopeo"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let dir = layout(&sandbox, "layout", "one");
    skopeo(
        &format!("oci:{}:latest", dir.display()),
        &format!("docker-archive:{}:x:1", sandbox.work("d.tar").display()),
    );
    let archive = fs::read(sandbox.work("d.tar")).unwrap();
    sandbox.write("cut.tar", &archive[..archive.len() / 2]);
    build(&sandbox, "docker-archive:cut.tar").fails_with(&["cut.tar"]);
    // One byte of a layer, of the config, of the manifest.
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&file, &bad).unwrap();
        let hex = file.file_name().unwrap().to_str().unwrap();
        build(&sandbox, &format!("oci:{}", dir.display())).fails_with(&["is damaged", hex]);
        fs::remove_file(&file).unwrap();
        build(&sandbox, &format!("oci:{}", dir.display())).fails_with(&[&dir.display().to_string()]);
        fs::write(&file, &good).unwrap();
    }
    build(&sandbox, &format!("oci:{}", dir.display())).ok();
}

#[test]
fn several_images_in_one_archive_are_told_apart() {
    if skip::lacks(&["skopeo", "tar"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let work = sandbox.work("");
    let mut entries = Vec::new();
    let mut expected = Vec::new();
    for word in ["one", "two"] {
        let dir = layout(&sandbox, word, word);
        expected.push(tree(&sandbox, &format!("oci:{}", dir.display())));
        skopeo(
            &format!("oci:{}:latest", dir.display()),
            &format!("docker-archive:{}:lib/{word}:1", work.join(word).with_extension("tar").display()),
        );
        shell(&work, &format!("mkdir -p all && tar -xf {word}.tar -C all && chmod -R u+w all"));
        let manifest: Vec<Value> = serde_json::from_slice(&fs::read(work.join("all/manifest.json")).unwrap()).unwrap();
        entries.extend(manifest);
    }
    // As `docker save` writes it: symbolic links for shared layers, an image without a tag.
    let untagged = |mut entry: Value| {
        entry["RepoTags"] = Value::Null;
        entry
    };
    fs::write(work.join("all/manifest.json"), json!([entries[0], untagged(entries[1].clone())]).to_string()).unwrap();
    let layer = entries[1]["Layers"][1].as_str().unwrap();
    shell(
        &work,
        &format!(
            "cd all; mkdir -p links; mv {layer} links/real.tar; mkdir -p $(dirname {layer}); ln -s $(realpath -m --relative-to=$(dirname {layer}) links/real.tar) {layer}; tar -cf ../all.tar *; chmod a+r ../all.tar"
        ),
    );
    build(&sandbox, "docker-archive:all.tar").fails_with(&[
        "several images",
        "lib/one:1",
        "docker-archive:all.tar:NAME",
    ]);
    build(&sandbox, "docker-archive:all.tar:none").fails_with(&["has no image \"none\"", "lib/one:1"]);
    assert_eq!(tree(&sandbox, "docker-archive:all.tar:lib/one:1"), expected[0]);
    let id = entries[1]["Config"].as_str().unwrap();
    assert_eq!(
        tree(&sandbox, &format!("docker-archive:all.tar:@{}", &id.rsplit('/').next().unwrap()[..12])),
        expected[1]
    );
    // A bomb's links, and one that leads out.
    shell(
        &work,
        &format!(
            "cd all; rm {layer}; ln -s ../../../../../../etc/passwd {layer}; tar -cf ../out.tar *; ln -sfn $(basename {layer}) {layer}; tar -cf ../loop.tar *; chmod a+r ../*.tar"
        ),
    );
    let name = format!("@{}", &id.rsplit('/').next().unwrap()[..12]);
    build(&sandbox, &format!("docker-archive:out.tar:{name}")).fails_with(&["is missing"]);
    build(&sandbox, &format!("docker-archive:loop.tar:{name}")).fails_with(&["circle"]);
}

#[test]
fn root_file_systems_come_as_directories_and_tars() {
    if skip::lacks(&["tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("root/etc/word", "one");
    sandbox.write("root/usr/bin/hello", "#!/bin/sh\n");
    // The harness made some of the directories as whoever it is.
    if user::is_root() {
        let user = user::ordinary();
        shell(&sandbox.work(""), &format!("chown -R {}:{} root", user.uid, user.gid));
    }
    shell(
        &sandbox.work(""),
        "find root -exec touch -d @1000000000 {} + && tar -C root --owner=0 --group=0 --sort=name -cf r.tar . && gzip -k r.tar && chmod a+r r.tar*",
    );
    let by_tar = tree(&sandbox, "rootfs:r.tar");
    assert_eq!(tree(&sandbox, "rootfs:r.tar.gz"), by_tar);
    assert_eq!(tree(&sandbox, "./r.tar"), by_tar);
    assert_eq!(tree(&sandbox, "r.tar.gz"), by_tar);
    let bytes = fs::read(sandbox.work("r.tar.gz")).unwrap();
    sandbox.run_with_input(harness::coracle(), ["build", "-q", "-", "-o", "x.run"], &bytes).ok();
    assert_eq!(index(&sandbox), by_tar);
    assert_eq!(tree(&sandbox, "rootfs:root"), by_tar);
    assert_eq!(tree(&sandbox, "./root"), by_tar);
    build(&sandbox, "rootfs:nowhere").fails_with(&["nowhere"]);
    // A bundle is a source again.
    fs::rename(sandbox.work("x.run"), sandbox.work("first.run")).unwrap_or_default();
    build(&sandbox, "rootfs:r.tar").ok();
    fs::rename(sandbox.work("x.run"), sandbox.work("first.run")).unwrap();
    assert_eq!(tree(&sandbox, "bundle:first.run"), by_tar);
    assert_eq!(tree(&sandbox, "./first.run"), by_tar);
    let bundle = fs::read(sandbox.work("first.run")).unwrap();
    sandbox.run_with_input(harness::coracle(), ["build", "-q", "-", "-o", "x.run"], &bundle).ok();
    assert_eq!(index(&sandbox), by_tar);
}

/// A process that ends with its guard.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn podman_gives_what_it_holds() {
    if skip::lacks(&["podman", "skopeo"]) || skip::unless_root() {
        return;
    }
    let mut sandbox = Sandbox::new();
    let dir = layout(&sandbox, "layout", "one");
    let expected = tree(&sandbox, &format!("oci:{}", dir.display()));
    let place = sandbox.make_dir("podman");
    let archive = place.join("a.tar");
    skopeo(&format!("oci:{}:latest", dir.display()), &format!("docker-archive:{}:lib/hello:1", archive.display()));
    let podman = |args: &[&str]| {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(place.join("root")).arg("--runroot").arg(place.join("run"));
        podman.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"]).args(args);
        podman.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        podman
    };
    if !podman(&["load", "-i", &archive.display().to_string()]).status().unwrap().success() {
        skip::because("podman cannot load an image here");
        return;
    }
    let socket = place.join("d.sock");
    let url = format!("unix://{}", socket.display());
    let service = Service(podman(&["system", "service", "-t", "0", &url]).spawn().unwrap());
    eventually("podman's socket is there", 20, || socket.exists());
    let user = user::ordinary();
    std::os::unix::fs::chown(&socket, Some(user.uid), Some(user.gid)).unwrap();
    sandbox.set("DOCKER_HOST", &url);
    assert_eq!(tree(&sandbox, "docker-daemon:lib/hello:1"), expected);
    build(&sandbox, "docker-daemon:lib/none:1").fails_with(&["has no image of that name"]);
    drop(service);
    build(&sandbox, "docker-daemon:lib/hello:1").fails_with(&["none answers", "d.sock"]);
}

#[test]
fn a_store_that_cannot_be_is_told_with_the_way_out() {
    let mut sandbox = Sandbox::new();
    sandbox.unset("HOME").unset("CORACLE_DIR");
    sandbox.coracle(["pull", "127.0.0.1:1/x"]).fails_with(&["HOME is not set", "CORACLE_DIR"]);
    sandbox.set("CORACLE_DIR", "/proc/nowhere");
    sandbox.coracle(["pull", "127.0.0.1:1/x"]).fails_with(&["/proc/nowhere", "CORACLE_DIR"]);
    let newer = sandbox.make_dir("newer");
    fs::write(newer.join("version"), "2\n").unwrap();
    sandbox.set("CORACLE_DIR", &newer);
    sandbox.coracle(["pull", "127.0.0.1:1/x"]).fails_with(&["version 2", "newer Coracle"]);
    assert_eq!(fs::read_dir(&newer).unwrap().count(), 1, "nothing was touched");
}
