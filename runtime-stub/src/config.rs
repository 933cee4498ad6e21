//! The configuration files: `/etc/coracle.toml` for a site, `coracle.toml` in the user's configuration directory above it.
//!
//! Runtime options stand in the table `[run]` under the names they have on the command line. Other tables belong to the
//! builder. A key that this version does not know is a warning and no error, so that one site's file serves the bundles
//! of several versions.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use crate::options::{
    Given, OptionError, Origin,
    table::{self, Id, Kind, Row, Takes},
};

/// The site's file.
const SITE: &str = "/etc/coracle.toml";

/// What the files gave.
#[derive(Debug, Default)]
pub struct Config {
    /// Options, the site's before the user's.
    pub given: Vec<Given>,
    /// Keys that were not understood, in words.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the files that exist. `CORACLE_CONFIG` names one to be read instead of both.
    ///
    /// # Errors
    /// [`OptionError::Config`] for a file that cannot be read or is not TOML, or a value of the wrong type.
    pub fn read(env: &[(OsString, OsString)]) -> Result<Self, OptionError> {
        let variable =
            |name: &str| env.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value);
        let mut config = Self::default();
        if let Some(only) = variable("CORACLE_CONFIG") {
            config.add(Path::new(only), true, env)?;
            return Ok(config);
        }
        config.add(Path::new(SITE), false, env)?;
        let user = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        if let Some(dir) = user.or_else(|| variable("HOME").map(|home| Path::new(home).join(".config"))) {
            config.add(&dir.join("coracle.toml"), false, env)?;
        }
        Ok(config)
    }

    fn add(&mut self, path: &Path, required: bool, env: &[(OsString, OsString)]) -> Result<(), OptionError> {
        let wrong = |why: String| OptionError::Config { path: path.to_owned(), why };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // A home on a file system that is away must not stop a job that has no need of it.
            Err(error) if !required && error.kind() != io::ErrorKind::InvalidData => return Ok(()),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(one_line(&error.to_string())))?;
        let Some(run) = table.get("run") else { return Ok(()) };
        let run = run.as_table().ok_or_else(|| wrong("run is not a table".to_owned()))?;
        for (key, value) in run {
            let Some(row) = Row::named(key.as_bytes()).filter(|row| !matches!(row.kind, Kind::Action | Kind::Later))
            else {
                let near = table::nearest(key).map_or_else(String::new, |near| format!(": did you mean {near}?"));
                self.warnings.push(format!("{}: {key:?}: no such option, ignored{near}", path.display()));
                continue;
            };
            for value in values(row, value).map_err(|why| wrong(format!("{key}: {why}")))? {
                let value = if matches!(row.id, Id::Volume | Id::Cache | Id::Scratch | Id::Report) {
                    match expand(&value, env) {
                        Ok(value) => value,
                        Err(name) => {
                            self.warnings.push(format!("{}: {key}: ${name} is not set, ignored", path.display()));
                            continue;
                        }
                    }
                } else {
                    OsString::from(value)
                };
                self.given.push(Given { row, value: Some(value), origin: Origin::Config(path.to_owned()) });
            }
        }
        Ok(())
    }
}

/// The strings that a TOML value means for this row.
fn values(row: &Row, value: &toml::Value) -> Result<Vec<String>, &'static str> {
    use toml::Value;
    let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    match (row.takes, value) {
        (Takes::Switch | Takes::Optional(_), Value::Boolean(yes)) => Ok(vec![word(*yes)]),
        (Takes::Optional(_) | Takes::Value(_) | Takes::List(..), Value::String(text)) => Ok(vec![text.clone()]),
        (Takes::List(..), Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or("a list of strings is wanted")).collect()
        }
        (Takes::Switch, _) => Err("true or false is wanted"),
        (Takes::List(..), _) => Err("a list of strings is wanted"),
        _ => Err("a string is wanted"),
    }
}

/// Replaces `$NAME`, `${NAME}` and a leading `~`; an unset variable is named in the error.
pub(crate) fn expand(text: &str, env: &[(OsString, OsString)]) -> Result<OsString, String> {
    let value = |name: &str| -> Result<&OsStr, String> {
        env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str()).ok_or_else(|| name.to_owned())
    };
    let mut out = OsString::new();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('~').filter(|after| after.is_empty() || after.starts_with(['/', ':'])) {
        out.push(value("HOME")?);
        rest = after;
    }
    while let Some(at) = rest.find('$') {
        out.push(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(parts) => parts,
            None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
        };
        out.push(value(name)?);
        rest = after;
    }
    out.push(rest);
    Ok(out)
}

/// TOML's errors draw a picture over several lines; messages are one line.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match (lines.first(), lines.last()) {
        (Some(first), Some(last)) if lines.len() > 1 => format!("{first}: {last}"),
        (first, _) => first.copied().unwrap_or("not TOML").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, OptionError> {
        let dir = std::env::temp_dir().join(format!("coracle-config-{}-{}", std::process::id(), text.len()));
        fs::write(&dir, text).expect("the temporary directory is writable");
        let env = [
            ("CORACLE_CONFIG".into(), dir.clone().into()),
            ("USER".into(), "ann".into()),
            ("HOME".into(), "/h".into()),
        ];
        let config = Config::read(&env);
        fs::remove_file(dir).expect("it was just written");
        config
    }

    #[test]
    fn the_run_table_gives_options_and_other_tables_are_not_ours() {
        let config = read(
            "[registry]\nmirror = 1\n[run]\nengine = \"ptrace\"\nvolume = [\"/scratch/${USER}:ro\", \"~/x\", \"/$NONE\"]\nverbose = true\nvolum = 1\n",
        )
        .expect("it is well-formed");
        let mut given: Vec<_> =
            config.given.iter().map(|given| (given.row.name, given.value.clone().unwrap_or_default())).collect();
        given.sort();
        assert_eq!(
            given,
            [
                ("engine", "ptrace".into()),
                ("verbose", "yes".into()),
                ("volume", "/h/x".into()),
                ("volume", "/scratch/ann:ro".into())
            ]
        );
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
        assert!(config.warnings.iter().any(|warning| warning.contains("did you mean volume?")));
    }

    #[test]
    fn a_file_that_is_no_toml_and_a_value_of_the_wrong_type_are_errors_of_one_line() {
        for (text, part) in
            [("run = [", "expected"), ("[run]\nengine = 1\n", "a string is wanted"), ("run = 1", "not a table")]
        {
            let message = read(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
        }
    }
}
