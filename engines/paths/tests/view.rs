//! Binds, the way back, `/proc` links, lengths: rule by rule, without a kernel.

use std::{cell::RefCell, collections::BTreeMap, ffi::CStr};

use coracle_paths::{
    Base, Bind, Buffers, Caller, Errno, Found, Host, Last, Link, Magic, Request, Table, View, ViewError, arrange,
    resolve, table,
};

/// Links only; everything else exists and is no link. Keeps what it was asked.
#[derive(Default)]
struct Links {
    links: BTreeMap<String, String>,
    asked: RefCell<Vec<String>>,
}

impl Links {
    fn new(links: &[(&str, &str)]) -> Self {
        let links = links.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { links, asked: RefCell::default() }
    }
}

impl Host for Links {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        let path = path.to_str().expect("utf-8");
        self.asked.borrow_mut().push(path.to_owned());
        let text = self.links.get(path).ok_or(Errno::EINVAL)?;
        target[..text.len()].copy_from_slice(text.as_bytes());
        Ok(text.len())
    }

    fn caller(&self) -> Caller {
        Caller { pid: 70, tid: 71 }
    }

    fn root_of(&self, pid: u32, root: &mut [u8]) -> Option<usize> {
        // 80 is a guest too, and has called chroot("/jail").
        (pid == 80).then(|| {
            root[..5].copy_from_slice(b"/jail");
            5
        })
    }
}

fn bind<'a>(guest: &'a str, host: &'a str) -> Bind<'a> {
    Bind { guest: guest.as_bytes(), host: host.as_bytes(), read_only: guest.contains("ro") }
}

fn walk_in(view: &View<'_>, host: &Links, root: &str, path: &str, last: Last) -> Result<String, Errno> {
    let mut buffers = Box::new(Buffers::new());
    let base = Base { guest: root.as_bytes(), deleted: false };
    let request = Request { root: root.as_bytes(), base, path: path.as_bytes(), last };
    resolve(view, host, &request, &mut buffers).map(|found| found.host.to_str().expect("utf-8").to_owned())
}

fn walk(view: &View<'_>, host: &Links, path: &str) -> Result<String, Errno> {
    walk_in(view, host, "/", path, Last::Follow)
}

#[test]
fn arranging_sorts_and_the_last_of_equals_wins() {
    let mut binds = [bind("/b", "/1"), bind("/a", "/2"), bind("/b", "/3"), bind("/a/c", "/4"), bind("/a", "/5")];
    let kept = arrange(&mut binds);
    let seen: Vec<_> = binds[..kept].iter().map(|bind| (bind.guest, bind.host)).collect();
    assert_eq!(seen, [(&b"/a"[..], &b"/5"[..]), (b"/a/c", b"/4"), (b"/b", b"/3")]);
}

#[test]
fn views_refuse_what_would_mislead_them() {
    let refused = |binds: &[Bind<'_>]| View::new(b"/tree", false, binds).err();
    assert_eq!(View::new(b"tree", false, &[]).err(), Some(ViewError::HostPath(None)));
    assert_eq!(View::new(b"/tree/", false, &[]).err(), Some(ViewError::HostPath(None)));
    assert_eq!(refused(&[bind("/a", "/x/../y")]), Some(ViewError::HostPath(Some(0))));
    assert_eq!(refused(&[bind("/", "/x")]), Some(ViewError::GuestPath(0)));
    assert_eq!(refused(&[bind("/a//b", "/x")]), Some(ViewError::GuestPath(0)));
    assert_eq!(refused(&[bind("/b", "/x"), bind("/a", "/x")]), Some(ViewError::Order(1)));
    assert_eq!(refused(&[bind("/a", "/"), bind("/b", "/x")]), None);
}

#[test]
fn binds_cover_links_nest_and_are_left_upwards() {
    let binds =
        [bind("/etc/resolv.conf", "/run/resolv"), bind("/m", "/vol"), bind("/m/in", "/inner"), bind("/ro", "/")];
    let view = View::new(b"/tree", false, &binds).expect("a view");
    let host =
        Links::new(&[("/tree/etc/resolv.conf", "../run/nowhere"), ("/vol/abs", "/etc"), ("/vol/in", "/elsewhere")]);
    assert_eq!(walk(&view, &host, "/etc/resolv.conf").as_deref(), Ok("/run/resolv"));
    assert_eq!(walk(&view, &host, "/m/in/x").as_deref(), Ok("/inner/x"));
    assert_eq!(walk(&view, &host, "/m/in/../y").as_deref(), Ok("/vol/y"));
    assert_eq!(walk(&view, &host, "/m/in/../../z").as_deref(), Ok("/tree/z"));
    assert_eq!(walk(&view, &host, "/m/abs/resolv.conf").as_deref(), Ok("/run/resolv"));
    assert_eq!(walk(&view, &host, "/minus").as_deref(), Ok("/tree/minus"));
    assert_eq!(walk(&view, &host, "/ro").as_deref(), Ok("/"));
    assert_eq!(walk(&view, &host, "/ro/usr").as_deref(), Ok("/usr"));
    assert_eq!(walk(&view, &host, "/ro/usr/..").as_deref(), Ok("/"));
    let mut buffers = Box::new(Buffers::new());
    let base = Base { guest: b"/ro", deleted: false };
    let request = Request { root: b"/", base, path: b"file", last: Last::NoFollow };
    let found = resolve(&view, &host, &request, &mut buffers).expect("a place");
    assert!(found.read_only && !found.mount_point && found.bind == Some(3) && found.found == Found::Unknown);
    assert!(view.mounts_below(b"/etc") && view.mounts_below(b"/") && !view.mounts_below(b"/m/in"));
}

#[test]
fn a_changed_root_is_the_end_of_dot_dot_and_the_start_of_links() {
    let view = View::new(b"/tree", false, &[]).expect("a view");
    let host = Links::new(&[("/tree/jail/l", "/x")]);
    assert_eq!(walk_in(&view, &host, "/jail", "../../l", Last::Follow).as_deref(), Ok("/tree/jail/x"));
    assert_eq!(walk_in(&view, &host, "/jail", "/..", Last::Follow).as_deref(), Ok("/tree/jail/."));
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let names: Vec<(String, String)> = (0..60).map(|n| (format!("/tree/{n}"), format!("{}", n + 1))).collect();
    let links: Vec<(&str, &str)> = names.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let host = Links::new(&links);
    let view = View::new(b"/tree", false, &[]).expect("a view");
    assert_eq!(walk(&view, &host, "/20").as_deref(), Ok("/tree/60"), "40 links");
    assert_eq!(walk(&view, &host, "/19"), Err(Errno::ELOOP), "41 links");
}

#[test]
fn lengths() {
    let root = format!("/{}", "r".repeat(200));
    let view = View::new(root.as_bytes(), false, &[]).expect("a view");
    let host = Links::default();
    let longest = "/d".repeat(2047);
    let mut buffers = Box::new(Buffers::new());
    let base = Base { guest: b"/", deleted: false };
    let request = Request { root: b"/", base, path: longest.as_bytes(), last: Last::Parent };
    let found = resolve(&view, &host, &request, &mut buffers).expect("4094 bytes are a path");
    assert!(found.is_long(), "with its root it is too long for one call, and says so");
    assert_eq!(walk(&view, &host, &format!("{longest}/d")), Err(Errno::ENAMETOOLONG));
}

#[test]
fn the_way_back() {
    let binds = [
        bind("/data", "/srv/data"),
        bind("/etc/hosts", "/etc/hosts"),
        bind("/home/u", "/srv"),
        bind("/home/u/hidden", "/other"),
    ];
    let view = View::new(b"/cache/tree", false, &binds).expect("a view");
    let back = |host: &str| {
        let mut room = [0; 64];
        view.to_guest(host.as_bytes(), &mut room).map(|found| String::from_utf8_lossy(&room[..found.len]).into_owned())
    };
    assert_eq!(back("/cache/tree").as_deref(), Some("/"));
    assert_eq!(back("/cache/tree/usr").as_deref(), Some("/usr"));
    assert_eq!(back("/cache/trees"), None);
    assert_eq!(back("/srv/data/x").as_deref(), Some("/data/x"), "the longer of two");
    assert_eq!(back("/srv/x").as_deref(), Some("/home/u/x"));
    assert_eq!(back("/srv/hidden/x"), None, "covered by another bind");
    assert_eq!(back("/cache/tree/data/x"), None, "covered by another bind");
    assert_eq!(back("/etc/hosts (deleted)").as_deref(), Some("/etc/hosts (deleted)"));
    assert_eq!(back("/cache/tree (deleted)").as_deref(), Some("/ (deleted)"));
    assert_eq!(back("pipe:[12]"), None);
    assert_eq!(view.to_guest(b"/cache/tree/usr", &mut [0; 3]), None, "no room");
    let whole = View::new(b"/", false, &[]).expect("a view");
    let mut room = [0; 8];
    assert_eq!(whole.to_guest(b"/", &mut room).map(|found| found.len), Some(1));
    assert_eq!(whole.to_guest(b"/usr", &mut room).map(|found| found.len), Some(4));
}

#[test]
fn proc_links() {
    assert_eq!(Magic::of(b"/proc/7/fd/3"), Some(Magic { link: Link::Fd, pid: 7 }));
    assert_eq!(Magic::of(b"/proc/7/task/8/cwd"), Some(Magic { link: Link::Cwd, pid: 8 }));
    for plain in
        ["/proc/7/fd", "/proc/7/fd/3/x", "/proc/7/fdinfo/3", "/proc/x/exe", "/proc/99999999999/exe", "/proc7/exe"]
    {
        assert_eq!(Magic::of(plain.as_bytes()), None, "{plain}");
    }
    let binds = [bind("/proc", "/proc")];
    let view = View::new(b"/tree", true, &binds).expect("a view");
    let host = Links::new(&[
        ("/proc/70/cwd", "/tree/work"),
        ("/proc/70/fd/3", "/tree/work/file"),
        ("/proc/70/fd/4", "pipe:[5]"),
        ("/proc/70/fd/5", "/outside/dir"),
        ("/proc/90/cwd", "/somewhere"),
    ]);
    assert_eq!(walk(&view, &host, "/proc/self/cwd/x").as_deref(), Ok("/tree/work/x"));
    assert_eq!(walk(&view, &host, "/proc/self/cwd").as_deref(), Ok("/tree/work"));
    assert_eq!(walk(&view, &host, "/proc/self/root/etc").as_deref(), Ok("/tree/etc"));
    assert_eq!(walk(&view, &host, "/proc/80/root/etc").as_deref(), Ok("/tree/jail/etc"));
    assert_eq!(walk(&view, &host, "/proc/thread-self/comm").as_deref(), Ok("/proc/70/task/71/comm"));
    assert_eq!(walk(&view, &host, "/proc/self/exe").as_deref(), Ok("/proc/70/exe"));
    assert_eq!(walk(&view, &host, "/proc/self/fd/4").as_deref(), Ok("/proc/70/fd/4"));
    assert_eq!(walk(&view, &host, "/proc/self/fd/4/x"), Err(Errno::ENOTDIR));
    assert_eq!(walk(&view, &host, "/proc/self/fd/5/x"), Err(Errno::EACCES));
    assert_eq!(walk(&view, &host, "/proc/90/cwd"), Err(Errno::EACCES), "of a process outside");
    assert_eq!(walk_in(&view, &host, "/", "/proc/self", Last::NoFollow).as_deref(), Ok("/proc/self"));
    // A descriptor of a read-only place is read-only through /proc too.
    let mut buffers = Box::new(Buffers::new());
    let base = Base { guest: b"/", deleted: false };
    let request = Request { root: b"/", base, path: b"/proc/self/fd/3", last: Last::Follow };
    let found = resolve(&view, &host, &request, &mut buffers).expect("a place");
    assert_eq!(found.links, 2, "/proc/self, and the descriptor's");
    assert!(found.read_only && found.magic == Some(Magic { link: Link::Fd, pid: 70 }));
}

#[test]
fn a_table_needs_no_host() {
    let entries: [(&[u8], table::Kind<'_>); 5] = [
        (b"bin", table::Kind::Symlink(b"usr/bin")),
        (b"usr", table::Kind::Directory),
        (b"usr/bin", table::Kind::Directory),
        (b"usr/bin/sh", table::Kind::Symlink(b"/bin/dash")),
        (b"usr/bin/dash", table::Kind::File),
    ];
    let bytes = table::build(entries).expect("a table");
    let binds = [bind("/m", "/vol")];
    let view = View::new(b"/tree", true, &binds).expect("a view").with_table(Table::new(&bytes).expect("a table"));
    let host = Links::default();
    assert_eq!(walk(&view, &host, "/bin/sh").as_deref(), Ok("/tree/usr/bin/dash"));
    assert_eq!(walk(&view, &host, "/bin/../bin/sh/"), Ok("/tree/usr/bin/dash/".into()));
    assert_eq!(walk(&view, &host, "/bin/none/x"), Err(Errno::ENOENT));
    assert_eq!(walk(&view, &host, "/bin/sh/x"), Err(Errno::ENOTDIR));
    assert_eq!(walk(&view, &host, &format!("/{}/x", "n".repeat(256))), Err(Errno::ENAMETOOLONG));
    assert!(host.asked.borrow().is_empty(), "{:?}", host.asked);
    assert_eq!(walk(&view, &host, "/bin/../../m/x").as_deref(), Ok("/vol/x"));
    assert_eq!(*host.asked.borrow(), ["/vol/x"]);
    let mut buffers = Box::new(Buffers::new());
    for (path, expected) in [
        ("/bin", Found::Symlink),
        ("/usr", Found::Directory),
        ("/bin/dash", Found::File),
        ("/bin/none", Found::Missing),
    ] {
        let base = Base { guest: b"/", deleted: false };
        let request = Request { root: b"/", base, path: path.as_bytes(), last: Last::NoFollow };
        assert_eq!(resolve(&view, &host, &request, &mut buffers).expect("a place").found, expected, "{path}");
    }
}

#[test]
fn tables_refuse_what_is_no_tree() {
    use table::{BuildError, Kind, build};
    assert_eq!(build([(&b"a/b"[..], Kind::File)]), Err(BuildError::Path(0)));
    assert_eq!(build([(&b"a"[..], Kind::File), (b"a", Kind::Directory)]), Err(BuildError::Twice(1)));
    assert_eq!(build([(&b"a"[..], Kind::Directory), (b"a", Kind::Directory)]), Err(BuildError::Twice(1)));
    assert_eq!(build([(&b"a"[..], Kind::File), (b"a/b", Kind::File)]), Err(BuildError::Path(1)));
    assert_eq!(build([(&b"a"[..], Kind::Symlink(b""))]), Err(BuildError::Target(0)));
    let bytes = build([(&b""[..], Kind::Directory), (b"a", Kind::File)]).expect("the root may be named");
    for len in 0..bytes.len() {
        assert!(Table::new(&bytes[..len]).is_err(), "cut to {len}");
        assert!(!Table::is_whole(&bytes[..len]), "cut to {len}");
    }
    assert!(Table::is_whole(&bytes));
    // The sum is of what follows it, itself included.
    for at in 24..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(!Table::is_whole(&damaged), "byte {at}");
    }
}
