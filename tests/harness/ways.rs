//! The files that the probe `tests/guests/ways.c` tries to change.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

/// One for each of its ways, and a few.
const COUNT: usize = 70;

/// Lays them out in the tree at `root`.
///
/// # Panics
/// If the host does not let it.
pub fn plant(root: &Path) {
    let ways = root.join("ways");
    for dir in ["dir/deep", "locked"] {
        fs::create_dir_all(ways.join(dir)).unwrap();
    }
    let names = (0..COUNT).map(|number| format!("{number:02}"));
    let named = ["source", "one", "ro", "none", "run", "dir/deep/file", "locked/file"].map(str::to_owned);
    // For a storm: files that one thread appends to, and files in other directories.
    let own = (0..6).map(|number| format!("own{number}"));
    let below = ["dir/", "dir/deep/", "locked/"]
        .into_iter()
        .flat_map(|dir| [0, 7, 13, 22, 31, 44].map(|at| format!("{dir}{at:02}")));
    for name in names.chain(named).chain(own).chain(below) {
        let path = ways.join(&name);
        fs::write(&path, "text\n").unwrap();
        let mode = match name.as_str() {
            "none" => 0o444,
            "run" => 0o4755,
            _ => 0o644,
        };
        let set = Command::new("setfattr").args(["-n", "user.note", "-v", "old"]).arg(&path).status();
        assert!(set.unwrap().success(), "setfattr");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().read(true).open(&path).unwrap().set_modified(time).unwrap();
    }
    fs::hard_link(ways.join("one"), ways.join("two")).unwrap();
}
