//! `WWW-Authenticate`: what a registry wants to know (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(super) scheme: String,
    /// By lower-case name.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// The challenges of one header, of which a response may have several; damaged parts are left out.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return challenges;
        }
        let word_len = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_len);
        let next = after.trim_start_matches([' ', '\t']);
        // `name=value` belongs to the challenge before; any other word begins one.
        let Some(value) = next.strip_prefix('=').filter(|_| !challenges.is_empty() && !word.is_empty()) else {
            if word.is_empty() {
                rest = &rest[1..];
                continue;
            }
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() });
            rest = after;
            continue;
        };
        let (value, after) = take_value(value.trim_start_matches([' ', '\t']));
        if let Some(challenge) = challenges.last_mut() {
            challenge.parameters.insert(word.to_ascii_lowercase(), value);
        }
        rest = after;
    }
}

/// A token or a quoted string, and what follows.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let len = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..len].to_owned(), &text[len..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_registries_send() {
        let docker = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(docker.len(), 1);
        assert_eq!(docker[0].scheme, "bearer");
        assert_eq!(docker[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(docker[0].get("scope"), Some("repository:a/b:pull,push"));
        let both = parse(r#"BASIC realm="a \"b\"", Bearer realm = "x" , service=y"#);
        assert_eq!(both.iter().map(|one| one.scheme.as_str()).collect::<Vec<_>>(), ["basic", "bearer"]);
        assert_eq!((both[0].get("realm"), both[1].get("service")), (Some("a \"b\""), Some("y")));
        assert_eq!(parse("Negotiate")[0].scheme, "negotiate");
        assert!(parse("").is_empty() && parse(" , ").is_empty());
    }

    proptest! {
        #[test]
        fn no_header_panics_or_loops(text in "[a-z=\", \\\\]{0,40}") {
            parse(&text);
        }
    }
}
