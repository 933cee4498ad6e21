//! A tree with a bit of everything, unpacked and looked at.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use crate::testing::{Folder, Sample, noise};

fn options(modes: Modes) -> Options<'static> {
    Options { threads: Some(3), modes, progress: None }
}

fn unpack_sample(folder: &Folder, sample: &Sample, modes: Modes) -> Result<(PathBuf, Stats), UnpackError> {
    let (file, target) = (folder.path("bundle"), folder.path("tree"));
    sample.write(&file);
    fs::create_dir(&target).unwrap();
    let bundle = Bundle::open(&file).unwrap();
    let stats = unpack(&bundle, &bundle.index().unwrap(), &target, &options(modes))?;
    Ok((target, stats))
}

#[test]
fn everything_arrives() {
    let folder = Folder::new("everything");
    let (tree, stats) = unpack_sample(&folder, &Sample::tree(500), Modes::Shared).unwrap();
    let stat = |path: &str| fs::symlink_metadata(tree.join(path)).unwrap();
    let mode = |path: &str| stat(path).mode() & 0o7777;

    assert_eq!((stats.threads, stats.devices, stats.set_ids), (3, 1, 1));
    assert!(fs::read(tree.join("bin/large")).unwrap() == noise(300_000));
    let sparse = fs::read(tree.join("bin/sparse")).unwrap();
    assert!(sparse.len() == 400_001 && sparse[..400_000].iter().all(|byte| *byte == 0) && sparse[400_000] == 1);
    assert!(stat("bin/sparse").blocks() < 400, "{} blocks", stat("bin/sparse").blocks());
    assert_eq!(stat("etc/empty").len(), 0);
    for number in [0, 1, 49, 50, 499] {
        let path = format!("usr/{:03}/{number:05}", number / 50);
        assert!(fs::read(tree.join(path)).unwrap() == noise(number % 3000));
    }
    assert_eq!(fs::read_link(tree.join("etc/link")).unwrap(), Path::new("/bin/sh"));
    assert!(stat("etc/pipe").file_type().is_fifo());
    assert!(fs::symlink_metadata(tree.join("etc/null")).is_err());
    assert_eq!(stat("etc/again").ino(), stat("bin/large").ino());

    assert_eq!((mode("bin/large"), mode("etc/secret"), mode("bin/sparse")), (0o555, 0o400, 0o444));
    assert_eq!((mode("usr"), mode("etc"), mode("tmp"), mode("")), (0o755, 0o700, 0o1777, 0o755));
    for (path, image_mode) in
        [("bin/large", 0o4755), ("etc/link", 0o777), ("usr", 0o555), ("", 0o755), ("etc/pipe", 0o640)]
    {
        assert_eq!((stat(path).mtime(), stat(path).mtime_nsec()), (1_600_000_000 + image_mode, 5000), "{path}");
    }
}

#[test]
fn extracting_gives_the_image_s_own_modes() {
    let folder = Folder::new("modes");
    let (tree, _) = unpack_sample(&folder, &Sample::tree(10), Modes::True).unwrap();
    let mode = |path: &str| fs::symlink_metadata(tree.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("bin/large"), mode("bin/sparse"), mode("usr"), mode("etc")), (0o755, 0o644, 0o555, 0o700));
    fs::set_permissions(tree.join("usr"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn paths_longer_than_the_kernel_takes() {
    let folder = Folder::new("long");
    let mut sample = Sample::new(1000);
    let mut path = String::new();
    for _ in 0..50 {
        path += &"d".repeat(199);
        sample.directory(&path, 0o755);
        path.push('/');
    }
    sample.file(&(path.clone() + "file"), 0o644, b"deep").entry(
        &(path + "link"),
        0o777,
        Kind::Symlink { target: b"file".to_vec() },
    );
    let (tree, stats) = unpack_sample(&folder, &sample, Modes::Shared).unwrap();
    assert_eq!(stats.inodes, 53);
    // As a reader would have to go there: step by step.
    let mut find = std::process::Command::new("find");
    let out = find.arg(&tree).args(["-name", "link", "-execdir", "cat", "{}", ";"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "deep", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_flipped_byte_is_found_before_the_decompressor_sees_it() {
    let folder = Folder::new("flipped");
    let (file, target) = (folder.path("bundle"), folder.path("tree"));
    Sample::tree(10).write(&file);
    let mut bytes = fs::read(&file).unwrap();
    bytes[4100] ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::create_dir(&target).unwrap();
    let bundle = Bundle::open(&file).unwrap();
    let error = unpack(&bundle, &bundle.index().unwrap(), &target, &options(Modes::Shared)).unwrap_err();
    assert!(error.to_string().contains("frame 0 of the payload does not match its SHA-256"), "{error}");
}

#[test]
fn a_target_that_is_a_symbolic_link_or_not_empty_is_refused() {
    let folder = Folder::new("target");
    let (file, target) = (folder.path("bundle"), folder.path("link"));
    Sample::tree(1).write(&file);
    let bundle = Bundle::open(&file).unwrap();
    let index = bundle.index().unwrap();
    std::os::unix::fs::symlink("/tmp", &target).unwrap();
    let refused = unpack(&bundle, &index, &target, &options(Modes::Shared));
    assert!(matches!(refused, Err(UnpackError::Target { .. })), "{refused:?}");
    fs::create_dir_all(folder.path("full/bin")).unwrap();
    let refused = unpack(&bundle, &index, &folder.path("full"), &options(Modes::Shared));
    assert!(matches!(&refused, Err(UnpackError::Step { path, .. }) if path.ends_with("full/bin")), "{refused:?}");
}

#[test]
fn user_attributes_are_set_and_others_are_not() {
    let folder = Folder::new("xattrs");
    let mut sample = Sample::new(1000);
    sample.file("file", 0o444, b"content");
    let attribute = |name: &str| coracle_format::Xattr { name: name.into(), value: b"value".to_vec() };
    sample.last().xattrs = vec![attribute("security.capability"), attribute("user.comment")];
    let (tree, stats) = unpack_sample(&folder, &sample, Modes::Shared).unwrap();
    if stats.xattrs > 0 {
        harness::skip::because("the file system of the temporary directory takes no user attributes");
        return;
    }
    let mut value = [0; 16];
    let path = std::ffi::CString::new(tree.join("file").to_str().unwrap()).unwrap();
    // SAFETY: both strings are NUL-terminated, and the length is the buffer's.
    let len = unsafe { libc::getxattr(path.as_ptr(), c"user.comment".as_ptr(), value.as_mut_ptr().cast(), 16) };
    assert_eq!(&value[..usize::try_from(len).unwrap()], b"value");
    assert_eq!(fs::metadata(tree.join("file")).unwrap().mode() & 0o777, 0o444);
}
