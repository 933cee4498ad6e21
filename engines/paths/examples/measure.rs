//! What a resolution costs: component walk, table, and the kernel's own openat2(RESOLVE_IN_ROOT), of a path of five
//! components below a root of four, with no link and with one link on the way. Prints nanoseconds, the median of rounds.
//!
//! `cargo run --release -p coracle-paths --example measure`

use std::{
    ffi::{CStr, CString},
    fs,
    hint::black_box,
    os::unix::{ffi::OsStrExt, fs::symlink},
    time::Instant,
};

use coracle_paths::{Base, Bind, Buffers, Caller, Errno, Host, Last, Request, Table, View, resolve, table};

const ROUNDS: usize = 31;
const CALLS: u32 = 2000;

struct Kernel {
    asks: bool,
}

fn outcome(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        let number = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Errno(u16::try_from(number).unwrap_or(u16::MAX))
    })
}

impl Host for Kernel {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the path is NUL-terminated, the buffer as long as said.
        outcome(unsafe { libc::readlink(path.as_ptr(), target.as_mut_ptr().cast(), target.len()) })
    }

    fn meets_link(&self, path: &CStr) -> Option<bool> {
        self.asks.then(|| !plain(path))
    }

    fn caller(&self) -> Caller {
        Caller { pid: 1, tid: 1 }
    }

    fn root_of(&self, _pid: u32, _root: &mut [u8]) -> Option<usize> {
        None
    }
}

fn time(what: &str, mut call: impl FnMut()) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                call();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{:>7.0} ns  ({:.0}–{:.0})  {what}", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
}

/// openat2(RESOLVE_IN_ROOT, O_PATH), then the descriptor's path by readlink of /proc/self/fd, then close.
fn by_openat2(root: i32, path: &CStr, resolve: u64) {
    let how: [u64; 3] = [u64::try_from(libc::O_PATH | libc::O_CLOEXEC).expect("positive"), 0, resolve];
    // SAFETY: the path is NUL-terminated, `how` is the kernel's open_how, the buffer as long as said.
    unsafe {
        let fd = libc::syscall(libc::SYS_openat2, root, path.as_ptr(), how.as_ptr(), 24);
        assert!(fd >= 0, "openat2: {}", std::io::Error::last_os_error());
        let fd = i32::try_from(fd).expect("a descriptor");
        let mut name = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0";
        let digits = fd.to_string();
        name[14..14 + digits.len()].copy_from_slice(digits.as_bytes());
        let mut text = [0_u8; 4096];
        black_box(libc::readlink(name.as_ptr().cast(), text.as_mut_ptr().cast(), text.len()));
        libc::close(fd);
    }
}

/// One openat2 that only says whether the path has no link in it.
fn plain(path: &CStr) -> bool {
    let how: [u64; 3] =
        [u64::try_from(libc::O_PATH | libc::O_CLOEXEC).expect("positive"), 0, libc::RESOLVE_NO_SYMLINKS];
    // SAFETY: as above.
    unsafe {
        let fd = libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), 24);
        fd >= 0 && libc::close(i32::try_from(fd).expect("a descriptor")) == 0
    }
}

fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path().canonicalize().expect("its real path").join("cache/tree");
    fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu/perl")).expect("mkdir");
    fs::write(root.join("usr/lib/x86_64-linux-gnu/perl/List.so"), "").expect("write");
    symlink("usr/lib", root.join("lib")).expect("symlink");
    let host = root.as_os_str().as_bytes();
    let entries: Vec<(Vec<u8>, table::Kind<'_>)> = [
        ("lib", table::Kind::Symlink(b"usr/lib")),
        ("usr", table::Kind::Directory),
        ("usr/lib", table::Kind::Directory),
        ("usr/lib/x86_64-linux-gnu", table::Kind::Directory),
        ("usr/lib/x86_64-linux-gnu/perl", table::Kind::Directory),
        ("usr/lib/x86_64-linux-gnu/perl/List.so", table::Kind::File),
    ]
    .into_iter()
    .map(|(path, kind)| (path.as_bytes().to_vec(), kind))
    // So many others that the table is of a real size: no neighbours in the processor's caches by accident.
    .chain((0..50_000).map(|n| (format!("file-{n}").into_bytes(), table::Kind::File)))
    .collect();
    let bytes = table::build(entries.iter().map(|(path, kind)| (path.as_slice(), *kind))).expect("a table");
    let homes: Vec<String> = (0..12).map(|n| format!("/mount/point/{n}")).collect();
    let binds: Vec<Bind<'_>> = {
        let mut binds: Vec<_> =
            homes.iter().map(|guest| Bind { guest: guest.as_bytes(), host: b"/tmp", read_only: false }).collect();
        let kept = coracle_paths::arrange(&mut binds);
        binds.truncate(kept);
        binds
    };
    let walk = View::new(host, true, &binds).expect("a view");
    let by_table = walk.with_table(Table::new(&bytes).expect("a table"));
    let mut buffers = Box::new(Buffers::new());
    // SAFETY: NUL-terminated path.
    let top = unsafe { libc::open(CString::new(host).expect("no NUL").as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    for (kind, path) in
        [("no link", c"/usr/lib/x86_64-linux-gnu/perl/List.so"), ("a link", c"/lib/x86_64-linux-gnu/perl/List.so")]
    {
        let mut request = |view: &View<'_>, last, asks| {
            let base = Base { guest: b"/", deleted: false };
            let request = Request { root: b"/", base, path: path.to_bytes(), last };
            black_box(resolve(view, &Kernel { asks }, &request, &mut buffers).expect("it is there"));
        };
        println!("{kind}: {}", path.to_string_lossy());
        time("component walk, following the last", || request(&walk, Last::Follow, false));
        time("component walk, not following the last", || request(&walk, Last::NoFollow, false));
        time("walk that asks openat2(RESOLVE_NO_SYMLINKS) first, following", || request(&walk, Last::Follow, true));
        time("walk that asks openat2(RESOLVE_NO_SYMLINKS) first, not following", || {
            request(&walk, Last::NoFollow, true)
        });
        time("table, following the last", || request(&by_table, Last::Follow, false));
        time("openat2(RESOLVE_IN_ROOT) + readlink(/proc/self/fd/N) + close", || by_openat2(top, path, 0x10));
    }
    let full = CString::new(root.join("usr/lib/x86_64-linux-gnu/perl/List.so").as_os_str().as_bytes()).expect("no NUL");
    time("for scale: openat2(RESOLVE_NO_SYMLINKS) + close of that file", || assert!(plain(&full)));
    time("for scale: readlink of that file", || {
        let mut text = [0; 64];
        let _ = black_box(Kernel { asks: false }.readlink(&full, &mut text));
    });
    time("for scale: stat of that file", || {
        // SAFETY: NUL-terminated path; the structure is written by the kernel.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            libc::stat(full.as_ptr(), &raw mut stat);
            black_box(stat.st_ino);
        }
    });
}
