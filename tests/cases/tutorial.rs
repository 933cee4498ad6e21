//! udocker's tutorial, with our command's name in its place: a working day from `search` to `rm`, as an ordinary user.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use harness::{Registry, Sandbox, images, oci::OciImage, skip, user};
use serde_json::json;

#[test]
fn udockers_tutorial_runs_from_the_first_line_to_the_last() {
    let Some(tar) = images::find(images::ALPINE) else { return };
    if skip::lacks(&["docker-registry", "skopeo", "tar"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let registry = Registry::open();
    let layer = sandbox.work("layer.tar");
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("gzip -dc {} > {}", tar.display(), layer.display()))
        .status();
    assert!(status.unwrap().success());
    let layout = tempfile::tempdir().unwrap();
    let config =
        json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]});
    OciImage::new(config).raw_layer(fs::read(&layer).unwrap()).write(layout.path()).unwrap();
    registry.push(&format!("oci:{}:latest", layout.path().display()), "library/ubuntu:18.04", &[]);
    let image = format!("{}/library/ubuntu:18.04", registry.address());
    let coracle = |args: &[&str]| sandbox.coracle(args);

    // Images.
    let tags = coracle(&["search", "--list-tags", "--insecure", &format!("{}/library/ubuntu", registry.address())]);
    assert!(tags.ok().contains("18.04"));
    coracle(&["pull", "--insecure", &image]).ok();
    assert!(coracle(&["images"]).ok().contains("ubuntu"));
    coracle(&["inspect", &image]).ok();
    coracle(&["verify", &image]).ok();
    // A container, by a name.
    assert_eq!(coracle(&["create", "--name=ubuntu18", &image]).ok().len(), 32);
    assert!(coracle(&["ps"]).ok().contains("ubuntu18"));
    assert_eq!(coracle(&["run", "ubuntu18", "cat", "/etc/alpine-release"]).ok(), "3.20.3");
    assert_eq!(coracle(&["run", "--env=MY=one two", "ubuntu18", "/bin/sh", "-c", "echo $MY"]).ok(), "one two");
    // Yourself, with your home.
    sandbox.write("../home/mine", "my file\n");
    if let Some(name) = &user::ordinary().name {
        let user = format!("--user={name}");
        let said =
            coracle(&["run", &user, "--bindhome", "--hostauth", "ubuntu18", "/bin/sh", "-c", "id -un; cat $HOME/mine"]);
        assert_eq!(said.ok(), format!("{name}\nmy file"));
    }
    let data = sandbox.make_dir("work/data");
    let volume = format!("--volume={}:/data", data.display());
    coracle(&["run", &volume, "--workdir=/data", "ubuntu18", "touch", "here"]).ok();
    assert!(data.join("here").exists());
    // A script on standard input.
    let script = b"echo from a script\nid -u\necho changed > /changed\n";
    let said = sandbox.run_with_input(harness::coracle(), ["run", "ubuntu18", "/bin/sh"], script);
    assert_eq!(said.ok(), "from a script\n0");
    // Root inside installs and makes users.
    coracle(&["run", "ubuntu18", "adduser", "-D", "newuser"]).ok();
    assert_eq!(coracle(&["run", "--user=newuser", "ubuntu18", "id", "-un"]).ok(), "newuser");
    // Copies.
    coracle(&["clone", "--name=copy", "ubuntu18"]).ok();
    assert_eq!(coracle(&["run", "copy", "cat", "/changed"]).ok(), "changed");
    coracle(&["export", "-o", "ubuntu18.tar", "ubuntu18"]).ok();
    coracle(&["import", "ubuntu18.tar", "mine:1"]).ok();
    assert_eq!(coracle(&["run", "--rm", "mine:1", "cat", "/changed"]).ok(), "changed");
    coracle(&["import", "--tocontainer", "--name=imported", "ubuntu18.tar"]).ok();
    assert_eq!(coracle(&["run", "imported", "cat", "/changed"]).ok(), "changed");
    let pipe = |line: &str| {
        let line = line.replace("coracle", &harness::coracle().display().to_string());
        let output = sandbox.command("sh").arg("-c").arg(&line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    coracle(&["setup", "--execmode=P2", "copy"]).ok();
    pipe("coracle export --clone copy | coracle import --clone --name=elsewhere -");
    assert!(coracle(&["setup", "elsewhere"]).ok().contains("P2"), "a clone keeps its engine");
    assert_eq!(coracle(&["run", "elsewhere", "cat", "/changed"]).ok(), "changed");
    pipe(&format!("coracle save -o - {image} > saved.tar && coracle rmi {image} && coracle load -i - < saved.tar"));
    assert!(coracle(&["images"]).ok().contains("ubuntu"));
    // Engines.
    for mode in ["P1", "P2", "R1", "F1", "F2", "F3", "F4", "auto"] {
        coracle(&["setup", &format!("--execmode={mode}"), "ubuntu18"]).ok();
        assert_eq!(coracle(&["run", "ubuntu18", "cat", "/changed"]).ok(), "changed", "{mode}");
    }
    coracle(&["setup", "--execmode=S1", "ubuntu18"]).ok();
    let said = coracle(&["run", "ubuntu18", "cat", "/changed"]);
    // It runs by what was asked for, where that is installed, or says why not: never by something else.
    assert!(said.code == Some(0) || said.stderr.starts_with("coracle: engine apptainer"), "{said}");
    coracle(&["setup", "--execmode=auto", "ubuntu18"]).ok();
    // The tree, and what may be removed.
    let root = coracle(&["inspect", "-p", "ubuntu18"]).ok().to_owned();
    assert_eq!(fs::read_to_string(format!("{root}/changed")).unwrap(), "changed\n");
    coracle(&["protect", "ubuntu18"]).ok();
    coracle(&["rm", "ubuntu18"]).fails_as(1, &["protected"]);
    coracle(&["unprotect", "ubuntu18"]).ok();
    coracle(&["rename", "ubuntu18", "old"]).ok();
    for name in ["old", "copy", "imported", "elsewhere"] {
        coracle(&["rm", name]).ok();
    }
    coracle(&["rmi", &image]).ok();
    assert_eq!(coracle(&["ps", "--format", "{{.Names}}"]).ok(), "");
    coracle(&["verify"]).ok();
}

/// A SOCKS5 proxy that leads every connection to one port of this machine, and asks for no name's address.
fn socks(port: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |mut client: TcpStream| -> io::Result<()> {
        let mut head = [0; 2];
        client.read_exact(&mut head)?;
        let mut methods = vec![0; head[1].into()];
        client.read_exact(&mut methods)?;
        client.write_all(&[5, 0])?;
        let mut request = [0; 5];
        client.read_exact(&mut request)?;
        assert_eq!(request[3], 3, "the name is left to the proxy");
        let mut rest = vec![0; usize::from(request[4]) + 2];
        client.read_exact(&mut rest)?;
        let mut server = TcpStream::connect(("127.0.0.1", port))?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write)));
        io::copy(&mut server, &mut client).map(|_| ())
    };
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || serve(client));
        }
    });
    address
}

#[test]
fn what_udocker_has_before_commands_and_for_its_network() {
    if skip::lacks(&["docker-registry", "skopeo"]) {
        return;
    }
    let mut sandbox = Sandbox::new();
    let registry = Registry::open();
    let layout = tempfile::tempdir().unwrap();
    OciImage::new(json!({"Cmd": ["/one"]})).raw_layer(vec![0; 1024]).write(layout.path()).unwrap();
    registry.push(&format!("oci:{}:latest", layout.path().display()), "lib/one:1", &[]);
    let address = registry.address();
    // A name without a registry is that one's; one that has a registry keeps it.
    let from = format!("--registry=http://{address}");
    sandbox
        .coracle(["--insecure", "-D", "--allow-root", "pull", &from, "--index=http://127.0.0.1:1", "lib/one:1"])
        .ok();
    let listed = sandbox.coracle(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(listed.ok(), format!("{address}/lib/one:1"));
    let tags = sandbox.coracle(["search", "--list-tags", &from, "lib/one"]);
    assert_eq!(tags.ok().lines().last().map(str::trim), Some("1"));
    sandbox.coracle(["create", "--pull=never", &from, "lib/one:1"]).ok();
    // Another store, by proxy.
    sandbox.coracle(["mkrepo", "other"]).ok();
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = format!("--httpproxy=socks5h://{}", socks(port));
    sandbox.set("no_proxy", "*");
    sandbox.coracle(["--repo=other", "pull", "--registry=http://far.example:5000", &proxy, "lib/one:1"]).ok();
    assert!(sandbox.coracle(["--repo", "other", "images"]).ok().contains("far.example:5000/lib/one"));
    assert!(!sandbox.coracle(["images"]).ok().contains("far.example"));
    sandbox.coracle(["--repo=nowhere", "images"]).fails_as(1, &["--repo nowhere: No such file"]);
    sandbox.coracle(["--config=x", "ps"]).fails_as(1, &["--config x: udocker's settings are not read"]);
    assert!(sandbox.coracle(["install", "--force"]).stderr.contains("nothing to install"));
}

/// A package whose installation makes a user and gives him a directory.
const PACKAGE: &str = r#"
    set -e; mkdir -p repo pkg/DEBIAN pkg/usr/bin
    printf 'Package: ahoy\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: a boat\n' > pkg/DEBIAN/control
    printf '#!/bin/sh\nset -e\nuseradd -r boat\ninstall -d -o boat -g boat -m 750 /var/lib/boat\n' > pkg/DEBIAN/postinst
    printf '#!/bin/sh\necho ahoy\n' > pkg/usr/bin/ahoy
    chmod 755 pkg pkg/DEBIAN pkg/DEBIAN/postinst pkg/usr/bin/ahoy
    dpkg-deb --root-owner-group -b pkg repo/ahoy.deb >/dev/null; cd repo; dpkg-scanpackages . > Packages 2>/dev/null
"#;

/// What the tutorial does with it.
const INSTALL: &str = r#"
    rm -f /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list
    apt-get update -qq && apt-get install -y -qq ahoy >/dev/null 2>&1 && ahoy
    stat -c '%U:%G %a' /var/lib/boat; dpkg-query -W ahoy; apt-get remove -y -qq ahoy >/dev/null 2>&1; test -e /usr/bin/ahoy || echo removed
"#;

#[test]
fn root_who_is_none_installs_packages_from_a_repository() {
    if skip::unless_slow() || skip::unless_root() || skip::lacks(&["mmdebstrap", "dpkg-deb", "dpkg-scanpackages"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let tar = sandbox.work("debian.tar");
    let made = std::process::Command::new("mmdebstrap")
        .args(["--quiet", "--variant=apt", "--include=passwd", "bookworm"])
        .arg(&tar)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skip::because("mmdebstrap makes no Debian tree here (no network?)");
    }
    sandbox.run("bash", ["-c", PACKAGE]).ok();
    let repository = format!("--volume={}:/repo:ro", sandbox.work("repo").display());
    sandbox.coracle(["create", "--name=debian", &format!("rootfs:{}", tar.display())]).ok();
    for mode in ["P1", "P2", "R1"] {
        sandbox.coracle(["clone", "--name", mode, "debian"]).ok();
        let mode_option = format!("--execmode={mode}");
        // A script on standard input, as the tutorial has it.
        let said = sandbox.run_with_input(
            harness::coracle(),
            ["run", &mode_option, &repository, mode, "/bin/bash", "-e"],
            INSTALL.as_bytes(),
        );
        assert_eq!(said.ok(), "ahoy\nboat:boat 750\nahoy\t1.0\nremoved", "{mode}");
        sandbox.coracle(["rm", mode]).ok();
    }
}
