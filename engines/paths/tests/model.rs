//! The walk against a model: the same meaning, told in another way (whole strings, recursion, a map of all files), with
//! random trees, binds and paths by proptest. No kernel is asked, so that binds over links can be tested too, which no
//! mount(2) makes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, ffi::CStr, string::String};

use coracle_paths::{
    Base, Bind, Buffers, Caller, Errno, Found, Host, Last, Request, Table, View, arrange, resolve, table,
};
use proptest::prelude::*;

/// All files of a pretended host, by path.
#[derive(Debug, Clone, PartialEq)]
enum File {
    Directory,
    Plain,
    Link(String),
}

#[derive(Debug, Clone, Default)]
struct Files(BTreeMap<String, File>);

impl Files {
    /// What a kernel knows of `path`, which is host's own: no link in it but the last component may occur, as the walk
    /// never asks otherwise.
    fn get(&self, path: &str) -> Result<&File, Errno> {
        let mut at = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match self.0.get(&at) {
                Some(File::Directory) => {}
                Some(File::Plain) => return Err(Errno::ENOTDIR),
                Some(File::Link(_)) => panic!("the walk asked the kernel to follow the link {at} in {path}"),
                None => return Err(Errno::ENOENT),
            }
            if name != "." {
                at = format!("{at}/{name}");
            }
        }
        self.0.get(&at).ok_or(Errno::ENOENT)
    }
}

impl Host for Files {
    fn readlink(&self, path: &CStr, target: &mut [u8]) -> Result<usize, Errno> {
        match self.get(path.to_str().unwrap())? {
            File::Link(text) => {
                target[..text.len()].copy_from_slice(text.as_bytes());
                Ok(text.len())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn caller(&self) -> Caller {
        Caller { pid: 1, tid: 1 }
    }

    fn root_of(&self, _pid: u32, _root: &mut [u8]) -> Option<usize> {
        None
    }
}

/// The model. Places are lists of names; where a list leads on the host is found anew each time.
struct Model<'m> {
    files: &'m Files,
    binds: &'m [(String, String)],
    links: u32,
}

impl Model<'_> {
    fn host(&self, place: &[String]) -> String {
        (0..=place.len())
            .rev()
            .find_map(|cut| {
                let mount = format!("/{}", place[..cut].join("/"));
                let bind = self.binds.iter().find(|bind| bind.0 == mount)?;
                Some((bind.1.clone(), cut))
            })
            .or_else(|| Some(("/tree".into(), 0)))
            .map(|(top, cut)| place[cut..].iter().fold(top, |path, name| format!("{path}/{name}")))
            .unwrap()
    }

    fn file(&self, place: &[String]) -> Option<&File> {
        self.files.0.get(&self.host(place))
    }

    /// Whether a mount point lies on or below the place: then it is no link, whatever the tree has there.
    fn mounted(&self, place: &[String]) -> bool {
        let place = format!("/{}", place.join("/"));
        self.binds.iter().any(|bind| bind.0 == place || bind.0.starts_with(&format!("{place}/")))
    }

    /// Where `path` leads from `place`; `follow`: also if its last component is a link. The last may be missing.
    fn walk(&mut self, mut place: Vec<String>, path: &str, follow: bool) -> Result<Vec<String>, Errno> {
        if path.starts_with('/') {
            place.clear();
        }
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        for (at, name) in names.iter().enumerate() {
            let last = at + 1 == names.len();
            let needs_directory = !last || path.ends_with('/');
            match *name {
                "." => {}
                ".." => {
                    place.pop();
                }
                _ => {
                    let mut next = place.clone();
                    next.push((*name).to_owned());
                    if let Some(File::Link(target)) = self.file(&next).cloned()
                        && !self.mounted(&next)
                        && (follow || needs_directory)
                    {
                        self.links += 1;
                        if self.links > 40 {
                            return Err(Errno::ELOOP);
                        }
                        next = self.walk(place, &target, true)?;
                    }
                    place = next;
                }
            }
            if !last {
                match self.file(&place) {
                    _ if self.mounted(&place) && self.file(&place).is_none() => {}
                    Some(File::Directory) => {}
                    Some(_) => return Err(Errno::ENOTDIR),
                    None => return Err(Errno::ENOENT),
                }
            }
        }
        Ok(place)
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => prop::sample::select(&NAMES[..]), 1 => Just(".."), 1 => Just(".")];
    (any::<bool>(), prop::collection::vec(part, 1..6))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

fn plain() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

/// Files below `/tree`, `/one` and `/two`.
fn files() -> impl Strategy<Value = Files> {
    let file = prop_oneof![2 => Just(File::Directory), 1 => Just(File::Plain), 3 => path().prop_map(File::Link)];
    prop::collection::vec((prop::sample::select(&["/tree", "/one", "/two"][..]), plain(), file), 0..40).prop_map(
        |list| {
            let mut files = Files::default();
            for top in ["", "/tree", "/one", "/two"] {
                files.0.insert(top.into(), File::Directory);
            }
            for (top, path, file) in list {
                let mut at = top.to_owned();
                let names: Vec<&str> = path[1..].split('/').collect();
                for name in &names[..names.len() - 1] {
                    at = format!("{at}/{name}");
                    if files.0.entry(at.clone()).or_insert(File::Directory) != &File::Directory {
                        break;
                    }
                }
                if files.0.get(&at) == Some(&File::Directory) {
                    files.0.entry(format!("{at}/{}", names[names.len() - 1])).or_insert(file);
                }
            }
            files
        },
    )
}

/// Whether every file that leads to a mount point is a directory (of the view), as the view's rules ask.
fn reachable(model: &Model<'_>, mount: &str) -> bool {
    let names: Vec<String> = mount[1..].split('/').map(str::to_owned).collect();
    (1..names.len()).all(|cut| model.file(&names[..cut]) == Some(&File::Directory))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_is_the_model(
        files in files(),
        mounts in prop::collection::vec((plain(), prop::sample::select(&["/one", "/two"][..])), 0..3),
        paths in prop::collection::vec((path(), any::<bool>()), 1..8),
        by_table in any::<bool>(),
    ) {
        let mut binds: Vec<(String, String)> = Vec::new();
        for (guest, host) in mounts {
            let candidate = Model { files: &files, binds: &binds, links: 0 };
            // One volume at two places is fine, a volume inside itself too; a mount point needs its parents.
            if reachable(&candidate, &guest) {
                binds.retain(|bind| bind.0 != guest);
                binds.push((guest, host.to_owned()));
            }
        }
        let whole = binds.iter().all(|bind| reachable(&Model { files: &files, binds: &binds, links: 0 }, &bind.0));
        prop_assume!(whole);
        let mut list: Vec<Bind<'_>> = binds
            .iter()
            .map(|(guest, host)| Bind { guest: guest.as_bytes(), host: host.as_bytes(), read_only: false })
            .collect();
        let kept = arrange(&mut list);
        let mut view = View::new(b"/tree", false, &list[..kept]).unwrap();
        let bytes = table::build(files.0.iter().filter_map(|(path, file)| {
            let kind = match file {
                File::Directory => table::Kind::Directory,
                File::Plain => table::Kind::File,
                File::Link(text) => table::Kind::Symlink(text.as_bytes()),
            };
            Some((path.strip_prefix("/tree/")?.as_bytes(), kind))
        }))
        .unwrap();
        if by_table {
            view = view.with_table(Table::new(&bytes).unwrap());
        }
        let mut buffers = Box::new(Buffers::new());
        for (path, follow) in paths {
            let mut model = Model { files: &files, binds: &binds, links: 0 };
            let expected = model.walk(Vec::new(), &path, follow);
            let request = Request {
                root: b"/",
                base: Base { guest: b"/", deleted: false },
                path: path.as_bytes(),
                last: if follow { Last::Follow } else { Last::NoFollow },
            };
            // What the walk did not ask, the system call itself says.
            let answer = resolve(&view, &files, &request, &mut buffers).and_then(|found| {
                let host = found.host.to_str().unwrap();
                if found.found == Found::Unknown {
                    let parent = host.rfind('/').map_or("", |at| &host[..at]);
                    files.get(parent)?;
                    files.get(host).map(|_| ()).or_else(|errno| {
                        if errno == Errno::ENOENT && !host.ends_with("/.") { Ok(()) } else { Err(errno) }
                    })?;
                }
                Ok(found)
            });
            match (expected, answer) {
                (Ok(place), Ok(found)) => {
                    let host = found.host.to_str().unwrap();
                    prop_assert_eq!(host.strip_suffix("/.").unwrap_or(host), model.host(&place), "{}", path);
                    let guest = std::str::from_utf8(found.guest).unwrap();
                    prop_assert_eq!(guest, format!("/{}", place.join("/")), "{}", path);
                    if let Some(file) = model.file(&place) {
                        prop_assert!(found.found != Found::Missing, "{path} is {file:?}");
                    }
                    // The way back: another name of the same file at worst.
                    let mut room = [0; 4096];
                    let back = view.to_guest(model.host(&place).as_bytes(), &mut room).unwrap();
                    let back = std::str::from_utf8(&room[..back.len]).unwrap().to_owned();
                    let names: Vec<String> =
                        back.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                    prop_assert_eq!(model.host(&names), model.host(&place), "{} shown as {}", path, back);
                }
                (Err(expected), Err(errno)) => prop_assert_eq!(expected, errno, "{}", path),
                (expected, answer) => prop_assert!(false, "{path}: {expected:?} and not {answer:?}"),
            }
        }
    }

    #[test]
    fn no_bytes_break_a_table(bytes in prop::collection::vec(any::<u8>(), 0..400), name in "[a-z/]{0,12}") {
        // Behind a true header, so that it is read.
        let mut whole = table::MAGIC.to_vec();
        for count in [4_u32, 8] {
            whole.extend_from_slice(&count.to_le_bytes());
        }
        let strings = bytes.len().saturating_sub(4 * 16 + 8 * 4);
        whole.extend_from_slice(&u32::try_from(strings).unwrap().to_le_bytes());
        whole.extend_from_slice(&[0; 12]);
        whole.extend_from_slice(&bytes);
        if let Ok(table) = Table::new(&whole) {
            let view = View::new(b"/tree", true, &[]).unwrap().with_table(table);
            let mut buffers = Box::new(Buffers::new());
            for path in [name.as_str(), "a/b", "../a"] {
                let base = Base { guest: b"/a", deleted: false };
                let request = Request { root: b"/", base, path: path.as_bytes(), last: Last::Follow };
                let _ = resolve(&view, &Files::default(), &request, &mut buffers);
            }
        }
        prop_assert!(!Table::is_whole(&whole) || bytes.is_empty(), "no sum, and yet whole");
        let _ = Table::new(&bytes);
    }
}
