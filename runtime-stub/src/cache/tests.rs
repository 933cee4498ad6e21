//! A cache of its own for each test: found, damaged, planted, waited for.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, symlink},
        },
    },
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;
use crate::testing::{Folder, Sample};

struct Cache {
    folder: Folder,
    bundle: Bundle,
    options: CacheOptions,
}

impl Cache {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        Sample::tree(100).write(&folder.path("bundle"));
        let bundle = Bundle::open(&folder.path("bundle")).unwrap();
        fs::create_dir(folder.path("cache")).unwrap();
        let settings = Settings { cache: Some(folder.path("cache")), ..Settings::default() };
        let options = CacheOptions { settings, threads: Some(2), ..CacheOptions::default() };
        Self { folder, bundle, options }
    }

    fn acquire(&self) -> (Cached, Vec<Event>) {
        let mut events = Vec::new();
        let cached = acquire(&self.bundle, &self.options, &mut |event| events.push(event)).unwrap();
        (cached, events)
    }

    fn base(&self) -> PathBuf {
        self.folder.path(&format!("cache/coracle-{}", nix::unistd::geteuid()))
    }

    /// Trees and views in the cache's directory.
    fn roots(&self) -> Vec<PathBuf> {
        let paths = fs::read_dir(self.base()).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.file_name().unwrap().as_bytes().starts_with(b"root-")).collect()
    }

    /// Names in the cache's directory that begin with a dot.
    fn temporaries(&self) -> Vec<String> {
        let names = fs::read_dir(self.base()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

fn damages(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Damaged { .. })).count()
}

#[test]
fn a_tree_is_unpacked_once_and_then_found() {
    let cache = Cache::new("once");
    let (first, events) = cache.acquire();
    assert!(!first.hit && first.stats.is_some());
    assert!(matches!(&events[..], [Event::Unpacking { .. }]), "{events:?}");
    let (second, events) = cache.acquire();
    assert!(second.hit && events.is_empty(), "{events:?}");
    assert_eq!((&first.root, &first.dir), (&second.root, &cache.base().join(hex(cache.bundle.index_digest()))));
    assert_eq!(first.root.parent(), Some(&*cache.base()));
    assert_eq!(first.dir.join("root").canonicalize().unwrap(), first.root);
    assert_eq!(fs::read(&second.index).unwrap(), cache.bundle.index_bytes().unwrap());
    let names = fs::read(&second.names).unwrap();
    let table = coracle_paths::Table::new(&names).unwrap();
    assert!(coracle_paths::Table::is_whole(&names));
    for entry in &cache.bundle.index().unwrap().entries {
        let there = fs::symlink_metadata(second.root.join(OsStr::from_bytes(&entry.path))).ok();
        let kind = table.find(&entry.path).map(|node| table.kind(node));
        assert_eq!(kind.is_some(), there.is_some(), "{entry:?}");
        let is_dir = kind == Some(coracle_paths::table::Kind::Directory);
        assert_eq!(is_dir, there.is_some_and(|meta| meta.is_dir()), "{entry:?}");
    }
    assert_eq!(fs::metadata(&second.dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(cache.base()).unwrap().mode() & 0o777, 0o700);
    assert!(cache.temporaries().is_empty());
    // The lock holds although the first descriptor was closed, and survives exec.
    drop(first);
    let lease = File::open(second.dir.join("lease")).unwrap();
    assert!(lock::flock(lease.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB).is_err());
    // SAFETY: F_GETFD touches no memory.
    assert_eq!(unsafe { libc::fcntl(second.lease.as_raw_fd(), libc::F_GETFD) }, 0);
}

#[test]
fn what_a_cleaner_deletes_is_noticed_and_unpacked_again() {
    let cache = Cache::new("cleaner");
    let (cached, _) = cache.acquire();
    let dir = cached.dir.clone();
    drop(cached);
    for victim in ["canary", "trust", "index", "lease", "root/bin/sh", "root/usr/000/00007"] {
        let path = dir.join(victim);
        fs::remove_file(&path).unwrap();
        let (cached, events) = cache.acquire();
        assert_eq!((damages(&events), cached.hit), (1, false), "{victim}: {events:?}");
        assert!(path.exists(), "{victim}");
        assert!(cache.acquire().0.hit, "{victim}");
        assert!(cache.temporaries().is_empty(), "{victim}: {:?}", cache.temporaries());
        assert_eq!(cache.roots().len(), 1, "{victim}");
    }
}

#[test]
fn the_canary_is_the_oldest_file_of_its_tree() {
    let cache = Cache::new("oldest");
    let (cached, _) = cache.acquire();
    let newest = |path: &Path| {
        let data = fs::symlink_metadata(path).unwrap();
        [(data.atime(), data.atime_nsec()), (data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec())]
            .into_iter()
            .max()
    };
    let canary = newest(&cached.dir.join("canary"));
    for name in ["lease", "index", "trust", "root", "root/bin/large", "root/usr/000/00001", "root/etc/link"] {
        assert!(canary <= newest(&cached.dir.join(name)), "{name}");
    }
}

#[test]
fn a_damaged_tree_that_is_in_use_stays_until_its_job_ends() {
    let cache = Cache::new("in-use");
    let (old, _) = cache.acquire();
    let running = File::open(&old.root).unwrap();
    fs::remove_file(old.dir.join("canary")).unwrap();
    let (new, events) = cache.acquire();
    assert_eq!(damages(&events), 1);
    assert_ne!(new.root, old.root);
    let seen = format!("/proc/self/fd/{}/bin/sh", running.as_raw_fd());
    for name in [Path::new(&seen), &old.root.join("bin/sh"), &new.root.join("bin/sh")] {
        assert_eq!(fs::read(name).unwrap(), b"#!/bin/sh\n");
    }
    assert_eq!(cache.temporaries().len(), 1);
    // The next one that unpacks removes it, once its lease is free.
    let gone = old.root.clone();
    drop((old, new));
    let age = SystemTime::now() - Duration::from_secs(100);
    let left = cache.base().join(&cache.temporaries()[0]);
    File::open(&left).unwrap().set_modified(age).unwrap();
    fs::remove_dir_all(cache.base().join(hex(cache.bundle.index_digest()))).unwrap();
    cache.acquire();
    assert!(cache.temporaries().is_empty(), "{:?}", cache.temporaries());
    assert!(fs::read(seen).is_err() && !gone.exists());
}

#[test]
fn after_another_boot_a_tree_is_compared_or_unpacked_again() {
    let cache = Cache::new("boot");
    let (cached, _) = cache.acquire();
    let trust = cached.dir.join("trust");
    let lease = cached.dir.join("lease");
    drop(cached);
    let text = fs::read_to_string(&trust).unwrap();
    let (before, _) = text.split_once("boot ").unwrap();
    let other_boot = format!("{before}boot 00000000-0000-0000-0000-000000000000\n");

    // The node may have gone down before the kernel had written everything.
    fs::write(&trust, &other_boot).unwrap();
    let (cached, events) = cache.acquire();
    assert_eq!((damages(&events), cached.hit), (1, false), "{events:?}");
    drop(cached);

    // Somebody used it long after it was unpacked, so it is on the disk: names, sizes and times are enough.
    let late = SystemTime::now() + Duration::from_secs(1000);
    fs::write(&trust, &other_boot).unwrap();
    File::options().write(true).open(&lease).unwrap().set_modified(late).unwrap();
    let (cached, events) = cache.acquire();
    assert_eq!((events.len(), cached.hit), (0, true), "{events:?}");
    assert_eq!(fs::read_to_string(&trust).unwrap(), format!("{other_boot}boot {}\n", trust::boot_id()));
    let victim = cached.root.join("usr/001/00060");
    drop(cached);

    fs::write(&trust, &other_boot).unwrap();
    File::options().write(true).open(&lease).unwrap().set_modified(late).unwrap();
    let times = fs::metadata(victim.parent().unwrap()).unwrap().modified().unwrap();
    fs::rename(&victim, victim.with_file_name("renamed")).unwrap();
    File::open(victim.parent().unwrap()).unwrap().set_modified(times).unwrap();
    let (_, events) = cache.acquire();
    assert!(matches!(&events[0], Event::Damaged { why, .. } if why.contains("00060")), "{events:?}");
}

#[test]
fn a_directory_that_somebody_else_could_have_made_is_passed_over() {
    let cache = Cache::new("planted");
    let (base, other) = (cache.base(), cache.folder.path("other"));
    fs::create_dir(&other).unwrap();
    let use_other = |cache: &mut Cache| {
        cache.options.settings.cache_config = Some(other.clone());
        let (cached, events) = cache.acquire();
        assert!(cached.root.starts_with(&other), "{}", cached.root.display());
        let reason = events.iter().find_map(|event| match event {
            Event::Skipped(skipped) => Some(skipped.reason.clone()),
            _ => None,
        });
        fs::remove_dir_all(&other).unwrap();
        reason.unwrap()
    };
    let mut cache = cache;
    symlink("/tmp", &base).unwrap();
    assert!(use_other(&mut cache).contains("somebody put it there"));
    fs::remove_file(&base).unwrap();
    fs::write(&base, "").unwrap();
    assert!(use_other(&mut cache).contains("no directory"));
    fs::remove_file(&base).unwrap();
    fs::create_dir(&base).unwrap();
    fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(use_other(&mut cache).contains("can be written by others"));
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&base, Some(4711), None).unwrap();
        assert!(use_other(&mut cache).contains("belongs to user 4711"));
    } else {
        harness::skip::because("a directory of another user: only root can make one");
    }
}

#[test]
fn an_unpacker_that_makes_no_progress_is_not_waited_for() {
    let mut cache = Cache::new("patience");
    cache.options.patience = Duration::from_millis(1300);
    fs::create_dir(cache.base()).unwrap();
    fs::set_permissions(cache.base(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let lock = cache.base().join(format!("{}.lock", hex(cache.bundle.index_digest())));
    let stuck = File::create(&lock).unwrap();
    fs::write(&lock, "4711                1          2\n").unwrap();
    lock::flock(stuck.as_raw_fd(), libc::LOCK_EX).unwrap();
    let (cached, events) = cache.acquire();
    assert!(!cached.hit && cached.root.join("bin/sh").exists());
    assert!(
        matches!(
            &events[..],
            [Event::Waiting { pid: Some(4711), .. }, Event::GaveUp { pid: Some(4711), .. }, Event::Unpacking { .. }]
        ),
        "{events:?}"
    );
}

#[test]
fn many_at_once_unpack_once() {
    let cache = Cache::new("many");
    let unpacked = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let (cached, _) = cache.acquire();
                assert!(cached.root.join("bin/sh").exists());
                unpacked.fetch_add(usize::from(!cached.hit), std::sync::atomic::Ordering::Relaxed);
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 1);
    assert!(cache.temporaries().is_empty());
}

#[test]
fn what_killed_processes_left_is_removed_and_what_lives_is_not() {
    let cache = Cache::new("left");
    let base = cache.base();
    for name in [".new-4194305-dead", ".run-4194305-held", ".new-1-alive"] {
        fs::create_dir_all(base.join(name).join("root/bin")).unwrap();
        fs::write(base.join(name).join("lease"), "").unwrap();
    }
    // As overlayfs leaves one.
    let locked = base.join(".run-4194305-dead/changes/work/work");
    fs::create_dir_all(&locked).unwrap();
    fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let held = File::open(base.join(".run-4194305-held/lease")).unwrap();
    lock::flock(held.as_raw_fd(), libc::LOCK_SH).unwrap();
    cache.acquire();
    let mut left = cache.temporaries();
    left.sort();
    assert_eq!(left, [".new-1-alive", ".run-4194305-held"]);
}

#[test]
fn a_private_tree_goes_with_its_run() {
    let mut cache = Cache::new("private");
    cache.options.private = true;
    cache.options.settings.scratch = cache.options.settings.cache.take();
    let (cached, _) = cache.acquire();
    assert!(cached.private && cached.root.join("bin/sh").exists());
    assert!(!cache.base().join(hex(cache.bundle.index_digest())).exists());
    cached.remove().unwrap();
    assert!(cache.temporaries().is_empty());
}

#[test]
fn a_damaged_payload_leaves_nothing() {
    let cache = Cache::new("damaged");
    let file = cache.folder.path("bundle");
    let mut bytes = fs::read(&file).unwrap();
    bytes[4200] ^= 4;
    fs::write(&file, bytes).unwrap();
    let error = acquire(&cache.bundle, &cache.options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, CacheError::Unpack(UnpackError::Frame { .. })), "{error}");
    assert!(cache.temporaries().is_empty() && cache.roots().is_empty());
}

#[test]
fn cleaning_up_removes_what_no_job_uses() {
    let cache = Cache::new("cleanup");
    let (cached, _) = cache.acquire();
    // Not `cleanup` itself, which would look at this machine's own places too.
    let place = Place { path: cache.folder.path("cache"), origin: "test", chosen: true };
    let base = Base::open(&place, false).unwrap();
    let kept = unused::remove_trees(&base);
    assert_eq!(kept, [Cleaned { path: cached.dir.clone(), removed: false }]);
    assert!(cached.root.join("bin/sh").exists());
    drop(cached);
    assert!(unused::remove_trees(&base).iter().all(|one| one.removed));
    assert_eq!(fs::read_dir(cache.base()).unwrap().count(), 0);
}

#[test]
fn roots_go_with_what_names_them_and_the_lost_ones_are_found() {
    let cache = Cache::new("roots");
    let (cached, _) = cache.acquire();
    let base = cache.base();
    // Killed before its root was there, or when it was half made.
    let plant = |dir: &str, target: &str| {
        fs::create_dir_all(base.join(dir)).unwrap();
        symlink(target, base.join(dir).join("root")).unwrap();
    };
    let half = |name: &str| {
        fs::create_dir_all(base.join(name).join("bin")).unwrap();
        fs::write(base.join(name).join("bin/sh"), "half").unwrap();
        base.join(name)
    };
    plant(".new-4194305-bare", "../root-0000000000");
    plant(".new-4194305-half", "../root-0000000001");
    plant(".old-4194305-tree/view-x-y", "../../root-0000000002");
    plant(".old-4194305-tree/.new-4194305-view", "../../root-0000000003");
    let left = [half("root-0000000001"), half("root-0000000002"), half("root-0000000003")];
    // No name of ours, or another place: nothing of that is touched.
    let outside = cache.folder.path("outside");
    fs::create_dir(&outside).unwrap();
    plant(".old-4194305-else", "../../outside");
    plant(".run-4194305-guest", &format!("../{}", cached.root.file_name().unwrap().display()));
    let place = Place { path: cache.folder.path("cache"), origin: "test", chosen: true };
    unused::sweep(&Base::open(&place, false).unwrap());
    assert!(left.iter().all(|root| !root.exists()) && outside.is_dir());
    assert!(cache.temporaries().is_empty(), "{:?}", cache.temporaries());
    assert_eq!(cache.roots(), std::slice::from_ref(&cached.root));

    // What nothing names goes when it has been so for a while; a tree's own and its views' never do.
    let lost = half("root-lost000000");
    plant(&format!("{}/view-x-y", cached.dir.file_name().unwrap().display()), "../../root-view000000");
    let view = half("root-view000000");
    assert_eq!(roots::lost_before(&base, SystemTime::now() - Duration::from_secs(5)), Vec::<PathBuf>::new());
    let later = SystemTime::now() + Duration::from_secs(5);
    assert_eq!(roots::lost_before(&base, later), std::slice::from_ref(&lost));
    fs::remove_file(cached.dir.join("view-x-y/root")).unwrap();
    let mut found = roots::lost_before(&base, later);
    found.sort();
    assert_eq!(found, [lost, view]);
}

#[test]
fn a_tree_with_its_root_inside_is_as_good() {
    let cache = Cache::new("inside");
    let (cached, _) = cache.acquire();
    let (dir, root) = (cached.dir.clone(), cached.root.clone());
    fs::remove_file(dir.join("root")).unwrap();
    let times = fs::metadata(&root).unwrap().modified().unwrap();
    fs::rename(&root, dir.join("root")).unwrap();
    File::open(dir.join("root")).unwrap().set_modified(times).unwrap();
    drop(cached);
    let (cached, events) = cache.acquire();
    assert!(cached.hit && events.is_empty() && cached.root == dir.join("root"), "{events:?}");
    // A link that leads elsewhere is none.
    fs::rename(dir.join("root"), &root).unwrap();
    symlink(&root, dir.join("root")).unwrap();
    drop(cached);
    let (cached, events) = cache.acquire();
    assert_eq!((damages(&events), cached.root != root), (1, true), "{events:?}");
}
