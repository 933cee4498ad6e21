//! `coracle capture`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use coracle_api::Ended;
use coracle_format::{Capture, Defaults, ImageConfig, Provenance};
use indicatif::HumanBytes;

use crate::{
    capture::{
        self, Captured, Choice, Record,
        run::{FileSize, Ran},
        secrets,
        variables::Variables,
    },
    cli::{args::CaptureArgs, report},
    pack::{self, Contents, Output},
    packages::Packages,
    patch,
};

/// So many names of a list go into the manifest, which every start reads; the index has all files.
const MOST: usize = 1000;
/// So many are told on standard error.
const TOLD: usize = 8;

/// Where and as what the command runs.
struct Scene {
    command: Vec<String>,
    /// As the shell calls it.
    directory: PathBuf,
    variables: Variables,
}

/// Runs the command, and makes a bundle of what it used. The exit status is the command's.
pub(super) fn run(args: &CaptureArgs, quiet: bool) -> anyhow::Result<u8> {
    // Whatever is wrong with what was asked for is said before anything runs.
    ensure!(args.output != Path::new("-"), "-o -: standard output is the command's: name a file");
    ensure!(args.fixed <= args.command.len(), "--fixed {}: the command has {} words", args.fixed, args.command.len());
    let scene = Scene::read(args)?;
    let absolute = |path: &PathBuf| std::path::absolute(path).with_context(|| format!("--include {}", path.display()));
    let include: Vec<PathBuf> = args.include.iter().map(absolute).collect::<Result<_, _>>()?;
    for path in &include {
        fs::symlink_metadata(path).with_context(|| format!("--include {}", path.display()))?;
    }
    let mut choice = Choice::new(include, &args.exclude)?;
    choice.reference_larger = args.reference_larger;
    choice.listed = args.listed;
    let file_size = FileSize::as_error();
    let output = Output::create(&args.output)?;
    let scratch = scratch()?;
    let (recording, made) = (scratch.path().join("recording"), scratch.path().join("made"));
    for directory in [&recording, &made] {
        fs::create_dir(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let places = [scratch.path().to_owned(), "/tmp".into()];
    let Ran { status, started } = capture::run::run(&args.command, &recording, &made, &places, file_size)?;
    if !started {
        // Why was said, and there is nothing to repeat.
        return Ok(status);
    }
    let record = Record::read(&recording)?;
    let captured = capture::capture(&record, &choice, &scene.places())?;
    let about = scene.about(&record, &captured, scratch.path());
    warn(&about, &scene, &captured, quiet);
    let summary = pack(args, &scene, about, &captured, &output)?;
    output.finish()?;
    let total = HumanBytes(summary.total);
    report::note(
        quiet,
        &format!(
            "{}: {total} ({} of files, {} inodes); the command ended with {}",
            args.output.display(),
            HumanBytes(summary.unpacked),
            summary.inodes,
            ended(&record)
        ),
    );
    Ok(status)
}

impl Scene {
    fn read(args: &CaptureArgs) -> anyhow::Result<Self> {
        let word = |word: &OsString| match word.to_str() {
            Some(word) => Ok(word.to_owned()),
            None => bail!("{}: not UTF-8: a bundle cannot hold such an argument: give it another way", word.display()),
        };
        let command: Vec<String> = args.command.iter().map(word).collect::<Result<_, _>>()?;
        let real = env::current_dir().context("cannot find out the working directory")?;
        let same = |named: &PathBuf| {
            let key = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
            named.is_absolute() && key(named).is_some_and(|found| Some(found) == key(&real))
        };
        let directory = env::var_os("PWD").map(PathBuf::from).filter(same).unwrap_or(real);
        ensure!(directory.to_str().is_some(), "{}: not UTF-8: start from another directory", directory.display());
        let variables = Variables::choose(env::vars_os(), &args.redact, &args.keep_env)?;
        Ok(Self { command, directory, variables })
    }

    /// Directories that a run expects, whether it has looked for them or not.
    fn places(&self) -> Vec<PathBuf> {
        let named = ["HOME", "TMPDIR"].into_iter().filter_map(env::var_os).map(PathBuf::from);
        let mut places: Vec<PathBuf> = named.filter(|path| path.is_absolute()).collect();
        places.extend(env::current_dir());
        places.extend(["/tmp".into(), "/var/tmp".into(), self.directory.clone()]);
        places
    }

    /// What the bundle says of the run.
    fn about(&self, record: &Record, captured: &Captured, scratch: &Path) -> Capture {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let host = |path: &[u8]| PathBuf::from(OsStr::from_bytes(path));
        let names = |wanted: &dyn Fn(&[u8], &capture::record::Met) -> bool| -> Vec<String> {
            let chosen = record.paths.iter().filter(|(path, met)| wanted(path, met));
            chosen.map(|(path, _)| text(path)).take(MOST).collect()
        };
        let changed = |path: &[u8], met: &capture::record::Met| {
            let Some(state) = met.state.filter(|_| met.changed && met.saved.is_some()) else { return false };
            let now = fs::symlink_metadata(host(path));
            now.map_or(true, |now| {
                (now.len(), now.mtime(), now.mtime_nsec()) != (state.size, state.seconds, state.nanoseconds.into())
            })
        };
        let made = |path: &[u8], met: &capture::record::Met| {
            let path = host(path);
            met.state.is_none()
                && !path.starts_with(scratch)
                && fs::symlink_metadata(&path).is_ok_and(|found| found.is_file())
        };
        let unreadable = captured.unreadable.iter().map(|(path, _)| path);
        let mut left: Vec<String> =
            captured.secret.iter().chain(&captured.excluded).chain(unreadable).cloned().collect();
        left.sort();
        left.truncate(MOST);
        Capture {
            command: self.command.clone(),
            directory: self.directory.to_string_lossy().into_owned(),
            stdin: input_file(),
            user: format!("{}:{}", nix::unistd::geteuid(), nix::unistd::getegid()),
            status: record.ended.and_then(|ended| if let Ended::Exited(status) = ended { Some(status) } else { None }),
            signal: record
                .ended
                .and_then(|ended| if let Ended::Signaled(signal) = ended { Some(signal) } else { None }),
            programs: names(&|_, met| met.executed),
            changed: names(&changed),
            made: names(&made),
            variables_left_out: self.variables.left_out(),
            files_left_out: left,
            references: captured.references.clone(),
            sockets: record.sockets.iter().map(|path| text(path)).collect(),
            network: record.network,
        }
    }
}

/// Says what the bundle lacks.
fn warn(about: &Capture, scene: &Scene, captured: &Captured, quiet: bool) {
    let list = |what: &str, names: &mut dyn Iterator<Item = String>, advice: &str| {
        let names: Vec<String> = names.collect();
        if !names.is_empty() {
            let more = if names.len() > TOLD { format!(" and {} more", names.len() - TOLD) } else { String::new() };
            let shown = names[..names.len().min(TOLD)].join(" ");
            report::note(quiet, &format!("{what}: {shown}{more}{advice}"));
        }
    };
    let secret = &mut scene.variables.secret.iter().cloned();
    list("left out, because it looks like a secret", secret, ": --keep-env takes it");
    let secret = &mut captured.secret.iter().cloned();
    list("left out, because it looks like a secret", secret, ": --include takes it");
    let unreadable = &mut captured.unreadable.iter().map(|(path, why)| format!("{path} ({why})"));
    list("left out, because it cannot be read", unreadable, "");
    list("only referred to", &mut captured.references.iter().map(|file| file.path.clone()), "");
    list("changed by others meanwhile, and kept as it is now", &mut captured.unsteady.iter().cloned(), "");
    list("devices, which are the node's", &mut captured.devices.iter().cloned(), "");
    list("sockets that the run connected to, whose servers are the node's", &mut about.sockets.iter().cloned(), "");
    if let Some(file) = &about.stdin {
        report::note(quiet, &format!("standard input was {file}, which is not in the bundle: give it the same"));
    }
    if about.network {
        report::note(quiet, "the run connected to the network, which is not in the bundle");
    }
    if scene.command.iter().any(|word| secrets::is_secret_argument(word)) {
        report::note(
            quiet,
            "the command looks as if it held a secret, and is in the bundle: give secrets in a variable or a file",
        );
    }
}

/// The file that standard input is, if it is one with a name.
fn input_file() -> Option<String> {
    let is_file = fs::metadata("/proc/self/fd/0").is_ok_and(|found| found.is_file());
    let file = is_file.then(|| fs::read_link("/proc/self/fd/0").ok()).flatten()?;
    Some(file.to_string_lossy().into_owned())
}

fn ended(record: &Record) -> String {
    match record.ended {
        Some(Ended::Exited(status)) => format!("status {status}"),
        Some(Ended::Signaled(signal)) => format!("signal {signal}"),
        None => "nothing known".to_owned(),
    }
}

fn pack(
    args: &CaptureArgs,
    scene: &Scene,
    about: Capture,
    captured: &Captured,
    output: &Output,
) -> anyhow::Result<pack::Summary> {
    let (fixed, rest) = scene.command.split_at(args.fixed);
    let list = |words: &[String]| Some(words.to_vec()).filter(|words| !words.is_empty());
    let config = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        user: Some(about.user.clone()),
        env: scene.variables.kept.clone(),
        entrypoint: list(fixed),
        cmd: list(rest),
        working_dir: Some(about.directory.clone()),
        ..ImageConfig::default()
    };
    let provenance = Provenance {
        source: format!("capture:{}", about.directory),
        licences: Packages::of(&captured.tree).licences().into_iter().collect(),
        options: as_given(args),
        capture: Some(about),
        ..Provenance::default()
    };
    let analysis = patch::analyse(&captured.tree, &config)?;
    let contents = Contents {
        tree: &captured.tree,
        config,
        defaults: Defaults { alone: true, writable: true, ..Defaults::default() },
        provenance,
        facts: analysis.facts,
        edits: analysis.edits,
    };
    let options =
        pack::Options { level: args.pack.compression, jobs: args.pack.jobs.unwrap_or_else(pack::default_jobs) };
    Ok(pack::write_bundle(output.file(), contents, options, &|_, _| ())?)
}

/// The options that chose what is in the bundle.
fn as_given(args: &CaptureArgs) -> Vec<String> {
    let mut given: Vec<String> = Vec::new();
    given.extend(args.include.iter().map(|path| format!("--include={}", path.display())));
    given.extend(args.exclude.iter().map(|pattern| format!("--exclude={}", pattern.display())));
    given.extend(args.redact.iter().map(|pattern| format!("--redact={pattern}")));
    given.extend(args.keep_env.iter().map(|pattern| format!("--keep-env={pattern}")));
    given.extend(args.listed.then(|| "--listed".to_owned()));
    given.extend(args.reference_larger.map(|size| format!("--reference-larger={size}")));
    given
}

/// A directory for the record and for copies of what the run changes: as large as that, so rather on disk than in memory.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let named = env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let mut last = None;
    for place in named.into_iter().chain(["/var/tmp".into(), "/tmp".into()]) {
        // Copies of what others may not read, and names of it: closed whatever the umask says.
        let closed = fs::Permissions::from_mode(0o700);
        match tempfile::Builder::new().prefix("coracle-capture-").permissions(closed).tempdir_in(&place) {
            Ok(made) => return Ok(made),
            Err(error) => {
                last =
                    Some(anyhow::Error::new(error).context(format!("cannot make a directory in {}", place.display())))
            }
        }
    }
    Err(last.context("no place for temporary files")?).context("set TMPDIR to a directory that can be written to")
}
