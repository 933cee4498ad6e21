//! A bundle in pipes: its bytes, the application's, and archives that other tools load with the config intact.

use std::{fs, path::PathBuf};

use harness::{
    Output, Sandbox, bundles, images,
    oci::{Layer, OciImage},
    skip,
};
use serde_json::{Value, json};

/// A bundle with something in every field of its config.
fn described(sandbox: &Sandbox) -> PathBuf {
    let config = json!({
        "Entrypoint": ["/bin/hello"],
        "Cmd": ["default", ""],
        "Env": ["PATH=/bin", "BOAT=coracle"],
        "WorkingDir": "/srv",
        "User": "nobody:7",
        "Labels": {"word": "first"},
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "/bin/hello"], "Interval": 5_000_000_000_u64, "Retries": 2},
    });
    let long = format!("srv/{}", "long/".repeat(30));
    let mut layer = Layer::new().dir("bin/", 0o755).file("bin/hello", 0o755, b"#!/bin/sh\n").dir("srv/", 0o750);
    layer = layer.dir("etc/", 0o755).file("etc/passwd", 0o644, b"nobody:x:99:99::/:/bin/sh\n");
    for end in (9..=long.len()).step_by(5) {
        layer = layer.dir(&long[..end], 0o755);
    }
    let layer = layer.file(&format!("{long}file"), 0o640, &[7; 100_000]);
    OciImage::new(config).layer(layer).write(&sandbox.work("image")).unwrap();
    let bundle = sandbox.work("My App.run");
    let source = format!("oci:{}", sandbox.work("image").display());
    sandbox.coracle(["build", &source, "-o", bundle.to_str().unwrap()]).ok();
    bundle
}

fn info(sandbox: &Sandbox, bundle: impl AsRef<std::ffi::OsStr>) -> Value {
    serde_json::from_str(sandbox.run(bundle, ["--coracle-info=json"]).ok()).unwrap()
}

#[test]
fn an_export_is_loaded_by_other_tools_with_its_config() {
    let mut sandbox = Sandbox::new();
    let bundle = described(&sandbox);
    let was = info(&sandbox, &bundle);
    for (form, source) in [("docker", "docker-archive:docker.tar"), ("oci", "oci-archive:oci.tar")] {
        let export = sandbox.run(&bundle, [format!("--coracle-export={form}")]);
        assert_eq!((export.code, export.stderr.as_str()), (Some(0), ""));
        assert!(export.stdout_bytes == sandbox.run(&bundle, [format!("--coracle-export={form}")]).stdout_bytes);
        sandbox.write(&format!("{form}.tar"), &export.stdout_bytes);
        // Back again: the same tree, and the same config.
        let again = format!("{form}.run");
        sandbox.coracle(["build", source, "-o", &again]).ok();
        let is = info(&sandbox, sandbox.work(&again));
        assert_eq!(is["manifest"]["index"]["sha256"], was["manifest"]["index"]["sha256"], "{form}");
        assert_eq!(is["manifest"]["config"], was["manifest"]["config"], "{form}");
        if skip::lacks(&["skopeo", "umoci"]) {
            return;
        }
        // skopeo keeps what it copies in a store of its own.
        sandbox.set("XDG_RUNTIME_DIR", sandbox.path().join("tmp"));
        let skopeo = |args: &[&str]| sandbox.run("skopeo", ["--insecure-policy"].iter().chain(args));
        let config: Value = serde_json::from_str(skopeo(&["inspect", "--config", source]).ok()).unwrap();
        let run = &config["config"];
        assert_eq!((&run["Entrypoint"], &run["Cmd"]), (&json!(["/bin/hello"]), &json!(["default", ""])), "{form}");
        assert!(run["Env"].as_array().unwrap().contains(&json!("BOAT=coracle")), "{form} {config:#}");
        assert_eq!((&run["WorkingDir"], &run["User"]), (&json!("/srv"), &json!("nobody:7")), "{form}");
        assert_eq!(run["Labels"], json!({"word": "first"}), "{form}");
        assert_eq!((&run["Volumes"], &run["ExposedPorts"]), (&json!({"/data": {}}), &json!({"80/tcp": {}})), "{form}");
        assert_eq!(run["StopSignal"], "SIGINT", "{form}");
        assert_eq!(config["architecture"], "amd64");
        // Copying reads every byte of the layer, and checks it; unpacking gives the files.
        let layout = format!("layout-{form}");
        skopeo(&["copy", "--quiet", source, &format!("oci:{layout}:latest")]).ok();
        sandbox
            .run("umoci", ["unpack", "--rootless", "--image", &format!("{layout}:latest"), &format!("u-{form}")])
            .ok();
        sandbox.run(&bundle, [format!("--coracle-extract=e-{form}")]).ok();
        let (theirs, ours) = (format!("u-{form}/rootfs"), format!("e-{form}"));
        sandbox.run("diff", ["-r", "--no-dereference", &theirs, &ours]).ok();
    }
    sandbox.run(&bundle, ["--coracle-export=zip"]).fails_with(&["\"zip\": no such archive", "docker, oci or bundle"]);
    sandbox.run(&bundle, ["--coracle-export=oci", "--coracle-writable=x"]).fails_with(&["x: No such file"]);
}

#[test]
fn podman_loads_an_export() {
    if skip::lacks(&["podman"]) || skip::unless_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let bundle = described(&sandbox);
    let at = |name: &str| sandbox.path().join(name).display().to_string();
    for form in ["docker", "oci"] {
        let script = format!("'{}' --coracle-export={form} | podman \"$@\" load", bundle.display());
        let mut command = std::process::Command::new("sh");
        let options = ["--root", &at("p/root"), "--runroot", &at("p/run"), "--storage-driver=vfs"];
        command.args(["-ec", &script, "sh"]).args(options).args(["--cgroup-manager=cgroupfs", "--events-backend=file"]);
        let output = Output::of(command);
        assert!(output.ok().contains("my-app:latest"), "{output}");
        let mut command = std::process::Command::new("podman");
        command.args(options).args(["image", "inspect", "localhost/my-app:latest", "--format", "{{json .Config}}"]);
        let config: Value = serde_json::from_str(Output::of(command).ok()).unwrap();
        assert_eq!((&config["Cmd"], &config["User"]), (&json!(["default", ""]), &json!("nobody:7")), "{form}");
        let mut command = std::process::Command::new("podman");
        command.args(options).args(["rmi", "localhost/my-app:latest"]);
        Output::of(command).ok();
    }
    // Files alone, as `docker import -` takes them; settings are given anew.
    let options = ["--root", &at("p/root"), "--runroot", &at("p/run"), "--storage-driver=vfs"];
    let script = format!(
        "'{}' --coracle-tar | podman \"$@\" import -q -c 'CMD [\"/bin/hello\"]' - files && podman \"$@\" save files > files.tar",
        bundle.display()
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", &script, "sh"]).args(options).args(["--cgroup-manager=cgroupfs", "--events-backend=file"]);
    command.current_dir(sandbox.work(""));
    Output::of(command).ok();
    sandbox.own(&sandbox.work("files.tar"));
    sandbox.coracle(["build", "docker-archive:files.tar", "-o", "files.run"]).ok();
    let tar = |bundle: &std::path::Path| sandbox.run(bundle, ["--coracle-tar"]).stdout_bytes;
    assert!(tar(&sandbox.work("files.run")) == tar(&bundle), "podman has other files than the bundle");
    let _ = std::process::Command::new("rm").arg("-rf").arg(sandbox.path().join("p")).status();
}

#[test]
fn bytes_pass_through_as_they_are_and_a_bundle_is_built_and_read_in_pipes() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    // Every byte, and more than any pipe holds.
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[1]).collect();
    for engine in ["--coracle-engine=namespaces", "--coracle-engine=ptrace"] {
        for option in ["--coracle-quiet", "--coracle-report=report.json", "--coracle-writable"] {
            let output = sandbox.run_with_input(&bundle, [engine, option, "cat"], &bytes);
            assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{engine} {option}");
            assert!(output.stdout_bytes == bytes, "{engine} {option}");
        }
    }
    let Some(tar) = images::find(images::ALPINE) else { return };
    let script =
        r#""$0" build "rootfs:$1" -o - --cmd '["echo","from a pipe"]' | (cat > b.run && chmod +x b.run && ./b.run)"#;
    let coracle = harness::coracle().to_str().unwrap();
    assert_eq!(sandbox.run("sh", ["-c", script, coracle, tar.to_str().unwrap()]).ok(), "from a pipe");
    // An archive of files for whoever reads one, as `docker import -` does.
    let listed = sandbox.run("sh", ["-c", "$0 --coracle-tar | tar t | grep -c .", bundle.to_str().unwrap()]);
    let made = sandbox.run(&bundle, ["--coracle-report=made.json", "--coracle-cache=none", "true"]);
    made.ok();
    let record: Value = serde_json::from_str(&fs::read_to_string(sandbox.work("made.json")).unwrap()).unwrap();
    assert_eq!(listed.ok(), record["unpack"]["files"].to_string());
    if !skip::lacks(&["podman"]) {
        let script = r#"$0 --coracle-tar | "$1" -q import --tocontainer --name=again - && "$1" run again cat /etc/alpine-release"#;
        let output = sandbox.run("sh", ["-c", script, bundle.to_str().unwrap(), coracle]);
        assert!(output.ok().contains("3.20"), "{output}");
    }
}
