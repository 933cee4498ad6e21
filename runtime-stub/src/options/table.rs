//! The one table of options: it drives parsing, help and explain, and says which layers may set what.

/// Which option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row's help text")]
pub enum Id {
    Help,
    Version,
    Info,
    Explain,
    Verify,
    Extract,
    Tar,
    Offset,
    Cleanup,
    Verbose,
    Quiet,
    Engine,
    Volume,
    Env,
    EnvFile,
    Workdir,
    User,
    Entrypoint,
    Shell,
    Hostname,
    Publish,
    Isolated,
    Alone,
    Writable,
    Join,
    Cache,
    Scratch,
    Nvidia,
    Device,
    Cdi,
    CacheLimit,
    Report,
    Export,
    Key,
}

/// What follows an option's `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or yes or no.
    Switch,
    /// Nothing, yes or no, or a value.
    Optional(&'static str),
    /// A value.
    Value(&'static str),
    /// A value, and the option may be repeated; in its environment form values are separated by these characters.
    List(&'static str, &'static [u8]),
}

/// What an option is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Does something else than running the application. Has no place in a configuration file.
    Action,
    /// Shapes this run. Its environment form is not passed on to the application, which may be a bundle's user itself.
    Run,
    /// Concerns the node or the caller's taste rather than this bundle; its environment form is passed on.
    Node,
    /// A name that this version knows and refuses.
    Later,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Which.
    pub id: Id,
    /// The name after `--coracle-`; also the configuration file's key.
    pub name: &'static str,
    /// Its value.
    pub takes: Takes,
    /// What it is for.
    pub kind: Kind,
    /// One line for `help`.
    pub help: &'static str,
}

const fn row(id: Id, name: &'static str, takes: Takes, kind: Kind, help: &'static str) -> Row {
    Row { id, name, takes, kind, help }
}

/// Every option, in the order of `help`.
pub const ROWS: [Row; 34] = [
    row(Id::Help, "help", Takes::Switch, Kind::Action, "show these options"),
    row(Id::Version, "version", Takes::Switch, Kind::Action, "show the version of Coracle that built this file"),
    row(Id::Info, "info", Takes::Optional("json"), Kind::Action, "show what this file holds and where it came from"),
    row(Id::Explain, "explain", Takes::Switch, Kind::Action, "show what a run would do here, and why; run nothing"),
    row(Id::Verify, "verify", Takes::Switch, Kind::Action, "check every byte of this file against its digests"),
    row(Id::Extract, "extract", Takes::Optional("DIR"), Kind::Action, "unpack the image's files into DIR"),
    row(Id::Tar, "tar", Takes::Optional("FILE"), Kind::Action, "write the image's files as a tar to FILE or stdout"),
    row(
        Id::Export,
        "export",
        Takes::Value("docker|oci|bundle"),
        Kind::Action,
        "write the image, with a run's changes, to stdout: for other tools, or as a bundle",
    ),
    row(Id::Offset, "offset", Takes::Switch, Kind::Action, "print where the payload, a zstd-compressed tar, starts"),
    row(Id::Cleanup, "cleanup", Takes::Switch, Kind::Action, "remove what this and other bundles left in the cache"),
    row(Id::Verbose, "verbose", Takes::Switch, Kind::Node, "say on stderr what is done"),
    row(Id::Quiet, "quiet", Takes::Switch, Kind::Node, "say nothing but errors"),
    row(
        Id::Engine,
        "engine",
        Takes::Value("NAME"),
        Kind::Node,
        "how to run: auto, or one engine by name or by udocker's mode",
    ),
    row(
        Id::Volume,
        "volume",
        Takes::List("HOST[:GUEST][:ro|rw]", b",\n"),
        Kind::Run,
        "show a host file or directory inside",
    ),
    row(Id::Env, "env", Takes::List("KEY[=VALUE]", b"\n"), Kind::Run, "set a variable inside, or pass the host's"),
    row(
        Id::EnvFile,
        "env-file",
        Takes::List("FILE", b",\n"),
        Kind::Run,
        "set variables from a file, as Docker reads it",
    ),
    row(Id::Workdir, "workdir", Takes::Value("DIR"), Kind::Run, "directory inside to start in"),
    row(Id::User, "user", Takes::Value("USER[:GROUP]"), Kind::Run, "who to be inside: a name of the image's, or ids"),
    row(Id::Entrypoint, "entrypoint", Takes::Value("PROGRAM"), Kind::Run, "run this instead of the image's entrypoint"),
    row(Id::Shell, "shell", Takes::Switch, Kind::Run, "start the image's shell"),
    row(Id::Hostname, "hostname", Takes::Value("NAME"), Kind::Run, "host name inside"),
    row(
        Id::Publish,
        "publish",
        Takes::List("[[ADDRESS:]HOST:]GUEST[/tcp|udp]", b",\n"),
        Kind::Run,
        "let the host know a port by another number or address",
    ),
    row(Id::Isolated, "isolated", Takes::Switch, Kind::Run, "show nothing of the host, as Docker does"),
    row(
        Id::Alone,
        "alone",
        Takes::Switch,
        Kind::Run,
        "show none of your directories and variables, only the image's own",
    ),
    row(
        Id::Writable,
        "writable",
        Takes::Optional("DIR"),
        Kind::Run,
        "let the application change its files, until it ends or kept in DIR",
    ),
    row(
        Id::Join,
        "join",
        Takes::Value("auto|never|NAME"),
        Kind::Run,
        "share namespaces with the ranks of this MPI job, with nobody, or with all of a name",
    ),
    row(Id::Cache, "cache", Takes::Value("DIR|none"), Kind::Node, "where unpacked images are kept and shared, or none"),
    row(Id::Scratch, "scratch", Takes::Value("DIR"), Kind::Node, "where this run's temporary files go"),
    row(
        Id::Nvidia,
        "nvidia",
        Takes::Optional("GPUS"),
        Kind::Run,
        "show the node's NVIDIA driver and its GPUs: all, or numbers as 0,1",
    ),
    row(
        Id::Device,
        "device",
        Takes::List("PATH|NAME", b",\n"),
        Kind::Run,
        "show a device, by its path or its CDI name (nvidia.com/gpu=0)",
    ),
    row(
        Id::Cdi,
        "cdi",
        Takes::List("DIR", b":\n"),
        Kind::Node,
        "look for CDI specifications here, not in /etc/cdi and /var/run/cdi",
    ),
    row(
        Id::Report,
        "report",
        Takes::Optional("FILE"),
        Kind::Run,
        "append a record of this run, as a line of JSON, to FILE or stderr",
    ),
    row(
        Id::CacheLimit,
        "cache-limit",
        Takes::Value("SIZE|none"),
        Kind::Node,
        "what unpacked images may take (500M, 20G): the least recently used ones make room",
    ),
    row(
        Id::Key,
        "key",
        Takes::Value("FILE"),
        Kind::Node,
        "look first whether the owner of this public key signed this file",
    ),
];

impl Row {
    /// The row of an option.
    #[must_use]
    pub fn of(id: Id) -> &'static Self {
        // The table has a row for every Id; a test says so.
        ROWS.iter().find(|row| row.id == id).unwrap_or(&ROWS[0])
    }

    /// The row with this name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.name.as_bytes() == name)
    }

    /// The option as typed on a command line: `--coracle-env-file`.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--coracle-{}", self.name)
    }

    /// Its environment form: `CORACLE_ENV_FILE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("CORACLE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether `variable` is this row's environment form, found without allocating.
    fn is_variable(&self, variable: &[u8]) -> bool {
        variable.strip_prefix(b"CORACLE_").is_some_and(|rest| {
            rest.len() == self.name.len()
                && rest.iter().zip(self.name.bytes()).all(|(have, name)| match name {
                    b'-' => *have == b'_',
                    name => *have == name.to_ascii_uppercase(),
                })
        })
    }

    /// The row whose environment form `variable` is.
    #[must_use]
    pub fn of_variable(variable: &[u8]) -> Option<&'static Self> {
        if !variable.starts_with(b"CORACLE_") {
            return None;
        }
        ROWS.iter().find(|row| row.is_variable(variable))
    }
}

/// The name of a usable option that is nearest to what was typed, if one is near.
#[must_use]
pub fn nearest(typed: &str) -> Option<&'static str> {
    ROWS.iter()
        .filter(|row| row.kind != Kind::Later)
        .map(|row| (distance(typed.as_bytes(), row.name.as_bytes()), row.name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3) + 1 && *distance < name.len())
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = above[0];
        above[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = above[j + 1];
            above[j + 1] = substituted.min(above[j] + 1).min(diagonal + 1);
        }
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_id_its_name_and_its_variable() {
        for row in &ROWS {
            assert_eq!(Row::of(row.id).name, row.name);
            assert_eq!(Row::named(row.name.as_bytes()).map(|found| found.id), Some(row.id));
            assert_eq!(Row::of_variable(row.variable().as_bytes()).map(|found| found.id), Some(row.id));
        }
        assert!(Row::of_variable(b"CORACLE_DIR").is_none());
        assert!(Row::of_variable(b"CORACLE_env").is_none());
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_option_and_nonsense_finds_none() {
        assert_eq!(nearest("voluem"), Some("volume"));
        assert_eq!(nearest("envfile"), Some("env-file"));
        assert_eq!(nearest("work-dir"), Some("workdir"));
        assert_eq!(nearest("zzzzzzzzzz"), None);
    }
}
