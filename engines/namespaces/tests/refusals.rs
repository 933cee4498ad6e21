//! The probe: its reasons are produced by really taking away what it needs, and it is quick.

mod common;

use std::{fs, time::Instant};

use common::{become_contained, forbid, make, print, skip, start_as, user};
use coracle_api::{Ended, Engine, Host, ImageFacts, Request, RunError, Unshare};
use coracle_namespaces::Namespaces;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

fn probe(request: Request) -> Result<Ended, RunError> {
    match Namespaces.probe(&Host::read(None), &ImageFacts::default(), &request) {
        Ok(()) => print("accepted"),
        Err(refusal) => print(&refusal.to_string()),
    }
    Ok(Ended::Exited(0))
}

#[test]
fn accepts_here_every_request() {
    let all = Unshare { pid: true, ipc: true, uts: true, net: true };
    for root in [false, true] {
        for writable in [false, true] {
            for unshare in [Unshare::default(), all] {
                let request = Request { root, writable, unshare, ..Request::default() };
                assert_eq!(start_as(user(), || probe(request)).finish().success(), "accepted", "{request:?}");
            }
        }
    }
}

#[test]
fn limits_of_the_administrator_are_named() {
    for (limit, unshare) in [
        ("user", Unshare::default()),
        ("mnt", Unshare::default()),
        ("pid", Unshare { pid: true, ..Unshare::default() }),
        ("net", Unshare { net: true, ..Unshare::default() }),
    ] {
        let outcome = start_as(user(), || {
            become_contained();
            fs::write(format!("/proc/sys/user/max_{limit}_namespaces"), "0").expect("sysctl");
            probe(Request { unshare, ..Request::default() })
        });
        let said = outcome.finish().success();
        assert!(said.starts_with("user namespaces are refused (No space left on device"), "{said}");
        assert!(said.contains(&format!("user.max_{limit}_namespaces is 0: an administrator can raise it")), "{said}");
    }
}

#[test]
fn nesting_too_deep_is_named() {
    let (own_uid, own_gid) = user();
    let outcome = start_as(user(), || {
        let (mut uid, mut gid) = (own_uid, own_gid);
        while unshare(CloneFlags::CLONE_NEWUSER).is_ok() {
            fs::write("/proc/self/setgroups", "deny").expect("setgroups");
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).expect("uid_map");
            fs::write("/proc/self/gid_map", format!("0 {gid} 1")).expect("gid_map");
            (uid, gid) = (0, 0);
        }
        probe(Request::default())
    });
    let said = outcome.finish().success();
    assert!(said.contains("nested more than 32 deep"), "{said}");
}

#[test]
fn ids_that_the_namespace_around_does_not_know_are_named() {
    let outcome = start_as(user(), || {
        unshare(CloneFlags::CLONE_NEWUSER).expect("unshare");
        probe(Request::default())
    });
    let said = outcome.finish().success();
    assert!(said.contains("has no place in the user namespace around it"), "{said}");
}

#[test]
fn a_chroot_is_named() {
    let jail = common::directory();
    make(jail.path().join("proc"), None);
    let outcome = start_as(user(), || {
        become_contained();
        let none = None::<&str>;
        mount(Some("/proc"), &jail.path().join("proc"), none, MsFlags::MS_BIND | MsFlags::MS_REC, none).expect("bind");
        nix::unistd::chroot(jail.path()).expect("chroot");
        probe(Request::default())
    });
    let said = outcome.finish().success();
    assert!(said.contains("(Operation not permitted") && said.contains("this process is in a chroot"), "{said}");
}

#[test]
fn a_seccomp_filter_is_named() {
    let said = start_as(user(), || {
        forbid(&[libc::SYS_clone], libc::EPERM);
        probe(Request::default())
    });
    let said = said.finish().success();
    assert!(
        said.contains("user namespaces are refused (Operation not permitted") && said.contains("a seccomp filter"),
        "{said}"
    );
    // A security module that lets the namespace be made, and gives no power in it.
    let said = start_as(user(), || {
        forbid(&[libc::SYS_mount], libc::EACCES);
        probe(Request::default())
    });
    let said = said.finish().success();
    assert!(said.contains("but nothing can be mounted in it (Permission denied"), "{said}");
    let said = start_as(user(), || {
        forbid(&[libc::SYS_clone], libc::EINVAL);
        probe(Request::default())
    });
    assert!(said.finish().success().contains("the kernel is built or booted without them"));
}

#[test]
fn masked_proc_is_noted() {
    let said = start_as(user(), || {
        become_contained();
        let none = None::<&str>;
        mount(Some("tmpfs"), "/proc/sys", Some("tmpfs"), MsFlags::MS_RDONLY, none).expect("mask");
        let request = Request { unshare: Unshare { pid: true, ..Unshare::default() }, ..Request::default() };
        print(&Namespaces.notes(&Host::read(None), &request).join("\n"));
        Ok(Ended::Exited(0))
    });
    assert!(said.finish().success().contains("/proc shows the host's processes"));
    let request = Request { unshare: Unshare { pid: true, ..Unshare::default() }, ..Request::default() };
    assert_eq!(Namespaces.notes(&Host::read(None), &request), [""; 0]);
}

#[test]
fn the_probe_takes_well_under_a_millisecond_and_leaves_nothing() {
    let running = start_as(user(), || {
        let host = Host::read(None);
        let before = fs::read_link("/proc/self/ns/user").expect("readlink");
        let mut times: Vec<_> = (0..101)
            .map(|_| {
                let start = Instant::now();
                Namespaces.probe(&host, &ImageFacts::default(), &Request::default()).expect("accepted");
                start.elapsed()
            })
            .collect();
        times.sort();
        assert_eq!(fs::read_link("/proc/self/ns/user").expect("readlink"), before);
        print(&times[50].as_micros().to_string());
        Ok(Ended::Exited(0))
    });
    let micros: u32 = running.finish().success().parse().expect("a number");
    println!("probe: {micros} µs (median of 101)");
    if cfg!(debug_assertions) && micros >= 1000 {
        return skip("this machine is too busy to time anything");
    }
    assert!(micros < 1000, "{micros} µs");
}
