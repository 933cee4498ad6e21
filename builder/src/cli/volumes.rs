//! `-v`, `--mount`, `--tmpfs`, `--volumes-from`: what of the host a container sees, as typed.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use coracle_api::Temporary;

use super::{args::OptionArgs, options::absolute, report};
use crate::{
    launch::{Options, Source, Volume, order::RENDERING, volumes::is_name},
    store::Store,
};

/// The mode of a temporary directory unless another is given.
const TEMPORARY: u32 = 0o1777;

/// Reads them all into the options.
pub(super) fn resolve(args: &OptionArgs, store: &Store, quiet: bool, options: &mut Options) -> anyhow::Result<()> {
    for given in &args.volumes_from {
        let (name, read_only) = match given.rsplit_once(':') {
            Some((name, "ro")) => (name, true),
            Some((name, "rw")) => (name, false),
            _ => (given.as_str(), false),
        };
        let settings = store.containers().resolve(name)?.settings()?;
        let theirs: Options = serde_json::from_value(settings.options).unwrap_or_default();
        let volumes = theirs.volumes.into_iter();
        options.volumes.extend(volumes.map(|volume| Volume { read_only: read_only || volume.read_only, ..volume }));
    }
    for given in &args.volume {
        let volume = volume(given).map_err(|why| anyhow!("--volume {}: {why}", given.display()))?;
        options.volumes.push(checked(volume)?);
    }
    for given in &args.mount {
        mount(given, quiet, options).with_context(|| format!("--mount {given}"))?;
    }
    for given in &args.tmpfs {
        let (guest, words) = given.split_once(':').unwrap_or((given, ""));
        let read = inside(guest).and_then(|guest| temporary(guest, words, quiet));
        let temporary = read.with_context(|| format!("--tmpfs {given}"))?;
        options.temporary.push(temporary);
    }
    if args.dri {
        let places = RENDERING.iter().map(PathBuf::from).filter(|place| place.exists());
        options.volumes.extend(places.map(|place| Volume {
            source: Source::Host(place.clone()),
            guest: place,
            read_only: true,
            optional: true,
        }));
    }
    Ok(())
}

/// A directory of memory by the words of mount(8) and tmpfs(5): `size=64m,mode=1777,noexec`.
fn temporary(guest: PathBuf, words: &str, quiet: bool) -> anyhow::Result<Temporary> {
    let mut temporary = Temporary::new(guest, TEMPORARY);
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=').unwrap_or((word, "")) {
            ("mode", value) => temporary.mode = mode(value)?,
            ("size", value) => temporary.size = Some(bytes(value)?),
            ("nr_inodes", value) => temporary.inodes = Some(bytes(value)?),
            ("noexec", "") => temporary.no_exec = true,
            ("exec", "") => temporary.no_exec = false,
            ("ro", "") => temporary.read_only = true,
            // As it is in any case.
            ("rw" | "nosuid" | "nodev" | "relatime" | "noatime" | "private" | "rprivate" | "defaults", "") => {}
            ("uid" | "gid", _) => {
                report::note(quiet, &format!("{word} of a tmpfs: it belongs to whom the container begins as"));
            }
            _ => bail!("{word:?} is no option of a tmpfs: there are size, nr_inodes, mode, ro, rw, exec, noexec"),
        }
    }
    Ok(temporary)
}

fn mode(value: &str) -> anyhow::Result<u32> {
    u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777).with_context(|| format!("{value:?} is no mode"))
}

/// A number of bytes, or of files: `65536`, `64k`, `1m`, `2g`, also written `64kb` or `64KiB`.
pub(super) fn bytes(text: &str) -> anyhow::Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => u32::MAX,
    };
    let number = text[..digits].parse::<u64>().ok().and_then(|number| number.checked_mul(1_u64.checked_shl(shift)?));
    number.with_context(|| format!("{text:?} is no size: write a number, and k, m or g"))
}

/// A place inside, which is absolute and not all of it.
fn inside(guest: &str) -> anyhow::Result<PathBuf> {
    let path: PathBuf = Path::new(guest).components().collect();
    if !path.is_absolute() {
        bail!("{guest:?}: the path inside must be absolute");
    }
    if path == Path::new("/") {
        bail!("nothing can be put over the container's root");
    }
    Ok(path)
}

/// Makes the host's path absolute and sees that it is there.
fn checked(volume: Volume) -> anyhow::Result<Volume> {
    let Source::Host(path) = &volume.source else { return Ok(volume) };
    let path = absolute(path)?;
    std::fs::metadata(&path).with_context(|| format!("volume {}", path.display()))?;
    Ok(Volume { source: Source::Host(path), ..volume })
}

/// `HOST[:GUEST][:OPTIONS]`, or `NAME:GUEST[:OPTIONS]`. A colon that belongs to a path is written `\:`.
fn volume(text: &OsStr) -> Result<Volume, String> {
    let mut parts = split(text.as_bytes());
    let mut read_only = false;
    if parts.len() > 1
        && let Some(words) = parts.last().and_then(|last| options_of(last))
    {
        read_only = words?;
        parts.pop();
    }
    let (host, guest) = match parts.as_slice() {
        [host] => (host, None),
        [host, guest] => (host, Some(guest)),
        _ => return Err("it has too many parts, or an option other than ro and rw".to_owned()),
    };
    if host.is_empty() {
        return Err("it names no place of the host: write HOST[:GUEST][:ro]".to_owned());
    }
    let as_path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let name = std::str::from_utf8(host).ok().filter(|name| is_name(name));
    let source = match (name, guest) {
        (Some(name), Some(_)) => Source::Named(name.to_owned()),
        _ => Source::Host(as_path(host)),
    };
    let guest = match (guest, &source) {
        (Some(guest), _) => as_path(guest),
        (None, Source::Host(host)) => absolute(host).map_err(|error| error.to_string())?,
        (None, Source::Named(_) | Source::Tree) => return Err("write NAME:GUEST".to_owned()),
    };
    let guest = inside(&guest.to_string_lossy()).map(|_| guest).map_err(|error| error.to_string())?;
    Ok(Volume { source, guest: guest.components().collect(), read_only, optional: false })
}

/// Whether the words are a volume's options, and then whether they say read-only.
fn options_of(words: &[u8]) -> Option<Result<bool, String>> {
    let words = std::str::from_utf8(words).ok().filter(|words| !words.starts_with(['/', '.']))?;
    let mut read_only = false;
    for word in words.split(',') {
        match word {
            "ro" => read_only = true,
            // What is recursive and shared already, and labels and caches that no engine has.
            "rw" | "z" | "Z" | "rbind" | "bind" | "rslave" | "slave" | "private" | "rprivate" | "shared"
            | "rshared" | "cached" | "delegated" | "consistent" | "nocopy" => {}
            other => return Some(Err(format!("{other:?} is no option of a volume: choose ro or rw"))),
        }
    }
    Some(Ok(read_only))
}

/// Splits at colons that no backslash precedes.
fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => parts.push(Vec::new()),
            b'\\' if bytes.peek() == Some(&b':') => parts.last_mut().into_iter().for_each(|part| part.push(b':')),
            byte => parts.last_mut().into_iter().for_each(|part| part.push(byte)),
        }
        if byte == b'\\' && bytes.peek() == Some(&b':') {
            bytes.next();
        }
    }
    parts
}

fn mount(text: &str, quiet: bool, options: &mut Options) -> anyhow::Result<()> {
    let (mut kind, mut source, mut target, mut read_only, mut words) = ("volume", None, None, false, String::new());
    for pair in text.split(',') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            "readonly" | "ro" => read_only = !matches!(value, "false" | "0"),
            "tmpfs-mode" | "tmpfs-size" | "tmpfs-options" => {
                words += &format!(
                    "{}{value},",
                    match key {
                        "tmpfs-mode" => "mode=",
                        "tmpfs-size" => "size=",
                        _ => "",
                    }
                );
            }
            // As they are in any case.
            "bind-propagation" | "consistency" | "bind-nonrecursive" | "volume-nocopy" => {}
            _ => bail!("there is no key {key:?}: write type, source, target, readonly, tmpfs-size, tmpfs-mode"),
        }
    }
    let guest = inside(target.context("it names no target")?)?;
    let source = match (kind, source) {
        ("bind", Some(host)) => Source::Host(host.into()),
        ("volume", Some(name)) if is_name(name) => Source::Named(name.to_owned()),
        ("volume", Some(name)) => {
            bail!("{name:?} cannot name a volume: use letters, digits, and _ . - after the first")
        }
        ("tmpfs", None) => {
            let temporary = temporary(guest, &words, quiet)?;
            options.temporary.push(Temporary { read_only, ..temporary });
            return Ok(());
        }
        // Without a name it goes with the container: it is a part of its tree.
        ("volume", None) => Source::Tree,
        ("bind", None) => bail!("it names no source"),
        ("tmpfs", Some(_)) => bail!("a tmpfs has no source"),
        (other, _) => bail!("there is no type {other:?}: choose bind, volume or tmpfs"),
    };
    options.volumes.push(checked(Volume { source, guest, read_only, optional: false })?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_volume_is_read() {
        let read = |text: &str| volume(OsStr::new(text)).map(|it| (it.source, it.guest, it.read_only));
        let host = |path: &str| Source::Host(path.into());
        assert_eq!(read("/a"), Ok((host("/a"), "/a".into(), false)));
        assert_eq!(read("/a:ro"), Ok((host("/a"), "/a".into(), true)));
        assert_eq!(read("/a:/b:ro,z"), Ok((host("/a"), "/b".into(), true)));
        assert_eq!(read("./a:/b/"), Ok((host("./a"), "/b".into(), false)));
        assert_eq!(read("data:/b"), Ok((Source::Named("data".into()), "/b".into(), false)));
        assert_eq!(read("a/b:/b:rw"), Ok((host("a/b"), "/b".into(), false)));
        assert_eq!(read(r"/a\:b:/c"), Ok((host("/a:b"), "/c".into(), false)));
        for wrong in ["", ":/x", "/a:/", "/a:/b:x", "/a:/b:/c:ro", "/a:b/c/d"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_in_words() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |text: &str| {
            let mut options = Options::default();
            mount(text, true, &mut options).map(|()| options).map_err(|error| error.to_string())
        };
        let text = format!("type=bind,source={},target=/x,readonly", dir.path().display());
        let options = read(&text).expect("well-formed");
        assert!(options.volumes[0].read_only && options.volumes[0].guest == Path::new("/x"));
        let options = read("type=tmpfs,dst=/t,tmpfs-mode=700").expect("well-formed");
        assert_eq!(options.temporary, [Temporary::new("/t".into(), 0o700)]);
        let options = read("type=tmpfs,dst=/t,tmpfs-size=1m,ro").expect("well-formed");
        assert!(options.temporary[0].size == Some(1 << 20) && options.temporary[0].read_only);
        let options = read("src=data,target=/d").expect("well-formed");
        assert_eq!(options.volumes[0].source, Source::Named("data".into()));
        for wrong in [
            "type=bind,target=/x",
            "type=tmpfs,dst=/t,tmpfs-size=x",
            "type=npipe,source=a,target=/b",
            "type=bind,x=y",
            "type=tmpfs",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
