//! Runtime options as given, layer over layer: the bundle's own defaults, configuration files, environment, command line.
//!
//! Nothing here looks at the node; `launch` resolves what was asked into what is done.

mod error;
mod parse;
pub mod table;
mod volume;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use coracle_api::{PortMap, size::SizeError};
pub use error::{OptionError, Origin};
pub use parse::{Given, command_line, environment, yes_or_no};
use table::{Id, Kind, Takes};

use crate::export::Form;
pub use volume::Volume;

/// What this start is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Action {
    /// Run the application.
    #[default]
    Run,
    /// List the options.
    Help,
    /// Say which Coracle built the bundle.
    Version,
    /// Say what the bundle holds.
    Info {
        /// As JSON.
        json: bool,
    },
    /// Say what a run would do.
    Explain,
    /// Check the bundle's bytes.
    Verify,
    /// Unpack the image's files into a directory, `NAME.rootfs` if none is given.
    Extract(Option<PathBuf>),
    /// Write the image's files as a tar, to standard output if no file is given.
    Tar(Option<PathBuf>),
    /// Write the image with its config as an archive, to standard output.
    Export(Form),
    /// Print the payload's offset.
    Offset,
    /// Empty the cache of what nobody uses.
    Cleanup,
}

/// Whether the guest may write to its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Writable {
    /// No.
    #[default]
    No,
    /// Yes, to a copy that is gone when it ends.
    Temporary,
    /// Yes, and the changes stay in this directory.
    Kept(PathBuf),
}

/// Where unpacked images are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// In this directory.
    Dir(PathBuf),
    /// Nowhere: this run unpacks for itself and cleans up.
    None,
}

/// Which other runs share this one's namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Join {
    /// The other ranks of the parallel job that it is part of.
    #[default]
    Auto,
    /// None.
    Never,
    /// Those that are given this name.
    Named(String),
}

/// Where the record of this run goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// To standard error.
    Stderr,
    /// To the end of this file, or of one in this directory.
    File(PathBuf),
}

/// One setting of the guest's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvSetting {
    /// `KEY=VALUE`, or `KEY` for the host's value.
    One(OsString),
    /// A file of them.
    File(PathBuf),
}

/// All layers as one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What to do.
    pub action: Action,
    /// Say what is done.
    pub verbose: bool,
    /// Say nothing but errors.
    pub quiet: bool,
    /// Engine asked for, and by which layer; none means `auto`.
    pub engine: Option<(String, Origin)>,
    /// Volumes, lowest layer first.
    pub volumes: Vec<(Volume, Origin)>,
    /// Environment settings in order, files first within a layer as Docker does.
    pub env: Vec<EnvSetting>,
    /// Guest directory to start in.
    pub workdir: Option<PathBuf>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// Program instead of the image's entrypoint; empty clears it.
    pub entrypoint: Option<OsString>,
    /// Start the image's shell.
    pub shell: bool,
    /// Host name inside.
    pub hostname: Option<OsString>,
    /// Ports that the host knows by other numbers, lowest layer first.
    pub ports: Vec<PortMap>,
    /// NVIDIA's GPUs to show: `all`, or numbers.
    pub gpus: Option<String>,
    /// Devices to show, by path or CDI name, lowest layer first.
    pub devices: Vec<String>,
    /// Directories of CDI specifications instead of the standard ones.
    pub cdi: Vec<PathBuf>,
    /// The public key of whoever must have signed the bundle.
    pub key: Option<PathBuf>,
    /// Nothing of the host.
    pub isolated: bool,
    /// Nothing of the caller's: no directory, no variable.
    pub alone: bool,
    /// May the guest write.
    pub writable: Writable,
    /// With whom it shares namespaces.
    pub join: Join,
    /// Cache asked for.
    pub cache: Option<(Cache, Origin)>,
    /// Bytes that unpacked images may take in a place.
    pub cache_limit: Option<u64>,
    /// Scratch asked for.
    pub scratch: Option<PathBuf>,
    /// Record asked for.
    pub report: Option<Report>,
    /// Every option given, for `explain`.
    pub given: Vec<Given>,
}

impl Options {
    /// Joins the layers, which come lowest first.
    ///
    /// # Errors
    /// [`OptionError`] for a value that cannot be used, or for two actions at once.
    pub fn join(given: Vec<Given>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let mut action: Option<&Given> = None;
        // Docker reads files before single variables, whatever their order.
        let files_first = given
            .iter()
            .filter(|one| one.row.id == Id::EnvFile)
            .chain(given.iter().filter(|one| one.row.id != Id::EnvFile));
        for one in files_first {
            if one.row.kind == Kind::Action && one.row.takes == Takes::Switch && !switch(one)? {
                continue;
            }
            if one.row.kind == Kind::Action {
                if let Some(first) = action.filter(|first| first.row.id != one.row.id && first.origin == one.origin) {
                    return Err(OptionError::TwoActions { first: first.row.name, second: one.row.name });
                }
                action = Some(one);
            }
            options.set(one)?;
        }
        options.given = given;
        Ok(options)
    }

    fn set(&mut self, given: &Given) -> Result<(), OptionError> {
        let value = given.value.as_deref();
        let path = || value.filter(|value| !value.is_empty()).map(PathBuf::from);
        match given.row.id {
            Id::Help => self.action = Action::Help,
            Id::Version => self.action = Action::Version,
            Id::Explain => self.action = Action::Explain,
            Id::Verify => self.action = Action::Verify,
            Id::Offset => self.action = Action::Offset,
            Id::Cleanup => self.action = Action::Cleanup,
            Id::Info => {
                let json = match value.map(OsStr::as_bytes) {
                    None | Some(b"" | b"text" | b"1" | b"yes" | b"true") => false,
                    Some(b"json") => true,
                    Some(_) => return Err(given.wrong("no such form", "it is text or json")),
                };
                self.action = Action::Info { json };
            }
            Id::Extract => self.action = Action::Extract(path()),
            Id::Tar => self.action = Action::Tar(path().filter(|path| path.as_os_str() != "-")),
            Id::Verbose => self.verbose = switch(given)?,
            Id::Quiet => self.quiet = switch(given)?,
            Id::Shell => self.shell = switch(given)?,
            Id::Isolated => self.isolated = switch(given)?,
            Id::Alone => self.alone = switch(given)?,
            Id::Engine => self.engine = Some((text(given)?, given.origin.clone())),
            Id::Volume => {
                let volume = Volume::parse(value.unwrap_or_default())
                    .map_err(|why| given.wrong(why, "write HOST[:GUEST][:ro|rw]"))?;
                self.volumes.push((volume, given.origin.clone()));
            }
            Id::Env => {
                let pair = value.unwrap_or_default();
                if pair.is_empty() || pair.as_bytes()[0] == b'=' {
                    return Err(given.wrong("it names no variable", "write KEY=VALUE, or KEY to pass the host's"));
                }
                self.env.push(EnvSetting::One(pair.to_owned()));
            }
            Id::EnvFile => self.env.push(EnvSetting::File(needed(given)?.into())),
            Id::Workdir => {
                let dir = PathBuf::from(needed(given)?);
                if !dir.is_absolute() {
                    return Err(given.wrong("it must be absolute", "name a directory as it is inside the image"));
                }
                self.workdir = Some(dir);
            }
            Id::User => self.user = Some(text(given)?),
            Id::Entrypoint => self.entrypoint = Some(value.unwrap_or_default().to_owned()),
            Id::Hostname => {
                let name = needed(given)?;
                if name.len() > 64 || !name.as_bytes().iter().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(c)) {
                    return Err(given.wrong("no host name", "use at most 64 letters, digits, dots and hyphens"));
                }
                self.hostname = Some(name.to_owned());
            }
            Id::Publish => {
                let maps = PortMap::parse(&text(given)?);
                self.ports.extend(maps.map_err(|why| given.wrong(why, "write [[ADDRESS:]HOST:]GUEST[/udp]"))?);
            }
            Id::Writable => {
                self.writable = match value.map(|value| (value, yes_or_no(value))) {
                    None | Some((_, Some(true))) => Writable::Temporary,
                    Some((_, Some(false))) => Writable::No,
                    Some((dir, None)) if !dir.is_empty() => Writable::Kept(dir.into()),
                    Some(_) => return Err(given.wrong("it names no directory", "write writable, or writable=DIR")),
                }
            }
            Id::Cache => {
                let dir = needed(given)?;
                let cache = if dir == "none" { Cache::None } else { Cache::Dir(dir.into()) };
                self.cache = Some((cache, given.origin.clone()));
            }
            Id::Scratch => self.scratch = Some(needed(given)?.into()),
            Id::Nvidia => {
                self.gpus = match value.map(|value| (value, yes_or_no(value))) {
                    // `1` and `0` are GPUs here, not yes and no.
                    Some((value, _)) if value.as_bytes().first().is_some_and(u8::is_ascii_digit) => Some(text(given)?),
                    None | Some((_, Some(true))) => Some("all".to_owned()),
                    Some((_, Some(false))) => None,
                    Some((_, None)) => Some(text(given)?),
                }
            }
            Id::Device => self.devices.push(text(given)?),
            Id::Cdi => self.cdi.push(needed(given)?.into()),
            Id::Report => {
                self.report = match value.map(|value| (value.as_bytes(), yes_or_no(value))) {
                    None | Some((b"-", _) | (_, Some(true))) => Some(Report::Stderr),
                    Some((b"", _) | (_, Some(false))) => None,
                    Some(_) => path().map(Report::File),
                }
            }
            Id::Join => {
                self.join = match text(given)?.as_str() {
                    "auto" => Join::Auto,
                    "never" => Join::Never,
                    name => Join::Named(name.to_owned()),
                }
            }
            Id::CacheLimit => self.cache_limit = size(needed(given)?).map_err(|(why, hint)| given.wrong(why, hint))?,
            Id::Key => self.key = Some(needed(given)?.into()),
            Id::Export => {
                let form = Form::named(&text(given)?).ok_or_else(|| {
                    given.wrong("no such archive", "it is docker, oci or bundle, and goes to standard output")
                })?;
                self.action = Action::Export(form);
            }
        }
        Ok(())
    }
}

fn switch(given: &Given) -> Result<bool, OptionError> {
    given.value.as_deref().map_or(Ok(true), |value| {
        yes_or_no(value).ok_or_else(|| given.wrong("neither yes nor no", "leave the value out, or write yes or no"))
    })
}

fn needed(given: &Given) -> Result<&OsStr, OptionError> {
    given.value.as_deref().filter(|value| !value.is_empty()).ok_or_else(|| {
        let word = match given.row.takes {
            Takes::Switch => "yes",
            Takes::Optional(word) | Takes::Value(word) | Takes::List(word, _) => word,
        };
        OptionError::NoValue { name: given.name(), word }
    })
}

/// `500M`, `20G`, `1.5T`, `20GiB`, a number of bytes, or none.
fn size(text: &OsStr) -> Result<Option<u64>, (&'static str, &'static str)> {
    let wrong = ("no size", "write a number with K, M, G or T behind it (powers of 1024), or none");
    let text = text.to_str().ok_or(wrong)?.trim();
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    coracle_api::size::parse(text).map(Some).map_err(|error| match error {
        SizeError::Malformed => wrong,
        SizeError::TooLarge => ("too large", "write none for no limit"),
    })
}

fn text(given: &Given) -> Result<String, OptionError> {
    needed(given)?.to_str().map(str::to_owned).ok_or_else(|| given.wrong("not UTF-8", "write it in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layered(layers: &[(&Origin, &[&str])]) -> Result<Options, OptionError> {
        let mut all = Vec::new();
        for (origin, args) in layers {
            let args: Vec<OsString> = args.iter().map(|arg| OsString::from(format!("--coracle-{arg}"))).collect();
            let (given, rest) = command_line(&args)?;
            assert!(rest.is_empty());
            all.extend(given.into_iter().map(|given| Given { origin: (*origin).clone(), ..given }));
        }
        Options::join(all)
    }

    #[test]
    fn a_higher_layer_wins_and_lists_are_joined() {
        let options = layered(&[
            (&Origin::Bundle, &["isolated", "volume=/low", "engine=ptrace"]),
            (&Origin::CommandLine, &["isolated=no", "volume=/high", "engine=P1"]),
        ])
        .expect("well-formed");
        assert!(!options.isolated);
        assert_eq!(options.engine, Some(("P1".to_owned(), Origin::CommandLine)));
        let hosts: Vec<_> = options.volumes.iter().map(|(volume, _)| volume.host.clone()).collect();
        assert_eq!(hosts, [PathBuf::from("/low"), PathBuf::from("/high")]);
    }

    #[test]
    fn writable_and_cache_have_their_special_words() {
        let options = layered(&[(&Origin::CommandLine, &["writable=/w", "cache=none"])]).expect("well-formed");
        assert_eq!(options.writable, Writable::Kept("/w".into()));
        assert_eq!(options.cache, Some((Cache::None, Origin::CommandLine)));
        let options = layered(&[(&Origin::CommandLine, &["writable", "writable=no"])]).expect("well-formed");
        assert_eq!(options.writable, Writable::No);
    }

    #[test]
    fn a_size_may_be_none() {
        let is = |text: &str| size(OsStr::new(text)).map_err(|(why, _)| why);
        assert_eq!(is("1.5g"), Ok(Some(3 << 29)));
        assert_eq!(is(" 20GiB"), Ok(Some(20 << 30)));
        assert_eq!(is("None"), Ok(None));
        assert_eq!(is("12Q"), Err("no size"));
        assert_eq!(is("99999999999999999T"), Err("too large"));
    }

    #[test]
    fn two_actions_on_one_line_are_refused() {
        assert_eq!(
            layered(&[(&Origin::CommandLine, &["verify", "extract=x"])]).err(),
            Some(OptionError::TwoActions { first: "verify", second: "extract" })
        );
        let options = layered(&[(&Origin::Environment, &["verify"]), (&Origin::CommandLine, &["help"])]);
        assert_eq!(options.map(|options| options.action).ok(), Some(Action::Help));
    }
}
