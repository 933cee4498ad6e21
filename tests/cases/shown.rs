//! What listings and `inspect` show, by the words and templates that people bring from Docker; and damage that `verify`
//! sees.

use std::fs;

use harness::images;

use super::runs::World;

#[test]
fn templates_as_people_write_them() {
    let Some(world) = World::new() else { return };
    let options =
        ["create", "--name=t", "-l", "a=x", "--label=org.b=y", "-e", "A=1", "-v", "/etc:/host:ro", "-p", "81:80"];
    world.sandbox.coracle(options.iter().copied().chain([world.image.as_str(), "echo", "hi"])).ok();
    let inspect = |template: &str| world.sandbox.coracle(["inspect", "-f", template, "t"]).ok().to_owned();
    for (template, expected) in [
        ("{{.State.Pid}} {{.State.Status}} {{.State.Running}}", "0 created false"),
        (r#"{{index .Config.Labels "org.b"}}"#, "y"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1"),
        ("{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}};{{end}}", "bind /etc /host false;"),
        ("{{json .Config.Cmd}} {{.Path}} {{.Args}}", r#"["echo","hi"] echo [hi]"#),
        ("{{.HostConfig.NetworkMode}} {{.HostConfig.Binds}}", "host [/etc:/host:ro]"),
        (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "81"),
        ("{{if .Config.Tty}}tty{{else}}no tty{{end}}", "no tty"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=x org.b=y"),
    ] {
        assert_eq!(inspect(template).trim_end(), expected, "{template}");
    }
    let ps = |format: &str| world.sandbox.coracle(["ps", "--filter=name=t", "--format", format]).ok().to_owned();
    assert_eq!(ps(r"{{.Names}}\t{{.Status}}"), "t\tCreated");
    assert_eq!(ps(r#"{{.Label "a"}} {{.Mounts}} {{.Networks}} {{upper .Names}}"#), "x /etc host T");
    assert_eq!(ps(r"table {{.Names}}\t{{.State}}"), "NAMES   STATE\nt       created");
    let line: serde_json::Value = serde_json::from_str(&ps("{{json .}}")).unwrap();
    assert_eq!((&line["Names"], &line["Ports"]), (&"t".into(), &"0.0.0.0:81->80/tcp".into()));
    world.sandbox.coracle(["ps", "--format", "{{.Nope}}"]).fails_as(1, &["no field .Nope", ".Names"]);
    world.sandbox.coracle(["inspect", "-f", "{{range .Mounts}}", "t"]).fails_with(&["has no {{end}}"]);
}

#[test]
fn kinds_of_things_to_inspect_and_ids_of_images() {
    let Some(world) = World::new() else { return };
    let tar = images::find(images::ALPINE).unwrap();
    let digest = world.sandbox.coracle(["import", tar.to_str().unwrap(), "thing:1"]).ok().to_owned();
    world.sandbox.coracle(["name", "base", "thing"]).ok();
    // A container counts before an image, unless it is not asked for.
    let of = |options: &[&str]| {
        let args = ["inspect"].iter().chain(options).chain(&["thing:1"]);
        world.sandbox.coracle(args)
    };
    let id = of(&["--type=image", "-f", "{{.Id}}"]).ok().trim().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(
        of(&["-f", "{{.RepoTags}} {{.Os}}/{{.Architecture}} {{len .RootFS.Layers}}"]).ok(),
        "[thing:1] linux/amd64 1"
    );
    of(&["--type=container"]).fails_with(&["no such container"]);
    world.sandbox.coracle(["inspect", "--type=bundle", "thing:1"]).fails_with(&["thing:1"]);
    assert!(!world.sandbox.coracle(["inspect", "--size", "-f", "{{.SizeRootFs}}", "thing"]).ok().is_empty());
    let images = |options: &[&str]| {
        let args = ["images"].iter().chain(options);
        world.sandbox.coracle(args).ok().trim().to_owned()
    };
    assert_eq!(images(&["-q", "--no-trunc"]), id);
    assert_eq!(images(&["-q"]), id[7..19]);
    assert_eq!(images(&["--no-trunc", "--format", "{{.ID}} {{.Digest}}"]), format!("{id} {}", digest.trim()));
    let heading = images(&["--digests"]).lines().next().unwrap().to_owned();
    assert_eq!(heading.split_whitespace().collect::<Vec<_>>()[..4], ["REPOSITORY", "TAG", "DIGEST", "IMAGE"]);
}

#[test]
fn lists_that_were_emptied_and_shims_that_were_damaged_are_found() {
    let Some(world) = World::new() else { return };
    let ran = world.run(&["--execmode=F1"], "true");
    if !ran.stderr.contains("refuse") {
        ran.ok();
    }
    world.sandbox.coracle(["verify"]).ok();
    let directory = world.root().with_file_name("");
    let made: Vec<_> = fs::read_dir(directory.join("made")).into_iter().flatten().flatten().collect();
    let shim = made.iter().find(|entry| entry.file_name().to_string_lossy().starts_with("shim-"));
    if let Some(shim) = shim {
        let mut bytes = fs::read(shim.path()).unwrap();
        bytes[1000] ^= 1;
        fs::write(shim.path(), &bytes).unwrap();
        let name = shim.file_name().into_string().unwrap();
        let told = world.sandbox.coracle(["verify"]);
        assert!(told.fails_with(&["damaged"]).stdout.contains(&name), "{told}");
        world.run(&["--execmode=F1"], "true").ok();
        world.sandbox.coracle(["verify"]).ok();
    }
    let owners = directory.join("owners");
    let whole = fs::read(&owners).unwrap();
    for len in [0, whole.len() / 2, whole.len() - 1] {
        fs::write(&owners, &whole[..len]).unwrap();
        let told = world.sandbox.coracle(["verify"]);
        assert!(told.fails_with(&["damaged"]).stdout.contains("the list of owners is damaged"), "{told}");
    }
    fs::write(&owners, &whole).unwrap();
    world.sandbox.coracle(["verify"]).ok();
}

#[test]
fn half_a_bundle_from_a_pipe_is_called_standard_input() {
    let Some(world) = World::new() else { return };
    world.sandbox.coracle(["build", "container:base", "-o", "b.run"]).ok();
    let script = r#"set -o pipefail; head -c -1000 b.run | "$0" import --clone --name=half -; echo $?"#;
    let coracle = harness::coracle().to_str().unwrap().to_owned();
    let said = world.sandbox.run("bash", ["-c", script, &coracle]);
    assert!(!said.stderr.contains("/proc/self/fd"), "{said}");
    assert!(said.stderr.contains("standard input: is cut short") && said.ok().ends_with('1'), "{said}");
}

#[test]
fn logs_by_time_ports_volumes_history_and_dockers_groups() {
    let Some(world) = World::new() else { return };
    let coracle = |words: &str| world.sandbox.coracle(words.split(' '));
    // It is made in a later second than the first container, for `since` and `before`.
    std::thread::sleep(std::time::Duration::from_secs(1));
    world
        .sandbox
        .coracle([
            "run",
            "-d",
            "--name=bg",
            "-p",
            "127.0.0.1:8081:80",
            "-v",
            "data:/d",
            &world.image,
            "sh",
            "-c",
            "echo one; sleep 1.2; echo two",
        ])
        .ok();
    assert_eq!(coracle("wait bg").ok(), "0");
    assert_eq!(coracle("logs --since 1h bg").ok(), "one\ntwo");
    assert_eq!(coracle("logs --until 1h bg").ok(), "");
    let stamped = coracle("logs -t bg").ok().to_owned();
    let second = stamped.lines().nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(coracle(&format!("logs --since {second} bg")).ok(), "two");
    assert_eq!(coracle(&format!("logs --since 1h --until {second} --tail 1 bg")).ok(), "two");
    coracle("logs --since yesterday bg").fails_as(1, &["--since yesterday", "seconds since 1970"]);
    assert_eq!(coracle("port bg").ok(), "80/tcp -> 127.0.0.1:8081");
    assert_eq!(coracle("port bg 80/tcp").ok(), "127.0.0.1:8081");
    coracle("port bg 81").fails_as(1, &["81/tcp is not published"]);
    assert_eq!(coracle("volume ls -q").ok(), "data");
    coracle("volume rm data").fails_as(1, &["in use by"]);
    for (filter, expected) in [
        ("exited=0", "bg"),
        ("exited=1", ""),
        ("volume=data", "bg"),
        ("publish=80", "bg"),
        ("since=base", "bg"),
        ("before=bg", "base"),
        ("network=host", "bg\nbase"),
        ("status=paused", ""),
    ] {
        assert_eq!(
            coracle(&format!("container ls -a --format {{{{.Names}}}} --filter {filter}")).ok(),
            expected,
            "{filter}"
        );
    }
    let either = "ps --format {{.Names}} --filter status=created --filter status=exited --filter name=b";
    assert_eq!(coracle(either).ok(), "bg\nbase");
    coracle("container rm bg").ok();
    assert_eq!(coracle("volume prune -f").ok(), "data");
    let tar = images::find(images::ALPINE).unwrap();
    let label = ["import", "-c", "LABEL a=b", tar.to_str().unwrap(), "thing:1"];
    world.sandbox.coracle(label).ok();
    assert_eq!(coracle("images -q --filter label=a=b").ok(), coracle("image ls -q").ok());
    assert_eq!(coracle("images -q --filter label=a=c").ok(), "");
    assert_eq!(coracle("images --format {{.Tag}} --filter reference=th*").ok(), "1");
    assert_eq!(coracle("images -q --filter reference=x* --filter dangling=false").ok(), "");
    let rows = coracle("history --format {{.ID}} thing:1").ok().to_owned();
    assert_eq!(rows, coracle("image ls -q").ok());
    coracle("cp /etc/passwd base:/no/such/").fails_as(1, &["/no/such/: there is no such directory"]);
}
