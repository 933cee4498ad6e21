//! The tree while layers are laid on it, member by member, with the meaning that `umoci unpack` gives them.
//!
//! Names are nodes, files are inodes, as in a file system. Rules:
//! - a member replaces what has its name, except that a directory keeps the children of a directory;
//! - the parent of a member is looked up inside the tree, through symbolic links of this or lower layers, and made where it
//!   is missing (0755); no lookup leaves the root;
//! - a whiteout removes what lower layers have and spares what its own layer has already put there;
//! - metadata is the last that a layer gave to the inode.

use std::collections::HashMap;

use coracle_format::Time;

use super::{
    Data, Inode, InodeId, InodeKind, Tree,
    error::{LayerError, shown},
    hidden::{OPAQUE, WHITEOUT, split},
    limits::Meter,
    members::{Member, MemberKind},
};

/// Symbolic links followed in one lookup; the kernel gives up at 40, securejoin (umoci) at 255.
const LINKS_MOST: usize = 255;
const ROOT: usize = 0;
/// No layer yet.
const NEVER: usize = usize::MAX;

/// A name in a directory.
#[derive(Debug)]
struct Node {
    inode: usize,
    /// Last layer that put something at or below this name.
    layer: usize,
    /// For directories only.
    children: HashMap<Box<[u8]>, usize>,
}

/// The tree being built.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    nodes: Vec<Node>,
    inodes: Vec<Inode>,
    /// Files whose bytes were not kept: inode to layer and number in it.
    missing: HashMap<usize, (usize, usize)>,
    meter: &'a Meter,
}

/// Where a lookup ended: the nodes on the way, and the names that are not there.
struct Place<'p> {
    /// From the root (not included) down.
    nodes: Vec<usize>,
    missing: Vec<&'p [u8]>,
    /// Bytes of the path.
    len: usize,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(meter: &'a Meter) -> Self {
        let mut assembly = Self { nodes: Vec::new(), inodes: Vec::new(), missing: HashMap::new(), meter };
        assembly.node(NEVER, implicit_directory(Time::default()));
        assembly
    }

    /// Lays one member of layer number `layer` on the tree; `number` is its place in the layer.
    pub(crate) fn apply(&mut self, layer: usize, number: usize, member: Member) -> Result<(), LayerError> {
        let refused = |why: &str| LayerError::refused(&member.path, why);
        if member.path.is_empty() {
            let MemberKind::Directory = member.kind else {
                return Err(refused("the root must be a directory"));
            };
            let inode = self.nodes[ROOT].inode;
            self.inodes[inode] = inode_of(member).0;
            return Ok(());
        }
        let (parent, name) = split(&member.path);
        let mut buffer = Vec::new();
        let place = self.look_up(parent, &mut buffer).map_err(&refused)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // Nothing is there to be hidden where the directory is not.
            let directory = place.missing.is_empty().then(|| place.nodes.last().copied().unwrap_or(ROOT));
            return match directory {
                _ if matches!(hidden, b"" | b"." | b"..") => Err(refused("a whiteout of nothing")),
                None => Ok(()),
                Some(directory) if name == OPAQUE => {
                    self.hide_below(directory, layer);
                    Ok(())
                }
                Some(directory) => {
                    self.hide(directory, hidden, layer);
                    Ok(())
                }
            };
        }
        self.meter.path(place.len + name.len(), place.nodes.len() + place.missing.len() + 1)?;
        let directory = self.make(&place, layer, member.mtime).map_err(&refused)?;
        let child = self.nodes[directory].children.get(name).copied();
        if let (Some(node), MemberKind::Directory) = (child, &member.kind)
            && self.is_directory(node)
        {
            self.nodes[node].layer = layer;
            let inode = self.nodes[node].inode;
            self.inodes[inode] = inode_of(member).0;
            return Ok(());
        }
        if let MemberKind::HardLink(target) = &member.kind {
            let to = self.hard_link_target(target, (directory, name)).map_err(|why| {
                LayerError::refused(&member.path, format!("a hard link to {:?}, which {why}", shown(target)))
            })?;
            if child != Some(to) {
                let inode = self.nodes[to].inode;
                let node = self.node_of(layer, inode);
                self.nodes[directory].children.insert(name.into(), node);
            }
            return Ok(());
        }
        let name: Box<[u8]> = name.into();
        let (inode, missing) = inode_of(member);
        let node = self.node(layer, inode);
        if missing {
            self.missing.insert(self.nodes[node].inode, (layer, number));
        }
        self.nodes[directory].children.insert(name, node);
        Ok(())
    }

    /// The node a hard link at `link` is to share its inode with.
    fn hard_link_target(&self, target: &[u8], link: (usize, &[u8])) -> Result<usize, &'static str> {
        let (parent, name) = split(target);
        if name.is_empty() {
            return Err("is a directory");
        }
        let mut buffer = Vec::new();
        let place = self.look_up(parent, &mut buffer)?;
        let directory = place.nodes.last().copied().unwrap_or(ROOT);
        let node = if place.missing.is_empty() { self.nodes[directory].children.get(name) } else { None };
        let node = *node.ok_or("is not there")?;
        // What has the link's name goes before the link is made, with all that is in it.
        let replaced = self.nodes[link.0].children.get(link.1);
        if self.is_directory(node) {
            Err("is a directory")
        } else if replaced.is_some_and(|replaced| place.nodes.contains(replaced)) {
            Err("is replaced by it")
        } else {
            Ok(node)
        }
    }

    /// Follows `path` through directories and symbolic links. `buffer` holds the path once a link has been followed.
    fn look_up<'p>(&self, path: &'p [u8], buffer: &'p mut Vec<u8>) -> Result<Place<'p>, &'static str> {
        if let Some(expanded) = self.expanded(path)? {
            *buffer = expanded;
            return Ok(self.walk(buffer).expect("no link is left in an expanded path"));
        }
        Ok(self.walk(path).expect("there is no link in this path"))
    }

    /// The path with its symbolic links replaced by their targets, if it has any.
    fn expanded(&self, path: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let mut current: Option<Vec<u8>> = None;
        for _ in 0..LINKS_MOST {
            match self.walk(current.as_deref().unwrap_or(path)) {
                Ok(_) => return Ok(current),
                Err(next) if next.len() > 1 << 16 => return Err("the links in its path lead too far"),
                Err(next) => current = Some(next),
            }
        }
        Err("there are too many symbolic links in its path")
    }

    /// Follows `path`; at the first symbolic link, gives the path with that link replaced by its target.
    fn walk<'p>(&self, path: &'p [u8]) -> Result<Place<'p>, Vec<u8>> {
        let mut nodes: Vec<(usize, &[u8])> = Vec::new();
        let mut missing: Vec<&[u8]> = Vec::new();
        let mut rest = path;
        while !rest.is_empty() {
            let (part, tail) = match rest.iter().position(|byte| *byte == b'/') {
                Some(at) => (&rest[..at], &rest[at + 1..]),
                None => (rest, &b""[..]),
            };
            rest = tail;
            match part {
                b"" | b"." => {}
                b".." => {
                    if missing.pop().is_none() {
                        nodes.pop();
                    }
                }
                _ => {
                    let directory = nodes.last().map_or(ROOT, |(node, _)| *node);
                    let child = if missing.is_empty() { self.nodes[directory].children.get(part) } else { None };
                    let Some(child) = child else {
                        missing.push(part);
                        continue;
                    };
                    if let InodeKind::Symlink(target) = &self.inodes[self.nodes[*child].inode].kind {
                        let mut next = Vec::new();
                        if !target.starts_with(b"/") {
                            for (_, name) in &nodes {
                                next.extend_from_slice(name);
                                next.push(b'/');
                            }
                        }
                        next.extend_from_slice(target);
                        next.push(b'/');
                        next.extend_from_slice(rest);
                        return Err(next);
                    }
                    nodes.push((*child, part));
                }
            }
        }
        let len = nodes.iter().map(|(_, name)| name.len() + 1).sum::<usize>()
            + missing.iter().map(|name| name.len() + 1).sum::<usize>();
        Ok(Place { nodes: nodes.into_iter().map(|(node, _)| node).collect(), missing, len })
    }

    /// The directory at a place, made where it is missing.
    fn make(&mut self, place: &Place<'_>, layer: usize, mtime: Time) -> Result<usize, &'static str> {
        if place.nodes.iter().any(|node| !self.is_directory(*node)) {
            return Err("its parent is not a directory");
        }
        for node in &place.nodes {
            self.nodes[*node].layer = layer;
        }
        let mut directory = place.nodes.last().copied().unwrap_or(ROOT);
        for name in &place.missing {
            if name.len() > 255 {
                return Err("a part of its name has more than 255 bytes");
            }
            // As the kernel has it: set-group-id directories pass on their group.
            let Inode { mode, gid, .. } = self.inodes[self.nodes[directory].inode];
            let mut inode = implicit_directory(mtime);
            if mode & 0o2000 != 0 {
                inode.mode |= 0o2000;
                inode.gid = gid;
            }
            let node = self.node(layer, inode);
            self.nodes[directory].children.insert((*name).into(), node);
            directory = node;
        }
        Ok(directory)
    }

    /// Removes what lower layers have at `name`; spares what this layer has put there.
    fn hide(&mut self, directory: usize, name: &[u8], layer: usize) {
        let Some(node) = self.nodes[directory].children.get(name).copied() else { return };
        if self.nodes[node].layer == layer {
            self.hide_below(node, layer);
        } else {
            self.nodes[directory].children.remove(name);
        }
    }

    /// Removes what lower layers have below a directory.
    fn hide_below(&mut self, directory: usize, layer: usize) {
        let mut directories = vec![directory];
        while let Some(directory) = directories.pop() {
            let mut children = std::mem::take(&mut self.nodes[directory].children);
            children.retain(|_, node| self.nodes[*node].layer == layer);
            directories.extend(children.values());
            self.nodes[directory].children = children;
        }
    }

    fn is_directory(&self, node: usize) -> bool {
        matches!(self.inodes[self.nodes[node].inode].kind, InodeKind::Directory)
    }

    fn node(&mut self, layer: usize, inode: Inode) -> usize {
        self.inodes.push(inode);
        self.node_of(layer, self.inodes.len() - 1)
    }

    fn node_of(&mut self, layer: usize, inode: usize) -> usize {
        self.nodes.push(Node { inode, layer, children: HashMap::new() });
        self.nodes.len() - 1
    }

    /// The finished tree, and for each layer the files whose bytes it still has to give: number in the layer, inode.
    pub(crate) fn finish(self) -> (Tree, HashMap<usize, Vec<(usize, InodeId)>>) {
        let mut old: Vec<Option<Inode>> = self.inodes.into_iter().map(Some).collect();
        let mut names: Vec<(Vec<u8>, usize)> = Vec::new();
        let mut open = vec![(Vec::new(), ROOT)];
        while let Some((path, node)) = open.pop() {
            for (name, child) in &self.nodes[node].children {
                let mut path = path.clone();
                if node != ROOT {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                open.push((path, *child));
            }
            names.push((path, self.nodes[node].inode));
        }
        names.sort_unstable();
        // Inodes are numbered in the order of their first names, so that equal trees are equal to the last bit.
        let mut tree = Tree::default();
        let mut numbers: HashMap<usize, InodeId> = HashMap::new();
        let mut missing: HashMap<usize, Vec<(usize, InodeId)>> = HashMap::new();
        let names = names.into_iter().map(|(path, inode)| {
            let id = *numbers.entry(inode).or_insert_with(|| {
                let id = InodeId(u32::try_from(tree.inodes.len()).expect("entries are limited far below 2^32"));
                tree.inodes.push(old[inode].take().expect("each inode is numbered once"));
                if let Some((layer, number)) = self.missing.get(&inode) {
                    missing.entry(*layer).or_default().push((*number, id));
                }
                id
            });
            (path, id)
        });
        tree.paths = names.collect();
        (tree, missing)
    }
}

/// A directory that no entry describes.
fn implicit_directory(mtime: Time) -> Inode {
    Inode { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind: InodeKind::Directory }
}

/// The inode that a member describes (not a hard link), and whether its bytes are missing.
fn inode_of(member: Member) -> (Inode, bool) {
    let Member { mode, uid, gid, mtime, xattrs, kind, .. } = member;
    let mut missing = false;
    let mut mode = mode;
    let kind = match kind {
        MemberKind::Directory => InodeKind::Directory,
        MemberKind::File { size, data } => {
            missing = data.is_none();
            InodeKind::File { size, data: data.unwrap_or_else(|| Data::Bytes([].into())) }
        }
        MemberKind::Symlink(target) => {
            mode = 0o777;
            InodeKind::Symlink(target)
        }
        MemberKind::Fifo => InodeKind::Fifo,
        MemberKind::CharDevice(major, minor) => InodeKind::CharDevice(major, minor),
        MemberKind::BlockDevice(major, minor) => InodeKind::BlockDevice(major, minor),
        MemberKind::HardLink(_) => unreachable!("hard links have no inode of their own"),
    };
    (Inode { mode, uid, gid, mtime, xattrs, kind }, missing)
}
