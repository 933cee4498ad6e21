//! What looks like a secret: variables by name and value, files by place.
//!
//! A guess, on the careful side: what is left out is named, and a word of the user's brings it back.

/// Files that hold credentials, by the conventions of their programs; patterns as [`super::Choice::new`] takes them.
pub const FILES: [&str; 38] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/munge/munge.key",
    "/tmp/krb5cc_*",
    "/tmp/x509up_u*",
    "/tmp/bt_u*",
    "/run/user/*/krb5cc*",
    "/run/user/*/bt_u*",
    "/etc/condor/passwords.d",
    "/etc/condor/tokens.d",
    ".condor/tokens.d",
    ".cargo/credentials*",
    ".config/rclone",
    ".s3cfg",
    ".cache/huggingface/token",
    ".ssh/id_*",
    ".ssh/*.pem",
    ".gnupg",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/gh",
    ".config/coracle",
    ".kube",
    ".docker/config.json",
    ".globus",
    ".netrc",
    ".pgpass",
    ".my.cnf",
    ".git-credentials",
    ".pypirc",
    ".npmrc",
    ".vault-token",
];

/// Parts of a variable's name, in upper case, that say what it holds.
const WORDS: [&str; 15] = [
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "APIKEY",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "AUTH_KEY",
    "SIGNING_KEY",
    "ENCRYPTION_KEY",
    "COOKIE",
    "BEARER",
];

/// Ends of a variable's name that do.
const ENDS: [&str; 5] = ["_PASS", "_PWD", "_PAT", "_AUTH", "_KEY"];

/// Beginnings of values that well-known services give to their tokens.
const VALUES: [&str; 13] = [
    "-----BEGIN ",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "sk-",
    "hf_",
    "eyJhbGciOi",
];

/// Whether a variable looks like a secret.
#[must_use]
pub fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // Names of files are no secrets, and what is in them is a file's matter.
    let is_path = value.starts_with('/') && !value.contains(char::is_whitespace);
    let by_name = WORDS.iter().any(|word| name.contains(word))
        || ENDS.iter().any(|end| name.ends_with(end))
        || matches!(name.as_str(), "PASS" | "KEY" | "PGPASS");
    !value.is_empty() && (by_name && !is_path || is_secret_value(value))
}

/// Whether a value alone tells: a token of a known form, or an address with a password in it.
fn is_secret_value(value: &str) -> bool {
    let token = VALUES.iter().any(|start| value.starts_with(start)) && value.len() >= 20;
    let password = value.split_once("://").is_some_and(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && user.is_some_and(|user| user.contains(':'))
    });
    token || password
}

/// Whether an argument of the command looks as if it held a secret: `--password=…`, `TOKEN=…`, a token.
#[must_use]
pub fn is_secret_argument(argument: &str) -> bool {
    match argument.split_once('=') {
        Some((name, value)) => is_secret(name.trim_start_matches('-').replace('-', "_").as_str(), value),
        None => is_secret_value(argument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_from_settings() {
        for (name, value) in [
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("github_token", "x"),
            ("DB_PASSWORD", "x"),
            ("OPENAI_API_KEY", "x"),
            ("MYSQL_PWD", "x"),
            ("HTTP_PROXY", "http://me:word@proxy:3128/"),
            ("ANYTHING", "ghp_0123456789abcdefghij"),
            ("SESSION_COOKIE", "1"),
        ] {
            assert!(is_secret(name, value), "{name}");
        }
        for (name, value) in [
            ("PATH", "/usr/bin"),
            ("PWD", "/home/u"),
            ("OLDPWD", "/home/u"),
            ("HTTP_PROXY", "http://proxy:3128/"),
            ("X509_USER_KEY", "/home/u/key.pem"),
            ("AUTHOR", "me"),
            ("KEYBOARD", "de"),
            ("EMPTY_TOKEN", ""),
            ("TIME", "12:00@noon"),
        ] {
            assert!(!is_secret(name, value), "{name}");
        }
        assert!(is_secret_argument("--db-password=x"));
        assert!(is_secret_argument("TOKEN=x"));
        assert!(!is_secret_argument("--password-file=/x"));
        assert!(!is_secret_argument("--jobs=4"));
        assert!(!is_secret_argument("word"));
    }
}
