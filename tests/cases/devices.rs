//! Drivers of the node in the guest: a driver made by hand, described by CDI, loaded by the guest's own loader.

use std::{fs, process::Command};

use harness::{Sandbox, bundles, skip};

/// Says that it was loaded, by raw system calls: any libc's loader can take it.
const LIBRARY: &str = r#"
static long say(const char *text, long size) {
    long done;
    __asm__ volatile("syscall" : "=a"(done) : "0"(1L), "D"(1L), "S"(text), "d"(size) : "rcx", "r11", "memory");
    return done;
}
__attribute__((constructor)) static void loaded(void) { say("driver loaded\n", 14); }
"#;

const SPECIFICATION: &str = "
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
- name: all
  containerEdits:
    deviceNodes:
    - {path: /gpus/nvidia0, hostPath: /dev/null}
    env: [GPU=shown]
containerEdits:
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, create-symlinks, --link, 'libcuda.so.1::/usr/lib/libcuda.so']
  mounts:
  - {hostPath: DIR/libcuda.so.1, containerPath: /usr/lib/libcuda.so.1.2.3, options: [ro]}
  - {hostPath: DIR/smi, containerPath: /usr/bin/nvidia-smi, options: [ro]}
";

#[test]
fn a_driver_described_by_cdi_is_loaded_by_the_guest() {
    let Some(bundle) = bundles::alpine() else { return };
    if skip::lacks(&["gcc"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let dir = sandbox.make_dir("driver");
    fs::write(dir.join("lib.c"), LIBRARY).unwrap();
    let library = dir.join("libcuda.so.1.2.3");
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-nostdlib", "-o"]).arg(&library).arg(dir.join("lib.c"));
    assert!(gcc.status().unwrap().success());
    std::os::unix::fs::symlink("libcuda.so.1.2.3", dir.join("libcuda.so.1")).unwrap();
    fs::write(dir.join("smi"), "#!/bin/sh\necho \"smi on $GPU\"\n").unwrap();
    fs::set_permissions(dir.join("smi"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir(dir.join("cdi")).unwrap();
    fs::write(dir.join("cdi/gpu.yaml"), SPECIFICATION.replace("DIR", dir.to_str().unwrap())).unwrap();
    let cdi = format!("--coracle-cdi={}", dir.join("cdi").display());
    let script =
        "LD_PRELOAD=libcuda.so.1 /bin/true; ls /.coracle/drivers; nvidia-smi; echo x >/gpus/nvidia0 && echo written";
    let expected = "driver loaded\nlibcuda.so\nlibcuda.so.1\nlibcuda.so.1.2.3\nsmi on shown\nwritten\n";
    for options in
        [["--coracle-nvidia", "--coracle-isolated=no"], ["--coracle-device=nvidia.com/gpu=all", "--coracle-isolated"]]
    {
        for (engine, name) in
            [("namespaces", "R1"), ("ptrace", "P1"), ("ptrace", "P2"), ("preload", "F1"), ("preload", "F3")]
        {
            let explained = sandbox.run(&bundle, [options[1], "--coracle-explain"]);
            if !explained.stdout.contains(&format!("{engine}: accepted")) {
                skip::because(&format!("{engine} refuses {}", options[1]));
                continue;
            }
            let engine = format!("--coracle-engine={name}");
            let output = sandbox.run(&bundle, [cdi.as_str(), options[0], options[1], &engine, "/bin/sh", "-c", script]);
            assert_eq!(output.stdout, expected, "{engine} {options:?}: {output}");
        }
    }
    let missing = sandbox.run(&bundle, [cdi.as_str(), "--coracle-nvidia=7", "/bin/true"]);
    missing.fails_with(&["nvidia.com/gpu=7", "there are nvidia.com/gpu=all"]);
}

#[test]
fn devices_by_path_are_shown_in_a_minimal_dev() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let script = "head -c 3 /dev/other | od -An -tx1; ls /dev/kmsg 2>/dev/null; echo";
    let options = ["--coracle-isolated", "--coracle-device=/dev/zero:/dev/other:rwm", "/bin/sh", "-c", script];
    let output = sandbox.run(&bundle, options);
    if output.stderr.contains("no engine") {
        return skip::because("this node isolates nothing");
    }
    assert_eq!(output.stdout, " 00 00 00\n\n", "{output}");
    sandbox.run(&bundle, ["--coracle-device=/dev/none", "/bin/true"]).fails_with(&["/dev/none", "No such file"]);
    sandbox.run(&bundle, ["--coracle-device=gpu", "/bin/true"]).fails_with(&["gpu", "vendor/class=device"]);
}

#[test]
fn a_container_shows_a_device_under_another_name() {
    let Some(world) = super::runs::World::new() else { return };
    for mode in ["R1", "P1"] {
        let mode = format!("--execmode={mode}");
        let script = "head -c 3 /dev/other | od -An -tx1; ls /dev/null /dev/full";
        world.says(
            &[&mode, "--device=/dev/zero:/dev/other:rwm", "--device=/dev/full"],
            script,
            " 00 00 00\n/dev/full\n/dev/null",
        );
        world.says(&[&mode, "--device=/dev/zero:/dev/null"], "head -c 2 /dev/null | od -An -tx1", " 00 00");
    }
}
