//! `run`, `create`, `start`, `exec`, `cp` in the foreground: each option by its effect, as an ordinary user.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use harness::{
    Output, Sandbox, images,
    oci::{Layer, OciImage},
};
use serde_json::json;

/// A store with one Alpine container, `base`.
pub(super) struct World {
    pub(super) sandbox: Sandbox,
    pub(super) image: String,
}

impl World {
    pub(super) fn new() -> Option<Self> {
        let tar = images::find(images::ALPINE)?;
        let sandbox = Sandbox::new();
        let image = format!("rootfs:{}", tar.display());
        sandbox.coracle(["create", "--name", "base", &image]).ok();
        Some(Self { sandbox, image })
    }

    /// `coracle run OPTIONS… base sh -c SCRIPT`.
    pub(super) fn run(&self, options: &[&str], script: &str) -> Output {
        let mut args = vec!["run"];
        args.extend_from_slice(options);
        args.extend(["base", "sh", "-c", script]);
        self.sandbox.coracle(args)
    }

    pub(super) fn says(&self, options: &[&str], script: &str, expected: &str) {
        assert_eq!(self.run(options, script).ok().trim_end(), expected, "{options:?} {script}");
    }
}

#[test]
fn options_end_at_the_image_and_every_argument_arrives() {
    let Some(world) = World::new() else { return };
    let printed = world.sandbox.coracle(["run", "base", "printf", "<%s>", "", "-x", "--rm", "--", "a b"]);
    assert_eq!(printed.ok(), "<><-x><--rm><--><a b>");
    world.sandbox.coracle(["run", "-i", "--", "base", "true"]).ok();
    // A name that happens to begin the container's id is a name all the same.
    let id = world.sandbox.coracle(["ps", "--no-trunc", "--format", "{{.ID}}"]).ok().to_owned();
    world.sandbox.coracle(["name", "base", &id[..2]]).ok();
    world.sandbox.coracle(["run", &id[..2], "true"]).ok();
    world.sandbox.coracle(["run", &id[..12], "true"]).ok();
    world.sandbox.coracle(["run", "--nosuch", "base", "true"]).fails_with(&["--nosuch"]).code_is(125);
    world.sandbox.coracle(["run"]).code_is(125);
}

#[test]
fn exit_statuses_are_dockers() {
    let Some(world) = World::new() else { return };
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        world.run(&[], script).code_is(code);
    }
    world.sandbox.coracle(["run", "base", "no-such-program"]).fails_as(127, &["not found"]);
    world.sandbox.coracle(["run", "base", "/etc/passwd"]).fails_as(126, &["cannot be executed"]);
    world.sandbox.coracle(["run", "-v", "/no/such:/x", "base", "true"]).fails_with(&["/no/such"]);
    let listed = world.sandbox.coracle(["ps", "--format", "{{.Names}} {{.Status}}"]);
    assert!(listed.ok().starts_with("base Exited (126)"), "{}", listed.ok());
}

#[test]
fn users_by_name_and_number() {
    let Some(world) = World::new() else { return };
    world.says(&[], "id -u; id -g; echo $HOME", "0\n0\n/root");
    world.says(&["-u", "nobody"], "id -un; id -g", "nobody\n65534");
    world.says(&["--user=nobody:daemon"], "id -u; id -gn", "65534\ndaemon");
    world.says(&["-u", "1234:4321"], "id -u; id -g; echo $HOME", "1234\n4321\n/");
    world.run(&[], "echo first.last:x:77:77::/tmp:/bin/sh >> /etc/passwd").ok();
    world.says(&["-u", "first.last"], "id -u; echo $HOME", "77\n/tmp");
    world.run(&["-u", "nobody-here"], "true").fails_with(&["/etc/passwd", "nobody-here"]);
    let uid = harness::user::ordinary().uid;
    world.says(&["-u", &uid.to_string()], "id -u; id -un >/dev/null && echo has a name", &format!("{uid}\nhas a name"));
    if let Some(name) = &harness::user::ordinary().name {
        world.says(&["-u", name, "--bindhome"], "id -un; id -u", &format!("{name}\n{uid}"));
        world.says(&["--hostauth"], &format!("id -u; id -u {name}"), &format!("0\n{uid}"));
        world.run(&["-u", name, "--containerauth"], "true").code_is(125);
    }
}

#[test]
fn variables_and_their_files() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.set("FROM_HOST", "yes").set("SECRET", "no");
    fs::write(world.sandbox.work("vars"), "# comment\nA=\"q\"\nFROM_HOST\nNOT_THERE\n B=2 \n").unwrap();
    let script = "echo \"$A|$B|$FROM_HOST|$SECRET|${NOT_THERE-unset}|$C\"";
    world.says(&["--env-file", "vars", "-e", "C=x=y"], script, "\"q\"|2 |yes||unset|x=y");
    world.says(&["-e", "FROM_HOST", "--env=B=", "-e", "NOT_THERE"], script, "||yes||unset|");
    world.says(&["--hostenv"], "echo $FROM_HOST $SECRET; echo $PATH | grep -c /sbin", "yes no\n1");
    fs::write(world.sandbox.work("bad"), "my key=1\n").unwrap();
    world.run(&["--env-file", "bad"], "true").fails_with(&["line 1"]);
    world.run(&["-e", "=x"], "true").code_is(125);
}

#[test]
fn volumes_of_every_kind() {
    let Some(world) = World::new() else { return };
    let dir = world.sandbox.make_dir("work/data");
    fs::write(dir.join("f"), "host\n").unwrap();
    let at = dir.display().to_string();
    world.says(&["-v", &format!("{at}:/in")], "cat /in/f; echo x > /in/new && echo wrote", "host\nwrote");
    assert!(dir.join("new").exists());
    world.says(
        &["-v", &format!("{at}:/in:ro")],
        "cat /in/f; echo x > /in/no 2>/dev/null || echo refused",
        "host\nrefused",
    );
    world.says(&["-v", &at], &format!("cat {at}/f"), "host");
    world.says(&["-v", "./data:/in", "-v", "./data/f:/etc/motd"], "cat /in/f /etc/motd", "host\nhost");
    world.says(&["--mount", &format!("type=bind,source={at},target=/m,readonly")], "touch /m/x || cat /m/f", "host");
    // A named volume begins with what the image has, and outlives the run.
    world.says(&["-v", "state:/etc/apk"], "ls /etc/apk/world; echo kept > /etc/apk/mine", "/etc/apk/world");
    world.says(&["--mount", "src=state,dst=/x"], "cat /x/mine; ls /x/world", "kept\n/x/world");
    world.says(&[], "ls /etc/apk/mine 2>/dev/null || echo not in the tree", "not in the tree");
    world.says(
        &["--tmpfs", "/scratch", "--tmpfs=/run:mode=700"],
        "echo x > /scratch/f && ls /scratch; stat -c %a /run",
        "f\n700",
    );
    world.says(&[], "ls /scratch", "");
    for wrong in ["/a:/b:/c:ro", "data:rel", ":/x", "./data:/"] {
        world.run(&["-v", wrong], "true").fails_with(&["volume"]);
    }
}

#[test]
fn what_is_shown_by_default_and_what_is_not() {
    let Some(world) = World::new() else { return };
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    world.says(&[], "cat /etc/resolv.conf", resolv.trim_end());
    world.run(&[], "test -e /dev/null && test -e /proc/self/exe && test -d /sys/class").ok();
    world.says(
        &["--novol=/etc/hosts", "--novol", "/etc/resolv.conf"],
        "grep -E ' /etc/(hosts|resolv.conf) ' /proc/self/mountinfo || echo none",
        "none",
    );
    world.run(&["--novol", "/proc"], "true").fails_with(&["every engine"]);
    world.says(
        &["--dns", "9.9.9.9", "--dns-search=example.org"],
        "grep -v '^options' /etc/resolv.conf",
        "nameserver 9.9.9.9\nsearch example.org",
    );
    world.says(&["--add-host", "there:10.1.2.3"], "tail -1 /etc/hosts", "10.1.2.3\tthere");
    world.says(&["--hostname", "boat"], "hostname; cat /etc/hostname; echo $HOSTNAME", "boat\nboat\nboat");
    world.says(&["-h", "raft"], "hostname", "raft");
    let home = world.sandbox.path().join("home").display().to_string();
    world.says(&["--bindhome"], &format!("touch {home}/here && ls {home}"), "here");
    world.says(&["--device", "/dev/null:/dev-null"], "echo x > /dev-null; test -c /dev-null && echo device", "device");
    world.run(&["--device=example.com/x=none"], "true").fails_with(&["example.com/x=none"]);
}

#[test]
fn devices_are_shown_by_their_names_of_cdi() {
    let Some(mut world) = World::new() else { return };
    let dir = world.sandbox.make_dir("cdi");
    let specification = "cdiVersion: 0.6.0\nkind: example.com/boat\ndevices:\n- name: a\n  containerEdits:\n    \
                         deviceNodes:\n    - {path: /boat, hostPath: /dev/null}\n    env: [BOAT=afloat]\n";
    fs::write(dir.join("boat.yaml"), specification).unwrap();
    world.sandbox.set("CORACLE_CDI", &dir);
    for mode in ["R1", "P1"] {
        let mode = format!("--execmode={mode}");
        world.says(
            &[&mode, "--device=example.com/boat=a"],
            "echo $BOAT; echo x > /boat; test -c /boat && echo node",
            "afloat\nnode",
        );
    }
    world.run(&["--gpus=all"], "true").fails_with(&["NVIDIA"]);
}

#[test]
fn working_directory_entrypoint_and_limits() {
    let Some(world) = World::new() else { return };
    world.says(&["-w", "/made/for/it"], "pwd", "/made/for/it");
    world.run(&["-w", "relative"], "true").code_is(125);
    let said = world.sandbox.coracle(["run", "--entrypoint", "echo", "base", "-n", "x"]);
    assert_eq!(said.ok(), "-n x".trim_start_matches("-n ").trim_end());
    world.says(&["--ulimit", "nofile=77:88"], "ulimit -n; ulimit -Hn", "77\n88");
    world.run(&["--ulimit", "nosuch=1"], "true").fails_with(&["nofile"]);
    world.says(&["--cpuset-cpus=0"], "grep Cpus_allowed_list /proc/self/status | cut -f2", "0");
    world.says(
        &["--read-only"],
        "touch /new 2>/dev/null || echo refused; touch /dev/shm/coracle-x && rm /dev/shm/coracle-x",
        "refused",
    );
    world.says(&["--network=none"], "ls /sys/class/net >/dev/null; grep -c : /proc/net/dev", "1");
}

#[test]
fn what_cannot_be_had_is_refused_with_a_reason() {
    let Some(world) = World::new() else { return };
    for (option, reason) in [
        ("--memory=1g", "control group"),
        ("--privileged", "nobody gives privileges"),
        ("--cap-drop=ALL", "isolation is not promised"),
        ("--network=bridge", "choose host"),
        ("--restart=always", "choose no"),
        ("--execmode=X9", "choose one of"),
        ("--sysctl=a=b", "kernel settings"),
    ] {
        let refused = world.run(&[option], "true");
        refused.fails_with(&[reason, "coracle: --"]);
    }
    for fine in
        ["--init", "--nobanner", "--security-opt=seccomp=unconfined", "--cap-add=NET_ADMIN", "--restart=no", "-P"]
    {
        world.run(&[fine], "true").ok();
    }
}

#[test]
fn every_engine_shows_the_same_container() {
    let Some(world) = World::new() else { return };
    let dir = world.sandbox.make_dir("work/data");
    fs::write(dir.join("f"), "host\n").unwrap();
    for mode in ["auto", "R1", "P1", "P2"] {
        let file = format!("/by-{mode}");
        world.says(
            &[&format!("--execmode={mode}"), "-v", "./data:/in:ro", "-e", "A=1", "-w", "/usr"],
            &format!("id -u; cat /in/f; echo $A; pwd; touch {file}; chown 5:5 {file}; touch /in/x 2>/dev/null || echo ro; exit 0"),
            "0\nhost\n1\n/usr\nro",
        );
        assert!(fs::exists(world.root().join(file.trim_start_matches('/'))).unwrap(), "{mode}: written to the tree");
        world.run(&["--engine", mode], "kill -9 $$").code_is(137);
    }
    // A container remembers its engine.
    world.sandbox.coracle(["setup", "--execmode=P1", "base"]).ok();
    world.says(&[], "head -1 /proc/self/mountinfo | cut -d' ' -f1,2", "1 0");
    world.says(&["--execmode=auto"], "echo $CORACLE_BUNDLE_ENGINE", "ptrace");
}

impl World {
    pub(super) fn root(&self) -> std::path::PathBuf {
        let shown = self.sandbox.coracle(["inspect", "-p", "base"]);
        shown.ok().trim_end().into()
    }
}

#[test]
fn the_images_configuration_is_honoured() {
    let Some(tar) = images::find(images::BUSYBOX_MUSL) else { return };
    let sandbox = Sandbox::new();
    let layout = sandbox.work("layout");
    let unpacked = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("tar").arg("-C").arg(unpacked.path()).arg("-xzf").arg(&tar).status();
    assert!(status.unwrap().success());
    let busybox = fs::read(unpacked.path().join("bin/busybox")).unwrap();
    let config = json!({
        "Entrypoint": ["/bin/busybox", "sh", "-c", "echo $A $0 $@; busybox id -u; pwd; test -w /data && echo writable"],
        "Cmd": ["zero", "one"],
        "Env": ["A=image", "PATH=/bin"],
        "User": "1000:1000",
        "WorkingDir": "/work/dir",
        "Volumes": {"/data": {}},
        "StopSignal": "SIGUSR1",
        "Labels": {"of": "image"},
    });
    let layer = Layer::new()
        .dir("bin/", 0o755)
        .file("bin/busybox", 0o755, &busybox)
        .dir("data/", 0o777)
        .dir("etc/", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n");
    OciImage::new(config).layer(layer).write(&layout).unwrap();
    let image = format!("oci:{}", layout.display());
    let run = |options: &[&str], words: &[&str]| {
        let mut args = vec!["run", "--rm"];
        args.extend_from_slice(options);
        args.push(&image);
        args.extend_from_slice(words);
        sandbox.coracle(args)
    };
    assert_eq!(run(&[], &[]).ok(), "image zero one\n1000\n/work/dir\nwritable");
    assert_eq!(run(&["--read-only"], &["x"]).ok(), "image x\n1000\n/work/dir\nwritable");
    assert_eq!(run(&["-e", "A=2", "-u", "0", "-w", "/"], &["x"]).ok(), "2 x\n0\n/\nwritable");
    assert_eq!(run(&["--entrypoint="], &["/bin/busybox", "echo", "bare"]).ok(), "bare");
    run(&["--nometa"], &["/bin/busybox", "sh", "-c", "echo $A; pwd"]).ok();
    assert_eq!(sandbox.coracle(["ps", "--format", "{{.ID}}"]).ok(), "", "--rm leaves nothing");
}

#[test]
fn a_container_keeps_its_options_and_start_uses_them_again() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    let dir = sandbox.make_dir("work/data");
    fs::write(dir.join("f"), "host\n").unwrap();
    let script = "echo $A; cat /in/f; id -u; hostname";
    let words =
        ["create", "--name=kept", "-e", "A=1", "-v", "./data:/in", "-u", "nobody", "--hostname=boat", "-l", "k=v"];
    sandbox.coracle(words.iter().chain(&[world.image.as_str(), "sh", "-c", script])).ok();
    let expected = "1\nhost\n65534\nboat";
    assert_eq!(sandbox.coracle(["start", "-a", "kept"]).ok(), expected);
    assert_eq!(sandbox.coracle(["run", "kept"]).ok(), expected, "udocker's way");
    assert_eq!(sandbox.coracle(["run", "-e", "A=2", "kept", "sh", "-c", "echo $A; id -u"]).ok(), "2\n65534");
    let inspected = sandbox.coracle(["inspect", "kept"]);
    assert!(inspected.ok().contains("\"k\": \"v\""), "{}", inspected.ok());
    sandbox.coracle(["run", "--name=kept", &world.image, "true"]).fails_with(&["taken"]);
    // With --cidfile and --rm.
    let id = sandbox.work("id");
    sandbox.coracle(["run", "--rm", "--cidfile", "id", &world.image, "true"]).ok();
    let id = fs::read_to_string(id).unwrap();
    assert_eq!(id.len(), 32);
    let listed = sandbox.coracle(["ps", "--no-trunc", "--format", "{{.ID}}"]);
    assert!(!listed.ok().contains(&id), "--rm removed it");
}

#[test]
fn standard_input_is_passed_and_a_terminal_must_be_one() {
    let Some(world) = World::new() else { return };
    for option in ["-i", "--nobanner"] {
        let said = world.sandbox.run_with_input(
            harness::coracle(),
            ["run", option, "base", "sh"],
            b"echo from stdin\nid -u\n",
        );
        assert_eq!(said.ok(), "from stdin\n0");
    }
    world.sandbox.coracle(["run", "-it", "base", "true"]).fails_with(&["the input device is not a TTY"]);
    let said = world.sandbox.run_with_input(
        harness::coracle(),
        ["run", "-a", "stdout", "base", "sh", "-c", "cat; echo out; echo err >&2"],
        b"in\n",
    );
    assert_eq!(said.ok(), "out");
    assert_eq!(said.stderr, "");
}

#[test]
fn a_tree_outside_the_store_runs_too() {
    let Some(world) = World::new() else { return };
    let root = world.root().display().to_string();
    let said = world.sandbox.coracle([
        "run",
        &format!("--location={root}"),
        "-e",
        "A=1",
        "sh",
        "-c",
        "echo $A; id -u; cat /etc/alpine-release",
    ]);
    assert_eq!(said.ok(), "1\n0\n3.20.3");
    world.sandbox.coracle(["run", "--location=/", "sh"]).code_is(125);
    world.sandbox.coracle(["run", "--location=/nowhere", "sh"]).code_is(125);
}

#[test]
fn files_are_copied_and_links_never_lead_to_the_host() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    world
        .run(&[], "mkdir -p /d/sub; echo one > /d/sub/f; ln -s /d/sub /link; ln -s /etc /abs; ln -s ../../../../.. /up")
        .ok();
    sandbox.coracle(["cp", "base:/link/f", "out"]).ok();
    assert_eq!(fs::read_to_string(sandbox.work("out")).unwrap(), "one\n");
    sandbox.coracle(["cp", "base:/d", "copy"]).ok();
    assert_eq!(fs::read_to_string(sandbox.work("copy/sub/f")).unwrap(), "one\n");
    sandbox.coracle(["cp", "base:abs/alpine-release", "."]).ok();
    assert!(sandbox.work("alpine-release").exists());
    fs::write(sandbox.work("new"), "new\n").unwrap();
    fs::set_permissions(sandbox.work("new"), fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.coracle(["cp", "new", "base:/link/"]).ok();
    world.says(&[], "cat /d/sub/new; test -x /d/sub/new && echo mode", "new\nmode");
    sandbox.coracle(["cp", "new", "base:/up/renamed"]).ok();
    assert!(world.root().join("renamed").exists() && !std::path::Path::new("/renamed").exists());
    // Directories over a link that leads out.
    let outside = sandbox.make_dir("work/outside");
    let host_link = world.root().join("d/out");
    symlink(&outside, &host_link).unwrap();
    sandbox.make_dir("work/tree");
    sandbox.make_dir("work/tree/out");
    fs::write(sandbox.work("tree/out/f"), "x").unwrap();
    sandbox.coracle(["cp", "tree/.", "base:/d"]).code_is(1);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // Pipes.
    let tar = sandbox
        .command("sh")
        .arg("-c")
        .arg(format!("{} cp base:/d/sub - | tar t | sort", harness::coracle().display()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&tar.stdout), "sub/\nsub/f\nsub/new\n");
    let piped = format!("tar c new | {} cp - base:/d", harness::coracle().display());
    assert!(sandbox.command("sh").arg("-c").arg(piped).status().unwrap().success());
    world.says(&[], "cat /d/new", "new");
    sandbox.coracle(["cp", "base:/nowhere", "."]).fails_as(1, &["/nowhere"]);
    sandbox.coracle(["cp", "a", "b"]).code_is(1);
}
