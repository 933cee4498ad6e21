//! YAML as far as JSON goes, into JSON's values: what CDI specifications are written in.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// No specification is nested deeper; a hostile one could exhaust the stack.
const DEEPEST: usize = 32;

/// The first document of a text; `None` for what is no YAML, or uses anchors.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match parser.next_event()?.ok()?.0 {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            first => return value(first, &mut parser, DEEPEST),
        }
    }
}

fn value<'t, T: saphyr_parser::Input>(event: Event<'t>, parser: &mut Parser<'t, T>, deepest: usize) -> Option<Value> {
    let deepest = deepest.checked_sub(1)?;
    match event {
        Event::Scalar(text, style, ..) => Some(scalar(&text, style)),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match parser.next_event()?.ok()?.0 {
                    Event::SequenceEnd => return Some(Value::Array(list)),
                    next => list.push(value(next, parser, deepest)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            loop {
                let key = match parser.next_event()?.ok()?.0 {
                    Event::MappingEnd => return Some(Value::Object(map)),
                    Event::Scalar(key, ..) => key.into_owned(),
                    _ => return None,
                };
                let next = parser.next_event()?.ok()?.0;
                map.insert(key, value(next, parser, deepest)?);
            }
        }
        _ => None,
    }
}

/// A plain scalar may be a number, a truth value or null (YAML 1.2's core schema); a quoted one is text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_generators_write_is_read() {
        let text = "---\ncdiVersion: 0.5.0\ndevices:\n- containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n      \
                    major: 195\n  name: \"0\"\nkind: 'nvidia.com/gpu'\nempty: {}\nlist: [a, 'b: c']\n";
        let expected = json!({
            "cdiVersion": "0.5.0",
            "devices": [{"containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "major": 195}]}, "name": "0"}],
            "kind": "nvidia.com/gpu",
            "empty": {},
            "list": ["a", "b: c"],
        });
        assert_eq!(parse(text), Some(expected));
    }

    #[test]
    fn what_is_no_yaml_or_too_deep_is_nothing() {
        assert_eq!(parse("a: [b"), None);
        assert_eq!(parse("a: *b"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }
}
