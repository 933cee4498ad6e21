//! `coracle setup`: a container's engine, and repairs of its tree.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use anyhow::{Context as _, bail};
use coracle_api::SUBORDINATE;

use super::{edits, own};
use crate::{
    cli::{args::SetupArgs, print, report, source},
    launch::ids,
    source::open_store,
    store::containers::{Container, Sharing},
};

/// Engines, and udocker's names of execution modes, lower case.
const ENGINES: [&str; 18] = [
    "auto",
    "namespaces",
    "trap",
    "preload",
    "ptrace",
    "apptainer",
    "userns",
    "p1",
    "p2",
    "r1",
    "r2",
    "r3",
    "f1",
    "f2",
    "f3",
    "f4",
    "s1",
    "singularity",
];

/// Changes what is asked for; prints the engine if nothing is.
pub(super) fn run(args: &SetupArgs, quiet: bool) -> anyhow::Result<()> {
    let store = open_store(&source::bare(quiet)?)?;
    let container = store.containers().resolve(&args.container)?;
    if let Some(engine) = &args.execmode {
        let lower = engine.to_ascii_lowercase();
        if !ENGINES.contains(&lower.as_str()) {
            bail!("--execmode {engine}: there is no such engine: choose one of {}", ENGINES.join(" "));
        }
        container.change(|settings| settings.engine = (lower != "auto").then(|| engine.clone()))?;
        settle_edits(&container, &lower, quiet)?;
    }
    if args.nvidia {
        container.change(|settings| {
            if !settings.options.is_object() {
                settings.options = serde_json::json!({});
            }
            settings.options["nvidia"] = true.into();
        })?;
    }
    if args.purge {
        if container.is_running()? {
            bail!("container {} is running: its records are in use: stop it first", args.container);
        }
        for (path, _) in container.run_files()? {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let logs = container.directory().join("logs");
        crate::store::containers::remove_tree(&logs)?;
    }
    if args.fixperm {
        let _changing = container.lock()?;
        // Of an image's tree below nothing is the container's to open, nor closed.
        let settings = container.settings()?;
        let upper = container.stands_on(&settings).map(|layers| layers.upper);
        let root = upper.filter(|_| !container.root().is_dir()).unwrap_or_else(|| container.root());
        let changed = if root.is_dir() { open_up(&root)? } else { 0 };
        if ids::inside() {
            // All of it is the caller's again.
            let _ = fs::remove_file(container.directory().join(SUBORDINATE));
        }
        report::note(quiet, &format!("{changed} files and directories were opened to their owner"));
    }
    if args.execmode.is_none() && !args.nvidia && !args.purge && !args.fixperm {
        let settings = container.settings()?;
        let options = &settings.options;
        let nvidia = if options["nvidia"] == true { ", with the host's NVIDIA driver" } else { "" };
        return print::line(&format!("engine: {}{nvidia}", settings.engine.as_deref().unwrap_or("auto")));
    }
    Ok(())
}

/// Has programs of the tree edited for the modes that want it, and made as they were for others; while something runs, the
/// next run does that.
fn settle_edits(container: &Container, engine: &str, quiet: bool) -> anyhow::Result<()> {
    if container.is_running()? {
        return Ok(());
    }
    if !["f3", "f4", "preload"].contains(&engine) {
        if container.take_out_edits(None)? {
            report::note(quiet, "the tree's programs are as the image has them again");
        }
        return Ok(());
    }
    // An overlay's changes are nothing that programs could be edited in.
    if container.sharing(&container.settings()?) == Sharing::Overlay {
        own::make(container, None, false, quiet)?;
    }
    if container.laid().is_none() {
        edits::lay(container, None)?;
    }
    let edited = container.edited()?.len();
    report::note(quiet, &format!("{edited} files are edited to be loaded by the tree's own loader"));
    Ok(())
}

/// Lets the owner read and write all that is his, and enter every directory; what belongs to his subordinate ids becomes
/// his own, for their root. How many files were changed.
pub(super) fn open_up(root: &Path) -> anyhow::Result<u64> {
    let mut changed = 0;
    let take = ids::inside();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
            let meta = fs::symlink_metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
            // An overlay's mark of what was removed is a device.
            if meta.file_type().is_char_device() {
                continue;
            }
            let foreign = take && (meta.uid(), meta.gid()) != (0, 0);
            if foreign {
                lchown(&path, Some(0), Some(0)).with_context(|| format!("cannot take {}", path.display()))?;
                changed += 1;
            }
            if meta.is_symlink() {
                continue;
            }
            let needed = if meta.is_dir() { 0o700 } else { 0o600 };
            if meta.mode() & needed != needed {
                let mode = fs::Permissions::from_mode((meta.mode() & 0o7777) | needed);
                fs::set_permissions(&path, mode)
                    .with_context(|| format!("cannot change the mode of {}", path.display()))?;
                changed += u64::from(!foreign);
            }
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(changed)
}
