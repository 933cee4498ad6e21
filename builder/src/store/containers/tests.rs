//! Containers in a store of their own: appearing, vanishing, names.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("s")).expect("a store");
    (dir, store)
}

fn make(store: &Store, name: Option<&str>) -> Container {
    let draft = store.containers().begin(name).expect("begun");
    draft.finish(Settings::default(), name).expect("made")
}

#[test]
fn a_container_appears_whole_and_vanishes_whole() {
    let (_dir, store) = store();
    let all = store.containers();
    let draft = all.begin(Some("web")).expect("begun");
    assert!(all.list().expect("listed").is_empty() && all.leftovers().expect("listed").is_empty());
    let abandoned = all.begin(None).expect("begun");
    drop(abandoned);
    fs::write(draft.root().join("file"), "x").expect("written");
    let settings = Settings { image: "alpine".into(), ..Settings::default() };
    let made = draft.finish(settings, Some("web")).expect("made");
    assert_eq!(all.resolve("web").expect("found"), made);
    assert_eq!(all.resolve(made.short_id()).expect("found"), made);
    assert_eq!(all.resolve(made.id()).expect("found"), made);
    assert_eq!(made.settings().expect("read").image, "alpine");
    assert!(made.settings().expect("read").created > 0);
    assert!(made.root().join("file").exists());
    all.remove(&made, false).expect("removed");
    assert!(matches!(all.remove(&made, false), Err(ContainerError::NoSuch { .. })));
    assert!(matches!(all.resolve("web"), Err(ContainerError::NoSuch { .. })));
    assert!(all.names().expect("listed").is_empty() && all.leftovers().expect("listed").is_empty());
    assert_eq!(fs::read_dir(all.directory()).expect("listed").count(), 0);
}

#[test]
fn names_are_unique_and_may_be_several() {
    let (_dir, store) = store();
    let all = store.containers();
    let (one, two) = (make(&store, Some("one")), make(&store, None));
    assert!(matches!(all.begin(Some("one")), Err(ContainerError::Taken { .. })));
    assert!(matches!(all.add_name(&two, "one"), Err(ContainerError::Taken { .. })));
    let late = all.begin(None).expect("begun");
    assert!(matches!(late.finish(Settings::default(), Some("one")), Err(ContainerError::Taken { .. })));
    assert_eq!(all.list().expect("listed").len(), 2, "nothing is left of the late one");
    all.add_name(&one, "uno").expect("given");
    all.rename(&one, Some("one"), "first").expect("renamed");
    assert_eq!(all.names().expect("listed")[one.id()], ["first", "uno"]);
    all.remove_name("uno").expect("taken");
    assert!(all.remove_name("uno").is_err());
    all.add_name(&two, "one").expect("it is free again");
    // A name whose container was lost counts for nothing, and goes to whoever wants it.
    fs::remove_dir_all(one.directory()).expect("removed");
    assert!(all.resolve("first").is_err());
    all.add_name(&two, "first").expect("free");
    assert_eq!(all.resolve("first").expect("found"), two);
}

#[test]
fn a_running_or_protected_container_stays() {
    let (_dir, store) = store();
    let (all, made) = (store.containers(), make(&store, None));
    assert_eq!(made.state().expect("known"), State::Created);
    let lease = made.lease().expect("taken");
    assert!(made.is_running().expect("known"));
    let other = made.lease().expect("two may run at once");
    assert!(matches!(all.remove(&made, true), Err(ContainerError::Running { .. })));
    drop((lease, other));
    made.change(|settings| settings.protected = true).expect("changed");
    assert!(matches!(all.remove(&made, true), Err(ContainerError::Protected { .. })));
    made.change(|settings| settings.protected = false).expect("changed");
    all.remove(&made, false).expect("removed");
    assert!(matches!(made.lease(), Err(ContainerError::NoSuch { .. })));
    assert!(matches!(made.change(|_| {}), Err(ContainerError::NoSuch { .. })));
}

#[test]
fn beginnings_of_ids_and_damage() {
    let (_dir, store) = store();
    let all = store.containers();
    let made: Vec<Container> = (0..17).map(|_| make(&store, None)).collect();
    // Of seventeen hexadecimal digits two are the same.
    let twice = made.iter().find(|one| made.iter().filter(|other| other.id()[..1] == one.id()[..1]).count() > 1);
    let first = &twice.expect("two of them").id()[..1];
    assert!(matches!(all.resolve(first), Err(ContainerError::Ambiguous { .. })));
    assert!(matches!(all.resolve(""), Err(ContainerError::NoSuch { .. })));
    let json = made[0].directory().join("container.json");
    fs::write(&json, "{\"version\": 1,").expect("written");
    assert!(matches!(all.remove(&made[0], false), Err(ContainerError::Damaged { .. })));
    assert!(made[0].root().exists());
    all.remove(&made[0], true).expect("removed by force");
    fs::write(made[1].directory().join("container.json"), "{\"version\": 99}").expect("written");
    assert!(matches!(all.remove(&made[1], true), Err(ContainerError::Newer { version: 99, .. })));
}

#[test]
fn trees_of_any_modes_and_depth_are_removed() {
    let (dir, store) = store();
    let made = make(&store, None);
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("kept"), "x").expect("written");
    let closed = made.root().join("closed/inner");
    fs::create_dir_all(&closed).expect("made");
    fs::write(closed.join("file"), "x").expect("written");
    std::os::unix::fs::symlink(&outside, closed.join("link")).expect("linked");
    // Deeper than a path may be long.
    let mut at =
        nix::fcntl::open(&made.root(), nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).expect("open");
    for _ in 0..1500 {
        nix::sys::stat::mkdirat(&at, "deep", nix::sys::stat::Mode::S_IRWXU).expect("made");
        at = nix::fcntl::openat(&at, "deep", nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).expect("open");
    }
    for path in [&closed, closed.parent().expect("a parent"), &made.root()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).expect("closed");
    }
    store.containers().remove(&made, false).expect("removed");
    assert!(!made.directory().exists() && outside.join("kept").exists());
    assert_eq!(fs::read_dir(store.root().join("trash")).expect("listed").count(), 0);
}

#[test]
fn what_a_killed_command_left_is_swept() {
    let (_dir, store) = store();
    let all = store.containers();
    let draft = all.begin(None).expect("begun");
    // As if its maker had been killed: the lock is gone, the directory is not.
    let left = all.directory().join(format!(".new-{}", "0".repeat(32)));
    fs::create_dir_all(left.join("ROOT")).expect("made");
    fs::write(left.join("lease"), "").expect("written");
    fs::create_dir_all(all.trash().join("x")).expect("made");
    assert_eq!(all.leftovers().expect("listed").len(), 2);
    assert_eq!(all.sweep().expect("swept"), 2);
    assert!(!left.exists() && draft.root().exists());
}
