//! Root that is only pretended, under `ptrace` and `preload`: ids, capabilities, owners, modes, devices and rights as a
//! real root in a chroot has them, who has the capabilities that Docker leaves to root; and what a distribution's tools
//! do with them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Output, Sandbox, bundles, coracle, images, skip, user};

/// A tracer's, for static programs, and the shim's, for dynamic ones.
const ENGINES: [(&str, bool); 4] = [("P1", false), ("P2", false), ("F1", true), ("F3", true)];

/// Where the probes are that load the C library.
const DYNAMIC: &str = "dynamic";

/// What Docker leaves to root, in setpriv's words.
const BOUNDS: &str = "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
    +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

const PROBES: [&str; 2] = ["ids", "files"];

/// What compilers are told, and where the probes are that they make: of the word sizes that run here, linked statically, and
/// dynamic ones.
fn kinds() -> Vec<(&'static [&'static str], &'static str)> {
    let other = super::probes::has_other_word().then_some((&["-m32", "-static"][..], "probes32"));
    [(&["-static"][..], "probes"), (&[][..], DYNAMIC)].into_iter().chain(other).collect()
}

/// A tree with the probes.
fn plant(sandbox: &Sandbox) -> PathBuf {
    let root = sandbox.make_dir("work/tree");
    for dir in ["etc", "probes", "probes32", DYNAMIC, "tmp", "proc", "dev", "work"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/none\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    for (options, dir) in kinds() {
        for name in PROBES {
            let source = images::workspace().join("tests/guests/root").join(name).with_extension("c");
            let mut gcc = Command::new("gcc");
            if dir == DYNAMIC {
                gcc.arg(format!(r#"-DPROBES="/{DYNAMIC}""#));
            }
            gcc.args(options).args(["-O1", "-w", "-o"]).arg(root.join(dir).join(name)).arg(&source);
            assert!(gcc.status().unwrap().success(), "{} does not compile", source.display());
        }
    }
    super::probes::libraries(&root, &root.join(DYNAMIC).join(PROBES[0]));
    root
}

/// What a probe prints in a chroot of the tree, as root.
fn natively(sandbox: &Sandbox, root: &Path, dir: &str, name: &str) -> String {
    let work = sandbox.make_dir(&format!("work/native-{dir}-{name}"));
    let script = r#"
        set -e
        chown 0:0 "$1" && mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --bind "$1" "$0/work"
        cd "$0"
        exec setpriv "$2" --clear-groups chroot "$0" "$3"
    "#;
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["--mount", "sh", "-c", script]).arg(root).arg(work).args([BOUNDS, &format!("/{dir}/{name}")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_pretended_root_is_told_what_a_real_one_is() {
    if skip::lacks(&["gcc", "unshare", "chroot", "setpriv"]) || skip::unless_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let root = plant(&sandbox);
    let bundle = sandbox.work("probes.run");
    let source = format!("rootfs:{}", root.display());
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/probes/ids"]"#, "-o", bundle.to_str().unwrap()]).ok();
    for (_, dir) in kinds() {
        // What a program is told at its start (getauxval of ids) is the host's under a shim, so the probe of ids is a
        // tracer's.
        for name in PROBES.into_iter().filter(|name| dir != DYNAMIC || *name == "files") {
            let native = natively(&sandbox, &root, dir, name);
            assert!(native.lines().count() > 400, "{native}");
            for (engine, _) in ENGINES.into_iter().filter(|(_, dynamic)| *dynamic == (dir == DYNAMIC)) {
                let work = sandbox.make_dir(&format!("work/{engine}-{dir}-{name}"));
                let options = [
                    format!("--coracle-engine={engine}"),
                    "--coracle-user=root".to_owned(),
                    "--coracle-workdir=/".to_owned(),
                    format!("--coracle-volume={}:/work", work.display()),
                    format!("/{dir}/{name}"),
                ];
                let output = sandbox.run(&bundle, options);
                let seen = output.ok();
                let differ = |(native, seen): &(&str, &str)| native != seen;
                let new: Vec<_> = native.lines().zip(seen.lines()).filter(differ).collect();
                assert!(new.is_empty(), "{engine} {dir}/{name} differs from the kernel: {new:#?}");
                assert_eq!(native.lines().count(), seen.lines().count());
            }
        }
    }
}

/// A run as root, in a tree that may be changed.
fn as_root(sandbox: &Sandbox, bundle: &Path, engine: &str, script: &str) -> Output {
    let option = format!("--coracle-engine={engine}");
    let options = [option.as_str(), "--coracle-user=root", "--coracle-writable", "--coracle-workdir=/"];
    sandbox.run(bundle, [&options[..], &["/bin/sh", "-c", script]].concat())
}

const ALPINE: &str = r#"
    id -u; adduser -D bob; ls -ldn /home/bob; su bob -c 'id -u; id -G; touch ~/mine /etc/mine; ls -ln ~/mine' 2>&1
    mkdir /w; cd /w; touch a; chown 5:6 a; chmod 4750 a; mkdir d; chmod 555 d; touch d/in; mknod n c 1 3; echo gone > n; ls -ln a d/in n
    tar -cf t.tar a d n; mkdir u; tar -xf t.tar -C u; ls -ln u u/d; rm a; touch a; ls -n a
    chgrp 7 d; chmod 2775 d; mkdir d/e; ls -ldn d/e; cp /usr/bin/id .; chown bob id; chmod u+s id; ./id -u
    chown -R bob /usr/share/apk; stat -c '%u:%g %a' /usr/share/apk/* /etc/shadow; umask 0; install -o bob -m 6711 id id2; stat -c '%u:%g %a' id2
"#;

const ALPINE_SAYS: &[&str] = &[
    "1000\n1000\n",
    "touch: /etc/mine: Permission denied\n",
    "-rwsr-x---    1 5        6                0",
    "crw-r--r--    1 0        0           1,   3",
    "drwxr-sr-x    2 0        7 ",
    "1000:0 755\n0:42 640\n1000:0 6711",
];

#[test]
fn a_small_distributions_tools_work_as_root() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let said = ENGINES.map(|(engine, _)| {
        let output = as_root(&sandbox, &bundle, engine, ALPINE);
        let output = output.ok();
        for part in ALPINE_SAYS {
            assert!(output.contains(part), "{engine}: {part:?} is missing in:\n{output}");
        }
        let without_times = |line: &str| line.split("  Nov").next().unwrap_or_default().to_owned();
        output.lines().filter(|line| !line.contains(':')).map(without_times).collect::<Vec<_>>()
    });
    for (other, (engine, _)) in said.iter().zip(ENGINES) {
        assert_eq!(said[0], *other, "P1 and {engine} agree");
    }
}

/// Debian's own tools, of which many ask who they are, become somebody, give files away.
const DEBIAN: &str = r#"
    set -e; export LC_ALL=C
    apt-get update >/dev/null; apt-get install -y unzip >/dev/null 2>&1; unzip -v | head -1 | cut -c1-5
    useradd -m bob; su bob -c 'id; touch ~/x'; stat -c '%U %G %a' /home/bob /home/bob/x
    echo bob:secret | chpasswd; passwd -S bob | cut -d' ' -f1,2; su bob -c 'passwd -S bob' | cut -d' ' -f1,2
    adduser --disabled-password --gecos x carol >/dev/null; id carol; su bob -c 'cat /etc/shadow /root/.bashrc' 2>&1 || true
    setpriv --reuid 33 --regid 33 --init-groups id; setpriv --dump | grep -i bounding
    dpkg-deb -x /var/cache/apt/archives/*.deb /tmp/x 2>/dev/null || true; dpkg -r unzip >/dev/null; userdel -r bob 2>/dev/null; id bob 2>&1 || true
    mkdir /w; cd /w; tar -C / -cf t.tar etc/shadow etc/gshadow usr/bin/passwd usr/bin/chage; mkdir t; tar -xpf t.tar -C t
    stat -c '%n %u:%g %a' t/etc/shadow t/etc/gshadow t/usr/bin/passwd t/usr/bin/chage; chroot / id -u
"#;

const DEBIAN_SAYS: &str = "UnZip
uid=1000(bob) gid=1000(bob) groups=1000(bob)
bob bob 755
bob bob 644
bob P
bob P
uid=1001(carol) gid=1001(carol) groups=1001(carol),100(users)
cat: /etc/shadow: Permission denied
cat: /root/.bashrc: Permission denied
uid=33(www-data) gid=33(www-data) groups=33(www-data)
Capability bounding set: chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,setfcap
id: 'bob': no such user
t/etc/shadow 0:42 640
t/etc/gshadow 0:42 640
t/usr/bin/passwd 0:0 4755
t/usr/bin/chage 0:42 2755
0
";

#[test]
fn debian_installs_packages_and_users() {
    if skip::unless_slow() || skip::unless_root() || skip::lacks(&["mmdebstrap"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let tar = sandbox.work("debian.tar");
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=apt", "--include=adduser,passwd", "bookworm"])
        .arg(&tar)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skip::because("mmdebstrap makes no Debian tree here (no network?)");
    }
    let (source, bundle) = (format!("rootfs:{}", tar.display()), sandbox.work("debian.run"));
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/bin/bash"]"#, "-o", bundle.to_str().unwrap()]).ok();
    fs::remove_file(tar).unwrap();
    assert!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o111 != 0);
    assert!(user::ordinary().uid != 0);
    for (engine, _) in ENGINES {
        assert_eq!(as_root(&sandbox, &bundle, engine, DEBIAN).ok(), DEBIAN_SAYS.trim_end(), "{engine}");
    }
}
