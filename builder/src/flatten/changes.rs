//! "My application on that image", without Docker: what `--copy` adds to a tree and `--exclude` takes from it.
//!
//! Copies follow the rules of a Dockerfile's COPY:
//! - a directory gives its content, a file itself; into the destination if that ends in a slash or is a directory, else
//!   as it;
//! - owners are 0:0, modes and times those of the source, missing parents 0755; directories merge;
//! - symbolic links in the destination lead inside the tree; those in the source are copied, except the source itself.
//!
//! Times are kept because the same files shall give the same bundle, and because compiled Python names the time of its
//! source; `newest` (SOURCE_DATE_EPOCH) bounds them where the files themselves are made anew each time.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use coracle_format::Time;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{Inode, InodeId, InodeKind, Tree, error::shown, hidden::split};
use crate::source::{Owners, WalkError, WalkOptions, walk};

/// Symbolic links followed in one destination, as the kernel does.
const LINKS_MOST: usize = 40;

/// A change that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// `--copy` without a destination or a source.
    #[error("--copy {given}: it does not say from where to where: write SRC:DST")]
    Form {
        /// The option's value.
        given: String,
    },
    /// The source cannot be read.
    #[error("--copy: {0}")]
    Source(WalkError),
    /// The destination cannot take it.
    #[error("--copy {}: /{to} of the image {why}: choose another destination", from.display())]
    Destination {
        /// The source.
        from: PathBuf,
        /// The place in the image.
        to: String,
        /// Why.
        why: &'static str,
    },
    /// No pattern.
    #[error("--exclude {pattern}: {why}: write a path of the image, with *, ** and ? for what may differ")]
    Pattern {
        /// The option's value.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

/// One `--copy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Path on the host.
    pub from: PathBuf,
    /// Path in the image; relative to the working directory.
    pub to: Vec<u8>,
}

impl Copy {
    /// Reads `SRC:DST`. The last colon counts: places in images have none.
    ///
    /// # Errors
    /// [`ChangeError::Form`].
    pub fn parse(given: &OsStr) -> Result<Self, ChangeError> {
        let bytes = given.as_bytes();
        let colon = bytes.iter().rposition(|byte| *byte == b':').filter(|at| *at > 0 && at + 1 < bytes.len());
        let at = colon.ok_or_else(|| ChangeError::Form { given: given.to_string_lossy().into_owned() })?;
        Ok(Self { from: OsStr::from_bytes(&bytes[..at]).into(), to: bytes[at + 1..].to_vec() })
    }

    /// Copies into the tree. `workdir` is the image's working directory; times after `newest` become `newest`.
    ///
    /// # Errors
    /// The source cannot be read, or the destination cannot take it.
    pub fn apply(&self, tree: &mut Tree, workdir: Option<&str>, newest: Option<Time>) -> Result<(), ChangeError> {
        let fails = |to: &[u8], why| ChangeError::Destination { from: self.from.clone(), to: shown(to), why };
        let mut source = walk(&self.from, WalkOptions { owners: Owners::Kept, ..WalkOptions::default() })
            .map_err(ChangeError::Source)?;
        for inode in &mut source.inodes {
            (inode.uid, inode.gid) = (0, 0);
            inode.mtime = newest.map_or(inode.mtime, |newest| inode.mtime.min(newest));
        }
        let top = source.get(b"").expect("a walk has its root").clone();
        let directory = matches!(top.kind, InodeKind::Directory);
        let mut named = Vec::new();
        if !self.to.starts_with(b"/") {
            named.extend_from_slice(workdir.unwrap_or("").as_bytes());
            named.push(b'/');
        }
        named.extend_from_slice(&self.to);
        let mut to = resolve(tree, &named).map_err(|why| fails(&named, why))?;
        let into = self.to.ends_with(b"/") || matches!(self.to.rsplit(|b| *b == b'/').next(), Some(b"." | b".."));
        let is_directory =
            |tree: &Tree, path: &[u8]| tree.get(path).is_some_and(|inode| matches!(inode.kind, InodeKind::Directory));
        if !directory && (into || is_directory(tree, &to)) {
            let name = self.from.file_name().map_or(&b""[..], OsStr::as_bytes);
            let canonical = std::fs::canonicalize(&self.from).ok();
            let name = match &canonical {
                Some(path) if name.is_empty() => path.file_name().map_or(&b""[..], OsStr::as_bytes),
                _ => name,
            };
            if !to.is_empty() {
                to.push(b'/');
            }
            to.extend_from_slice(name);
        }
        make_parents(tree, &to, top.mtime).map_err(|(at, why)| fails(&at, why))?;

        let mut ids: HashMap<InodeId, InodeId> = HashMap::new();
        // Where each directory of the source really goes: one of the image may be a link to elsewhere in it.
        let mut places: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for (path, id) in &source.paths {
            let inode = source.inode(*id);
            let mut place = if path.is_empty() {
                to.clone()
            } else {
                let (parent, name) = split(path);
                join(&places[parent], name)
            };
            if matches!(inode.kind, InodeKind::Directory) {
                place = resolve(tree, &place).map_err(|why| fails(&place, why))?;
                match tree.paths.get(&place) {
                    None => {
                        let id = tree.add(inode.clone());
                        make_parents(tree, &place, inode.mtime).map_err(|(at, why)| fails(&at, why))?;
                        tree.paths.insert(place.clone(), id);
                    }
                    Some(there) if matches!(tree.inode(*there).kind, InodeKind::Directory) => {
                        // The destination keeps what it is; directories in it become those of the source.
                        if !path.is_empty() {
                            *tree.inode_mut(*there) = inode.clone();
                        }
                    }
                    Some(_) => return Err(fails(&place, "is not a directory")),
                }
                places.insert(path.clone(), place);
                continue;
            }
            if is_directory(tree, &place) {
                return Err(fails(&place, "is a directory"));
            }
            let new = *ids.entry(*id).or_insert_with(|| tree.add(inode.clone()));
            tree.paths.insert(place, new);
        }
        tree.notes.extend(source.notes);
        Ok(())
    }
}

/// Takes from the tree what matches one of the patterns, directories with all that is in them. A pattern is a path of the
/// image in which `*` and `?` stand for parts of a name and `**` for any number of directories; without a slash it means
/// that name anywhere, and with one at its end directories only. A pattern that matches nothing leaves a note.
///
/// # Errors
/// [`ChangeError::Pattern`].
pub fn exclude(tree: &mut Tree, patterns: &[impl AsRef<OsStr>]) -> Result<(), ChangeError> {
    let mut given = Vec::new();
    let (mut all, mut directories) = (GlobSetBuilder::new(), GlobSetBuilder::new());
    let (mut all_of, mut directories_of) = (Vec::new(), Vec::new());
    for (number, pattern) in patterns.iter().enumerate() {
        let text = pattern.as_ref().to_string_lossy().into_owned();
        let wrong = |why: String| ChangeError::Pattern { pattern: text.clone(), why };
        let path = text.trim_end_matches('/');
        if path.is_empty() {
            return Err(wrong("the image would be empty".into()));
        }
        let anchored = if path.contains('/') { path.trim_start_matches('/').to_owned() } else { format!("**/{path}") };
        let glob = GlobBuilder::new(&anchored).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|error| wrong(error.kind().to_string()))?;
        if text.ends_with('/') {
            directories.add(glob);
            directories_of.push(number);
        } else {
            all.add(glob);
            all_of.push(number);
        }
        given.push(text);
    }
    let build = |set: GlobSetBuilder| -> Result<GlobSet, ChangeError> {
        set.build().map_err(|error| ChangeError::Pattern { pattern: String::new(), why: error.to_string() })
    };
    let (all, directories) = (build(all)?, build(directories)?);
    let mut used = vec![false; given.len()];
    let mut gone: Option<Vec<u8>> = None;
    let mut matched = Vec::new();
    let Tree { paths, inodes, .. } = tree;
    paths.retain(|path, id| {
        // What lies in an excluded directory does not always follow it at once ("a.b" sorts before "a/b"): each parent is
        // asked for, and the last answer is remembered.
        if path.is_empty() {
            return true;
        }
        if gone.as_deref().is_some_and(|gone| is_below(path, gone)) {
            return false;
        }
        let host = Path::new(OsStr::from_bytes(path));
        matched.clear();
        all.matches_into(host, &mut matched);
        let mut hit = !matched.is_empty();
        matched.iter().for_each(|at| used[all_of[*at]] = true);
        if matches!(inodes[id.0 as usize].kind, InodeKind::Directory) {
            matched.clear();
            directories.matches_into(host, &mut matched);
            hit |= !matched.is_empty();
            matched.iter().for_each(|at| used[directories_of[*at]] = true);
            if hit {
                gone = Some(path.clone());
            }
        }
        !hit
    });
    // The rest of directories that were interrupted by a name between them and their content.
    let orphans: Vec<Vec<u8>> = {
        let mut orphans = Vec::new();
        for path in paths.keys().filter(|path| !path.is_empty()) {
            let parent = split(path).0;
            if !paths.contains_key(parent) || orphans.last().is_some_and(|orphan: &Vec<u8>| is_below(path, orphan)) {
                orphans.push(path.clone());
            }
        }
        orphans
    };
    for orphan in orphans {
        tree.remove(&orphan);
    }
    for (pattern, _) in given.iter().zip(used).filter(|(_, used)| !used) {
        tree.notes.push(format!("--exclude {pattern}: nothing in the image matches it"));
    }
    Ok(())
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// Follows a guest path through the tree's symbolic links, the last one too. What is not there stays as it is named.
fn resolve(tree: &Tree, path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut todo: Vec<Vec<u8>> = path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    let mut done: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match &part[..] {
            b"" | b"." => {}
            b".." => done.truncate(split(&done).0.len()),
            _ => {
                let next = join(&done, &part);
                if let Some(Inode { kind: InodeKind::Symlink(target), .. }) = tree.get(&next) {
                    links += 1;
                    if links > LINKS_MOST {
                        return Err("leads through too many symbolic links");
                    }
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    todo.extend(target.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
                } else {
                    done = next;
                }
            }
        }
    }
    Ok(done)
}

/// Makes the directories above a resolved path.
fn make_parents(tree: &mut Tree, path: &[u8], mtime: Time) -> Result<(), (Vec<u8>, &'static str)> {
    let mut missing = Vec::new();
    let mut parent = path;
    while !parent.is_empty() {
        parent = split(parent).0;
        match tree.get(parent) {
            Some(inode) if matches!(inode.kind, InodeKind::Directory) => break,
            Some(_) => return Err((parent.to_vec(), "is not a directory")),
            None => missing.push(parent.to_vec()),
        }
    }
    for parent in missing {
        let kind = InodeKind::Directory;
        let id = tree.add(Inode { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind });
        tree.paths.insert(parent, id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;
    use crate::flatten::Data;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in ["/"].iter().chain(paths) {
            let (path, kind) = match (path.split_once("->"), path.strip_suffix('/')) {
                (Some((path, target)), _) => (path, InodeKind::Symlink(target.as_bytes().to_vec())),
                (None, Some(path)) => (path, InodeKind::Directory),
                (None, None) => (*path, InodeKind::File { size: 0, data: Data::Bytes([].into()) }),
            };
            let id = tree.add(Inode { mode: 0o711, uid: 1, gid: 2, mtime: Time::default(), xattrs: Vec::new(), kind });
            tree.paths.insert(path.as_bytes().to_vec(), id);
        }
        tree
    }

    fn names(tree: &Tree) -> String {
        let name = |(path, id): (&Vec<u8>, &InodeId)| {
            let end = if matches!(tree.inode(*id).kind, InodeKind::Directory) { "/" } else { "" };
            format!("{}{end}", String::from_utf8_lossy(path))
        };
        tree.paths.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    /// A source: `file`, `dir/` with `x`, `sub/y`, a link and a hard link.
    fn source() -> tempfile::TempDir {
        let source = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| source.path().join(name);
        fs::create_dir_all(at("dir/sub")).expect("made");
        fs::write(at("file"), "file").expect("written");
        fs::set_permissions(at("file"), fs::Permissions::from_mode(0o4750)).expect("changed");
        fs::set_permissions(at("dir/sub"), fs::Permissions::from_mode(0o750)).expect("changed");
        fs::write(at("dir/x"), "x").expect("written");
        fs::hard_link(at("dir/x"), at("dir/sub/y")).expect("linked");
        symlink("x", at("dir/l")).expect("linked");
        symlink("file", at("link")).expect("linked");
        source
    }

    fn copied(tree: &mut Tree, from: &Path, to: &str) -> Result<(), String> {
        let mut given = from.as_os_str().to_owned();
        given.push(":");
        given.push(to);
        Copy::parse(&given).and_then(|copy| copy.apply(tree, Some("/srv"), None)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_goes_where_dockers_copy_puts_it() {
        let source = source();
        let file = source.path().join("file");
        for (to, expected) in [
            ("/app", "/ app usr/ usr/lib/ lib"),
            ("/app/", "/ app/ app/file usr/ usr/lib/ lib"),
            ("/a/b/c", "/ a/ a/b/ a/b/c usr/ usr/lib/ lib"),
            ("/usr", "/ usr/ usr/file usr/lib/ lib"),
            ("/lib", "/ usr/ usr/lib/ usr/lib/file lib"),
            ("/lib/new", "/ usr/ usr/lib/ usr/lib/new lib"),
            ("rel", "/ srv/ srv/rel usr/ usr/lib/ lib"),
            (".", "/ srv/ srv/file usr/ usr/lib/ lib"),
            ("/", "/ file usr/ usr/lib/ lib"),
            ("/../../x", "/ usr/ usr/lib/ x lib"),
        ] {
            let mut tree = tree(&["usr/", "usr/lib/", "lib->../usr/lib"]);
            copied(&mut tree, &file, to).unwrap_or_else(|error| panic!("{to}: {error}"));
            let mut expected: Vec<_> = expected.split(' ').collect();
            expected.sort_by_key(|name| name.trim_end_matches('/'));
            assert_eq!(names(&tree), expected.join(" "), "{to}");
        }
        let mut tree = tree(&[]);
        copied(&mut tree, &source.path().join("link"), "/d/").expect("copied");
        let inode = tree.get(b"d/link").expect("under the name given, with what the link leads to");
        assert!(matches!(inode.kind, InodeKind::File { size: 4, .. }));
        assert_eq!((inode.mode, inode.uid, inode.gid), (0o4750, 0, 0));
        let parent = tree.get(b"d").expect("made");
        assert_eq!((parent.mode, parent.uid, parent.mtime), (0o755, 0, inode.mtime));
    }

    #[test]
    fn a_directory_gives_its_content() {
        let source = source();
        let directory = source.path().join("dir");
        let mut tree = tree(&["app/", "app/keep", "app/l", "else/", "app/sub->../else"]);
        copied(&mut tree, &directory, "/app").expect("copied");
        assert_eq!(names(&tree), "/ app/ app/keep app/l app/sub app/x else/ else/y");
        assert_eq!(tree.paths[&b"app/x"[..]], tree.paths[&b"else/y"[..]], "hard links stay");
        assert!(matches!(&tree.get(b"app/l").expect("there").kind, InodeKind::Symlink(to) if to == b"x"));
        assert_eq!(tree.get(b"app").expect("there").mode, 0o711, "the destination keeps its mode");
        assert_eq!(tree.get(b"else").expect("there").mode, 0o750, "directories in it take the source's");
        let mut new = super::tests::tree(&[]);
        copied(&mut new, &directory, "/a/b").expect("copied");
        assert_eq!(names(&new), "/ a/ a/b/ a/b/l a/b/sub/ a/b/sub/y a/b/x");
    }

    #[test]
    fn what_cannot_be_copied() {
        let source = source();
        let at = |name: &str| source.path().join(name);
        let fails =
            |paths: &[&str], from: &str, to: &str| copied(&mut tree(paths), &at(from), to).expect_err("refused");
        assert!(fails(&["a"], "dir", "/a").contains("/a of the image is not a directory"));
        assert!(fails(&["a"], "file", "/a/b").contains("/a of the image is not a directory"));
        assert!(fails(&["x/"], "dir", "/").contains("/x of the image is a directory"));
        assert!(fails(&["a->b", "b->a"], "file", "/a/x").contains("too many symbolic links"));
        assert!(fails(&[], "absent", "/").contains("absent"));
        for given in ["a", ":a", "a:", ":"] {
            assert!(Copy::parse(OsStr::new(given)).is_err(), "{given}");
        }
        let odd = Copy::parse(OsStr::new("a:b:/c")).expect("the last colon counts");
        assert_eq!((odd.from, odd.to), ("a:b".into(), b"/c".to_vec()));
    }

    #[test]
    fn excluded_paths() {
        let image =
            ["a/", "a.b", "a/x.pyc", "a/y", "doc/", "doc.txt", "doc/a/", "doc/a/b", "etc/", "etc/x.pyc", "etc/doc"];
        for (patterns, left) in [
            (&["/doc"][..], "/ a/ a.b a/x.pyc a/y doc.txt etc/ etc/doc etc/x.pyc"),
            (&["doc"], "/ a/ a.b a/x.pyc a/y doc.txt etc/ etc/x.pyc"),
            (&["doc/"], "/ a/ a.b a/x.pyc a/y doc.txt etc/ etc/doc etc/x.pyc"),
            (&["/doc/**"], "/ a/ a.b a/x.pyc a/y doc/ doc.txt etc/ etc/doc etc/x.pyc"),
            (&["*.pyc", "/a*"], "/ doc/ doc.txt doc/a/ doc/a/b etc/ etc/doc"),
            (&["/*/x.pyc"], "/ a/ a.b a/y doc/ doc.txt doc/a/ doc/a/b etc/ etc/doc"),
            (&["{a,doc}", "/e?c/d*"], "/ a.b doc.txt etc/ etc/x.pyc"),
        ] {
            let mut tree = tree(&image);
            exclude(&mut tree, patterns).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(names(&tree), left, "{patterns:?}");
            assert!(tree.notes.is_empty());
        }
        let mut tree = tree(&image);
        exclude(&mut tree, &["/nothing"]).expect("a note only");
        assert_eq!(tree.notes, ["--exclude /nothing: nothing in the image matches it"]);
        assert!(exclude(&mut tree, &["/"]).is_err() && exclude(&mut tree, &["[a"]).is_err());
    }
}
