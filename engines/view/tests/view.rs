//! Views of a small tree on a real file system: made, opened again, refused, and links broken by many at once.

use std::{
    ffi::CString,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::Barrier,
};

use coracle_view::{Asked, FileId, Mark, Unshared, View, ViewError, truths};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A tree as the cache leaves one: files without write bits.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("usr/bin")).expect("mkdir");
        fs::create_dir_all(tree.join("var/mail")).expect("mkdir");
        for (name, text, mode) in [
            ("etc-hosts", "localhost\n", 0o444),
            ("usr/bin/tool", "#!/bin/sh\n", 0o555),
            ("usr/bin/secret", "s\n", 0o400),
        ] {
            fs::write(tree.join(name), text).expect("write");
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
        }
        fs::hard_link(tree.join("usr/bin/tool"), tree.join("usr/bin/same")).expect("link");
        symlink("usr/bin", tree.join("bin")).expect("symlink");
        fs::create_dir(dir.path().join("changes")).expect("mkdir");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> Result<View, ViewError> {
        let truths = self.path("truths");
        View::open(&Asked { tree: &self.path("tree"), truths: Some(&truths), changes: &self.path("changes") })
    }

    fn tell(&self, image: u8) {
        let truth = |mode| truths::Truth { mode, uid: 0, gid: 8 };
        let files = [
            (&b""[..], truth(0o755)),
            (b"etc-hosts", truth(0o644)),
            (b"usr/bin/tool", truth(0o4755)),
            (b"usr/bin/same", truth(0o4755)),
            (b"var/mail", truth(0o2775)),
        ];
        fs::write(self.path("truths"), truths::write(&[image; 32], files)).expect("write");
    }
}

fn id(path: &Path) -> FileId {
    let data = fs::symlink_metadata(path).expect("a file");
    let nanoseconds = u32::try_from(data.mtime_nsec()).expect("nanoseconds");
    FileId { device: data.dev(), inode: data.ino(), mtime: (data.mtime(), nanoseconds) }
}

fn name(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

#[test]
fn a_view_shares_files_and_knows_what_they_are() {
    let place = Place::new();
    place.tell(1);
    let view = place.open().expect("a view");
    let made = view.made().expect("made now");
    assert_eq!((made.directories, made.links, made.copies, made.others), (5, 4, 0, 1));
    let (tree, root) = (place.path("tree"), view.root());
    for file in ["etc-hosts", "usr/bin/tool", "usr/bin/same", "usr/bin/secret"] {
        assert_eq!(id(&tree.join(file)), id(&root.join(file)), "{file}");
    }
    assert_eq!(fs::read_link(root.join("bin")).expect("a link"), Path::new("usr/bin"));
    let marks = view.marks();
    let owner = Some((0, 8));
    assert_eq!(marks.find(&id(&root.join("etc-hosts"))), Some(Mark { mode: 0o644, links: 1, owner }));
    assert_eq!(marks.find(&id(&root.join("usr/bin/tool"))), Some(Mark { mode: 0o4755, links: 2, owner }));
    assert_eq!(marks.find(&id(&root.join("usr/bin/secret"))), Some(Mark { mode: 0o400, links: 1, owner: None }));
    assert_eq!(marks.find(&id(&root.join("usr"))), None);
    assert!(!marks.writable_on_disk());
    let mtime = |path: PathBuf| fs::metadata(path).expect("a directory").modified().expect("a time");
    assert_eq!(mtime(tree.join("usr/bin")), mtime(root.join("usr/bin")));
}

#[test]
fn a_view_is_made_once_and_outlives_its_tree() {
    let place = Place::new();
    place.tell(1);
    let root = place.open().expect("a view").root().to_owned();
    fs::write(root.join("new"), "mine").expect("write");
    fs::create_dir(place.path("changes/.view-1")).expect("a leftover");
    fs::remove_dir_all(place.path("tree")).expect("the cache is cleaned");
    let again = place.open().expect("the same view");
    assert!(again.made().is_none());
    assert_eq!(fs::read(again.root().join("new")).expect("kept"), b"mine");
    assert_eq!(fs::read(again.root().join("etc-hosts")).expect("kept"), b"localhost\n");
    assert!(again.marks().find(&id(&again.root().join("etc-hosts"))).is_some());
}

#[test]
fn what_is_no_view_of_this_image_is_refused() {
    let place = Place::new();
    place.tell(1);
    drop(place.open().expect("a view"));
    place.tell(2);
    let error = place.open().expect_err("another image").to_string();
    assert!(error.contains("another image (image 0101"), "{error}");
    place.tell(1);
    fs::write(place.path("changes/view/marks"), b"CORMARK1").expect("write");
    let error = place.open().expect_err("damaged").to_string();
    assert!(error.contains("cut short"), "{error}");
    fs::remove_file(place.path("changes/view/origin")).expect("remove");
    assert!(matches!(place.open(), Err(ViewError::Damaged { .. })));
    fs::create_dir(place.path("changes/upper")).expect("mkdir");
    assert!(matches!(place.open(), Err(ViewError::Overlay(_))));
}

#[test]
fn what_was_left_half_made_is_made_again() {
    let place = Place::new();
    place.tell(1);
    fs::create_dir_all(place.path("changes/.view-99/root/usr")).expect("mkdir");
    let view = place.open().expect("a view");
    assert!(view.root().join("usr/bin/tool").exists());
    assert!(!place.path("changes/.view-99").exists());
}

#[test]
fn a_broken_link_is_a_copy_with_everything() {
    let place = Place::new();
    place.tell(1);
    let view = place.open().expect("a view");
    let file = view.root().join("usr/bin/tool");
    let (shared, before) = (id(&file), fs::metadata(&file).expect("a file"));
    let directory = id(file.parent().expect("a parent"));
    let Ok(Unshared::Copied(new)) = view.unshare(&name(&file), &shared, 0o755) else { panic!("not copied") };
    assert_eq!(new, id(&file));
    assert_ne!(new.inode, shared.inode);
    assert_eq!(new.mtime, shared.mtime);
    assert_eq!(directory, id(file.parent().expect("a parent")), "its directory's time stays");
    assert_eq!(view.marks().find(&new), None);
    let after = fs::metadata(&file).expect("a file");
    assert_eq!((after.mode() & 0o7777, after.len(), after.nlink()), (0o755, before.len(), 1));
    assert_eq!(id(&view.root().join("usr/bin/same")), shared, "the other name is as it was");
    assert_eq!(view.unshare(&name(&file), &shared, 0o755), Ok(Unshared::Meanwhile));
    fs::remove_file(&file).expect("remove");
    assert_eq!(view.unshare(&name(&file), &shared, 0o755), Ok(Unshared::Meanwhile), "and stays removed");
    assert_eq!(fs::read_dir(place.path("changes/view/tmp")).expect("tmp").count(), 0);
}

#[test]
fn holes_stay_holes() {
    let place = Place::new();
    let sparse = place.path("tree/sparse");
    let file = fs::File::create(&sparse).expect("create");
    file.set_len(64 << 20).expect("set_len");
    std::os::unix::fs::FileExt::write_at(&file, b"end", (64 << 20) - 3).expect("write");
    drop(file);
    let view = place.open().expect("a view");
    let file = view.root().join("sparse");
    assert!(matches!(view.unshare(&name(&file), &id(&file), 0o600), Ok(Unshared::Copied(_))));
    let data = fs::metadata(&file).expect("a file");
    assert_eq!(data.len(), 64 << 20);
    assert!(data.blocks() < 1 << 11, "{} blocks", data.blocks());
    assert!(fs::read(&file).expect("its bytes").ends_with(b"\0end"));
}

#[test]
fn of_many_that_break_one_link_one_wins_and_no_new_file_is_lost() {
    let place = Place::new();
    place.tell(1);
    let view = place.open().expect("a view");
    for round in 0..50 {
        let file = view.root().join(format!("f{round}"));
        fs::hard_link(view.root().join("etc-hosts"), &file).expect("link");
        let (shared, path) = (id(&file), name(&file));
        let other = view.root().join(format!("o{round}"));
        fs::write(&other, "new").expect("write");
        let barrier = Barrier::new(5);
        let copied: usize = std::thread::scope(|scope| {
            let breaking: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        usize::from(matches!(view.unshare(&path, &shared, 0o644), Ok(Unshared::Copied(_))))
                    })
                })
                .collect();
            barrier.wait();
            if round % 2 == 0 {
                let _turn = view.turn();
                fs::rename(&other, &file).expect("rename");
            }
            breaking.into_iter().map(|thread| thread.join().expect("a thread")).sum()
        });
        assert!(copied <= 1, "{copied} copies");
        if round % 2 == 0 {
            assert_eq!(fs::read(&file).expect("the new file"), b"new", "round {round}");
        } else {
            assert_eq!(copied, 1);
        }
    }
    assert_eq!(fs::read(place.path("tree/etc-hosts")).expect("shared"), b"localhost\n");
}

#[test]
fn another_file_system_gets_copies() {
    let other = Path::new("/dev/shm");
    let place = Place::new();
    place.tell(1);
    let Ok(changes) = tempfile::tempdir_in(other) else { return };
    if fs::metadata(changes.path()).expect("stat").dev() == fs::metadata(place.path("tree")).expect("stat").dev() {
        return;
    }
    let truths = place.path("truths");
    let tree = place.path("tree");
    let view = View::open(&Asked { tree: &tree, truths: Some(&truths), changes: changes.path() }).expect("a view");
    let made = view.made().expect("made now");
    assert_eq!((made.copies, made.links), (3, 1), "the second name of one file is a link");
    let root = view.root();
    assert_eq!(id(&root.join("usr/bin/tool")).inode, id(&root.join("usr/bin/same")).inode);
    let mode = |file: &str| fs::metadata(root.join(file)).expect("a file").mode() & 0o7777;
    assert_eq!((mode("usr/bin/tool"), mode("etc-hosts"), mode("usr/bin/secret")), (0o755, 0o644, 0o400));
    assert!(view.marks().find(&id(&root.join("etc-hosts"))).is_none(), "copies are its own");
    assert!(root.join("bin/tool").exists());
}

/// What a guest does to a view's root, in words and in deed.
type Change<'c> = (&'c str, &'c dyn Fn(&Path));

#[test]
fn an_untouched_view_is_kept_for_the_next_and_a_touched_one_is_not() {
    use coracle_view::spare;
    let place = Place::new();
    let changes = place.path("changes");
    let give = |place: &Place| {
        let truths = place.path("truths");
        spare(&Asked { tree: &place.path("tree"), truths: Some(&truths), changes: &changes }).expect("looked at")
    };
    place.tell(1);
    let view = place.open().expect("made");
    assert!(view.made().is_some_and(|made| made.links > 0));
    fs::write(view.ledger(), "owners").expect("written");
    view.copies_file().expect("made");
    let first = fs::metadata(view.root()).expect("there").ino();
    drop(view);
    assert!(give(&place), "nothing has changed");
    assert!(!changes.join("view").exists());
    let view = place.open().expect("taken");
    assert_eq!(view.made(), Some(coracle_view::Made::default()));
    assert_eq!(fs::metadata(view.root()).expect("there").ino(), first, "the same one");
    assert!(!view.ledger().exists() && !place.path("spare").exists());
    assert!(view.marks().slots() > 0);

    // Whatever a guest does shows.
    let tool = view.root().join("usr/bin/tool");
    let changes_made: [Change<'_>; 9] = [
        ("a new file", &|root| fs::write(root.join("usr/new"), "").expect("written")),
        ("come and gone", &|root| {
            fs::write(root.join("new"), "").expect("written");
            fs::remove_file(root.join("new")).expect("removed");
        }),
        ("gone", &|root| fs::remove_file(root.join("usr/bin/secret")).expect("removed")),
        ("another link", &|root| {
            fs::remove_file(root.join("bin")).expect("removed");
            symlink("usr/lib", root.join("bin")).expect("linked");
        }),
        ("another mode", &|root| {
            fs::set_permissions(root.join("usr"), fs::Permissions::from_mode(0o700)).expect("changed");
        }),
        ("another file of that name", &|root| {
            let text = fs::read(root.join("etc-hosts")).expect("read");
            fs::remove_file(root.join("etc-hosts")).expect("removed");
            fs::write(root.join("etc-hosts"), text).expect("written");
        }),
        ("two names exchanged", &|root| {
            fs::rename(root.join("usr/bin/tool"), root.join("x")).expect("renamed");
            fs::rename(root.join("usr/bin/secret"), root.join("usr/bin/tool")).expect("renamed");
            fs::rename(root.join("x"), root.join("usr/bin/secret")).expect("renamed");
        }),
        ("a time", &|root| {
            let old = std::time::SystemTime::UNIX_EPOCH;
            fs::File::open(root.join("var/mail")).and_then(|dir| dir.set_modified(old)).expect("set");
        }),
        ("a copy on its way", &|root| fs::write(root.with_file_name("tmp").join("1-0"), "").expect("written")),
    ];
    assert!(tool.exists());
    drop(view);
    for (what, change) in changes_made {
        fs::remove_dir_all(changes.join("view")).expect("removed");
        let view = place.open().expect("made");
        assert!(view.made().is_some_and(|made| made.links > 0), "{what}");
        // Times are put back as a guest can put them back, to show that they are not all that counts.
        let root = view.root().to_owned();
        let times: Vec<_> = ["", "usr", "usr/bin"]
            .map(|name| {
                (root.join(name), fs::metadata(root.join(name)).and_then(|meta| meta.modified()).expect("a time"))
            })
            .into();
        drop(view);
        change(&root);
        if what != "come and gone" {
            for (dir, time) in times {
                fs::File::open(dir).and_then(|dir| dir.set_modified(time)).expect("set back");
            }
        }
        assert!(!give(&place), "{what}");
        assert!(!place.path("spare").exists(), "{what}");
    }

    // One of another tree, or of another image, is left alone.
    fs::remove_dir_all(changes.join("view")).expect("removed");
    place.open().expect("made");
    assert!(give(&place));
    fs::rename(place.path("tree"), place.path("old")).expect("renamed");
    let copied = std::process::Command::new("cp").arg("-a").args([place.path("old"), place.path("tree")]).status();
    assert!(copied.expect("cp").success());
    let view = place.open().expect("made");
    assert!(view.made().is_some_and(|made| made.links > 0), "the spare one is of a tree that is gone");
    drop(view);
    assert!(!give(&place), "there is a spare one already");
    assert!(changes.join("view").exists());
}
