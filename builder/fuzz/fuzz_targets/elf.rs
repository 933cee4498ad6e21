//! A tree with an arbitrary program, library and loader: edits stay within their files, and files grow by paths alone.
#![no_main]

use std::sync::Arc;

use coracle::{
    flatten::{Data, Inode, InodeKind, Tree},
    patch,
};
use coracle_format::{Edit, ImageConfig, MOST_GROWTH, Time};
use libfuzzer_sys::fuzz_target;

fn add(tree: &mut Tree, path: &str, kind: InodeKind) {
    let mtime = Time { seconds: 0, nanoseconds: 0 };
    let id = tree.add(Inode { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind });
    tree.paths.insert(path.as_bytes().to_vec(), id);
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let (loader, program) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let mut tree = Tree::default();
    for directory in ["", "bin", "etc", "lib", "lib64"] {
        add(&mut tree, directory, InodeKind::Directory);
    }
    let file = |bytes: &[u8]| InodeKind::File { size: bytes.len() as u64, data: Data::Bytes(Arc::from(bytes)) };
    add(&mut tree, "bin/program", file(program));
    add(&mut tree, "etc/ld.so.cache", file(program));
    add(&mut tree, "etc/ld.so.conf", file(loader));
    add(&mut tree, "lib/libprogram.so", file(program));
    add(&mut tree, "lib64/ld-linux-x86-64.so.2", file(loader));
    add(&mut tree, "lib/ld-musl-x86_64.so.1", file(loader));
    let config = ImageConfig { architecture: "amd64".into(), ..ImageConfig::default() };
    let analysis = patch::analyse(&tree, &config).expect("everything is in memory");
    for file in analysis.edits.iter().flat_map(|set| &set.files) {
        let InodeKind::File { size, .. } = tree.get(&file.path).expect("it is edited").kind else {
            panic!("{file:?}");
        };
        let mut end = 0;
        for (offset, edit) in &file.edits {
            assert!(*offset >= end && offset + edit.len() <= size + MOST_GROWTH);
            assert!(offset + edit.len() <= size || matches!(edit, Edit::Path { .. }));
            end = offset + edit.len();
        }
    }
});
