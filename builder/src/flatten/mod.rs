//! Layers and whiteouts to one [`Tree`].
//!
//! Layers are read once, from the top down: members and the bytes of files that no upper layer hides ([`hidden`] guesses by
//! name). Then the members are laid on each other from the bottom up ([`assembly`] knows exactly). If a file lasts that the
//! guess gave up, which takes a hard link or a symbolic link in a path, its layer is read once more.

mod assembly;
pub mod changes;
mod error;
mod fields;
mod hidden;
mod limits;
mod members;
mod pax;
mod scan;
mod stream;
mod tree;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    num::NonZero,
    path::PathBuf,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use assembly::Assembly;
use hidden::Hidden;
use limits::Meter;
use members::{Member, MemberKind};

use crate::source::{Content, Layer};

pub use error::{FlattenError, LayerError};
pub use limits::Limits;
pub use tree::{Data, Inode, InodeId, InodeKind, Tree, open_file};

/// How to flatten.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bounds on what the layers may hold.
    pub limits: Limits,
    /// Directory for the temporary file, which has no name there and is as long as the files of all compressed layers.
    pub spool: PathBuf,
    /// Put each file of a compressed layer into a file of its own in that directory instead, for [`Data::Own`]: whoever
    /// writes the tree there renames them into place, and removes the rest.
    pub apart: bool,
    /// Processor cores to use.
    pub threads: NonZero<usize>,
}

/// Makes one tree of an image's content.
///
/// # Errors
/// Layers that cannot be read, are damaged, or are refused as hostile; a full disk.
pub fn flatten(content: Content, options: &Options) -> Result<Tree, FlattenError> {
    match content {
        Content::Tree(tree) => Ok(tree),
        Content::Layers(layers) => flatten_layers(&layers, options),
    }
}

fn flatten_layers(layers: &[Layer], options: &Options) -> Result<Tree, FlattenError> {
    let failed = |number: usize, why| match why {
        LayerError::Spool(why) => FlattenError::Spool { dir: options.spool.clone(), why },
        why => FlattenError::Layer {
            layer: format!("{} of {} ({})", number + 1, layers.len(), layers[number].digest),
            why,
        },
    };
    let meter = Meter::new(options.limits);
    let scanned = scan_all(layers, options, &meter).map_err(|(number, why)| failed(number, why))?;
    let mut assembly = Assembly::new(&meter);
    for (layer, members) in scanned.into_iter().enumerate() {
        for (number, member) in members.into_iter().enumerate() {
            assembly.apply(layer, number, member).map_err(|why| failed(layer, why))?;
        }
    }
    let (mut tree, missing) = assembly.finish();
    for (number, files) in missing {
        let files: HashMap<usize, InodeId> = files.into_iter().collect();
        // Counted a second time, these bytes would look like a bomb; the first pass has measured them.
        let meter = Meter::new(Limits {
            entries: u64::MAX,
            size: u64::MAX,
            ratio: u64::MAX,
            metadata: u64::MAX,
            ..options.limits
        });
        let mut wanted = |number: usize, _: &Member| files.contains_key(&number);
        let members =
            scan::scan(&layers[number], &meter, options, false, &mut wanted).map_err(|why| failed(number, why))?;
        for (at, member) in members.into_iter().enumerate() {
            if let (Some(id), MemberKind::File { size, data: Some(data) }) = (files.get(&at), member.kind) {
                tree.inode_mut(*id).kind = InodeKind::File { size, data };
            }
        }
    }
    Ok(tree)
}

/// What the scan of one layer gives.
type Scanned = Result<Vec<Member>, LayerError>;

/// Members of all layers, with the data of those files that seem to last. Workers take layers from the top; each layer
/// keeps two threads busy, one that decompresses and one that hashes, reads headers and writes.
fn scan_all(layers: &[Layer], options: &Options, meter: &Meter) -> Result<Vec<Vec<Member>>, (usize, LayerError)> {
    let workers = options.threads.get().div_ceil(2).min(layers.len());
    let hidden = RwLock::new(Hidden::default());
    let results: Vec<Mutex<Option<Scanned>>> = layers.iter().map(|_| Mutex::new(None)).collect();
    let (taken, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(number) = layers.len().checked_sub(1 + taken.fetch_add(1, Ordering::Relaxed)) else { return };
            let mut wanted = |_: usize, member: &Member| {
                matches!(member.kind, MemberKind::File { .. })
                    && !hidden.read().expect("no holder panics").hides(number, &member.path)
            };
            let result = scan::scan(&layers[number], meter, options, true, &mut wanted);
            match &result {
                Ok(members) if number > 0 => hidden.write().expect("no holder panics").add(number, members),
                Ok(_) => {}
                Err(_) => stop.store(true, Ordering::Relaxed),
            }
            *results[number].lock().expect("no holder panics") = Some(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    let results: Vec<_> = results.into_iter().map(|result| result.into_inner().expect("no holder panics")).collect();
    // The lowest failure: which one is met first depends on the threads.
    let mut all = Vec::with_capacity(layers.len());
    let mut skipped = false;
    for (number, result) in results.into_iter().enumerate() {
        match result {
            Some(Ok(members)) => all.push(members),
            Some(Err(why)) => return Err((number, why)),
            None => skipped = true,
        }
    }
    debug_assert!(!skipped, "a layer is left out only after another has failed");
    Ok(all)
}
