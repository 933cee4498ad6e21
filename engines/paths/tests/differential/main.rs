//! The walk against a real chroot with real bind mounts: random trees, random paths, result for result and errno for
//! errno.
//!
//! For each tree two children make the same calls as the same unprivileged user. One has entered the tree (as root:
//! chroot in a mount namespace; otherwise in a user namespace, its capabilities then dropped) and passes the guest's paths
//! to the kernel. The other stayed outside and passes what [`resolve`] answers. A file is named by what the kernel says of
//! its descriptor; outside, [`View::to_guest`] turns that back. Every second tree, one without locked directories, is
//! resolved by its table.
//!
//! `CORACLE_DIFF_SEED` repeats one tree, `CORACLE_DIFF_TREES` sets how many there are.

#[path = "../common/live.rs"]
mod live;
mod ops;
mod random;
mod tree;

use std::{
    ffi::{CString, OsStr},
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use coracle_paths::{Base, Bind, Buffers, Last, Request, Resolved, Table, View, arrange, resolve, table};
use live::Live;
use ops::{OPS, Op, c, errno, perform};
use random::Random;
use tree::World;

const UID: u32 = 12345;
/// Calls per tree.
const CASES: usize = 2000;

struct Case {
    op: Op,
    /// `None`: a directory that was removed.
    cwd: Option<String>,
    path: String,
}

fn main() {
    // SAFETY: geteuid takes nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let trees = number("CORACLE_DIFF_TREES").unwrap_or(8);
    let seeds = number("CORACLE_DIFF_SEED").map_or(1..=trees, |seed| seed..=seed);
    let mut compared = 0;
    for seed in seeds {
        match compare(seed, uid) {
            Ok(cases) => compared += cases,
            Err(reason) => {
                harness::skip::because(&format!("differential: {reason}"));
                return;
            }
        }
    }
    println!("differential: {compared} calls compared as {}", if uid == 0 { "root's child" } else { "a user" });
}

fn compare(seed: u64, uid: u32) -> Result<usize, String> {
    let random = &mut Random::new(seed);
    let top = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let real = top.path().canonicalize().expect("its real path");
    let owner = if uid == 0 { UID } else { uid };
    let by_table = seed.is_multiple_of(2);
    let world = World::make(&real, owner, !by_table, random);
    let bytes = by_table.then(|| table_of(&world.root));
    let cases: Vec<Case> = (0..CASES).map(|_| case(&world, random)).collect();
    let inside = child(&real.join("inside"), |out| {
        enter(&world, uid)?;
        let proc = open_before(c"/proc/self/fd");
        enter_root(&world, uid)?;
        settle(Path::new("/m/n"), Path::new("/m/file"));
        for case in &cases {
            go(case, Path::new("/"));
            let answer = perform(case.op, &c(&case.path), &|fd| plain_name(&name_at(proc, fd)));
            writeln!(out, "{answer}").expect("write");
        }
        Ok(())
    })?;
    let outside = child(&real.join("outside"), |out| {
        drop_rights(uid)?;
        let place = |guest: &str| &world.binds.iter().find(|bind| bind.0 == guest).expect("a bind").1;
        settle(place("/m/n"), place("/m/file"));
        let mut binds: Vec<Bind<'_>> = world
            .binds
            .iter()
            .map(|(guest, host)| Bind { guest: guest.as_bytes(), host: host.as_os_str().as_bytes(), read_only: false })
            .collect();
        let kept = arrange(&mut binds);
        let view = View::new(world.root.as_os_str().as_bytes(), false, &binds[..kept]).expect("a view");
        let table = bytes.as_ref().map(|bytes| Table::new(bytes).expect("a table"));
        let view = table.map_or(view, |table| view.with_table(table));
        let mut buffers = Box::new(Buffers::new());
        let mut second = Box::new(Buffers::new());
        for case in &cases {
            let here = case.cwd.as_ref().map(|cwd| translate(&view, "/", cwd, Last::Follow, false, &mut second));
            let host = here.map_or_else(|| world.root.clone(), |found| path_of(&found.expect("a directory")));
            go(case, &host);
            let answer = guest_call(&view, case, &mut buffers);
            writeln!(out, "{answer}").expect("write");
        }
        Ok(())
    })?;
    restore_rights(&real);
    for ((case, inside), outside) in cases.iter().zip(inside.lines()).zip(outside.lines()) {
        assert!(
            agree(case.op, inside, outside),
            "CORACLE_DIFF_SEED={seed}: {:?} of {:?} in {:?}:\n  in a chroot   {inside}\n  by resolve()  {outside}\n{}",
            case.op,
            case.path,
            case.cwd,
            list(&real)
        );
    }
    assert_eq!((inside.lines().count(), outside.lines().count()), (CASES, CASES), "seed {seed}");
    Ok(CASES)
}

/// The table of the tree on disk.
fn table_of(root: &Path) -> Vec<u8> {
    let mut names = Vec::new();
    scan(root, root, &mut names);
    table::build(names.iter().map(|(path, kind, target)| {
        let kind = match kind {
            b'd' => table::Kind::Directory,
            b'l' => table::Kind::Symlink(target),
            _ => table::Kind::File,
        };
        (path.as_slice(), kind)
    }))
    .expect("a table")
}

fn scan(root: &Path, dir: &Path, names: &mut Vec<(Vec<u8>, u8, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        let name = path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_vec();
        if kind.is_symlink() {
            names.push((name, b'l', fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec()));
        } else if kind.is_dir() {
            names.push((name, b'd', Vec::new()));
            scan(root, &path, names);
        } else {
            names.push((name, b'f', Vec::new()));
        }
    }
}

/// The one licence: what is the caller's to say of a mount point. (The kernel lets even one be renamed to itself.)
fn agree(op: Op, inside: &str, outside: &str) -> bool {
    let refusals = [libc::EBUSY, libc::EISDIR, libc::ENOTDIR, libc::EACCES, libc::ENOTEMPTY];
    inside == outside
        || outside == "mount point"
            && (inside == "ok" && op == Op::RenameToItself
                || refusals.iter().any(|errno| inside == format!("errno {errno}")))
}

fn case(world: &World, random: &mut Random) -> Case {
    let op = OPS[random.below(OPS.len())];
    let deleted = random.one_in(40);
    let cwd = (!deleted).then(|| world.directories[random.below(world.directories.len())].clone());
    let path = match random.below(12) {
        0 => String::new(),
        1 | 2 if !matches!(op, Op::Readlink) => tree::proc_path(random),
        3 if deleted => random.pick(&[".", "..", "./", "./.", "./../m", "x", "../m/n", "./x"]).into(),
        _ => tree::path(random),
    };
    Case { op, cwd, path }
}

fn translate<'b>(
    view: &View<'_>,
    cwd: &str,
    path: &str,
    last: Last,
    deleted: bool,
    buffers: &'b mut Buffers,
) -> Result<Resolved<'b>, coracle_paths::Errno> {
    let base = Base { guest: cwd.as_bytes(), deleted };
    // Both ways to walk, by turns.
    let asks = path.len().is_multiple_of(2);
    resolve(view, &Live { asks }, &Request { root: b"/", base, path: path.as_bytes(), last }, buffers)
}

fn path_of(found: &Resolved<'_>) -> std::path::PathBuf {
    OsStr::from_bytes(found.host.to_bytes()).into()
}

fn guest_call(view: &View<'_>, case: &Case, buffers: &mut Buffers) -> String {
    let cwd = case.cwd.as_deref().unwrap_or("/gone");
    let last = case.op.last(&case.path);
    let found = match translate(view, cwd, &case.path, last, case.cwd.is_none(), buffers) {
        Ok(found) => found,
        Err(errno) if case.op == Op::Chdir => return format!("errno {} {}", errno.0, plain_name(cwd_name(case))),
        Err(errno) => return format!("errno {}", errno.0),
    };
    if found.mount_point && case.op.removes() && !found.host.to_bytes().ends_with(b".") && found.guest != b"/" {
        return "mount point".into();
    }
    let guest = String::from_utf8_lossy(found.guest).into_owned();
    let known = found.magic.is_some();
    let host: CString = found.host.to_owned();
    let answer = perform(case.op, &host, &|fd| {
        let host = fs::read_link(format!("/proc/self/fd/{fd}")).expect("an open descriptor");
        let mut room = [0; 8192];
        let shown = view.to_guest(host.as_os_str().as_bytes(), &mut room);
        let name = shown.map_or_else(
            || match host.display().to_string() {
                path if path.starts_with('/') => format!("outside {path}"),
                nameless => nameless,
            },
            |shown| String::from_utf8_lossy(&room[..shown.len]).into_owned(),
        );
        plain_name(&name)
    });
    // The walk's own idea of where it ended is the kernel's.
    if let Some(name) = answer.strip_prefix("ok ").or_else(|| answer.strip_prefix("created "))
        && !matches!(case.op, Op::Readlink)
        && !known
        && !host.as_bytes().ends_with(b"/..")
        && case.cwd.is_some()
    {
        assert_eq!(name, plain_name(&guest), "the guest path of {:?} {:?} in {cwd}", case.op, case.path);
    }
    answer
}

fn cwd_name(case: &Case) -> &str {
    case.cwd.as_deref().unwrap_or("/gone (deleted)")
}

/// Without the process number.
fn plain_name(name: &str) -> String {
    name.replace(&format!("/proc/{}", std::process::id()), "/proc/PID")
        .replace(&format!("/task/{}", std::process::id()), "/task/TID")
}

/// A descriptor's name, by a `/proc/self/fd` opened before chroot; relative to our root, as d_path has it.
fn name_at(proc: i32, fd: i32) -> String {
    let mut text = [0_u8; 8192];
    // SAFETY: `proc` is an open directory, the name is NUL-terminated, the buffer as long as said.
    let len = unsafe {
        let name = c(fd.to_string());
        libc::readlinkat(proc, name.as_ptr(), text.as_mut_ptr().cast(), text.len())
    };
    let len = usize::try_from(len).expect("an open descriptor");
    String::from_utf8_lossy(&text[..len]).into_owned()
}

fn open_before(path: &std::ffi::CStr) -> i32 {
    // SAFETY: the path is NUL-terminated.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY) };
    assert!(fd >= 0, "{path:?} opens");
    fd
}

/// Runs `body` in a child; what it wrote.
fn child(out: &Path, body: impl FnOnce(&mut fs::File) -> Result<(), String>) -> Result<String, String> {
    let mut file = fs::File::create(out).expect("a result file");
    // SAFETY: this process has one thread, so the child may do anything.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        let status = match body(&mut file) {
            Ok(()) => 0,
            Err(reason) => {
                write!(file, "{reason}").expect("write");
                3
            }
        };
        // SAFETY: ends this child without running the parent's destructors.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made; the status is ours.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    let text = fs::read_to_string(out).expect("the child's results");
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(text),
        3 => Err(text),
        _ => panic!("a child failed: {status:#x}"),
    }
}

fn say(what: &str, result: i32) -> Result<(), String> {
    if result == 0 { Ok(()) } else { Err(format!("{what}: {}", std::io::Error::last_os_error())) }
}

/// A mount namespace with the binds in place.
fn enter(world: &World, uid: u32) -> Result<(), String> {
    // SAFETY: plain system calls with NUL-terminated strings, in a process of one thread.
    unsafe {
        let gid = libc::getegid();
        if uid == 0 {
            say("unshare(CLONE_NEWNS)", libc::unshare(libc::CLONE_NEWNS))?;
        } else {
            say("unshare(CLONE_NEWUSER)", libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS))?;
            fs::write("/proc/self/setgroups", "deny").map_err(|error| error.to_string())?;
            fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(|error| error.to_string())?;
            fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(|error| error.to_string())?;
        }
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        say("mount --make-rprivate /", libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
        for (guest, host) in &world.binds {
            let to = c(world.root.join(&guest[1..]));
            let flags = libc::MS_BIND | libc::MS_REC;
            say("mount --rbind", libc::mount(c(host).as_ptr(), to.as_ptr(), none, flags, none.cast()))?;
        }
    }
    Ok(())
}

fn enter_root(world: &World, uid: u32) -> Result<(), String> {
    // SAFETY: as in `enter`.
    unsafe {
        say("chroot", libc::chroot(c(&world.root).as_ptr()))?;
        say("chdir", libc::chdir(c"/".as_ptr()))?;
    }
    drop_rights(uid)
}

/// Becomes a user whom permissions bind.
fn drop_rights(uid: u32) -> Result<(), String> {
    // SAFETY: plain system calls; the two structures of capset are initialised and of the kernel's layout (version 3).
    unsafe {
        if uid == 0 {
            say("setgroups", libc::setgroups(0, std::ptr::null()))?;
            say("setgid", libc::setresgid(UID, UID, UID))?;
            say("setuid", libc::setresuid(UID, UID, UID))?;
        } else {
            let header: [u32; 2] = [0x2008_0522, 0];
            let data = [0_u32; 6];
            let result = libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr());
            say("capset", i32::from(result != 0))?;
        }
        // Our own links in /proc stay ours.
        say("PR_SET_DUMPABLE", libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
        libc::umask(0o022);
    }
    Ok(())
}

/// Descriptor 100: the directory `/m/n`; 101: the file `/m/file`.
fn settle(directory: &Path, file: &Path) {
    for (fd, path) in [(100, directory), (101, file)] {
        // SAFETY: NUL-terminated path, numbers that nothing else uses.
        unsafe {
            let opened = libc::open(c(path).as_ptr(), libc::O_RDONLY);
            assert!(opened >= 0, "open {}: {}", path.display(), errno());
            assert_eq!(libc::dup2(opened, fd), fd);
            libc::close(opened);
        }
    }
}

/// Goes to the case's working directory, whose host path is `host` or, in the chroot, its own.
fn go(case: &Case, host: &Path) {
    // SAFETY: NUL-terminated paths.
    unsafe {
        match &case.cwd {
            Some(cwd) if host == Path::new("/") => assert_eq!(libc::chdir(c(cwd).as_ptr()), 0, "chdir {cwd}"),
            Some(cwd) => assert_eq!(libc::chdir(c(host).as_ptr()), 0, "chdir {cwd}"),
            None => {
                let gone = c(host.join("gone"));
                assert_eq!(libc::mkdir(gone.as_ptr(), 0o755), 0, "mkdir gone");
                assert_eq!(libc::chdir(gone.as_ptr()), 0);
                assert_eq!(libc::rmdir(gone.as_ptr()), 0);
            }
        }
    }
}

/// So that the temporary directory can be removed.
fn restore_rights(top: &Path) {
    for entry in fs::read_dir(top).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
            restore_rights(&entry.path());
        }
    }
}

fn list(top: &Path) -> String {
    let found = std::process::Command::new("find").arg(top).args(["-printf", "%M %P %l\\n"]).output();
    found.map_or_else(|error| error.to_string(), |found| String::from_utf8_lossy(&found.stdout).into_owned())
}
