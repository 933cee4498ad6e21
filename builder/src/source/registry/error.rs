//! What can go wrong with a registry. Messages name hosts and images, never a secret.

use std::{error::Error, time::Duration};

/// A registry that did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection.
    #[error(
        "cannot reach the registry {registry}: {why}: check its name, the network, and the proxy (HTTPS_PROXY, NO_PROXY)"
    )]
    Unreachable {
        /// The registry.
        registry: String,
        /// What the system said.
        why: String,
    },
    /// Its certificate is not trusted.
    #[error(
        "cannot trust the registry {registry}: {why}: put its CA into ~/.config/containers/certs.d/{registry}/ca.crt or name it by SSL_CERT_FILE, or use --insecure"
    )]
    Certificate {
        /// The registry.
        registry: String,
        /// What is wrong with it.
        why: String,
    },
    /// It speaks no TLS.
    #[error(
        "the registry {registry} does not speak https: {why}: use --insecure if it may be asked without encryption"
    )]
    PlainHttp {
        /// The registry.
        registry: String,
        /// What happened when TLS was tried.
        why: String,
    },
    /// A mirror is plain http by its own address.
    #[error("the mirror {mirror} is plain http: use https://, or allow it with insecure = true for its registry")]
    PlainMirror {
        /// The mirror as configured.
        mirror: String,
    },
    /// No such image, or none that strangers may see.
    #[error("no image {image} in {registry}: check the name and the tag{}", if *.anonymous { ", or log in if it is private (coracle login)" } else { "" })]
    NotFound {
        /// The image.
        image: String,
        /// The registry.
        registry: String,
        /// Whether no credentials were at hand.
        anonymous: bool,
    },
    /// It wants credentials and there are none.
    #[error(
        "access to {image} is denied: {registry} gives nothing to strangers, or has no such image: log in with `coracle login {registry}`"
    )]
    Denied {
        /// The image.
        image: String,
        /// The registry.
        registry: String,
    },
    /// It does not take the credentials that there are.
    #[error("{registry} does not accept the user name and password for {user}{}: log in again with `coracle login {registry}`", if image.is_empty() { String::new() } else { format!(" (or they may not see {image})") })]
    Credentials {
        /// The registry.
        registry: String,
        /// The user name.
        user: String,
        /// The image, if one was asked for.
        image: String,
    },
    /// It wants a form of login that we do not know.
    #[error(
        "{registry} wants a login of the kind {scheme:?}, which Coracle does not know: use another registry or a mirror"
    )]
    Scheme {
        /// The registry.
        registry: String,
        /// The scheme.
        scheme: String,
    },
    /// A file with credentials, or a credential helper.
    #[error("cannot use the credentials in {place}: {why}")]
    Keyring {
        /// The file or the helper.
        place: String,
        /// Why, and what to do.
        why: String,
    },
    /// Too many requests, for longer than we wait.
    #[error("{registry} limits requests and asks to wait {}: try again later, log in, or use a mirror", seconds(*.wait))]
    TooMany {
        /// The registry.
        registry: String,
        /// How long.
        wait: Duration,
    },
    /// An answer that was not asked for.
    #[error("{registry} answers {status} to {what}{}: try again later, or ask its operators", if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
    Status {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// The status, with its reason.
        status: String,
        /// What its body says.
        detail: String,
    },
    /// The connection breaks again and again.
    #[error(
        "cannot download {what} from {registry}: {why} (have {have} of {size} bytes): run the command again, it goes on from there"
    )]
    Broken {
        /// The registry.
        registry: String,
        /// The blob.
        what: String,
        /// What happened last.
        why: String,
        /// Bytes that are there.
        have: u64,
        /// Bytes there should be.
        size: u64,
    },
    /// Bytes do not have the digest that names them.
    #[error(
        "{registry} sends wrong bytes: {what} has the digest {actual}: try again, or tell the registry's operators"
    )]
    Digest {
        /// The registry.
        registry: String,
        /// What was asked for, with its digest.
        what: String,
        /// The digest of what came.
        actual: String,
    },
    /// More bytes than there should be.
    #[error("{registry} sends more for {what} than the {limit} bytes it may have: the image is damaged or hostile")]
    TooLarge {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// The most there may be.
        limit: u64,
    },
    /// The client could not be set up.
    #[error("cannot set up the connection to {registry}: {why}")]
    Setup {
        /// The registry.
        registry: String,
        /// Why, and what to do.
        why: String,
    },
}

impl RegistryError {
    /// Whether the registry was not reached at all, so that another copy may do.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TooMany { .. })
            || matches!(self, Self::Status { status, .. } if status.starts_with('5'))
    }
}

/// A duration as people say it.
pub(super) fn seconds(wait: Duration) -> String {
    match wait.as_secs() {
        0 => format!("{} ms", wait.as_millis()),
        whole @ 1..120 => format!("{whole} s"),
        whole => format!("{} min", whole.div_ceil(60)),
    }
}

/// One line of a text from afar, short and printable.
pub(in crate::source) fn tame(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let line: String = words.collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(200).collect();
    if short.len() < line.len() { format!("{short}…") } else { short }
}

/// What an error comes from. An I/O error that carries another one does not name it as its source.
pub(super) fn cause<'error>(error: &'error (dyn Error + 'static)) -> Option<&'error (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The innermost cause of an error of the HTTP client, in words; its own text names the URL, which may hold a signature.
pub(in crate::source) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(inner) = cause(last) {
        last = inner;
    }
    let text = tame(&last.to_string());
    if text.starts_with("no records found") {
        return "no host of that name is known".to_owned();
    }
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_afar_are_tamed() {
        assert_eq!(tame("<html>\n\x1b[31mred\r\n</html>"), "<html> [31mred </html>");
        assert!(tame(&"x".repeat(1000)).chars().count() <= 201);
        assert_eq!(seconds(Duration::from_secs(600)), "10 min");
    }
}
