//! Where a guest is and what it sees of that: chroot, long paths, names that mislead.

mod common;

use std::fs;

use common::*;
use coracle_api::{Access, Ended};

/// A shell as root of its own in a tree that it may change.
fn as_root(script: &str) -> Option<Output> {
    let tree = extract("alpine-3.20.3-x86_64")?;
    let mut spec = spec(&tree, &["sh", "-c", script]);
    (spec.identity.uid, spec.identity.gid) = (0, 0);
    spec.access = Access::Direct;
    let first = run(&spec);
    spec.variant = Some("P2".to_owned());
    assert_eq!(first, run(&spec), "P1 and P2 agree");
    Some(first)
}

#[test]
fn root_changes_its_root_directory() {
    let script = "exec 2>&1; rm -rf /jail; mkdir -p /jail/bin /jail/lib /jail/in /jail/proc; cp /lib/ld-musl* /jail/lib; \
        cp /bin/busybox /jail/bin; for p in sh cat ls readlink chroot pwd; do ln -s busybox /jail/bin/$p; done; \
        mkdir /jail/etc; echo jailed >/jail/etc/where; ln -s /etc/where /jail/abs; \
        printf '#!/bin/sh\necho script $0 $(readlink /abs)\n' >/jail/in/script; chmod +x /jail/in/script; \
        cd /jail/in; chroot /jail /bin/sh -c 'pwd; cat /abs ../../../abs; cd /in; ./script; echo $(ls /..); \
            chroot /in /bin/sh; chroot /etc/../in/.. /bin/sh -c \"cd ..; pwd -P; ls /abs\"'; pwd; \
        chroot /jail/none true; chroot /jail/abs true; chroot /jail/etc/where true; echo $?";
    let expected = "/\njailed\njailed\nscript ./script /etc/where\nabs bin etc in lib proc\n\
        chroot: can't execute '/bin/sh': No such file or directory\n/\n/abs\n/jail/in\n\
        chroot: can't change root directory to '/jail/none': No such file or directory\n\
        chroot: can't change root directory to '/jail/abs': No such file or directory\n\
        chroot: can't change root directory to '/jail/etc/where': Not a directory\n1\n";
    if let Some(output) = as_root(script) {
        assert_eq!(output.text, expected);
    }
}

#[test]
fn only_root_changes_its_root_directory() {
    expect(
        "chroot /etc true 2>&1; chroot /none true 2>&1; chroot /etc/hosts true 2>&1; echo",
        "chroot: can't change root directory to '/etc': Operation not permitted\nchroot: can't change root directory to '/none': No such file or directory\nchroot: can't change root directory to '/etc/hosts': Not a directory\n\n",
    );
}

#[test]
fn a_name_that_ends_like_the_kernels_word() {
    let Some(tree) = alpine() else { return };
    let dir = volume();
    let script = "mkdir '/v/x (deleted)'; cd '/v/x (deleted)'; pwd -P; echo y >f; cat f; cat '../x (deleted)/f'; \
        readlink /proc/self/cwd; cat /proc/self/cwd/f; exec 3<.; cat /proc/self/fd/3/f; mkdir '/v/d'; cd /v/d; rmdir /v/d; \
        readlink /proc/self/cwd; cat x 2>&1; ls /v";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(dir.path(), "/v", false));
    let expected = "/v/x (deleted)\ny\ny\n/v/x (deleted)\ny\ny\n/v/d (deleted)\ncat: can't open 'x': No such file or directory\nx (deleted)\n";
    assert_eq!(run(&spec), Output { text: expected.to_owned(), ended: Ended::Exited(0) });
    assert_eq!(fs::read_to_string(dir.path().join("x (deleted)/f")).expect("the guest's file"), "y\n");
}

#[test]
fn a_path_may_be_as_long_as_the_kernel_says_whatever_the_trees_own() {
    let Some(tree) = alpine() else { return };
    let dir = volume();
    // /v/ and sixteen names of 254: as long as a path can be; with the volume's own path in front it is longer.
    let script = "cd /v; n=$(printf 'd%.0s' $(seq 254)); p=/v; i=0; while [ $i -lt 15 ]; do p=$p/$n; mkdir $p || exit; i=$((i+1)); done; \
        f=$p/$(printf 'f%.0s' $(seq 254)); echo ${#f}; echo text >$f; cat $f; stat -c %s $f; ln -s $f /v/link; cat /v/link; cd $p; \
        pwd -P | wc -c; mv $f $p/g; cat g $p/g; rm $p/g; test -e $p/g; echo $?; echo 'echo run' >r; chmod +x r; $p/r; cd /v; rm -rf d*; ls";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(dir.path(), "/v", false));
    assert_eq!(run(&spec).text, "4082\ntext\n5\ntext\n3828\ntext\ntext\n1\nrun\nlink\n");
}

#[test]
fn mount_points_that_the_tree_lacks_are_listed() {
    let Some(tree) = alpine() else { return };
    let (data, file) = (volume(), volume());
    fs::write(data.path().join("in"), "x\n").expect("write");
    fs::write(file.path().join("f"), "y\n").expect("write");
    let script = "ls / | grep -e data -e one -e etc | xargs; ls -d /da*; ls -l /etc | grep -c my.conf; ls /one /one/two; stat -c %F /one /one/two; \
        cat /one/two/three/in /etc/my.conf; find /one /data | sort | xargs; cd /one/two/three; cd ../..; pwd -P; rmdir /one /data 2>&1 | grep -c -v '^$'; \
        ls -a / | sort | uniq -d; ls -a /one | xargs";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(data.path(), "/data", false));
    spec.binds.push(bind(data.path(), "/one/two/three", false));
    spec.binds.push(bind(&file.path().join("f"), "/etc/my.conf", true));
    let expected = "data etc one\n/data\n1\n/one:\ntwo\n\n/one/two:\nthree\ndirectory\ndirectory\nx\ny\n\
        /data /data/in /one /one/two /one/two/three /one/two/three/in\n/one\n2\n. .. two\n";
    for variant in ["P1", "P2"] {
        spec.variant = Some(variant.to_owned());
        assert_eq!(run(&spec).text, expected, "{variant}");
    }
    let Some(small) = extract("alpine-3.20.3-i386") else { return };
    spec.root = small.root.clone();
    assert_eq!(run(&spec).text, expected, "32 bits");
}

#[test]
fn proc_shows_the_guests_mounts_and_mappings() {
    let Some(tree) = alpine() else { return };
    let dir = volume();
    let script = "grep -c ' / / \\| / ro' /proc/self/mountinfo; awk '$2 == \"/v\" {print substr($4, 1, 2)}' /proc/mounts; \
        awk '$2 == \"/r\" {print substr($4, 1, 2)}' /proc/self/mounts; grep -c ' /sys ' /proc/$$/mountinfo; \
        grep -o ' /lib/ld-musl.*' /proc/self/maps | sort -u; grep -h -c -e /tree/ -e coracle- /proc/thread-self/maps /proc/self/smaps; \
        grep -c '^Rss' /proc/$$/smaps | grep -c ..; df /v | wc -l; \
        echo x 2>/dev/null >/proc/self/mountinfo || echo no";
    let mut spec = spec(tree, &["sh", "-c", script]);
    spec.binds.push(bind(dir.path(), "/v", false));
    spec.binds.push(bind(dir.path(), "/r", true));
    assert_eq!(run(&spec).text, "1\nrw\nro\n1\n /lib/ld-musl-x86_64.so.1\n0\n0\n1\n2\nno\n");
}
