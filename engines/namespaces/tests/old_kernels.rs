//! The older ways, taken where a filter makes this kernel deny the newer calls: what happens on Linux 3.10 to 5.11, and
//! under container runtimes that do not know a call.

mod common;

use std::path::Path;

use common::{bind, bind_read_only, directory, fingerprint, forbid, make, script, shared_tree, start_as, user};
use coracle_api::Engine;
use coracle_namespaces::Namespaces;
use nix::mount::{MsFlags, mount};

/// Calls newer than Linux 3.10 that the engine uses.
const NEW: [libc::c_long; 2] = [libc::SYS_openat2, libc::SYS_mount_setattr];

#[test]
fn without_the_newer_calls_everything_is_the_same() {
    let Some(tree) = shared_tree() else { return };
    let before = fingerprint(tree);
    let volume = directory();
    make(volume.path().join("f"), Some("volume"));
    make(volume.path().join("with blank"), None);
    for errno in [libc::ENOSYS, libc::EPERM] {
        let mut spec = script(
            tree,
            "cat /bin/../mnt/f /new/place/f /etc/new; touch /x 2>/dev/null || echo ro; touch /mnt/x 2>/dev/null || echo ro
             touch /new/place/x && echo rw; touch '/mnt/with blank/x' 2>/dev/null || echo ro; touch /sys/fs/x 2>/dev/null || echo ro",
        );
        spec.binds = vec![
            bind_read_only(volume.path(), "/bin/../mnt"),
            bind(volume.path(), "/new/place"),
            bind(&volume.path().join("f"), "/etc/new"),
        ];
        let outcome = start_as(user(), || {
            // A mount below the read-only volume, with a flag that may not be dropped.
            common::become_contained();
            let none = None::<&str>;
            let inner = volume.path().join("with blank");
            mount(Some("tmpfs"), &inner, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none).expect("tmpfs");
            forbid(&NEW, errno);
            (spec.identity.host_uid, spec.identity.host_gid) = (0, 0);
            Namespaces.run(&spec)
        });
        assert_eq!(outcome.finish().success(), "volumevolumevolumero\nro\nrw\nro\nro\n");
        let _ = std::fs::remove_file(volume.path().join("x"));
    }
    assert_eq!(before, fingerprint(tree));
}

#[test]
fn a_root_that_cannot_be_exchanged_is_covered() {
    let Some(tree) = shared_tree() else { return };
    let volume = directory();
    make(volume.path().join("f"), Some("volume"));
    for guest in ["/mnt", "/not/there/yet"] {
        let mut spec = script(
            tree,
            &format!("cat {guest}/f; touch /x 2>/dev/null || echo ro; test -e {}", volume.path().display()),
        );
        spec.binds = vec![bind(volume.path(), guest)];
        let outcome = start_as(user(), || {
            forbid(&[libc::SYS_pivot_root], libc::EINVAL);
            Namespaces.run(&spec)
        });
        let outcome = outcome.finish();
        assert_eq!(outcome.out, "volumero\n", "{outcome:?}");
        assert!(!Path::new(&format!("{}/x", tree.display())).exists());
    }
}

#[test]
fn where_no_overlay_can_be_had_the_entries_are_bound() {
    let Some(tree) = shared_tree() else { return };
    let volume = directory();
    let file = make(volume.path().join("f"), Some("volume"));
    // A user namespace may mount no overlay whose layer holds mounts that came from outside; here the tree's /etc does.
    let outcome = start_as(user(), || {
        common::become_contained();
        let none = None::<&str>;
        mount(Some(&file), &tree.join("etc/motd"), none, MsFlags::MS_BIND, none).expect("bind");
        let mut spec =
            script(tree, "cat /etc/new /etc/motd; ls /etc | wc -l; grep -c ' - overlay' /proc/self/mountinfo");
        spec.binds = vec![bind(&file, "/etc/new")];
        (spec.identity.host_uid, spec.identity.host_gid) = (0, 0);
        Namespaces.run(&spec)
    });
    let entries = std::fs::read_dir(tree.join("etc")).expect("read_dir").count() + 1;
    assert_eq!(outcome.finish().out, format!("volumevolume{entries}\n0\n"));
}
