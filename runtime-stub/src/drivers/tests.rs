//! Nodes made by hand: a driver, its files and specifications, and what of them a guest is shown.

use std::os::unix::fs::symlink;

use super::*;

/// A node with a driver of version 550.54.14 and two GPUs.
fn node() -> (tempfile::TempDir, Places) {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version: 12.2.0\n";
    write("proc/driver/nvidia/version", line);
    for file in ["libcuda.so.550.54.14", "libnvidia-ml.so.550.54.14", "libnvidia-ml.so.535.1.2", "libc.so.6"] {
        write(&format!("usr/lib64/{file}"), file);
    }
    symlink("libcuda.so.550.54.14", dir.path().join("usr/lib64/libcuda.so.1")).unwrap();
    symlink("libcuda.so.1", dir.path().join("usr/lib64/libcuda.so")).unwrap();
    for file in ["dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia0", "dev/nvidia1", "dev/nvidia-caps/nvidia-cap1"] {
        write(file, "");
    }
    write("usr/bin/nvidia-smi", "");
    let places = Places { root: dir.path().to_owned(), cdi: vec![dir.path().join("etc/cdi")], library_path: None };
    (dir, places)
}

fn guests(pairs: &[(PathBuf, PathBuf)]) -> Vec<&str> {
    pairs.iter().map(|(_, guest)| guest.to_str().unwrap()).collect()
}

#[test]
fn a_driver_is_found_by_its_version() {
    let (_dir, places) = node();
    let edits = find(Some("all"), &[], &places).unwrap();
    let caps = "/dev/nvidia-caps/nvidia-cap1";
    assert_eq!(guests(&edits.nodes), ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1", caps]);
    assert_eq!(guests(&edits.files), ["/usr/bin/nvidia-smi"]);
    let names = libraries::Names::of(&edits);
    let files: Vec<_> = names.files.keys().collect();
    assert_eq!(files, ["libcuda.so.550.54.14", "libnvidia-ml.so.550.54.14"]);
    let links: Vec<_> =
        names.links.iter().map(|(link, target)| (link.to_str().unwrap(), target.to_str().unwrap())).collect();
    assert_eq!(links, [("libcuda.so", "libcuda.so.550.54.14"), ("libcuda.so.1", "libcuda.so.550.54.14")]);
}

#[test]
fn some_gpus_no_gpu_and_no_driver() {
    let (dir, places) = node();
    let edits = find(Some("1"), &[], &places).unwrap();
    assert!(guests(&edits.nodes).contains(&"/dev/nvidia1") && !guests(&edits.nodes).contains(&"/dev/nvidia0"));
    assert!(matches!(find(Some("7"), &[], &places), Err(DriverError::NoGpu(gpu)) if gpu == "7"));
    assert!(matches!(find(Some("ctl"), &[], &places), Err(DriverError::NoGpu(_))));
    assert_eq!(find(Some("none"), &[], &places).unwrap(), Edits::default());
    fs::remove_dir_all(dir.path().join("usr/lib64")).unwrap();
    assert!(matches!(find(Some("all"), &[], &places), Err(DriverError::NoLibraries { .. })));
    fs::remove_dir_all(dir.path().join("proc")).unwrap();
    assert!(matches!(find(Some("all"), &[], &places), Err(DriverError::NoNvidia { .. })));
}

const SPECIFICATION: &str = "\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args: [nvidia-cdi-hook, create-symlinks, --link, 'libcuda.so.1::/usr/lib/libcuda.so', --link=x::/usr/lib/libnone.so]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/libcuda.so.550.54.14
    hostPath: ROOT/usr/lib64/libcuda.so.550.54.14
    options: [ro, nosuid, nodev, bind]
  - {containerPath: /usr/bin/nvidia-smi, hostPath: ROOT/usr/bin/nvidia-smi}
devices:
- name: 0
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: ROOT/dev/nvidia0}
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
";

fn specify(dir: &Path, name: &str, text: &str) {
    fs::create_dir_all(dir.join("etc/cdi")).unwrap();
    fs::write(dir.join("etc/cdi").join(name), text.replace("ROOT", dir.to_str().unwrap())).unwrap();
}

#[test]
fn a_specification_goes_before_the_drivers_own_files() {
    let (dir, places) = node();
    specify(dir.path(), "nvidia.yaml", SPECIFICATION);
    specify(dir.path(), "broken.json", "{");
    let edits = find(Some("0"), &["nvidia.com/gpu=0".to_owned()], &places).unwrap();
    assert_eq!(guests(&edits.nodes), ["/dev/nvidia0", "/dev/nvidiactl"]);
    assert_eq!(edits.nodes[0].0, dir.path().join("dev/nvidia0"));
    assert_eq!((guests(&edits.writable), guests(&edits.files)), (vec!["/usr/bin/nvidia-smi"], vec![]));
    assert_eq!(edits.env, ["NVIDIA_VISIBLE_DEVICES=void"]);
    assert!(edits.notes[0].contains("broken.json"), "{:?}", edits.notes);
    let names = libraries::Names::of(&edits);
    assert_eq!(names.links.keys().collect::<Vec<_>>(), ["libcuda.so", "libcuda.so.1"]);
}

#[test]
fn every_kind_of_edit_is_carried_out_or_named() {
    let (dir, places) = node();
    let text = r#"{"cdiVersion": "1.1.0", "kind": "nvidia.com/gpu", "annotations": {"a": "b"},
        "devices": [{"name": "0:1", "annotations": {}, "containerEdits": {"deviceNodes": [
            {"path": "/dev/nvidia0", "hostPath": "ROOT/dev/nvidia0", "type": "c", "major": 195, "minor": 0, "permissions": "rw"},
            {"path": "/dev/nvidia-caps/nvidia-cap1", "hostPath": "ROOT/dev/nvidia-caps/nvidia-cap1"}]}}],
        "containerEdits": {"additionalGids": [44, 109], "intelRdt": {"closID": "x"},
            "mounts": [
                {"hostPath": "ROOT/usr/lib64", "containerPath": "/opt/driver/lib", "options": ["ro", "rbind"]},
                {"hostPath": "ROOT/usr/lib64/libcuda.so.550.54.14", "containerPath": "/usr/lib/libcuda.so.550.54.14", "options": ["ro"]},
                {"hostPath": "ROOT/dev", "containerPath": "/var/run/shared", "options": ["rw", "nosuid"], "type": "bind"}],
            "hooks": [
                {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "update-ldcache",
                    "--folder", "/opt/driver/lib", "--folder=/usr/lib"]},
                {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "create-symlinks",
                    "--link=../libcuda.so.550.54.14::/usr/lib/gbm/nvidia-drm_gbm.so", "--link", "libcuda.so.550.54.14::/usr/lib/libcu.so.2"]},
                {"hookName": "poststop", "path": "/opt/vendor/hook", "args": ["hook", "tidy"]}]}}"#;
    specify(dir.path(), "one.json", text);
    // Another vendor's, and another class of the same vendor's; numbers with a colon are no numbers in YAML either.
    specify(
        dir.path(),
        "two.yaml",
        "cdiVersion: 0.6.0\nkind: nvidia.com/mig\ndevices:\n- name: 1:0\n  containerEdits:\n    env: [MIG=1]\n",
    );
    let names = ["nvidia.com/gpu=0:1".to_owned(), "nvidia.com/mig=1:0".to_owned()];
    let edits = find(None, &names, &places).unwrap();
    assert_eq!(guests(&edits.nodes), ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1"]);
    assert_eq!(edits.nodes, find(Some("0:1"), &[], &places).unwrap().nodes, "a slice of a GPU by its name");
    assert_eq!(guests(&edits.files), ["/opt/driver/lib", "/usr/lib/gbm/nvidia-drm_gbm.so"]);
    assert_eq!(guests(&edits.writable), ["/var/run/shared"]);
    assert_eq!(
        (edits.groups.as_slice(), edits.env.as_slice()),
        ([44, 109].as_slice(), ["MIG=1".to_owned()].as_slice())
    );
    assert_eq!(edits.folders, [Path::new("/opt/driver/lib")], "what the image has is searched anyway");
    assert!(libraries::Names::of(&edits).links.contains_key(std::ffi::OsStr::new("libcu.so.2")));
    let notes = edits.notes.join("; ");
    assert!(notes.contains("hook /opt/vendor/hook tidy is not run") && !notes.contains("ldcache"), "{notes}");
}

#[test]
fn unknown_and_doubled_devices_are_named() {
    let (dir, places) = node();
    specify(dir.path(), "a.yaml", SPECIFICATION);
    let error = find(None, &["nvidia.com/gpu=9".to_owned()], &places).unwrap_err().to_string();
    assert!(error.contains("nvidia.com/gpu=0, nvidia.com/gpu=all"), "{error}");
    specify(dir.path(), "b.json", r#"{"kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}"#);
    assert!(matches!(find(Some("0"), &[], &places), Err(DriverError::Twice { .. })));
    // The later directory outranks the first.
    let late = dir.path().join("run");
    fs::create_dir(&late).unwrap();
    fs::rename(dir.path().join("etc/cdi/b.json"), late.join("b.json")).unwrap();
    let ranked = Places { cdi: vec![dir.path().join("etc/cdi"), late], ..places };
    assert_eq!(find(Some("0"), &[], &ranked).unwrap().nodes, []);
    assert!(matches!(find(None, &["gpu".to_owned()], &ranked), Err(DriverError::Name(_))));
    assert!(matches!(find(None, &["/dev/none".to_owned()], &ranked), Err(DriverError::Node { .. })));
}

#[test]
fn paths_are_as_docker_writes_them_and_directories_stand_for_their_nodes() {
    let (dir, places) = node();
    let dev = dir.path().join("dev");
    let asked = [format!("{}/nvidia0:/dev/gpu:rw", dev.display()), format!("{}:/gpus", dev.display())];
    let edits = find(None, &asked, &places).unwrap();
    assert_eq!(guests(&edits.nodes)[..2], ["/dev/gpu", "/gpus/nvidia-uvm"]);
}

#[test]
fn the_directory_is_made_once() {
    let (dir, places) = node();
    let names = libraries::Names::of(&find(Some("all"), &[], &places).unwrap());
    let made = dir.path().join("made");
    for _ in 0..2 {
        names.make(&made).unwrap();
    }
    assert_eq!(fs::read_link(made.join("libcuda.so.1")).unwrap(), Path::new("libcuda.so.550.54.14"));
    assert_eq!(fs::read_dir(&made).unwrap().count(), 4);
}
