//! Random trees and random paths in them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use crate::random::Random;

const NAMES: [&str; 7] = ["a", "b", "c", "d", "x.y", "...", "dir with space"];

/// A tree and volumes on disk, and how they are put together.
pub(crate) struct World {
    pub(crate) root: PathBuf,
    /// Guest path, host path, in an order that mount(2) can follow.
    pub(crate) binds: Vec<(String, PathBuf)>,
    /// Guest directories that the test's user can enter.
    pub(crate) directories: Vec<String>,
    locked: bool,
}

impl World {
    /// Makes one below `top`, everything owned by `uid`; `locked`: some directories cannot be searched.
    pub(crate) fn make(top: &Path, uid: u32, locked: bool, random: &mut Random) -> Self {
        let root = top.join("tree");
        let mut world = Self { root: root.clone(), binds: Vec::new(), directories: vec!["/".into()], locked };
        fs::create_dir(&root).expect("mkdir");
        world.fill(&root, "", 0, uid, random);
        fs::create_dir_all(root.join("m/n")).expect("mkdir");
        fs::create_dir_all(root.join("proc")).expect("mkdir");
        fs::create_dir_all(root.join("dev")).expect("mkdir");
        fs::write(root.join("m/file"), "hidden").expect("write");
        symlink("/proc/self/fd", root.join("dev/fd")).expect("symlink");
        world.directories.extend(["/m".into(), "/m/n".into()]);
        let volume = top.join("volume");
        fs::create_dir(&volume).expect("mkdir");
        world.fill(&volume, "/m/n", 0, uid, random);
        world.binds.push(("/m/n".into(), volume.clone()));
        world.binds.push(("/proc".into(), "/proc".into()));
        let file = top.join("one-file");
        fs::write(&file, "a volume of one file").expect("write");
        world.binds.push(("/m/file".into(), file.clone()));
        fs::create_dir_all(volume.join("in/side")).expect("mkdir");
        let inner = top.join("inner");
        fs::create_dir(&inner).expect("mkdir");
        world.fill(&inner, "/m/n/in/side", 1, uid, random);
        world.directories.extend(["/m/n/in".into(), "/m/n/in/side".into()]);
        world.binds.push(("/m/n/in/side".into(), inner));
        for path in [
            root.join("m"),
            root.join("m/n"),
            root.join("dev"),
            file,
            volume.join("in"),
            volume.join("in/side"),
            root.clone(),
            volume,
        ] {
            own(&path, uid);
        }
        world
    }

    fn fill(&mut self, host: &Path, guest: &str, depth: usize, uid: u32, random: &mut Random) {
        for name in NAMES {
            if random.one_in(3) {
                continue;
            }
            let (path, inside) = (host.join(name), format!("{guest}/{name}"));
            match random.below(if depth < 3 { 8 } else { 4 }) {
                0 => {
                    fs::write(&path, "text").expect("write");
                    own(&path, uid);
                }
                1..4 => symlink(target(random), &path).expect("symlink"),
                kind => {
                    fs::create_dir(&path).expect("mkdir");
                    own(&path, uid);
                    let open = !self.locked || kind != 7 || !random.one_in(3);
                    let known = self.directories.len();
                    self.fill(&path, &inside, depth + 1, uid, random);
                    if open {
                        self.directories.push(inside);
                    } else {
                        // Nothing in it can be reached.
                        self.directories.truncate(known);
                        let mode = [0o600, 0o000, 0o400][random.below(3)];
                        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
                    }
                    if open && random.one_in(8) {
                        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).expect("chmod");
                    }
                }
            }
        }
        own(host, uid);
    }
}

fn own(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("chown");
}

/// A link's target, or a path to ask for.
pub(crate) fn target(random: &mut Random) -> String {
    match random.below(24) {
        0 => "/".into(),
        1 => "..".into(),
        2 => ".".into(),
        3 => "/proc/self/cwd".into(),
        4 => "/proc/self/root/m".into(),
        5 => "/m/n/".into(),
        _ => path(random),
    }
}

pub(crate) fn path(random: &mut Random) -> String {
    let mut path = String::new();
    if random.one_in(2) {
        path.push_str(random.pick(&["/", "/", "//", "/../", "/./", "/m/n/", "/m/n/in/", "/m/n/in/side/", "/m/file"]));
    }
    for at in 0..=random.below(5) {
        if at > 0 {
            path.push_str(random.pick(&["/", "/", "/", "/", "//"]));
        }
        match random.below(12) {
            0 => path.push('.'),
            1 | 2 => path.push_str(".."),
            3 if random.one_in(4) => path.push_str("missing"),
            3 if random.one_in(8) => path.push_str(&"l".repeat(256)),
            4 if random.one_in(2) => path.push_str(random.pick(&["m", "n", "m/n", "in", "in/side", "file"])),
            _ => path.push_str(NAMES[random.below(NAMES.len())]),
        }
    }
    path.push_str(random.pick(&["", "", "", "/", "//", "/.", "/.."]));
    path
}

/// A path through `/proc`.
pub(crate) fn proc_path(random: &mut Random) -> String {
    let link = random.pick(&[
        "/proc/self/cwd",
        "/proc/self/root",
        "/proc/self/fd/100",
        "/proc/thread-self/cwd",
        "/dev/fd/100",
        "/proc/self/fd/101",
        "/proc/self/task/../cwd",
        "/proc/./self/fd/../root",
        "/proc/self/fd/77",
        "/proc/self/ns/uts",
        "/m/../proc/self",
    ]);
    match random.below(5) {
        0 => link.into(),
        1 => format!("{link}/"),
        2 => format!("{link}/.."),
        _ => format!("{link}/{}", path(random)),
    }
}
