//! What a bundle that was made of a recorded run says of that run.

use serde::{Deserialize, Serialize};

/// A recorded run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capture {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory.
    pub directory: String,
    /// `UID:GID` of whoever ran it.
    pub user: String,
    /// The file that its standard input was, if it was one: a run that repeats it needs the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Exit status, if the program exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// Number of the signal that killed it otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Programs and loaders that were executed, sorted.
    pub programs: Vec<String>,
    /// Files that the run changed, replaced or removed, sorted: the bundle has them as they were before.
    pub changed: Vec<String>,
    /// Files that the run made and left, sorted: the bundle does not have them.
    pub made: Vec<String>,
    /// Variables that are not in the bundle, sorted.
    pub variables_left_out: Vec<String>,
    /// Files that were used and are not in the bundle, sorted.
    pub files_left_out: Vec<String>,
    /// Files that were used, are not in the bundle, and are looked for on the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// Sockets of the node's that the run connected to, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<String>,
    /// Whether it used the network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
}

/// A file that is meant and not held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Where it was.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Capture {
    /// How the run ended, in words.
    #[must_use]
    pub fn ended(&self) -> String {
        match (self.status, self.signal) {
            (Some(status), _) => format!("exit status {status}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => String::new(),
        }
    }

    /// What is worth a line each for people: name and text.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines =
            vec![("captured", format!("{:?} in {}, as {}: {}", self.command, self.directory, self.user, self.ended()))];
        lines.extend(self.stdin.iter().map(|path| ("input from", path.clone())));
        let lists = [
            ("program", &self.programs),
            ("changed", &self.changed),
            ("made", &self.made),
            ("not held", &self.files_left_out),
            ("socket", &self.sockets),
        ];
        for (name, list) in lists {
            lines.extend(list.iter().map(|path| (name, path.clone())));
        }
        if !self.variables_left_out.is_empty() {
            lines.push(("no variable", self.variables_left_out.join(" ")));
        }
        for Reference { path, size, sha256 } in &self.references {
            lines.push(("reference", format!("{path}, {size} bytes, sha256:{sha256}")));
        }
        lines
    }
}
