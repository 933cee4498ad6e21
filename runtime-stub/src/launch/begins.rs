//! How the program that a run begins with is loaded: what an engine must know that comes into programs by their loader.

use std::{ffi::OsStr, fs::File, os::unix::ffi::OsStrExt, os::unix::fs::FileExt, path::PathBuf};

use coracle_api::Begins;
use coracle_entry::{Errno, Source, linkage};
use coracle_intercept::program::{HEAD, Kind, MAX_SCRIPTS, judge};

use super::Tree;

/// Looks at the program that `name` means on the guest's PATH. A place of the host's that is shown over the tree is not
/// looked into.
pub(super) fn begins(tree: Tree, name: &OsStr, path: &OsStr) -> Begins {
    let guest = match name.as_bytes().iter().position(|byte| *byte == b'/') {
        Some(0) => Some(PathBuf::from(name)),
        // From the working directory, which may be the host's.
        Some(_) => None,
        None => tree.find_program(name, path),
    };
    guest.and_then(|guest| look(tree, guest)).unwrap_or_default()
}

fn look(tree: Tree, mut guest: PathBuf) -> Option<Begins> {
    for _ in 0..=MAX_SCRIPTS {
        if !tree.is_program(&guest) {
            return None;
        }
        let file = File::open(tree.resolve(&guest)?).ok()?;
        let mut head = [0; HEAD];
        let len = file.read_at(&mut head, 0).ok()?;
        match judge(&head[..len]).ok()? {
            Kind::Script { interpreter, .. } => guest = PathBuf::from(OsStr::from_bytes(interpreter)),
            Kind::Elf(elf) if !elf.wide => return Some(Begins::Foreign),
            Kind::Elf(elf) => {
                let mut room = [0; 2 * HEAD];
                let linkage = linkage(&elf, &Reader(file), &mut room).ok()?;
                return Some(match linkage.interpreter {
                    None => Begins::Static,
                    Some(_) if linkage.own_calls => Begins::OwnCalls,
                    Some(_) => Begins::Dynamic,
                });
            }
        }
    }
    None
}

struct Reader(File);

impl Source for Reader {
    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
        self.0.read_at(into, at).map_err(|_| Errno::ENOENT)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn through_scripts_to_the_program() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("bin")).expect("made");
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join("bin").join(name);
            fs::write(&path, bytes).expect("written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
        };
        let shell = fs::read("/bin/sh").expect("a shell");
        write("sh", &shell);
        // The same without its interpreter: no header of that kind is left.
        let mut lonely = shell.clone();
        let table = usize::from(lonely[32]);
        for at in (table..).step_by(56).take(usize::from(lonely[56])) {
            if lonely[at] == 3 {
                lonely[at] = 0;
            }
        }
        write("lonely", &lonely);
        write("script", b"#!/bin/sh -e\n");
        write("second", b"#! /bin/lonely\n");
        write("text", b"hello\n");
        let tree = Tree::new(dir.path());
        let of = |name: &str| begins(tree, OsStr::new(name), OsStr::new("/bin"));
        assert_eq!([of("sh"), of("/bin/script")], [Begins::Dynamic; 2]);
        assert_eq!([of("lonely"), of("second")], [Begins::Static; 2]);
        assert_eq!([of("text"), of("none"), of("./sh")], [Begins::Unknown; 3]);
    }
}
