//! The walk against the live kernel: a real directory as tree, readlink(2) as host.

#[path = "common/live.rs"]
mod live;

use std::{fs, os::unix::fs::symlink};

use coracle_paths::{Base, Bind, Buffers, Errno, Last, Request, View, resolve};
use live::Live;

fn walk(view: &View<'_>, cwd: &str, path: &str, last: Last) -> Result<(String, String), Errno> {
    let mut buffers = Box::new(Buffers::new());
    let request =
        Request { root: b"/", base: Base { guest: cwd.as_bytes(), deleted: false }, path: path.as_bytes(), last };
    resolve(view, &Live { asks: false }, &request, &mut buffers).map(|found| {
        (String::from_utf8_lossy(found.host.to_bytes()).into_owned(), String::from_utf8_lossy(found.guest).into_owned())
    })
}

#[test]
fn rules() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let top = dir.path().canonicalize().expect("its real path");
    let root = top.join("tree");
    let volume = top.join("volume");
    fs::create_dir_all(root.join("usr/bin")).expect("mkdir");
    fs::create_dir_all(root.join("mnt/data/hidden")).expect("mkdir");
    fs::create_dir_all(volume.join("sub")).expect("mkdir");
    fs::write(root.join("usr/bin/busybox"), "").expect("write");
    symlink("/usr/bin/busybox", root.join("sh")).expect("symlink");
    symlink("usr/bin", root.join("bin")).expect("symlink");
    symlink("../../../../../usr", root.join("usr/up")).expect("symlink");
    symlink("loop", root.join("loop")).expect("symlink");
    symlink("nowhere", root.join("resolv")).expect("symlink");
    symlink("/usr/bin", volume.join("abs")).expect("symlink");
    let (root, volume) = (root.to_str().expect("utf-8"), volume.to_str().expect("utf-8"));
    let file = format!("{root}/usr/bin/busybox");
    let binds = [
        Bind { guest: b"/mnt/data", host: volume.as_bytes(), read_only: true },
        Bind { guest: b"/resolv", host: file.as_bytes(), read_only: false },
    ];
    let view = View::new(root.as_bytes(), false, &binds).expect("a view");
    let follow = |path: &str| walk(&view, "/usr", path, Last::Follow).map(|found| found.0);
    let at = |path: &str| Ok(format!("{root}{path}"));
    assert_eq!(follow("/sh"), at("/usr/bin/busybox"));
    assert_eq!(follow("/bin/busybox"), at("/usr/bin/busybox"));
    assert_eq!(follow("/bin/.."), at("/usr"));
    assert_eq!(follow("/bin/../../../.."), at("/."));
    assert_eq!(follow("up/bin"), at("/usr/bin"));
    assert_eq!(follow("../sh/"), at("/usr/bin/busybox/"));
    assert_eq!(follow("/loop"), Err(Errno::ELOOP));
    assert_eq!(follow("/sh/x"), Err(Errno::ENOTDIR));
    assert_eq!(follow("/sh/.."), Err(Errno::ENOTDIR));
    assert_eq!(follow("/none/.."), Err(Errno::ENOENT));
    assert_eq!(follow(""), Err(Errno::ENOENT));
    assert_eq!(follow("/mnt/data/abs"), at("/usr/bin"));
    assert_eq!(follow("/mnt/data/sub/../.."), at("/mnt"));
    assert_eq!(follow("/mnt/data/sub"), Ok(format!("{volume}/sub")));
    assert_eq!(follow("/resolv"), at("/usr/bin/busybox"));
    assert_eq!(follow("/resolv/.."), Err(Errno::ENOTDIR));
    assert_eq!(walk(&view, "/", "sh", Last::NoFollow).map(|found| found.0), at("/sh"));
    assert_eq!(walk(&view, "/", "sh/", Last::NoFollow).map(|found| found.0), at("/usr/bin/busybox/"));
    assert_eq!(walk(&view, "/", "sh/", Last::Parent).map(|found| found.0), at("/sh/"));
    assert_eq!(walk(&view, "/", "//", Last::Parent), Ok(("/".into(), "/".into())));
    assert_eq!(walk(&view, "/", "bin/..", Last::Parent).map(|found| found.0), at("/usr/bin/.."));
}
