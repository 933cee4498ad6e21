//! A template made for a value.

use serde_json::Value;

use super::{Node, Operand, Pipe, Purpose, TemplateError, functions};

/// Maps whose keys are the user's: one that is not there is nothing, and no mistake.
const OF_THE_USER: [&str; 4] = ["Labels", "Ports", "Volumes", "ExposedPorts"];

pub(super) fn make(nodes: &[Node], value: &Value, purpose: Purpose) -> Result<String, TemplateError> {
    let mut scope = Scope { root: value, purpose, variables: Vec::new(), out: String::new() };
    scope.nodes(nodes, value)?;
    Ok(scope.out)
}

/// What is known while a template is made.
struct Scope<'a> {
    root: &'a Value,
    purpose: Purpose,
    /// The innermost last.
    variables: Vec<(String, Value)>,
    out: String,
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.sets.is_empty() {
                    self.out.push_str(&shown(&value));
                }
            }
            Node::If { condition, then, otherwise } => {
                let outer = self.variables.len();
                let taken = if is_true(&self.pipe(condition, dot)?) { then } else { otherwise };
                self.nodes(taken, dot)?;
                self.variables.truncate(outer);
            }
            Node::With { value, then, otherwise } => {
                let outer = self.variables.len();
                let value = self.pipe(value, dot)?;
                if is_true(&value) {
                    self.nodes(then, &value)?
                } else {
                    self.nodes(otherwise, dot)?
                }
                self.variables.truncate(outer);
            }
            Node::Range { over, each, otherwise } => self.range(over, each, otherwise, dot)?,
        }
        Ok(())
    }

    fn range(&mut self, over: &Pipe, each: &[Node], otherwise: &[Node], dot: &Value) -> Result<(), TemplateError> {
        let items: Vec<(Value, Value)> = match self.commands(over, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
            Value::Object(members) => members.into_iter().map(|(key, item)| (key.into(), item)).collect(),
            Value::Null => Vec::new(),
            // Headings stand for lists, too.
            text if self.purpose == Purpose::Heading => vec![(0.into(), text)],
            other => return Err(TemplateError::Function(format!("range goes over lists and maps, not over {other}"))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let outer = self.variables.len();
            match over.sets.as_slice() {
                [one] => self.variables.push((one.clone(), item.clone())),
                [one, two] => {
                    self.variables.push((one.clone(), key));
                    self.variables.push((two.clone(), item.clone()));
                }
                _ => {}
            }
            self.nodes(each, &item)?;
            self.variables.truncate(outer);
        }
        Ok(())
    }

    /// A pipe's value, put into its variable.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.sets {
            let known = self.variables.iter_mut().rfind(|(known, _)| known == name).filter(|_| !pipe.declares);
            match known {
                Some((_, old)) => *old = value.clone(),
                None if pipe.declares => self.variables.push((name.clone(), value.clone())),
                None => return Err(no_variable(name)),
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let mut piped: Option<Value> = None;
        for command in &pipe.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(&mut self, words: &[Operand], piped: Option<Value>, dot: &Value) -> Result<Value, TemplateError> {
        let Some((first, rest)) = words.split_first() else { return Ok(Value::Null) };
        let mut arguments = rest.iter().map(|word| self.operand(word, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        match first {
            Operand::Word(name) => functions::call(name, arguments, self.purpose),
            // A method: `.Label "key"`.
            Operand::Field { base, names } if names.last().is_some_and(|name| name == "Label") => {
                let mut of = self.operand(base, dot)?;
                for name in &names[..names.len() - 1] {
                    of = field(&of, name)?;
                }
                functions::label(&of, &arguments)
            }
            _ if !arguments.is_empty() => {
                Err(TemplateError::Function("what stands before an argument is no function".to_owned()))
            }
            operand => self.operand(operand, dot),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Variable(name) if name.is_empty() => Ok(self.root.clone()),
            Operand::Variable(name) => {
                let known = self.variables.iter().rfind(|(known, _)| known == name);
                known.map(|(_, value)| value.clone()).ok_or_else(|| no_variable(name))
            }
            Operand::Field { base, names } => {
                // Most templates ask what they were given for one thing of many.
                let mut value = match **base {
                    Operand::Dot => field(dot, &names[0])?,
                    _ => field(&self.operand(base, dot)?, &names[0])?,
                };
                for (at, name) in names.iter().enumerate().skip(1) {
                    value = match &value {
                        Value::Object(map) if OF_THE_USER.contains(&names[at - 1].as_str()) => {
                            map.get(name).cloned().unwrap_or(Value::Null)
                        }
                        _ => field(&value, name)?,
                    };
                }
                Ok(value)
            }
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Word(name) => functions::call(name, Vec::new(), self.purpose),
            Operand::Nested(pipe) => self.pipe(pipe, dot),
        }
    }
}

fn no_variable(name: &str) -> TemplateError {
    TemplateError::Syntax(format!("there is no variable ${name}"))
}

fn field(value: &Value, name: &str) -> Result<Value, TemplateError> {
    let members = value.as_object();
    members.and_then(|members| members.get(name)).cloned().ok_or_else(|| TemplateError::NoField {
        name: name.to_owned(),
        fields: members.into_iter().flat_map(|members| members.keys().cloned()).collect(),
    })
}

/// Go's idea of truth: what is not empty and not zero.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// A value as Go prints it: `[a b]`, `map[k:v]`; nothing for nothing.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("{key}:{}", shown(value)));
            format!("map[{}]", members.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}
