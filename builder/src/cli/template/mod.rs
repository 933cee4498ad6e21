//! Templates of `--format`: the part of Go's text/template that people use with Docker and Podman.
//!
//! Values are JSON's. A template is read once ([`Template::parse`]) and made for each value ([`Template::make`]):
//! fields, variables, `if`, `with`, `range`, pipes, parentheses, comparisons, and the functions of Docker's (`json`,
//! `join`, `split`, `upper`…).
//!
//! Rules: what is not there is an error that names what is; maps of the user's own keys (labels) answer with nothing
//! instead.

mod eval;
mod functions;
mod parse;

use serde_json::Value;

/// A template that has been read.
#[derive(Debug)]
pub(super) struct Template(Vec<Node>);

/// Why a template cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub(super) enum TemplateError {
    /// It is no template.
    #[error("--format: {0}")]
    Syntax(String),
    /// A value has no such field.
    #[error("--format: there is no field .{name}: there {}", known(.fields))]
    NoField { name: String, fields: Vec<String> },
    /// A function cannot do that with what it was given.
    #[error("--format: {0}")]
    Function(String),
}

fn known(fields: &[String]) -> String {
    if fields.is_empty() { "are none".to_owned() } else { format!("are .{}", fields.join(" .")) }
}

/// A piece of a template.
#[derive(Debug)]
enum Node {
    Text(String),
    /// `{{PIPE}}`; prints nothing if it sets a variable.
    Print(Pipe),
    If {
        condition: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipe,
        each: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// `$a, $b := COMMAND | COMMAND…`.
#[derive(Debug)]
struct Pipe {
    /// Variables that it sets.
    sets: Vec<String>,
    /// Whether they are new ones (`:=`).
    declares: bool,
    commands: Vec<Vec<Operand>>,
}

#[derive(Debug)]
enum Operand {
    /// `.`
    Dot,
    /// `$name`; without a name, what the template was given.
    Variable(String),
    /// `BASE.a.b`
    Field {
        base: Box<Operand>,
        names: Vec<String>,
    },
    Literal(Value),
    /// A word: a function.
    Word(String),
    /// `( PIPE )`
    Nested(Pipe),
}

/// How a template is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For a value.
    Value,
    /// For the names of columns: functions leave them as they are.
    Heading,
}

impl Template {
    /// Reads a template. `\t` and `\n` in its text are what they are in Docker's listings.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::template(text).map(Self)
    }

    /// The template's text for a value.
    pub(super) fn make(&self, value: &Value, purpose: Purpose) -> Result<String, TemplateError> {
        eval::make(&self.0, value, purpose)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value() -> Value {
        json!({
            "Id": "abcdef0123456789",
            "Config": { "Env": ["A=1", "B=2"], "User": "u", "Labels": { "a": "x", "org.b": "y" }, "Cmd": null },
            "State": { "Pid": 42, "Running": true, "ExitCode": 0 },
            "Mounts": [{ "Source": "/s", "Destination": "/d" }, { "Source": "/t", "Destination": "/e" }],
            "Ports": {},
            "Labels": "k=v,other=w",
            "Names": "one,two",
        })
    }

    fn made(template: &str) -> String {
        match Template::parse(template).and_then(|template| template.make(&value(), Purpose::Value)) {
            Ok(text) => text,
            Err(error) => panic!("{template}: {error}"),
        }
    }

    #[test]
    fn what_people_write() {
        for (template, expected) in [
            ("{{.State.Pid}}", "42"),
            (r"{{.Id}}\t{{.Config.User}}\n", "abcdef0123456789\tu\n"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[a:x org.b:y]"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Env | json}}", r#"["A=1","B=2"]"#),
            (r#"{{index .Config.Labels "org.b"}}"#, "y"),
            (r#"{{index .Config.Labels "none"}}"#, ""),
            ("{{.Config.Labels.a}}{{.Config.Labels.none}}", "x"),
            ("{{index .Config.Env 1}}", "B=2"),
            ("{{(index .Mounts 0).Source}}", "/s"),
            ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
            ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}", "/s:/d /t:/e "),
            ("{{range $i, $m := .Mounts}}{{if $i}},{{end}}{{$m.Source}}{{$.State.Pid}}{{end}}", "/s42,/t42"),
            (r#"{{range $k, $v := .Config.Labels}}{{printf "%s=%s;" $k $v}}{{end}}"#, "a=x;org.b=y;"),
            ("{{range .Ports}}x{{else}}none{{end}}", "none"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .State.ExitCode}}bad{{else if eq .State.Pid 42}}good{{else}}?{{end}}", "good"),
            ("{{with .Config.User}}<{{.}}>{{end}}{{with .Config.Cmd}}no{{else}}nothing{{end}}", "<u>nothing"),
            ("{{if and .State.Running (not .Config.Cmd)}}both{{end}}", "both"),
            (r#"{{if or (eq .Config.User "a" "u") .Config.Cmd}}one of them{{end}}"#, "one of them"),
            ("{{len .Config.Env}} {{len .Config.User}} {{lt 1 2}} {{ne 1 1}}", "2 1 true false"),
            (r#"{{join .Config.Env ","}}"#, "A=1,B=2"),
            (r#"{{index (split .Names ",") 1}}"#, "two"),
            ("{{upper .Config.User}}{{.Config.User | title | lower}}", "Uu"),
            ("{{slice .Id 0 4}} {{truncate .Id 6}}", "abcd abcdef"),
            (r#"{{printf "%-6s|%4d|%q|%v|%%" .Config.User .State.Pid "a" true}}"#, r#"u     |  42|"a"|true|%"#),
            (r#"{{.Label "other"}}"#, "w"),
            ("a  {{- 1 -}}  b", "a1b"),
            ("{{/* nothing */}}{{`raw \\`}}{{\"\\t\"}}", "raw \\\t"),
            ("{{$x := .State.Pid}}{{$x}}{{if true}}{{$x = 7}}{{end}}{{$x}}", "427"),
            ("{{.Config.Cmd}}", ""),
            ("{{pad .Config.User 1 2}}|", " u  |"),
        ] {
            assert_eq!(made(template), expected, "{template}");
        }
    }

    #[test]
    fn what_nobody_understands_is_said() {
        for (template, why) in [
            ("{{.Nope}}", "there is no field .Nope: there are .Config .Id"),
            ("{{.Config.User.X}}", "there is no field .X"),
            ("{{.Config", "has no }}"),
            ("{{range .Mounts}}", "has no {{end}}"),
            ("{{end}}", "{{end}} ends nothing"),
            ("{{else}}", "{{else}} belongs to nothing"),
            ("{{nosuch .Id}}", "there is no function nosuch"),
            ("{{$x}}", "there is no variable $x"),
            ("{{index .Config.Env 9}}", "has 2"),
            ("{{\"open}}", "string"),
            ("{{.Id .Id}}", "is no function"),
            ("{{}}", "is empty"),
            ("{{range .State.Pid}}{{end}}", "range"),
            ("{{(.Id}}", "parenthes"),
            ("{{if}}x{{end}}", "is empty"),
            ("{{len 1}}", "len"),
        ] {
            let error = Template::parse(template).and_then(|template| template.make(&value(), Purpose::Value));
            let error = error.expect_err(template).to_string();
            assert!(error.starts_with("--format: ") && error.contains(why), "{template}: {error}");
        }
    }

    #[test]
    fn headings_stay_as_they_are() {
        let heading = json!({ "ID": "CONTAINER ID", "Names": "NAMES" });
        let made = |text: &str| Template::parse(text).and_then(|it| it.make(&heading, Purpose::Heading)).expect("made");
        assert_eq!(made("{{.ID}}\\t{{json .Names}}"), "CONTAINER ID\tNAMES");
        assert_eq!(made("{{upper .ID}} {{truncate .Names 2}} {{slice .ID 0 3}}"), "CONTAINER ID NAMES CONTAINER ID");
    }
}
