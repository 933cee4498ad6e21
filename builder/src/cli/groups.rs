//! Docker's groups of commands (`docker container ls`, `docker image rm`) by the names that the commands have here.

use std::ffi::{OsStr, OsString};

/// Group, its word, and what that is here.
const RENAMED: [(&str, &str, &[&str]); 15] = [
    ("container", "ls", &["ps"]),
    ("container", "list", &["ps"]),
    ("container", "ps", &["ps"]),
    ("container", "remove", &["rm"]),
    ("container", "inspect", &["inspect", "--type=container"]),
    ("container", "prune", &["prune", "--containers"]),
    ("image", "ls", &["images"]),
    ("image", "list", &["images"]),
    ("image", "rm", &["rmi"]),
    ("image", "remove", &["rmi"]),
    ("image", "inspect", &["inspect", "--type=image", "--json"]),
    ("image", "prune", &["prune", "--images"]),
    ("system", "prune", &["prune"]),
    ("system", "info", &["showconf"]),
    ("volume", "list", &["volume", "ls"]),
];

/// Words that are the same with and without their group.
const CONTAINER: [&str; 18] = [
    "run", "create", "start", "stop", "restart", "kill", "rm", "logs", "exec", "attach", "cp", "diff", "export",
    "rename", "top", "wait", "port", "build",
];
const IMAGE: [&str; 7] = ["pull", "save", "load", "import", "tag", "history", "build"];

/// The arguments without the group, if they begin with one.
pub(super) fn flat(args: Vec<OsString>) -> Vec<OsString> {
    let [program, group, word, rest @ ..] = args.as_slice() else { return args };
    let (group, word) = (group.to_str().unwrap_or_default(), word.to_str().unwrap_or_default());
    let renamed = RENAMED.iter().find(|(of, known, _)| *of == group && *known == word);
    let words: Vec<&str> = match (renamed, group) {
        (Some((_, _, words)), _) => words.to_vec(),
        (None, "container") if CONTAINER.contains(&word) => vec![word],
        (None, "image") if IMAGE.contains(&word) => vec![word],
        _ => return args,
    };
    let words = words.into_iter().map(OsStr::new).map(OsStr::to_owned);
    [program.clone()].into_iter().chain(words).chain(rest.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_groups_are_known_and_nothing_else_is_changed() {
        let flat = |text: &str| {
            let args = text.split(' ').map(OsString::from).collect();
            super::flat(args).into_iter().map(|word| word.into_string().expect("text")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(flat("coracle container ls -a"), "coracle ps -a");
        assert_eq!(flat("coracle container run x image ls"), "coracle run x image ls");
        assert_eq!(flat("coracle image rm -f a b"), "coracle rmi -f a b");
        assert_eq!(flat("coracle image inspect a"), "coracle inspect --type=image --json a");
        for same in
            ["coracle", "coracle container", "coracle run container ls", "coracle image fly", "coracle volume ls"]
        {
            assert_eq!(flat(same), same);
        }
    }
}
