//! Stores on file systems that share blocks between files: trees of containers' own take no room there.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Sandbox, skip};

/// A file system in a file, mounted as long as this lives.
struct Disk {
    place: PathBuf,
}

impl Disk {
    fn new(sandbox: &Sandbox, make: &[&str]) -> Option<Self> {
        let image = sandbox.path().join("disk");
        let place = sandbox.make_dir("home/disk");
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let made = Command::new(make[0]).args(&make[1..]).arg(&image).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place).output().unwrap();
        if !mounted.status.success() {
            skip::because(&format!("{} cannot be mounted here", make[0].trim_start_matches("mkfs.")));
            return None;
        }
        let disk = Self { place };
        sandbox.own(&disk.place);
        Some(disk)
    }

    /// Bytes that are in use.
    fn used(&self) -> u64 {
        let synced = Command::new("sync").arg("-f").arg(&self.place).status().unwrap();
        assert!(synced.success());
        let told = Command::new("df").args(["--output=used", "-B1"]).arg(&self.place).output().unwrap();
        String::from_utf8_lossy(&told.stdout).lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).status();
    }
}

/// `1.5MB (virtual 12MB)` in bytes.
fn sizes(told: &str) -> (f64, f64) {
    let bytes = |text: &str| {
        let digits: String = text.chars().take_while(|char| char.is_ascii_digit() || *char == '.').collect();
        let unit = match &text[digits.len()..] {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            other => panic!("{other}"),
        };
        digits.parse::<f64>().unwrap() * unit
    };
    let (own, all) = told.split_once(" (virtual ").unwrap_or_else(|| panic!("{told}: nothing is shared"));
    (bytes(own), bytes(all.trim_end_matches(')')))
}

fn on(make: &[&str]) {
    if skip::unless_root() || skip::lacks(&[make[0], "mount"]) {
        return;
    }
    let mut sandbox = Sandbox::new();
    let Some(disk) = Disk::new(&sandbox, make) else { return };
    sandbox.set("CORACLE_DIR", disk.place.join("store"));
    let Some(()) = sandbox.import_alpine() else { return };
    let coracle = |args: &[&str]| sandbox.coracle(args).ok().to_owned();
    coracle(&["create", "--name=one", "alpine:1"]);
    coracle(&["create", "--name=two", "alpine:1"]);
    let before = disk.used();
    let [one, two] = ["one", "two"].map(|name| coracle(&["inspect", "-p", name]));
    coracle(&["clone", "--name=three", "one"]);
    let taken = disk.used() - before;
    for name in ["one", "two"] {
        assert_eq!(coracle(&["inspect", "-f", "{{.Sharing}}", name]), "reflink");
    }
    let size =
        |name: &str| sizes(&coracle(&["ps", "-s", "--filter", &format!("name={name}"), "--format", "{{.Size}}"]));
    let (own, all) = size("one");
    assert!(all > 7e6 && own * 4.0 < all, "{own} of {all}");
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let taken = taken as f64;
    assert!(taken < all, "three trees take less than one: {taken} and {all}");
    // What one changes in place, the others do not see; and what it has for itself is told.
    let script = "echo mine >> /etc/motd; cat /bin/busybox /bin/busybox > /tmp/big; dd if=/dev/zero of=/lib/libcrypto.so.3 bs=1k count=2048 conv=notrunc 2>/dev/null";
    for engine in ["R1", "P1"] {
        coracle(&["run", "--execmode", engine, "one", "sh", "-c", script]);
    }
    let read = |root: &str| std::fs::read_to_string(Path::new(root).join("etc/motd")).unwrap();
    assert_eq!((read(&one).matches("mine").count(), read(&two).matches("mine").count()), (2, 0));
    assert_eq!(coracle(&["run", "three", "grep", "-c", "Welcome", "/etc/motd"]), "1");
    // Until it is written, btrfs tells of blocks as they were.
    disk.used();
    let (more, _) = size("one");
    assert!(more > own + 3e6, "{own} was, {more} is its own");
    assert!(coracle(&["verify"]).ends_with("all whole"));
    coracle(&["rm", "one", "two", "three"]);
}

#[test]
fn trees_share_blocks_on_xfs() {
    on(&["mkfs.xfs", "-q", "-m", "reflink=1"]);
}

#[test]
fn trees_share_blocks_on_btrfs() {
    on(&["mkfs.btrfs", "-q"]);
}
