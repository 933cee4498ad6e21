//! Functions of templates: Go's own, and those that Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    Purpose, TemplateError,
    eval::{is_true, shown},
};

fn wrong(why: impl Into<String>) -> TemplateError {
    TemplateError::Function(why.into())
}

/// Calls a function by its name.
pub(super) fn call(name: &str, arguments: Vec<Value>, purpose: Purpose) -> Result<Value, TemplateError> {
    let changes_text = ["json", "upper", "lower", "title", "truncate", "slice", "split", "join", "index", "pad"];
    if purpose == Purpose::Heading && changes_text.contains(&name) {
        return Ok(arguments.into_iter().find(|it| it.as_str().is_some_and(|it| it.len() > 1)).unwrap_or(Value::Null));
    }
    let text = |at: usize| match arguments.get(at) {
        Some(value) => Ok(shown(value)),
        None => Err(wrong(format!("{name} takes more than {at} arguments"))),
    };
    let number = |at: usize| {
        let number = arguments.get(at).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| wrong(format!("{name} takes a number there")))
    };
    Ok(match name {
        "json" => Value::from(arguments.first().unwrap_or(&Value::Null).to_string()),
        "index" => return index(&arguments),
        "len" => match arguments.first() {
            Some(Value::String(text)) => text.len().into(),
            Some(Value::Array(items)) => items.len().into(),
            Some(Value::Object(members)) => members.len().into(),
            Some(Value::Null) => 0.into(),
            _ => return Err(wrong("len takes text, a list or a map")),
        },
        "eq" => {
            let (first, others) = arguments.split_first().ok_or_else(|| wrong("eq takes two arguments"))?;
            others.iter().any(|other| order(first, other) == Some(Ordering::Equal)).into()
        }
        "ne" => (compared(name, &arguments)? != Ordering::Equal).into(),
        "lt" => (compared(name, &arguments)? == Ordering::Less).into(),
        "le" => (compared(name, &arguments)? != Ordering::Greater).into(),
        "gt" => (compared(name, &arguments)? == Ordering::Greater).into(),
        "ge" => (compared(name, &arguments)? != Ordering::Less).into(),
        "not" => (!arguments.first().is_some_and(is_true)).into(),
        "and" => arguments.iter().find(|value| !is_true(value)).or(arguments.last()).cloned().unwrap_or(Value::Null),
        "or" => arguments.iter().find(|value| is_true(value)).or(arguments.last()).cloned().unwrap_or(Value::Null),
        "print" => arguments.iter().map(shown).collect::<String>().into(),
        "println" => (arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
        "printf" => printf(&text(0)?, &arguments[1..])?.into(),
        "upper" => text(0)?.to_uppercase().into(),
        "lower" => text(0)?.to_lowercase().into(),
        "title" => title(&text(0)?).into(),
        "split" => text(0)?.split(&text(1)?).map(Value::from).collect(),
        "join" => match &arguments.first() {
            Some(Value::Array(items)) => items.iter().map(shown).collect::<Vec<_>>().join(&text(1)?).into(),
            Some(Value::Null) => "".into(),
            _ => return Err(wrong("join takes a list, and what to put between")),
        },
        "pad" => match text(0)? {
            text if text.is_empty() => text.into(),
            text => format!("{}{text}{}", " ".repeat(number(1)?.min(1000)), " ".repeat(number(2)?.min(1000))).into(),
        },
        "truncate" => text(0)?.chars().take(number(1)?).collect::<String>().into(),
        "slice" => slice(&arguments)?,
        _ => {
            return Err(wrong(format!(
                "there is no function {name}: there are json index len eq ne lt le gt ge not and or print println printf upper \
                 lower title split join pad truncate slice"
            )));
        }
    })
}

/// `.Label "key"` of a listing's line: labels are one text there, or a map.
pub(super) fn label(of: &Value, arguments: &[Value]) -> Result<Value, TemplateError> {
    let [Value::String(key)] = arguments else { return Err(wrong(".Label takes the label's name")) };
    Ok(match &of["Labels"] {
        Value::Object(labels) => labels.get(key).cloned().unwrap_or_else(|| "".into()),
        Value::String(text) => {
            let found = text.split(',').filter_map(|label| label.split_once('=')).find(|(name, _)| name == key);
            found.map_or("", |(_, value)| value).into()
        }
        _ => "".into(),
    })
}

fn index(arguments: &[Value]) -> Result<Value, TemplateError> {
    let (value, keys) = arguments.split_first().ok_or_else(|| wrong("index takes a list or a map, and a key"))?;
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Object(members), Value::String(key)) => members.get(key).cloned().unwrap_or(Value::Null),
            (Value::Null, _) => Value::Null,
            (Value::Array(items), Value::Number(number)) => {
                let item = number.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
                item.cloned().ok_or_else(|| wrong(format!("index {number}: the list has {}", items.len())))?
            }
            _ => return Err(wrong(format!("index takes a list or a map, not {value} with {key}"))),
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Result<Value, TemplateError> {
    let bound = |at: usize, otherwise: usize| match arguments.get(at) {
        None => Ok(otherwise),
        Some(value) => {
            value.as_u64().and_then(|at| usize::try_from(at).ok()).ok_or_else(|| wrong("slice takes numbers"))
        }
    };
    let out = || wrong("slice: that is beyond the end");
    match arguments.first() {
        Some(Value::String(text)) => text.get(bound(1, 0)?..bound(2, text.len())?).map(Value::from).ok_or_else(out),
        Some(Value::Array(items)) => {
            items.get(bound(1, 0)?..bound(2, items.len())?).map(|items| items.to_vec().into()).ok_or_else(out)
        }
        _ => Err(wrong("slice takes text or a list")),
    }
}

fn compared(name: &str, arguments: &[Value]) -> Result<Ordering, TemplateError> {
    let [one, two] = arguments else { return Err(wrong(format!("{name} takes two arguments"))) };
    // What cannot be ordered can still be unequal.
    Ok(order(one, two).unwrap_or(if one == two { Ordering::Equal } else { Ordering::Less }))
}

fn order(one: &Value, two: &Value) -> Option<Ordering> {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => one.as_f64()?.partial_cmp(&two.as_f64()?),
        (Value::String(one), Value::String(two)) => Some(one.cmp(two)),
        _ => (one == two).then_some(Ordering::Equal),
    }
}

fn title(text: &str) -> String {
    let mut begins = true;
    let mut out = String::new();
    for char in text.chars() {
        if begins {
            out.extend(char.to_uppercase())
        } else {
            out.push(char)
        }
        begins = !char.is_alphanumeric();
    }
    out
}

/// C's directives as Go has them: `%s %d %v %q %t %f %x`, with width, precision, `-` and `0`.
fn printf(format: &str, arguments: &[Value]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|next| "-+# 0".contains(*next)) {
            flags.push(flag);
        }
        let mut digits = || {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok().map(|number| number.min(1000))
        };
        let width = digits().unwrap_or(0);
        let precision = if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            Some(digits.parse::<usize>().unwrap_or(0).min(1000))
        } else {
            None
        };
        let Some(verb) = chars.next() else { return Err(wrong("printf: a % ends the text")) };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = arguments.next().ok_or_else(|| wrong(format!("printf: nothing is left for %{verb}")))?;
        let text = match verb {
            's' | 'v' | 'd' | 't' => shown(value),
            'q' => Value::from(shown(value)).to_string(),
            'f' => format!("{:.*}", precision.unwrap_or(6), value.as_f64().unwrap_or(0.0)),
            'x' => match value.as_u64() {
                Some(number) => format!("{number:x}"),
                None => shown(value).bytes().map(|byte| format!("{byte:02x}")).collect(),
            },
            other => return Err(wrong(format!("printf: %{other} is not understood"))),
        };
        let text: String = match precision {
            Some(most) if verb == 's' => text.chars().take(most).collect(),
            _ => text,
        };
        let blanks = width.saturating_sub(text.chars().count());
        match flags.as_str() {
            flags if flags.contains('-') => out.extend([text, " ".repeat(blanks)]),
            flags if flags.contains('0') => out.extend(["0".repeat(blanks), text]),
            _ => out.extend([" ".repeat(blanks), text]),
        }
    }
    Ok(out)
}
