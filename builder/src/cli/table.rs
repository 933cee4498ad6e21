//! Listings as Docker prints them: columns for people, `{{.Field}}` templates and JSON for programs.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, bail};
pub(super) use coracle_api::rfc3339;
use serde_json::{Map, Value};

use super::{args::ListArgs, print};

/// A listing: what each line has, and which of it people see.
pub(super) struct Listing {
    /// Name in templates, heading.
    fields: Vec<(&'static str, &'static str)>,
    /// Names of those shown in columns.
    shown: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Listing {
    pub(super) fn new(fields: &[(&'static str, &'static str)], shown: &[&'static str]) -> Self {
        Self { fields: fields.to_vec(), shown: shown.to_vec(), rows: Vec::new() }
    }

    /// Adds a line, with a value for each field.
    pub(super) fn row(&mut self, values: Vec<String>) {
        debug_assert_eq!(values.len(), self.fields.len());
        self.rows.push(values);
    }

    /// Prints it; if `quiet`, only the first field.
    pub(super) fn print(&self, args: &ListArgs, quiet: bool) -> anyhow::Result<()> {
        let mut out = String::new();
        match args.format.as_deref() {
            None if quiet => {
                for row in &self.rows {
                    out.push_str(&row[0]);
                    out.push('\n');
                }
            }
            None | Some("table") => {
                let columns: Vec<usize> = self.shown.iter().filter_map(|name| self.index(name)).collect();
                let heading = columns.iter().map(|at| self.fields[*at].1.to_owned()).collect();
                let rows = self.rows.iter().map(|row| columns.iter().map(|at| row[*at].clone()).collect());
                out = columns_of(heading, rows.collect());
            }
            Some("json") => {
                for row in &self.rows {
                    out.push_str(&self.json(row).to_string());
                    out.push('\n');
                }
            }
            Some(format) => {
                let (table, template) = match format.strip_prefix("table ") {
                    Some(rest) => (true, rest),
                    None => (false, format),
                };
                let parts = parse(template)?;
                let line = |row: &[String]| -> anyhow::Result<String> {
                    parts.iter().map(|part| self.part(part, row)).collect::<anyhow::Result<String>>()
                };
                let lines: Vec<String> = self.rows.iter().map(|row| line(row)).collect::<Result<_, _>>()?;
                if table {
                    let headings: Vec<String> = self.fields.iter().map(|(_, heading)| (*heading).to_owned()).collect();
                    let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
                    out = columns_of(cells(line(&headings)?), lines.into_iter().map(cells).collect());
                } else {
                    for line in lines {
                        out.push_str(&line);
                        out.push('\n');
                    }
                    if self.rows.is_empty() {
                        // A wrong template is wrong for no line too.
                        line(&vec![String::new(); self.fields.len()])?;
                    }
                }
            }
        }
        print::bytes(out.as_bytes())
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|(field, _)| *field == name)
    }

    fn json(&self, row: &[String]) -> Value {
        let members = self.fields.iter().zip(row).map(|((name, _), value)| ((*name).to_owned(), value.clone().into()));
        Value::Object(members.collect::<Map<_, _>>())
    }

    fn part(&self, part: &Part, row: &[String]) -> anyhow::Result<String> {
        let find = |name: &str| {
            let fields = || self.fields.iter().map(|(name, _)| format!(".{name}")).collect::<Vec<_>>().join(" ");
            self.index(name).with_context(|| format!("--format: there is no field .{name}: there are {}", fields()))
        };
        Ok(match part {
            Part::Text(text) => text.clone(),
            Part::Field { path, json: true } if path.is_empty() => self.json(row).to_string(),
            Part::Field { path, json } => {
                let value = &row[find(path)?];
                if *json { Value::from(value.clone()).to_string() } else { value.clone() }
            }
        })
    }
}

/// A piece of a template.
pub(super) enum Part {
    Text(String),
    /// `{{.PATH}}`, or `{{json .PATH}}`.
    Field {
        path: String,
        json: bool,
    },
}

/// A template in the part of Go's language that people use: fields, and `json`.
pub(super) fn parse(template: &str) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        parts.push(Part::Text(unescape(before)));
        let (inner, after) = after.split_once("}}").context("--format: a {{ has no }}")?;
        let inner = inner.trim_matches('-').trim();
        let (json, field) = match inner.strip_prefix("json ") {
            Some(field) => (true, field.trim()),
            None => (false, inner),
        };
        match field.strip_prefix('.') {
            Some(path) if path.chars().all(|char| char.is_alphanumeric() || "._-".contains(char)) => {
                parts.push(Part::Field { path: path.to_owned(), json });
            }
            _ => bail!("--format: {{{{{inner}}}}} is not understood: use {{{{.Field}}}} or {{{{json .Field}}}}"),
        }
        rest = after;
    }
    parts.push(Part::Text(unescape(rest)));
    Ok(parts)
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// A JSON value by a template: `{{.Config.Env}}`.
pub(super) fn from_json(template: &str, value: &Value) -> anyhow::Result<String> {
    if template == "json" {
        return Ok(value.to_string());
    }
    let mut out = String::new();
    for part in parse(template)? {
        match part {
            Part::Text(text) => out.push_str(&text),
            Part::Field { path, json } => {
                let mut at = value;
                for name in path.split('.').filter(|name| !name.is_empty()) {
                    at = match at {
                        Value::Object(members) => {
                            members.get(name).with_context(|| format!("--format: there is no .{path}"))?
                        }
                        _ => bail!("--format: there is no .{path}"),
                    };
                }
                match at {
                    Value::String(text) if !json => out.push_str(text),
                    Value::Null if !json => {}
                    other => out.push_str(&other.to_string()),
                }
            }
        }
    }
    Ok(out)
}

/// Text in columns under a heading.
pub(super) fn columns_of(heading: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let visible = |row: Vec<String>| row.iter().map(|cell| print::visible(cell)).collect::<Vec<String>>();
    let heading = visible(heading);
    let rows: Vec<Vec<String>> = rows.into_iter().map(visible).collect();
    let width = |at: usize| {
        let cells = rows.iter().chain([&heading]).filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        cells.collect::<String>().trim_end().to_owned()
    };
    let mut out = if colours() { format!("\u{1b}[1m{}\u{1b}[0m\n", line(&heading)) } else { line(&heading) + "\n" };
    for row in &rows {
        out.push_str(&line(row));
        out.push('\n');
    }
    out
}

/// Whether standard output is a terminal whose user wants colours (no-color.org).
fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Bytes as Docker shows them: `7.8MB`.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = 0;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    while value >= 1000.0 && unit < 5 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{}", ["B", "kB", "MB", "GB", "TB", "PB"][unit])
}

/// How long ago a time was: `3 hours ago`.
pub(super) fn ago(then: u64, now: u64) -> String {
    let seconds = now.saturating_sub(then);
    if seconds < 5 {
        return "just now".to_owned();
    }
    let units = [
        (365 * 86400, "year"),
        (30 * 86400, "month"),
        (7 * 86400, "week"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= 2 * unit).unwrap_or((1, "second"));
    format!("{} {name}s ago", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_as_docker_shows_them() {
        assert_eq!(
            [0, 999, 7_800_000, 12_345_678, 234_000_000_000].map(size),
            ["0B", "999B", "7.80MB", "12.3MB", "234GB"]
        );
        assert_eq!(
            [0, 59, 119, 120, 7200, 86400 * 15].map(|past| ago(0, past)),
            ["just now", "59 seconds ago", "119 seconds ago", "2 minutes ago", "2 hours ago", "2 weeks ago"]
        );
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_237_124), "2026-11-21T04:58:44Z");
        assert_eq!(rfc3339(4_102_444_800), "2100-01-01T00:00:00Z");
    }

    #[test]
    fn templates() {
        let value = serde_json::json!({"Config": {"Env": ["A=1"], "User": "u"}, "N": null});
        let is = |template: &str, expected: &str| assert_eq!(from_json(template, &value).expect("made"), expected);
        is("{{.Config.User}}\\t{{ json .Config.User }}", "u\t\"u\"");
        is("{{json .Config.Env}} {{.N}}", "[\"A=1\"] ");
        is("{{.}}", &value.to_string());
        for wrong in ["{{.X}}", "{{.Config", "{{range .}}", "{{.Config.User.X}}"] {
            assert!(from_json(wrong, &value).is_err(), "{wrong}");
        }
        let mut listing = Listing::new(&[("ID", "ID"), ("Names", "NAMES")], &["ID"]);
        listing.row(vec!["1".into(), "a,b".into()]);
        let args = |format: &str| ListArgs { format: Some(format.into()), no_trunc: false };
        assert!(listing.print(&args("{{.Nmes}}"), false).is_err());
    }
}
