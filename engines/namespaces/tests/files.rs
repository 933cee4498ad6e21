//! What the guest sees of files: the tree, binds, mount points that the tree lacks, devices.

mod common;

use std::{fs, os::unix::fs::symlink, path::Path};

use common::{
    action, as_root, bind, bind_read_only, copy_on_write, directory, fingerprint, fresh_tree, guest_action, make, run,
    script, shared_tree, spec, start,
};
use coracle_api::{Access, Devices};

#[test]
fn a_shell_runs_and_the_tree_is_read_only_everywhere() {
    let Some(tree) = shared_tree() else { return };
    let before = fingerprint(tree);
    let out = run(&script(
        tree,
        "cat /etc/alpine-release; for d in / /etc /usr/lib /home /tmp; do touch $d/x 2>&1; done; echo y > /etc/motd; :",
    ))
    .success();
    assert!(out.starts_with("3.20.3\n"), "{out}");
    assert_eq!(out.matches("Read-only file system").count(), 5, "{out}");
    let err = run(&script(tree, "echo y > /etc/motd")).failure(1);
    assert!(err.contains("Read-only file system"), "{err}");
    assert_eq!(before, fingerprint(tree));
}

#[test]
fn nothing_of_the_host_is_left_in_view() {
    let Some(tree) = shared_tree() else { return };
    let volume = directory();
    let mut spec =
        script(tree, "cut -d' ' -f5 /proc/self/mountinfo | grep -v -E '^/(proc|sys|dev)(/|$)'; ls -di / /..");
    let plain = run(&spec).success();
    assert_eq!(plain.lines().next(), Some("/"), "{plain}");
    assert_eq!(plain.lines().count(), 3, "{plain}");
    // With the root directory itself covered, too.
    spec.binds.push(bind(volume.path(), "/nowhere/before"));
    let out = run(&spec).success();
    for line in out.lines().filter(|line| line.starts_with('/')) {
        assert!(line == "/" || line == "/nowhere/before" || tree.join(&line[1..]).exists(), "{out}");
    }
    let inodes: Vec<_> = out.lines().rev().take(2).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(inodes[0], inodes[1], "{out}");
}

#[test]
fn mount_points_that_the_tree_lacks() {
    let Some(tree) = shared_tree() else { return };
    let before = fingerprint(tree);
    let volume = directory();
    make(volume.path().join("file"), Some("from the host\n"));
    let file = volume.path().join("file");
    let mut spec = script(
        tree,
        "set -e
         cat /a/one/file /b/file /a/two/three/file /etc/new.d/f /etc/new /usr/share/deep/er/f
         ls /etc/alpine-release /bin/busybox /usr/share/apk >/dev/null; test -L /etc/mtab
         touch /a/one/written
         for p in /x /a/x /a/two/x /etc/x /usr/share/x /usr/share/deep/x; do ! touch $p 2>/dev/null; done
         pwd; ls -la / >/dev/null",
    );
    spec.binds = vec![
        bind(volume.path(), "/a/one"),
        bind(volume.path(), "/b"),
        bind_read_only(volume.path(), "/a/two/three"),
        bind(&file, "/etc/new.d/f"),
        bind(&file, "/etc/new"),
        bind(&file, "/usr/share/deep/er/f"),
    ];
    spec.cwd = "/work/made/for/me".into();
    spec.make_cwd = true;
    let out = run(&spec).success();
    assert_eq!(out.matches("from the host").count(), 6, "{out}");
    assert!(out.ends_with("/work/made/for/me\n"), "{out}");
    assert!(volume.path().join("written").exists());
    assert_eq!(before, fingerprint(tree));
}

#[test]
fn a_missing_working_directory_is_an_error_unless_it_may_be_made() {
    let Some(tree) = shared_tree() else { return };
    let mut spec = spec(tree, &["pwd"]);
    spec.cwd = "/not/there".into();
    let err = run(&spec).failure(125);
    assert!(err.contains("start in /not/there"), "{err}");
    spec.make_cwd = true;
    assert_eq!(run(&spec).success(), "/not/there\n");
    let _changes = copy_on_write(&mut spec);
    assert_eq!(run(&spec).success(), "/not/there\n");
}

#[test]
fn read_only_binds_nested_and_overlapping() {
    let Some(tree) = shared_tree() else { return };
    let (outer, inner) = (directory(), directory());
    make(outer.path().join("sub"), None);
    make(outer.path().join("o"), Some("outer"));
    make(inner.path().join("i"), Some("inner"));
    let mut spec = script(
        tree,
        "cat /mnt/o /mnt/sub/i; touch /mnt/x 2>/dev/null || echo ro; touch /mnt/sub/x && echo rw; touch /opt/x && echo rw
         touch /opt/sub/y 2>/dev/null || echo ro; ls /media",
    );
    spec.binds = vec![
        bind_read_only(outer.path(), "/mnt"),
        bind(inner.path(), "/mnt/sub"), // inside an earlier one
        bind(outer.path(), "/opt"),
        bind_read_only(inner.path(), "/opt/sub"),
        bind(outer.path(), "/media"),
        bind(inner.path(), "/media"), // over an earlier one
    ];
    let out = run(&spec).success();
    assert_eq!(out, "outerinnerro\nrw\nrw\nro\ni\nx\n");
}

#[test]
fn a_mount_point_inside_a_volume_is_made_there() {
    let Some(tree) = shared_tree() else { return };
    let (outer, inner) = (directory(), directory());
    make(inner.path().join("i"), Some("inner"));
    let mut spec = script(tree, "cat /mnt/new/place/i");
    spec.binds = vec![bind(outer.path(), "/mnt"), bind(inner.path(), "/mnt/new/place")];
    assert_eq!(run(&spec).success(), "inner");
    assert!(outer.path().join("new/place").is_dir());
    // Where that is impossible, the error says where.
    spec.binds = vec![bind_read_only(outer.path(), "/mnt"), bind(inner.path(), "/mnt/other")];
    let err = run(&spec).failure(125);
    assert!(err.contains("make the mount point /mnt/other") && err.contains("Read-only"), "{err}");
}

#[test]
fn symbolic_links_of_the_tree_never_lead_out_of_it() {
    let Some(tree) = fresh_tree() else { return };
    let tree = tree.path();
    let volume = directory();
    make(volume.path().join("f"), Some("volume"));
    let outside = directory();
    // Absolute links, one to a host path that exists, a climbing one, and one to nothing.
    symlink(outside.path(), tree.join("absolute")).expect("symlink");
    symlink("../../../../../../mnt", tree.join("media/climbing")).expect("symlink");
    symlink("/nothing/here", tree.join("dangling")).expect("symlink");
    symlink("loop", tree.join("loop")).expect("symlink");
    let before = fingerprint(tree);
    let mut spec = script(
        tree,
        &format!(
            "cat /absolute/f {0}/f /media/climbing/f /mnt/f /dangling/f /nothing/here/f",
            outside.path().display()
        ),
    );
    spec.binds = ["/absolute", "/media/climbing", "/dangling"].map(|guest| bind(volume.path(), guest)).into();
    assert_eq!(run(&spec).success(), "volume".repeat(6));
    assert_eq!(fs::read_dir(outside.path()).expect("read_dir").count(), 0);
    assert_eq!(before, fingerprint(tree));
    spec.binds = vec![bind(volume.path(), "/loop/x")];
    let err = run(&spec).failure(125);
    assert!(err.contains("/loop/x"), "{err}");
}

#[test]
fn a_link_replaced_on_the_way_is_bound_over_at_its_target() {
    let Some(tree) = fresh_tree() else { return };
    let tree = tree.path();
    let file = make(tree.join("etc/zone"), Some("old"));
    symlink("zone", tree.join("etc/localtime")).expect("symlink");
    let volume = directory();
    let new = make(volume.path().join("f"), Some("new"));
    let mut spec = script(tree, "cat /etc/localtime /etc/zone");
    spec.binds = vec![bind_read_only(&new, "/etc/localtime")];
    assert_eq!(run(&spec).success(), "newnew");
    assert_eq!(fs::read_to_string(file).expect("read"), "old");
}

#[test]
fn optional_binds_may_fail_and_others_say_why() {
    let Some(tree) = shared_tree() else { return };
    let mut spec = spec(tree, &["true"]);
    spec.binds = vec![bind(Path::new("/not/on/this/host"), "/mnt")];
    let err = run(&spec).failure(125);
    assert!(err.contains("bind /not/on/this/host to /mnt: No such file"), "{err}");
    spec.binds[0].optional = true;
    run(&spec).success();
    spec.binds = vec![bind(Path::new("/etc"), "/etc/passwd")];
    let err = run(&spec).failure(125);
    assert!(err.contains("a directory can only be bound to a directory"), "{err}");
    spec.binds = vec![bind(Path::new("/etc"), "/")];
    let err = run(&spec).failure(125);
    assert!(err.contains("nothing can be bound over /"), "{err}");
}

#[test]
fn the_hosts_root_as_a_volume() {
    let Some(tree) = shared_tree() else { return };
    for guest in ["/host", "/mnt"] {
        let mut spec = script(
            tree,
            &format!(
                "test -e {guest}{}/etc/alpine-release && ls -di {guest}; touch {guest}/tmp/x || echo ro",
                tree.display()
            ),
        );
        spec.binds = vec![bind_read_only(Path::new("/"), guest)];
        let out = run(&spec).success();
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata("/").expect("stat"));
        assert!(out.trim_start().starts_with(&format!("{inode} {guest}")) && out.ends_with("ro\n"), "{out}");
    }
}

#[test]
fn a_volume_that_contains_the_tree() {
    let Some(tree) = shared_tree() else { return };
    let mut spec = script(tree, "ls /home; grep -c ' /home' /proc/self/mountinfo");
    let home = directory();
    let inner = make(home.path().join("cache"), None);
    assert!(
        std::process::Command::new("cp").arg("-a").arg(tree).arg(inner.join("tree")).status().expect("cp").success()
    );
    spec.root = inner.join("tree");
    spec.binds = vec![bind(home.path(), "/home")];
    assert_eq!(run(&spec).success(), "cache\n1\n");
}

#[test]
fn copy_on_write_as_yourself_and_as_root() {
    let Some(tree) = shared_tree() else { return };
    let before = fingerprint(tree);
    let text = "set -e
        sed -i s/root/changed/ /etc/passwd; head -n1 /etc/passwd
        echo appended >> /etc/motd; tail -n1 /etc/motd
        rm /etc/alpine-release; touch /new; mkdir -p /usr/lib/new/dir; mv /etc/apk /etc/moved; ls /etc/moved | head -n1
        ln /etc/hosts /etc/hosts2; chmod 600 /etc/hosts; stat -c %a /etc/hosts2";
    for as_who in [|spec| spec, as_root] {
        let mut spec = as_who(script(tree, text));
        let changes = copy_on_write(&mut spec);
        assert_eq!(run(&spec).success(), "changed:x:0:0:root:/root:/bin/sh\nappended\narch\n600\n");
        assert!(changes.path().join("upper/new").exists());
        assert_eq!(before, fingerprint(tree));
        // Kept, the changes are there in the next run.
        spec.argv =
            ["/bin/sh", "-c", "test ! -e /etc/alpine-release && cat /etc/motd | tail -n1"].map(Into::into).into();
        assert_eq!(run(&spec).success(), "appended\n");
    }
}

#[test]
fn runs_at_the_same_time_see_each_others_changes() {
    let Some(tree) = shared_tree() else { return };
    let looks = "ls /answer /etc/new 2>/dev/null; touch /question
        for i in $(seq 300); do test -e /answer && break; sleep 0.05; done; cat /answer /etc/new; ls /mnt";
    let volume = directory();
    for pid in [false, true] {
        let mut first = as_root(script(tree, looks));
        first.unshare.pid = pid;
        let _changes = copy_on_write(&mut first);
        let running = start(&first);
        let text = "for i in $(seq 300); do test -e /question && break; sleep 0.05; done; touch /mnt/here
            echo new > /etc/new; echo yes > /answer; id -u; rm /question; ls /mnt";
        let mut second = script(tree, text);
        second.access = first.access.clone();
        // With a view of its own but for the tree, as somebody else, and its own process ids in between.
        second.binds = vec![bind(volume.path(), "/mnt")];
        assert_eq!(run(&second).success(), format!("{}\nhere\n", common::user().0));
        assert_eq!(running.finish().success(), "yes\nnew\n");
        // The first one's end is not the overlay's: nobody is left now, and the changes are kept.
        second.argv = ["/bin/cat", "/answer"].map(Into::into).into();
        assert_eq!(run(&second).success(), "yes\n");
        fs::remove_file(volume.path().join("here")).expect("made by the second");
    }
}

#[test]
fn a_direct_tree_is_written_to() {
    let Some(tree) = fresh_tree() else { return };
    let mut spec = script(tree.path(), "echo x > /new; cat /mnt/deep/f");
    spec.access = Access::Direct;
    let volume = directory();
    make(volume.path().join("f"), Some("volume"));
    spec.binds = vec![bind(volume.path(), "/mnt/deep")];
    assert_eq!(run(&spec).success(), "volume");
    assert!(tree.path().join("new").exists());
    assert_eq!(fs::read_dir(tree.path().join("mnt/deep")).expect("read_dir").count(), 0);
}

#[test]
fn renaming_a_directory_of_the_tree_answers_exdev_and_one_of_the_guests_own_works() {
    let Some(tree) = shared_tree() else { return };
    let mut spec = action(tree, "rename");
    let _changes = copy_on_write(&mut spec);
    let out = run(&spec).success();
    assert!(out.contains("tree: Some(18)") && out.contains("own: None"), "{out}");
}

#[test]
fn small_dev() {
    let Some(tree) = shared_tree() else { return };
    for as_who in [|spec| spec, as_root] {
        let mut spec = as_who(script(
            tree,
            "set -e; ls /dev | tr '\\n' ' '; echo; echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c
             echo y > /dev/shm/f; cat /dev/shm/f; ls -l /dev/fd/0 >/dev/null; ! echo x 2>/dev/null > /dev/full; readlink /dev/ptmx
             test -c /dev/cpu_dma_latency && echo extra",
        ));
        spec.devices = Devices::Minimal { extra: vec!["/dev/cpu_dma_latency".into()] };
        if !Path::new("/dev/cpu_dma_latency").exists() {
            return common::skip("this host has no /dev/cpu_dma_latency");
        }
        let out = run(&spec).success();
        let names = "core cpu_dma_latency fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
        assert_eq!(out, format!("{names} \n3\n3\ny\npts/ptmx\nextra\n"));
        let mut spec = as_who(action(tree, "terminal"));
        spec.devices = Devices::Minimal { extra: Vec::new() };
        let out = run(&spec).success();
        assert!(out.contains("terminal: /dev/pts/0"), "{out}");
    }
}

#[test]
fn the_hosts_dev_whole() {
    let Some(tree) = shared_tree() else { return };
    let out = run(&script(tree, "ls /dev; echo x > /dev/null")).success();
    let mut host: Vec<_> = fs::read_dir("/dev")
        .expect("read_dir")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("a name"))
        .collect();
    host.sort();
    let mut guest: Vec<_> = out.lines().map(str::to_owned).collect();
    guest.sort();
    assert_eq!(guest, host);
}

#[test]
fn what_the_host_mounts_later_arrives() {
    use nix::mount::{MsFlags, mount};
    let Some(tree) = shared_tree() else { return };
    if !nix::unistd::geteuid().is_root() {
        return common::skip("only root can play the host that mounts something later");
    }
    let volume = directory();
    make(volume.path().join("auto"), None);
    // A host of its own, so that nothing is mounted on the real one.
    let host = common::start_as((0, 0), || {
        let none = None::<&str>;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
        mount(Some(volume.path()), volume.path(), none, MsFlags::MS_BIND, none).expect("bind");
        mount(none, volume.path(), none, MsFlags::MS_SHARED, none).expect("shared");
        let mut spec = script(
            tree,
            "echo ready; i=0; until test -e /mnt/auto/late || test $i = 100; do sleep 0.1; i=$((i+1)); done; ls /mnt/auto",
        );
        spec.binds = vec![bind(volume.path(), "/mnt")];
        let mut guest = common::start(&spec);
        assert_eq!(guest.line(), "ready");
        mount(Some("tmpfs"), &volume.path().join("auto"), Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
        fs::write(volume.path().join("auto/late"), "").expect("write");
        common::print(&guest.finish().success());
        Ok(coracle_api::Ended::Exited(0))
    });
    assert_eq!(host.finish().success(), "late\n");
}

/// The guest's part of the tests above.
#[test]
fn guest_side() {
    match guest_action().as_deref() {
        Some("rename") => {
            let rename = |from: &str, to: &str| fs::rename(from, to).err().and_then(|error| error.raw_os_error());
            println!("tree: {:?}", rename("/etc/apk", "/etc/apk2"));
            fs::create_dir("/own").expect("mkdir");
            println!("own: {:?}", rename("/own", "/own2"));
        }
        Some("terminal") => {
            use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
            let master = posix_openpt(nix::fcntl::OFlag::O_RDWR).expect("ptmx");
            grantpt(&master).expect("grantpt");
            unlockpt(&master).expect("unlockpt");
            let name = ptsname_r(&master).expect("ptsname");
            fs::File::options().read(true).write(true).open(&name).expect("open the terminal");
            println!("terminal: {name}");
        }
        Some(other) => panic!("{other}?"),
        None => {} // not a guest
    }
}
