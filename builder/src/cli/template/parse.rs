//! From a template's text to its pieces.

use serde_json::Value;

use super::{Node, Operand, Pipe, TemplateError};

fn syntax(why: impl Into<String>) -> TemplateError {
    TemplateError::Syntax(why.into())
}

/// A piece of the text: as it is, or what is between `{{` and `}}`.
enum Piece {
    Text(String),
    Action(String),
}

pub(super) fn template(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = nodes(&mut pieces)?;
    match end {
        None => Ok(nodes),
        Some(End::End) => Err(syntax("{{end}} ends nothing")),
        Some(End::Else(_)) => Err(syntax("{{else}} belongs to nothing")),
    }
}

/// Text and actions in their order; `{{- ` and ` -}}` take the blanks beside them.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut trims) = (text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        let (trims_before, after) = match after.strip_prefix('-') {
            Some(inner) if inner.starts_with(char::is_whitespace) => (true, inner),
            _ => (false, after),
        };
        let before = if trims { before.trim_start() } else { before };
        let before = if trims_before { before.trim_end() } else { before };
        pieces.push(Piece::Text(unescape(before)));
        let end = end_of(after).ok_or_else(|| syntax("a {{ has no }}"))?;
        let inner = &after[..end];
        rest = &after[end + 2..];
        let inner = match inner.strip_suffix('-') {
            Some(inner) if inner.ends_with(char::is_whitespace) => {
                trims = true;
                inner
            }
            _ => {
                trims = false;
                inner
            }
        };
        let inner = inner.trim();
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            pieces.push(Piece::Action(inner.to_owned()));
        }
    }
    pieces.push(Piece::Text(unescape(if trims { rest.trim_start() } else { rest })));
    Ok(pieces)
}

/// Where the `}}` is that no string hides.
fn end_of(action: &str) -> Option<usize> {
    let mut quote = None;
    let mut chars = action.char_indices();
    while let Some((at, char)) = chars.next() {
        match quote {
            Some('"') if char == '\\' => {
                chars.next();
            }
            Some(open) if char == open => quote = None,
            Some(_) => {}
            None if action[at..].starts_with("}}") => return Some(at),
            None if char == '"' || char == '`' => quote = Some(char),
            None => {}
        }
    }
    // A quote that is never closed is told of where the words are read.
    action.find("}}").filter(|_| quote.is_some())
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// What ended a list of pieces.
enum End {
    End,
    /// With what follows it: `if …`, or nothing.
    Else(String),
}

fn nodes(pieces: &mut std::vec::IntoIter<Piece>) -> Result<(Vec<Node>, Option<End>), TemplateError> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
        match word {
            "end" => return Ok((nodes, Some(End::End))),
            "else" => return Ok((nodes, Some(End::Else(rest.trim().to_owned())))),
            "if" | "with" | "range" => nodes.push(block(word, rest, pieces)?),
            _ => nodes.push(Node::Print(pipe(&action)?)),
        }
    }
    Ok((nodes, None))
}

/// What follows `{{if …}}`, `{{with …}}` and `{{range …}}`, up to the `{{end}}`.
fn block(word: &str, head: &str, pieces: &mut std::vec::IntoIter<Piece>) -> Result<Node, TemplateError> {
    let head = pipe(head)?;
    let endless = || syntax(format!("{{{{{word}}}}} has no {{{{end}}}}"));
    let (then, end) = nodes(pieces)?;
    let otherwise = match end.ok_or_else(endless)? {
        End::End => Vec::new(),
        End::Else(next) if next.is_empty() => match nodes(pieces)? {
            (nodes, Some(End::End)) => nodes,
            _ => return Err(endless()),
        },
        // `{{else if}}` shares the `{{end}}`.
        End::Else(next) => match next.split_once(char::is_whitespace) {
            Some((word @ ("if" | "with"), head)) => vec![block(word, head, pieces)?],
            _ => return Err(syntax(format!("{{{{else {next}}}}} is not understood: write else, or else if"))),
        },
    };
    Ok(match word {
        "if" => Node::If { condition: head, then, otherwise },
        "with" => Node::With { value: head, then, otherwise },
        _ => Node::Range { over: head, each: then, otherwise },
    })
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Literal(Value),
    /// `name`, `$name`, or `.name.name`.
    Word(String),
    Sign(&'static str),
    /// A blank, which parts `a .b` from `a.b`.
    Blank,
}

fn tokens(action: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = action;
    while let Some(first) = rest.chars().next() {
        let sign = ["(", ")", "|", ":=", "=", ","].into_iter().find(|sign| rest.starts_with(sign));
        let (token, len) = match first {
            _ if sign.is_some() => (Token::Sign(sign.unwrap_or_default()), sign.unwrap_or_default().len()),
            blank if blank.is_whitespace() => (Token::Blank, rest.len() - rest.trim_start().len()),
            '"' => string(rest)?,
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| syntax("a string has no end"))?;
                (Token::Literal(rest[1..=end].into()), end + 2)
            }
            digit if digit.is_ascii_digit() || digit == '-' => {
                let len = 1 + rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len() - 1);
                let number = serde_json::from_str(&rest[..len]);
                (Token::Literal(number.map_err(|_| syntax(format!("{} is no number", &rest[..len])))?), len)
            }
            _ => {
                let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.' || c == '$';
                let len = rest.find(|c: char| !part(c)).unwrap_or(rest.len());
                if len == 0 {
                    return Err(syntax(format!("{{{{{action}}}}} is not understood at {first:?}")));
                }
                (word(&rest[..len]), len)
            }
        };
        tokens.push(token);
        rest = &rest[len..];
    }
    Ok(tokens)
}

fn word(text: &str) -> Token {
    match text {
        "true" => Token::Literal(true.into()),
        "false" => Token::Literal(false.into()),
        "nil" => Token::Literal(Value::Null),
        _ => Token::Word(text.to_owned()),
    }
}

/// A string in double quotes, with Go's common escapes, and how long it is in the text.
fn string(text: &str) -> Result<(Token, usize), TemplateError> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((Token::Literal(out.into()), at + 1)),
            '\\' => out.push(match chars.next().map(|(_, char)| char) {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other @ ('"' | '\\' | '\'')) => other,
                other => return Err(syntax(format!("\\{} in a string is not understood", other.unwrap_or(' ')))),
            }),
            _ => out.push(char),
        }
    }
    Err(syntax("a string has no end"))
}

fn pipe(action: &str) -> Result<Pipe, TemplateError> {
    let tokens = tokens(action)?;
    let mut reader = Reader { tokens: &tokens, action };
    let pipe = reader.pipe()?;
    match reader.tokens {
        [] => Ok(pipe),
        _ => Err(syntax(format!("{{{{{action}}}}} has a parenthesis too many"))),
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    action: &'a str,
}

impl Reader<'_> {
    /// Up to a closing parenthesis, or the end.
    fn pipe(&mut self) -> Result<Pipe, TemplateError> {
        let (sets, declares) = self.sets();
        let mut commands = vec![Vec::new()];
        while let Some(token) = self.tokens.first() {
            match token {
                Token::Sign(")") => break,
                Token::Sign("|") => commands.push(Vec::new()),
                Token::Blank => {}
                _ => {
                    let operand = self.operand()?;
                    if let Some(command) = commands.last_mut() {
                        command.push(operand);
                    }
                    continue;
                }
            }
            self.tokens = &self.tokens[1..];
        }
        if commands.iter().any(Vec::is_empty) {
            return Err(syntax(format!("{{{{{}}}}} is empty, or a part of it", self.action)));
        }
        Ok(Pipe { sets, declares, commands })
    }

    /// `$a, $b :=` if that is what comes.
    fn sets(&mut self) -> (Vec<String>, bool) {
        let solid: Vec<&Token> = self.tokens.iter().filter(|token| **token != Token::Blank).take(4).collect();
        let name = |token: &Token| match token {
            Token::Word(word) if !word.contains('.') => word.strip_prefix('$').map(str::to_owned),
            _ => None,
        };
        let found = match solid.as_slice() {
            [one, Token::Sign(sign @ (":=" | "=")), ..] => name(one).map(|one| (vec![one], *sign)),
            [one, Token::Sign(","), two, Token::Sign(sign @ (":=" | "="))] => {
                name(one).zip(name(two)).map(|(one, two)| (vec![one, two], *sign))
            }
            _ => None,
        };
        let Some((names, sign)) = found else { return (Vec::new(), false) };
        let at = self.tokens.iter().position(|token| *token == Token::Sign(sign)).map_or(0, |at| at + 1);
        self.tokens = &self.tokens[at..];
        (names, sign == ":=")
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let Some((token, rest)) = self.tokens.split_first() else { return Err(syntax("something is missing")) };
        self.tokens = rest;
        match token {
            Token::Literal(value) => Ok(Operand::Literal(value.clone())),
            Token::Word(word) => chain(word),
            Token::Sign("(") => {
                let pipe = self.pipe()?;
                let [Token::Sign(")"), rest @ ..] = self.tokens else {
                    return Err(syntax(format!("{{{{{}}}}}: a parenthesis has no end", self.action)));
                };
                self.tokens = rest;
                let base = Operand::Nested(pipe);
                // `(…).Field`
                if let [Token::Word(word), rest @ ..] = self.tokens
                    && word.starts_with('.')
                {
                    self.tokens = rest;
                    return Ok(Operand::Field { base: Box::new(base), names: names(&word[1..])? });
                }
                Ok(base)
            }
            other => Err(syntax(format!("{{{{{}}}}}: {other:?} is at a strange place", self.action))),
        }
    }
}

/// `.`, `.a.b`, `$x.a`, or a function's name.
fn chain(word: &str) -> Result<Operand, TemplateError> {
    if word == "." {
        return Ok(Operand::Dot);
    }
    let (base, fields) = if let Some(fields) = word.strip_prefix('.') {
        (Operand::Dot, fields)
    } else if let Some(variable) = word.strip_prefix('$') {
        let (name, fields) = variable.split_once('.').unwrap_or((variable, ""));
        (Operand::Variable(name.to_owned()), fields)
    } else {
        return Ok(Operand::Word(word.to_owned()));
    };
    if fields.is_empty() {
        return Ok(base);
    }
    Ok(Operand::Field { base: Box::new(base), names: names(fields)? })
}

fn names(fields: &str) -> Result<Vec<String>, TemplateError> {
    let names: Vec<String> = fields.split('.').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(syntax(format!(".{fields} has a dot too many")));
    }
    Ok(names)
}
