//! Options of `run` beyond the daily ones: every one of udocker's by its effect, Docker's `--tmpfs` and `--mount` in
//! all forms, and what scripts for Docker pass that has no meaning here.

use std::fs;

use super::runs::World;

#[test]
fn every_option_of_udockers_has_its_effect() {
    let Some(mut world) = World::new() else { return };
    let home = world.sandbox.path().join("home");
    world.sandbox.set("VTE_VERSION", "1").set("MINE", "yes");
    fs::write(home.join("here"), "at home\n").unwrap();
    let host_passwd = fs::read_to_string("/etc/passwd").unwrap().lines().count().to_string();
    let home = home.display().to_string();
    world.says(&["--bindhome"], &format!("cat {home}/here"), "at home");
    world.says(&["--hostauth"], "grep -c . /etc/passwd", &host_passwd);
    world.says(&["--containerauth"], "adduser -D by-hand; grep -c by-hand /etc/passwd", "1");
    world.says(&["--containerauth"], "grep -c by-hand /etc/passwd", "1");
    world.says(&["--hostenv"], "echo $MINE", "yes");
    world.says(&[], "echo $MINE", "");
    world.says(&["--nobanner", "--nometa"], "echo quiet", "quiet");
    world.says(&["--novol=/etc/hosts"], "grep -c ' /etc/hosts ' /proc/self/mountinfo || true", "0");
    world.says(&["--nosysdirs"], "grep -cE ' /etc/(hosts|resolv.conf) ' /proc/self/mountinfo || true", "0");
    world.says(&["--dri"], "echo has drivers or not", "has drivers or not");
    world.says(&["--cpuset-cpus=0"], "grep Cpus_allowed_list /proc/self/status | cut -f2", "0");
    world.says(&["--device=/dev/zero"], "head -c 2 /dev/zero | wc -c", "2");
    world.says(&["--env=A=1", "--env=B"], "echo $A${B-unset}", "1unset");
    world.says(&["--workdir=/usr"], "pwd", "/usr");
    world.says(&["--user=nobody"], "id -un", "nobody");
    world.says(&["-i", "-a", "stdout", "--publish-all", "--netcoop"], "echo accepted", "accepted");
    world.says(&["-p", "8123:8123", "--publish=8124:8124/tcp"], "echo ports", "ports");
    let others =
        world.sandbox.coracle(["create", "--name=other", "-v", &format!("{home}:/theirs"), &world.image, "true"]);
    others.ok();
    world.says(&["--volumes-from=other"], "cat /theirs/here", "at home");
    world.says(&["--platform=linux/amd64"], "uname -m", "x86_64");
    for mode in ["P1", "P2", "R1", "auto"] {
        world.says(&[&format!("--execmode={mode}")], "echo ran", "ran");
    }
    let root = world.root().display().to_string();
    let there = world.sandbox.coracle(["run", &format!("--location={root}"), "cat", "/etc/alpine-release"]);
    assert_eq!(there.ok(), "3.20.3");
}

#[test]
fn programs_are_told_another_kernel() {
    let Some(world) = World::new() else { return };
    for options in [&["--kernel=3.10.0-old"][..], &["--kernel=3.10.0-old", "--execmode=P2", "--hostname=boat"]] {
        // No namespace is made for a name where the engine answers itself.
        let options: Vec<&str> = options.iter().copied().filter(|option| !option.starts_with("--hostname")).collect();
        world.says(&options, "uname -r; cat /proc/sys/kernel/ostype", "3.10.0-old\nLinux");
    }
    world.run(&["--kernel=3.10.0-old", "--execmode=R1"], "true").fails_with(&["namespaces", "kernel", "ptrace"]);
}

#[test]
fn temporary_file_systems_have_limits_where_an_engine_can_set_them() {
    let Some(world) = World::new() else { return };
    let full = "dd if=/dev/zero of=/t/x bs=1M count=3 2>/dev/null || echo full; stat -c %a /t; \
                cp /bin/busybox /t/b 2>/dev/null; /t/b true 2>/dev/null || echo not executed";
    let limited = "--tmpfs=/t:size=2m,mode=700,noexec,nosuid,nodev";
    world.says(&["--execmode=R1", limited], full, "full\n700\nnot executed");
    let files =
        "i=0; while touch /t/$i 2>/dev/null; do i=$((i+1)); [ $i -lt 50 ] || break; done; test $i -lt 20 && echo few";
    world.says(&["--execmode=R1", "--tmpfs", "/t:nr_inodes=10"], files, "few");
    world.says(
        &["--execmode=R1", "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770"],
        "stat -c %a /t",
        "1770",
    );
    let said = world.run(&["--execmode=P1", limited], "touch /t/x && stat -c %a /t");
    assert!(said.ok() == "700" && said.stderr.contains("size, number of files and noexec are not enforced"), "{said}");
    for mode in ["R1", "P1"] {
        let mode = format!("--execmode={mode}");
        world.says(&[&mode, "--mount=type=tmpfs,target=/t,ro"], "touch /t/x 2>/dev/null || echo refused", "refused");
        world.says(&[&mode, "--tmpfs", "/deep/er/t"], "touch /deep/er/t/x && ls /deep/er/t", "x");
        world.says(&[&mode], "ls -A /t /deep/er/t 2>/dev/null | grep -v :", "");
    }
    for wrong in ["/t:size=x", "/t:mode=99", "/t:bogus", "t", "/"] {
        world.run(&["--tmpfs", wrong], "true").fails_with(&["--tmpfs"]);
    }
}

#[test]
fn mounts_in_words_of_every_type() {
    let Some(world) = World::new() else { return };
    let dir = world.sandbox.make_dir("work/data");
    fs::write(dir.join("f"), "host\n").unwrap();
    let at = dir.display();
    for mode in ["R1", "P1"] {
        let mode = format!("--execmode={mode}");
        for (mount, expected) in [
            (format!("type=bind,source={at},target=/m"), "host\nwritten"),
            (format!("type=bind,src={at},dst=/m,readonly"), "host\nrefused"),
            (format!("type=bind,src={at},destination=/m,readonly=true,bind-propagation=rslave"), "host\nrefused"),
            (format!("type=bind,src={at},target=/m,ro=false"), "host\nwritten"),
            ("type=bind,src=./data,target=/m".to_owned(), "host\nwritten"),
        ] {
            let script = "cat /m/f; if touch /m/x 2>/dev/null; then echo written; rm /m/x; else echo refused; fi";
            world.says(&[&mode, "--mount", &mount], script, expected);
        }
        let kept = format!("type=volume,source=kept{},target=/etc/apk", mode.to_lowercase().replace(['-', '='], ""));
        world.says(&[&mode, "--mount", &kept], "ls /etc/apk/world; touch /etc/apk/mine", "/etc/apk/world");
        world.says(&[&mode, "--mount", &kept], "ls /etc/apk/mine", "/etc/apk/mine");
        // Without a name it is the container's own, and can be written to even where the tree cannot.
        let own = "type=volume,target=/own/dir";
        world.says(
            &[&mode, "--mount", own, "--read-only"],
            "touch /own/dir/x && ls /own/dir; touch /y 2>/dev/null || echo ro",
            "x\nro",
        );
        world.says(&[&mode], "ls /own/dir; rm -r /own", "x");
    }
    for wrong in [
        "type=bind,target=/x",
        "type=npipe,src=a,dst=/b",
        "type=bind,src=/etc",
        "src=a/b,dst=/x",
        "type=bind,src=/no/such,dst=/x",
    ] {
        world.run(&["--mount", wrong], "true").fails_with(&["/", "coracle: "]).code_is(125);
    }
}

#[test]
fn a_container_of_that_name_is_used_again() {
    let Some(world) = World::new() else { return };
    let run = |script: &str| {
        world.sandbox.coracle(["run", "--pull=reuse", "--name=again", "-e", "A=x", &world.image, "sh", "-c", script])
    };
    assert_eq!(run("echo first > /mark; echo $A").ok(), "x");
    assert_eq!(run("cat /mark").ok(), "first", "udocker's word: what is there is taken");
    let named = world.sandbox.coracle(["ps", "-f", "name=again", "-q"]);
    assert_eq!(named.ok().lines().count(), 1);
    world.sandbox.coracle(["run", "--name=again", &world.image, "true"]).fails_with(&["the name again is taken"]);
    assert_eq!(world.sandbox.coracle(["ps", "-q"]).ok().lines().count(), 2, "and no orphan is left");
}

#[test]
fn files_are_copied_from_one_container_to_another() {
    let Some(world) = World::new() else { return };
    let sandbox = &world.sandbox;
    sandbox.coracle(["create", "--name=other", "-v", "data:/vol", &world.image]).ok();
    world
        .run(&[], "mkdir -p /d/sub; echo one > /d/sub/f; ln -s ../../../../../../tmp /d/up; ln -s /d/sub/f /link")
        .ok();
    sandbox.coracle(["cp", "base:/d", "other:/copy"]).ok();
    sandbox.coracle(["cp", "base:/d/sub/f", "other:/etc/"]).ok();
    sandbox.coracle(["cp", "-L", "base:/link", "other:/vol/followed"]).ok();
    let says = |script: &str| sandbox.coracle(["run", "other", "sh", "-c", script]).ok().to_owned();
    assert_eq!(says("cat /copy/sub/f /etc/f /vol/followed; readlink /copy/up"), "one\none\none\n../../../../../../tmp");
    sandbox.coracle(["cp", "base:/nowhere", "other:/"]).fails_as(1, &["/nowhere"]);
    sandbox.coracle(["cp", "base:/d", "nosuch:/"]).fails_as(1, &["no such container: nosuch"]);
}

#[test]
fn what_scripts_for_docker_pass_is_accepted_or_refused_with_a_reason() {
    let Some(world) = World::new() else { return };
    for fine in [
        "--runtime=runc",
        "--cgroupns=host",
        "--annotation=a=b",
        "--disable-content-trust",
        "--detach-keys=ctrl-a",
        "--volume-driver=local",
        "--oom-score-adj=-5",
        "--log-opt=max-size=1m",
        "--log-driver=json-file",
        "--memory-swappiness=-1",
        "--expose=80",
        "--uts=host",
        "--userns=host",
        "--sig-proxy=false",
    ] {
        world.says(&[fine], "echo ran", "ran");
    }
    for (option, reason) in [
        ("--runtime=nvidia", "--execmode"),
        ("--group-add=5", "supplementary groups"),
        ("--domainname=x", "--hostname"),
        ("--cgroup-parent=x", "control group"),
        ("--device-cgroup-rule=x", "control group"),
        ("--oom-kill-disable", "control group"),
        ("--cpu-quota=5", "control group"),
        ("--network-alias=x", "the host's"),
        ("--storage-opt=size=1g", "directories"),
        ("--log-driver=syslog", "coracle logs"),
        ("--log-opt=tag=x", "max-size"),
        ("--shm-size=1g", "/dev/shm"),
        ("--pull=sometimes", "reuse"),
    ] {
        let refused = world.run(&[option], "true");
        refused.fails_with(&[reason]).code_is(125);
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    }
}
