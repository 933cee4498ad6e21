//! `coracle load`: every image of an archive, into the store.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::{
    cli::{args::LoadArgs, print, source},
    source::{
        Reference,
        load::{self, Loaded},
        open_store,
    },
    store::Store,
};

/// Takes the images in, and prints their names.
pub(super) fn run(args: &LoadArgs, quiet: bool) -> anyhow::Result<()> {
    let (path, rename) = files(args)?;
    let mut options = source::bare(quiet)?;
    options.platform =
        args.platform.as_deref().map(str::parse).transpose().map_err(|why: String| anyhow::anyhow!(why))?;
    let store = open_store(&options)?;
    let _using = store.use_blobs()?;
    let archive = load::archive(path.as_deref(), &options)?;
    if let Some(name) = &rename {
        ensure!(
            archive.images.len() == 1,
            "{name}: the archive holds {} images: load them by their own names",
            archive.images.len()
        );
    }
    // All are known by name before the first is taken in.
    let names: Vec<Vec<Reference>> = archive
        .images
        .iter()
        .map(|image| names_of(image, rename.as_deref(), path.as_deref()))
        .collect::<Result<_, _>>()?;
    for (image, names) in archive.images.iter().zip(names) {
        for name in &names {
            if store.image(&name.to_string())?.is_some_and(|there| there.protected) {
                bail!("image {} is protected: lift that first with `coracle unprotect {0}`", name.familiar());
            }
        }
        take(&store, image, &names)?;
        for name in names {
            print::line(&format!("Loaded image: {}", name.familiar()))?;
        }
    }
    Ok(())
}

/// The archive, and the name to give its image: `load -i FILE [NAME]`, `load - [NAME]`, `load [NAME] < FILE`.
fn files(args: &LoadArgs) -> anyhow::Result<(Option<PathBuf>, Option<String>)> {
    let mut words = args.words.iter();
    let mut path = args.input.clone();
    let mut next = words.next();
    if path.is_none() && next.is_some_and(|word| word == "-") {
        path = Some(PathBuf::from("-"));
        next = words.next();
    }
    if let Some(more) = words.next() {
        bail!("{more}: one name at most can be given");
    }
    let path = path.filter(|path| path != Path::new("-"));
    if path.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        bail!("standard input is a terminal: name an archive with -i, or use a pipe");
    }
    Ok((path, next.cloned()))
}

/// What an image is to be called.
fn names_of(image: &Loaded, rename: Option<&str>, path: Option<&Path>) -> anyhow::Result<Vec<Reference>> {
    let parse = |name: &str| name.parse::<Reference>().map_err(|why| anyhow::anyhow!("{name}: {why}"));
    if let Some(name) = rename {
        return Ok(vec![parse(name)?]);
    }
    let full = image.names.iter().filter(|name| name.contains(['/', ':']));
    let full: Vec<Reference> = full.map(|name| parse(name)).collect::<Result<_, _>>()?;
    if !full.is_empty() {
        return Ok(full);
    }
    // A mere tag, as skopeo writes it into layouts, or nothing: the file's name says what it is of.
    let tag = image.names.first().map_or("latest", String::as_str);
    let from_file = path.and_then(|path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        format!("{}:{tag}", stem.strip_suffix(".tar").unwrap_or(&stem)).parse().ok()
    });
    from_file.map(|reference| vec![reference]).with_context(|| {
        format!("an image in the archive has no name, only its id {}: give it one behind the archive", image.config.0)
    })
}

fn take(store: &Store, image: &Loaded, names: &[Reference]) -> anyhow::Result<()> {
    let mut layers = Vec::new();
    for layer in &image.layers {
        let what = format!("the layer {}", layer.digest);
        // Without a manifest a layer's own digest is only what was computed of it.
        let expected = image.manifest.is_some().then_some(layer.digest.as_str());
        layers.push(store.add_layer(&layer.blob, layer.compression, expected, layer.diff_id.as_deref(), &what)?);
    }
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let manifest = image.manifest.as_ref().map(|(_, bytes)| bytes.as_slice());
    store.add_image(&names, &image.platform.to_string(), &layers, &image.config.1, manifest)?;
    Ok(())
}
