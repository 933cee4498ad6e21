//! Arguments of the commands for images.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{LimitArgs, ListArgs, SourceArgs};

/// `coracle images`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct ImagesArgs {
    /// Show only this image, or all tags of this repository.
    pub name: Option<String>,
    /// Show the layers of each, with their sizes.
    #[arg(long, short)]
    pub layers: bool,
    /// Show the platform of each.
    #[arg(long, short)]
    pub platform: bool,
    /// Show the digest of each manifest.
    #[arg(long)]
    pub digests: bool,
    /// Accepted and without effect: there are no hidden images.
    #[arg(long, short, hide = true)]
    pub all: bool,
    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
    /// Only those: reference=GLOB, label=KEY[=VALUE], dangling=false.
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// `coracle history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The image.
    pub image: String,
    /// Of this platform, if there are several.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `coracle volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// List volumes, and how many containers have them.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Make an empty volume.
    Create {
        /// Its name.
        name: String,
    },
    /// Show where a volume is.
    Inspect {
        /// The volumes.
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
        /// Print parts of the JSON, by a template.
        #[arg(long, short, value_name = "FORMAT")]
        format: Option<String>,
    },
    /// Remove volumes that no container has.
    #[command(visible_alias = "remove")]
    Rm {
        /// The volumes.
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
        /// One that is not there is no error.
        #[arg(long, short)]
        force: bool,
    },
    /// Remove all volumes that no container has.
    Prune {
        /// Without it nothing is removed.
        #[arg(long, short)]
        force: bool,
    },
}

/// `coracle rmi`.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// The images: names, or beginnings of ids.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Remove an image with all its names if its id is given; what is not there is no failure.
    #[arg(long, short)]
    pub force: bool,
    /// Only this platform of it.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
}

/// `coracle tag`.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// The image: a name, or the beginning of an id.
    pub source: String,
    /// One more name for it.
    pub target: String,
}

/// Forms of image archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArchiveForm {
    /// What `docker save` writes.
    DockerArchive,
    /// An OCI image layout in a tar.
    OciArchive,
}

/// `coracle save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Write here; standard output unless given, or if -.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// The archive's form.
    #[arg(long, value_enum, default_value = "docker-archive")]
    pub format: ArchiveForm,
    /// This platform of each image.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// The images: names, or beginnings of ids.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `coracle load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The archive; standard input unless given, or if -.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub input: Option<PathBuf>,
    /// The platform to take, of those that an image has.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// Another name for the archive's only image; before it, - for standard input.
    #[arg(num_args = 0..=2, value_name = "NAME")]
    pub words: Vec<String>,
}

/// `coracle import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A tar of a root file system, compressed or not; - is standard input. With --clone, what `export --clone` wrote. A
    /// bundle becomes a container either way, with its settings.
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The new image's name.
    pub image: Option<String>,
    /// Make a container instead of an image.
    #[arg(long)]
    pub tocontainer: bool,
    /// Make a container with the settings of the one that was exported.
    #[arg(long)]
    pub clone: bool,
    /// The new container's name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Remove the tar afterwards.
    #[arg(long)]
    pub mv: bool,
    /// The platform that it is for; this machine's unless given.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// Change how the image runs, by an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, USER, WORKDIR, VOLUME, EXPOSE,
    /// LABEL or STOPSIGNAL.
    #[arg(long, short, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// How much it may hold.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// `coracle manifest`.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Print what a registry has under a name: an index, or a manifest.
    Inspect(ManifestArgs),
}

/// `coracle manifest inspect`, also `manifest-inspect`.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    /// The image in a registry.
    pub image: OsString,
    /// Where the image comes from; with --platform, that platform's manifest is printed.
    #[command(flatten)]
    pub source_options: SourceArgs,
}

/// `coracle search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for; or with --list-tags, a repository.
    pub term: String,
    /// List a repository's tags instead.
    #[arg(long)]
    pub list_tags: bool,
    /// The registry to ask; Docker's unless given.
    #[arg(long, value_name = "[http://]HOST[:PORT]")]
    pub registry: Option<String>,
    /// The same; udocker's searches ask an index.
    #[arg(long, value_name = "URL", hide = true)]
    pub index: Option<String>,
    /// Reach it through this proxy; it comes before those of the environment.
    #[arg(long, value_name = "URL")]
    pub httpproxy: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub limit: usize,
    /// Allow plain http and unknown certificates.
    #[arg(long)]
    pub insecure: bool,
    /// Accepted and without effect: nothing waits for a key.
    #[arg(short = 'a', hide = true)]
    pub no_pause: bool,
    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `coracle sbom`.
#[derive(Debug, Args)]
pub struct SbomArgs {
    /// A bundle's file, or an image or container:NAME as for build.
    #[arg(value_name = "FILE|SOURCE", value_hint = ValueHint::AnyPath)]
    pub source: OsString,
    /// How to write it.
    #[arg(long, value_enum, default_value_t = SbomFormat::Cyclonedx)]
    pub format: SbomFormat,
    /// The file to write; standard output unless given.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Where the image comes from.
    #[command(flatten)]
    pub source_options: SourceArgs,
}

/// Formats of package lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SbomFormat {
    /// CycloneDX 1.5.
    Cyclonedx,
    /// SPDX 2.3.
    Spdx,
}
