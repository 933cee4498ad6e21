//! The edits of a whole tree for engines that leave loading to the tree's own loaders.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use coracle_api::{ImageFacts, Libc, Loader};
use coracle_format::Edit;
use goblin::elf::header::{EM_AARCH64, EM_X86_64};

use super::{
    Analysis, EngineEdits, FileEdits, Line, PRELOAD, Report,
    bytes::Bytes,
    facts::FactsError,
    interpreter, libraries, links, loader,
    object::{Object, Odd, Read},
    paths::{name, parent, resolve, shown},
    runpath::{self, Around},
};
use crate::flatten::{Data, Inode, InodeId, InodeKind, Tree};

/// A packer's mark lies behind the headers (UPX's `l_info`).
const PACKED: (&[u8], u64) = (b"UPX!", 4096);

/// A program that is larger, and in which nothing but its loader's name would change, is left as it is: it is entered by its
/// loader, as programs that appear later are, which takes it no longer. A copy of it would take each node more time and room
/// than those of a hundred others.
const LARGE: u64 = 2 << 20;

/// More directories that run paths name would be too long a list for each program's command line.
const MOST_NAMED: usize = 100;

/// The attribute of a file whose content is signed.
const SIGNED: &[u8] = b"security.ima";

/// A loader of the tree, by its path.
struct Known {
    libc: Libc,
    edits: Vec<(u64, Edit)>,
    built_in: Vec<Vec<u8>>,
}

/// What a loader has to be told, as a file's own search path does not say it.
#[derive(Default)]
struct Told {
    /// Of the edited file.
    directories: Vec<Vec<u8>>,
    /// Of the file as it is.
    named: Vec<Vec<u8>>,
}

struct Editor<'a> {
    tree: &'a Tree,
    machine: u16,
    /// Names of files that have several.
    names: HashMap<InodeId, Vec<&'a [u8]>>,
    loaders: BTreeMap<Vec<u8>, Known>,
    files: BTreeMap<Vec<u8>, Vec<(u64, Edit)>>,
    edited: BTreeMap<Vec<u8>, Vec<String>>,
    left: BTreeSet<Line>,
}

/// Completes `facts`, and makes the edits. `interpreters` says how many programs name each.
pub(super) fn analyse(
    tree: &Tree,
    facts: ImageFacts,
    interpreters: &BTreeMap<String, usize>,
) -> Result<Analysis, FactsError> {
    let mut facts = facts;
    let mut left: BTreeSet<Line> = facts
        .static_programs
        .iter()
        .map(|path| Line { path: path.clone(), text: "it is linked statically and asks no loader".to_owned() })
        .collect();
    let machine = match facts.architecture.as_str() {
        "amd64" => EM_X86_64,
        "arm64" => EM_AARCH64,
        _ => {
            return Ok(Analysis {
                facts,
                edits: Vec::new(),
                report: Report { left: left.into_iter().collect(), ..Report::default() },
            });
        }
    };
    let mut names = HashMap::<InodeId, Vec<&[u8]>>::new();
    for (path, id) in &tree.paths {
        if matches!(tree.inode(*id).kind, InodeKind::File { .. }) {
            names.entry(*id).or_default().push(path);
        }
    }
    names.retain(|_, names| names.len() > 1);
    let mut editor = Editor {
        tree,
        machine,
        names,
        loaders: BTreeMap::new(),
        files: BTreeMap::new(),
        edited: BTreeMap::new(),
        left: std::mem::take(&mut left),
    };
    facts.loaders = editor.find_loaders(interpreters)?;
    editor.edit_files(&mut facts)?;
    editor.finish(facts)
}

impl<'a> Editor<'a> {
    /// The loaders that programs name, the most wanted first.
    fn find_loaders(&mut self, interpreters: &BTreeMap<String, usize>) -> Result<Vec<Loader>, FactsError> {
        let mut wanted = BTreeMap::<Vec<u8>, usize>::new();
        for (guest, count) in interpreters {
            if let Some(resolved) = resolve(self.tree, guest.as_bytes()).filter(|resolved| resolved.exists) {
                *wanted.entry(resolved.path).or_default() += count;
            }
        }
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut loaders = Vec::new();
        for (path, _) in wanted {
            let Some((inode, data, size)) = file(self.tree, &path) else { continue };
            let found = self.find_loader(inode, data, size).map_err(failed(&path, data))?;
            let known = match found {
                Ok(known) => known,
                Err(Odd(why)) => {
                    self.leave(&path, why);
                    continue;
                }
            };
            loaders.push(self.describe(&path, &known).map_err(failed(&path, data))?);
            self.loaders.insert(path, known);
        }
        Ok(loaders)
    }

    fn find_loader(&self, inode: &Inode, data: &Data, size: u64) -> io::Result<Result<Known, Odd>> {
        let bytes = Bytes { data, size };
        let object = match Object::read(bytes, self.machine)? {
            Read::Object(object) => object,
            Read::Odd(why) => return Ok(Err(why)),
            Read::None => return Ok(Err(Odd("it is named as a loader and is none"))),
        };
        if is_signed(inode) {
            return Ok(Err(Odd("it is signed")));
        }
        for libc in [Libc::Glibc, Libc::Musl] {
            let found = loader::find(bytes, object.read_only(), libc)?;
            if !found.directories.is_empty() {
                return Ok(Ok(Known { libc, edits: found.edits, built_in: found.directories }));
            }
        }
        Ok(Err(Odd("it is a loader of neither glibc nor musl")))
    }

    fn describe(&self, path: &[u8], known: &Known) -> io::Result<Loader> {
        let tree = self.tree;
        let found = libraries::directories(tree, known.libc, path, &known.built_in)?.paths;
        let glibc = known.libc == Libc::Glibc;
        let gconv = found.iter().map(|directory| [directory, &b"/gconv"[..]].concat());
        let gconv = gconv.filter(|directory| tree.get(&[directory, &b"/gconv-modules"[..]].concat()).is_some());
        let locales = resolve(tree, b"usr/lib/locale").filter(|locales| glibc && locales.exists);
        let archive =
            [b"/", &locales.as_ref().map(|locales| locales.path.clone()).unwrap_or_default()[..], b"/locale-archive"];
        Ok(Loader {
            path: shown(path),
            libc: known.libc,
            directories: found.iter().map(|path| shown(path)).collect(),
            gconv: gconv.filter(|_| glibc).map(|path| shown(&path)).next(),
            named: Vec::new(),
            locale_archive: locales.is_some() && resolve(tree, &archive.concat()).is_some_and(|archive| archive.exists),
            locales: locales.map(|locales| shown(&locales.path)),
        })
    }

    fn edit_files(&mut self, facts: &mut ImageFacts) -> Result<(), FactsError> {
        let tree = self.tree;
        let Some(first) = facts.loaders.first_mut() else { return Ok(()) };
        let libc = first.libc;
        let libraries = by_name(tree, &first.directories);
        let around = Around { tree, libc, libraries: &libraries };
        let mut leaving = links::of_libraries(tree);
        let (mut more, mut named) = (libraries::Directories::default(), libraries::Directories::default());
        let mut seen = BTreeSet::new();
        for (path, id) in &tree.paths {
            let InodeKind::File { size, data } = &tree.inode(*id).kind else { continue };
            if !seen.insert(*id) {
                continue;
            }
            let file = File { path, id: *id, inode: tree.inode(*id), bytes: Bytes { data, size: *size } };
            let told = self.edit_file(&file, &around, &mut leaving).map_err(failed(path, data))?;
            told.directories.iter().for_each(|place| more.add(tree, place));
            told.named.iter().for_each(|place| named.add(tree, place));
        }
        for path in more.paths.iter().map(|path| shown(path)) {
            if !first.directories.contains(&path) {
                first.directories.push(path);
            }
        }
        let others = named.paths.iter().map(|path| shown(path)).filter(|path| !first.directories.contains(path));
        first.named = others.take(MOST_NAMED).collect();
        for path in leaving {
            if let Some(edit) = links::edit(tree, &path) {
                let Edit::Bytes(target) = &edit else { continue };
                let how = format!("link made relative: {}", String::from_utf8_lossy(target));
                self.edited.entry(path.clone()).or_default().push(how);
                self.files.insert(path, vec![(0, edit)]);
            }
        }
        Ok(())
    }

    /// Edits one file, and gives directories that the loader has to be told of, or that a run path names.
    fn edit_file(&mut self, file: &File<'_>, around: &Around<'_>, leaving: &mut BTreeSet<Vec<u8>>) -> io::Result<Told> {
        let object = match Object::read(file.bytes, self.machine)? {
            Read::None => return Ok(Told::default()),
            Read::Odd(Odd(why)) => {
                self.leave(file.path, why);
                return Ok(Told::default());
            }
            Read::Object(object) => object,
        };
        let (mut edits, mut how, mut named_only) = (Vec::new(), Vec::new(), false);
        if let Some(known) = self.loaders.get(file.path) {
            edits.extend(known.edits.iter().cloned());
            how.push("loader made to forget the host's libraries".to_owned());
        }
        match self.interpreter(file, &object)? {
            Ok(Some((suffix, own))) => {
                named_only = edits.is_empty();
                edits.extend(own);
                how.push(format!("loader {} of the view", shown(&suffix)));
            }
            Ok(None) => {}
            Err(Odd(why)) => self.leave(file.path, why),
        }
        let mut told = Told::default();
        match runpath::places(around, &object, file.bytes, file.path)? {
            Ok(places) => {
                told.named = places.named;
                let parents = self.names.get(&file.id).into_iter().flatten().map(|name| parent(name));
                if places.edits.is_empty() || parents.collect::<BTreeSet<_>>().len() <= 1 {
                    edits.extend(places.edits);
                    how.extend(places.how);
                    told.directories = places.directories;
                } else {
                    told.directories.clone_from(&told.named);
                    self.leave(file.path, "its search path stays: it has names in several directories");
                }
                leaving.extend(places.leaving);
            }
            Err(Odd(why)) => self.leave(file.path, why),
        }
        if edits.is_empty() {
            return Ok(told);
        }
        if named_only && how.len() == 1 && file.bytes.size > LARGE {
            self.leave(file.path, "it is large: its loader is started in its place");
            return Ok(told);
        }
        let whole = sorted(edits);
        match whole {
            Some(_) if is_signed(file.inode) => {
                told.directories.clone_from(&told.named);
                self.leave(file.path, "it is signed");
            }
            Some(edits) => {
                self.edited.insert(file.path.to_vec(), how);
                self.files.insert(file.path.to_vec(), edits);
            }
            None => self.leave(file.path, "its headers overlap"),
        }
        Ok(told)
    }

    #[expect(clippy::type_complexity, reason = "nothing, a path with edits, or why not, and the host's errors outside")]
    fn interpreter(
        &self,
        file: &File<'_>,
        object: &Object,
    ) -> io::Result<Result<Option<(Vec<u8>, Vec<(u64, Edit)>)>, Odd>> {
        let (number, segment) = match object.interpreter() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Ok(None)),
            Err(odd) => return Ok(Err(odd)),
        };
        if file.inode.mode & 0o111 == 0 {
            return Ok(Err(Odd("its mode does not let it be executed")));
        }
        let guest = match interpreter::name(file.bytes, segment)? {
            Ok(guest) => guest,
            Err(odd) => return Ok(Err(odd)),
        };
        let Some(resolved) = resolve(self.tree, &guest).filter(|resolved| self.loaders.contains_key(&resolved.path))
        else {
            return Ok(Err(Odd("its loader is not in the image, or not one that can be used")));
        };
        let suffix = [b"/", &resolved.path[..]].concat();
        Ok(interpreter::edits(object, number, file.bytes, &suffix).map(|edits| Some((resolved.path, edits))))
    }

    fn leave(&mut self, path: &[u8], why: &str) {
        self.left.insert(Line { path: shown(path), text: why.to_owned() });
    }

    fn finish(mut self, mut facts: ImageFacts) -> Result<Analysis, FactsError> {
        // Static programs that a packer made say so.
        for path in &facts.static_programs {
            let Some((_, data, size)) = file(self.tree, path.trim_start_matches('/').as_bytes()) else { continue };
            let head = Bytes { data, size }.get(0, size.min(PACKED.1)).map_err(failed(path.as_bytes(), data))?;
            if head.is_some_and(|head| head.windows(PACKED.0.len()).any(|window| window == PACKED.0)) {
                self.left.retain(|line| line.path != *path);
                self.leave(path.trim_start_matches('/').as_bytes(), "it is packed with UPX");
            }
        }
        let mut edits = Vec::new();
        if !facts.loaders.is_empty() {
            facts.edited_for.push(PRELOAD.to_owned());
            let files = self.files.into_iter().map(|(path, edits)| FileEdits { path, edits }).collect();
            edits.push(EngineEdits { engine: PRELOAD.to_owned(), files });
        }
        let edited =
            self.edited.into_iter().map(|(path, how)| Line { path: shown(&path), text: how.join("; ") }).collect();
        Ok(Analysis { facts, edits, report: Report { edited, left: self.left.into_iter().collect() } })
    }
}

/// A file of the tree under its first name.
struct File<'a> {
    path: &'a [u8],
    id: InodeId,
    inode: &'a Inode,
    bytes: Bytes<'a>,
}

fn file<'t>(tree: &'t Tree, path: &[u8]) -> Option<(&'t Inode, &'t Data, u64)> {
    let inode = tree.get(path)?;
    match &inode.kind {
        InodeKind::File { size, data } => Some((inode, data, *size)),
        _ => None,
    }
}

fn is_signed(inode: &Inode) -> bool {
    inode.xattrs.iter().any(|xattr| xattr.name == SIGNED)
}

/// The libraries that a loader finds by name alone, and the file that each is.
fn by_name(tree: &Tree, directories: &[String]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut libraries = BTreeMap::new();
    for directory in directories {
        let below = format!("{}/", directory.trim_start_matches('/')).into_bytes();
        for (path, _) in tree.paths.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below)) {
            let file = &path[below.len()..];
            if file.contains(&b'/') || !links::is_library(name(file)) || libraries.contains_key(file) {
                continue;
            }
            if let Some(resolved) = resolve(tree, path).filter(|resolved| resolved.exists) {
                libraries.insert(file.to_vec(), resolved.path);
            }
        }
    }
    libraries
}

/// Edits by offset; `None` if two want the same bytes.
fn sorted(mut edits: Vec<(u64, Edit)>) -> Option<Vec<(u64, Edit)>> {
    edits.sort_by_key(|(offset, _)| *offset);
    let apart = edits.windows(2).all(|two| two[0].0.saturating_add(two[0].1.len()) <= two[1].0);
    apart.then_some(edits)
}

fn failed<'a>(path: &'a [u8], data: &'a Data) -> impl FnOnce(io::Error) -> FactsError + 'a {
    move |error| FactsError::new(path, data, error)
}
