//! Listings as Docker prints them: columns for people, `{{.Field}}` templates and JSON for programs.

use std::io::{self, IsTerminal as _};

pub(super) use coracle_api::rfc3339;
use serde_json::{Map, Value};

use super::{
    args::ListArgs,
    print,
    template::{Purpose, Template, TemplateError},
};

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
                let (table, text) = match format.strip_prefix("table ") {
                    Some(rest) => (true, rest),
                    None => (false, format),
                };
                let template = Template::parse(text)?;
                let made = |row: &[String]| template.make(&self.json(row), Purpose::Value);
                let lines: Vec<String> = self.rows.iter().map(|row| made(row)).collect::<Result<_, _>>()?;
                let headings: Vec<String> = self.fields.iter().map(|(_, heading)| (*heading).to_owned()).collect();
                // A wrong template is wrong for no line too.
                let heading = template.make(&self.json(&headings), Purpose::Heading);
                if table {
                    let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
                    out = columns_of(cells(heading?), lines.into_iter().map(cells).collect());
                } else {
                    if let Err(error @ TemplateError::NoField { .. }) = heading {
                        return Err(error.into());
                    }
                    for line in lines {
                        out.push_str(&line);
                        out.push('\n');
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
}

/// A JSON value by a template: `{{.Config.Env}}`.
pub(super) fn from_json(template: &str, value: &Value) -> anyhow::Result<String> {
    if template == "json" {
        return Ok(value.to_string());
    }
    Ok(Template::parse(template)?.make(value, Purpose::Value)?)
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
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    let shown = format!("{value:.digits$}");
    let shown = if digits > 0 { shown.trim_end_matches('0').trim_end_matches('.') } else { &shown };
    format!("{shown}{}", ["B", "kB", "MB", "GB", "TB", "PB"][unit])
}

/// How long ago a time was: `3 hours ago`.
pub(super) fn ago(then: u64, now: u64) -> String {
    format!("{} ago", span(now.saturating_sub(then)))
}

/// A time in Docker's words: `About a minute`.
pub(super) fn span(seconds: u64) -> String {
    const HOUR: u64 = 3600;
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// A time as Docker's listings show it: `2026-11-21 04:58:44 +0000 UTC`.
pub(super) fn date(seconds: u64) -> String {
    rfc3339(seconds).replace('T', " ").replace('Z', " +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_as_docker_shows_them() {
        assert_eq!(
            [0, 999, 7_800_000, 12_345_678, 234_000_000_000].map(size),
            ["0B", "999B", "7.8MB", "12.3MB", "234GB"]
        );
        assert_eq!(
            [0, 1, 59, 119, 120, 3600, 7200, 86400 * 13, 86400 * 15, 86400 * 61, 86400 * 800].map(span),
            [
                "Less than a second",
                "1 second",
                "59 seconds",
                "About a minute",
                "2 minutes",
                "About an hour",
                "2 hours",
                "13 days",
                "2 weeks",
                "2 months",
                "2 years"
            ]
        );
        assert_eq!((ago(5, 65).as_str(), date(0).as_str()), ("About a minute ago", "1970-01-01 00:00:00 +0000 UTC"));
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
        is("{{.Config}} {{json .}}", &format!("map[Env:[A=1] User:u] {value}"));
        for wrong in ["{{.X}}", "{{.Config", "{{range .}}", "{{.Config.User.X}}"] {
            assert!(from_json(wrong, &value).is_err(), "{wrong}");
        }
        let mut listing = Listing::new(&[("ID", "ID"), ("Names", "NAMES")], &["ID"]);
        listing.row(vec!["1".into(), "a,b".into()]);
        let args = |format: &str| ListArgs { format: Some(format.into()), no_trunc: false };
        assert!(listing.print(&args("{{.Nmes}}"), false).is_err());
    }
}
