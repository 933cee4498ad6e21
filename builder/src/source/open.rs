//! Files that say themselves what they are: bare paths, archives compressed or not, and standard input.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
};

use coracle_format::{Defaults, ImageConfig, Provenance};

use super::{
    Blob, Compression, Content, Image, Options, SourceError, bundle, docker_archive,
    files::{self, Files, TarFiles},
    layout,
    platform::Platform,
    rootfs, sniff,
};

/// A tar, decompressed beforehand if it has to be.
///
/// # Errors
/// [`SourceError::File`], [`SourceError::Malformed`].
pub(super) fn tar(path: &Path, options: &Options) -> Result<Files, SourceError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|cause| SourceError::file("read", path, cause))?;
    let meta = file.metadata().map_err(|cause| SourceError::file("read", path, cause))?;
    if meta.is_dir() {
        return Ok(Files::Directory(path.to_owned()));
    }
    if !meta.is_file() {
        return spooled(file, &[], options, &name);
    }
    let head = sniff::head_at(&file, 0, meta.len()).map_err(|cause| SourceError::file("read", path, cause))?;
    match sniff::compression(&head) {
        Compression::None if sniff::is_tar(&head) => Ok(Files::Tar(TarFiles::open(path.to_owned(), name, None)?)),
        Compression::None => Err(SourceError::malformed(name, "it is no tar, compressed or not")),
        compression => {
            let spool = files::spool(file, compression, options, &name)?;
            Ok(Files::Tar(TarFiles::open(files::descriptor_path(&spool), name, Some(spool))?))
        }
    }
}

/// Standard input as a tar: read where it lies if it is a file, spooled otherwise.
///
/// # Errors
/// As [`tar`].
pub(super) fn stdin_tar(options: &Options) -> Result<Files, SourceError> {
    let (file, regular) = stdin_file()?;
    let path = Path::new("/proc/self/fd/0");
    // Opening it anew needs a permission of its own, which whoever gave it to us may not have given.
    if regular && File::open(path).is_ok() { tar(path, options) } else { spooled(file, &[], options, "standard input") }
}

/// Standard input, and whether it is a file given by `<` from its beginning, which is read where it lies.
fn stdin_file() -> Result<(File, bool), SourceError> {
    let file = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|cause| SourceError::file("read", "standard input", cause))?;
    let regular = file.metadata().is_ok_and(|meta| meta.is_file())
        && io::Seek::stream_position(&mut &file).is_ok_and(|position| position == 0);
    Ok((file, regular))
}

/// A stream that begins with bytes read already, as a tar in a file without a name.
fn spooled(mut from: impl Read, head: &[u8], options: &Options, name: &str) -> Result<Files, SourceError> {
    let mut first = head.to_vec();
    if first.len() < sniff::HEAD {
        let missing = (sniff::HEAD - first.len()) as u64;
        from.by_ref().take(missing).read_to_end(&mut first).map_err(|cause| SourceError::file("read", name, cause))?;
    }
    let compression = sniff::compression(&first);
    let spool = files::spool(io::Cursor::new(first).chain(from), compression, options, name)?;
    Ok(Files::Tar(TarFiles::open(files::descriptor_path(&spool), name.to_owned(), Some(spool))?))
}

/// What a path is, by what is there.
///
/// # Errors
/// Every kind of [`SourceError`] that concerns files.
pub(super) fn path(path: &Path, options: &Options) -> Result<Image, SourceError> {
    let meta = fs::metadata(path).map_err(|cause| SourceError::file("read", path, cause))?;
    let shown = path.display();
    if meta.is_dir() {
        if path.join("oci-layout").is_file() && path.join("index.json").is_file() {
            let files = Files::Directory(path.to_owned());
            return layout::image(&files, None, options.platform.as_ref(), format!("oci:{shown}"));
        }
        return rootfs::directory(path, format!("rootfs:{shown}"), options);
    }
    let file = File::open(path).map_err(|cause| SourceError::file("read", path, cause))?;
    recognise(file, meta.is_file(), path, &shown.to_string(), options)
}

/// Standard input, whatever comes.
///
/// # Errors
/// Every kind of [`SourceError`] that concerns files.
pub(super) fn stdin(options: &Options) -> Result<Image, SourceError> {
    let path = Path::new("/proc/self/fd/0");
    let (file, regular) = stdin_file()?;
    recognise(file, regular, path, "standard input", options)
}

fn recognise(mut file: File, regular: bool, path: &Path, name: &str, options: &Options) -> Result<Image, SourceError> {
    let unreadable = |cause| SourceError::file("read", name, cause);
    if !regular {
        let mut head = Vec::new();
        (&mut file).take(sniff::HEAD as u64).read_to_end(&mut head).map_err(unreadable)?;
        if head.is_empty() {
            return Err(SourceError::malformed(name, "nothing came: is the command before the pipe right?"));
        }
        let compression = sniff::compression(&head);
        if compression == Compression::None && !sniff::is_tar(&head) && !sniff::is_elf(&head) {
            return Err(unknown(name));
        }
        let spool = files::spool(io::Cursor::new(head).chain(file), compression, options, name)?;
        return spool_image(spool, name, options);
    }
    let len = file.metadata().map_err(unreadable)?.len();
    let head = sniff::head_at(&file, 0, len).map_err(unreadable)?;
    if sniff::is_elf(&head) {
        return bundle::open(path, Path::new(name), format!("bundle:{name}"), options);
    }
    match sniff::compression(&head) {
        Compression::None if sniff::is_tar(&head) => {
            let files = Files::Tar(TarFiles::open(path.to_owned(), name.to_owned(), None)?);
            tar_image(files, || tar_blob(path, len), name, options)
        }
        Compression::None => Err(unknown(name)),
        // A root file system needs no decompressing beforehand; its first entries tell.
        compression if begins_as_rootfs(&file, compression)? => {
            rootfs_tar(tar_blob(path, len), Vec::new(), name, options)
        }
        compression => {
            let spool = files::spool(&file, compression, options, name)?;
            spool_image(spool, name, options)
        }
    }
}

fn unknown(name: &str) -> SourceError {
    SourceError::malformed(
        name,
        "it is no image archive, no tar (plain, gzip, zstd, xz or bzip2) and no bundle: name the transport if it is one",
    )
}

fn tar_blob(path: &Path, len: u64) -> Blob {
    Blob { file: path.to_owned(), offset: 0, len }
}

fn spool_image(spool: Arc<File>, name: &str, options: &Options) -> Result<Image, SourceError> {
    let path = files::descriptor_path(&spool);
    let unreadable = |cause| SourceError::file("read", name, cause);
    let len = spool.metadata().map_err(unreadable)?.len();
    let head = sniff::head_at(&spool, 0, len).map_err(unreadable)?;
    if sniff::is_elf(&head) {
        let mut image = bundle::open(&path, Path::new(name), format!("bundle:{name}"), options)?;
        image.spools.push(spool);
        return Ok(image);
    }
    if !sniff::is_tar(&head) {
        return Err(unknown(name));
    }
    let files = Files::Tar(TarFiles::open(path.clone(), name.to_owned(), Some(Arc::clone(&spool)))?);
    let mut image = tar_image(files, || tar_blob(&path, len), name, options)?;
    image.spools.push(spool);
    Ok(image)
}

/// An image archive of either kind, or a root file system.
fn tar_image(files: Files, blob: impl FnOnce() -> Blob, name: &str, options: &Options) -> Result<Image, SourceError> {
    let platform = options.platform.as_ref();
    // A root file system may have a file manifest.json of its own; an archive's is a list with configs.
    let archive = files.read("manifest.json", super::manifest::MANIFEST_LIMIT).ok().flatten();
    let is_archive = archive.is_some_and(|bytes| {
        serde_json::from_slice::<Vec<serde_json::Value>>(&bytes)
            .is_ok_and(|entries| entries.iter().all(|entry| entry.get("Config").is_some()))
    });
    if is_archive {
        return docker_archive::image(&files, None, platform, format!("docker-archive:{name}"));
    }
    if files.find("oci-layout")?.is_some() && files.find("index.json")?.is_some() {
        return layout::image(&files, None, platform, format!("oci-archive:{name}"));
    }
    rootfs_tar(blob(), files.spools(), name, options)
}

/// Whether a compressed tar begins with what root file systems begin with, and image archives never do.
fn begins_as_rootfs(file: &File, compression: Compression) -> Result<bool, SourceError> {
    const TOP: [&[u8]; 20] = [
        b"bin", b"boot", b"dev", b"etc", b"home", b"lib", b"lib32", b"lib64", b"libx32", b"media", b"mnt", b"opt",
        b"proc", b"root", b"run", b"sbin", b"srv", b"sys", b"usr", b"var",
    ];
    let again = file.try_clone().map_err(|cause| SourceError::file("read", "the archive", cause))?;
    let at_start = io::Seek::rewind(&mut &again);
    let Ok(decoder) = at_start.and_then(|()| sniff::decoder(again, compression)) else { return Ok(false) };
    let mut archive = tar::Archive::new(decoder);
    let mut found = false;
    if let Ok(entries) = archive.entries() {
        // An archive's first entries are few; a root's top directory may come as `./` first.
        for entry in entries.take(4).map_while(Result::ok) {
            let path = entry.path_bytes();
            let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
            found |= parts.next().is_some_and(|first| TOP.contains(&first));
        }
    }
    io::Seek::rewind(&mut &*file).map_err(|cause| SourceError::file("read", "the archive", cause))?;
    Ok(found)
}

/// A tar of a root file system: one layer, and no config but the platform.
///
/// # Errors
/// [`SourceError::File`].
pub(super) fn rootfs_tar(
    blob: Blob,
    spools: Vec<Arc<File>>,
    name: &str,
    options: &Options,
) -> Result<Image, SourceError> {
    let layer = files::layer(blob, None, None)?;
    let provenance =
        Provenance { source: format!("rootfs:{name}"), layers: vec![layer.digest.clone()], ..Provenance::default() };
    Ok(Image {
        config: bare_config(options)?,
        content: Content::Layers(vec![layer]),
        provenance,
        defaults: Defaults::default(),
        spools,
    })
}

/// The config of what has none.
///
/// # Errors
/// [`SourceError::NotRunnable`].
pub(super) fn bare_config(options: &Options) -> Result<ImageConfig, SourceError> {
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    if !platform.runnable() {
        return Err(SourceError::NotRunnable { wanted: platform, has: Vec::new() });
    }
    Ok(ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..ImageConfig::default()
    })
}
