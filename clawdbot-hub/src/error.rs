//! The error of this crate: a kind, a message a person can act on, and the response of the HTTP server.

use std::fmt;
use std::path::Path;
use std::time::Duration;

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An id, revision, file name or setting is malformed or ambiguous.
    InvalidArgument,
    /// The hub has no such repository, revision or file; or, offline, the cache does not.
    NotFound,
    /// The hub refuses: a token is missing or invalid, or has no right (private or gated repository).
    AccessDenied,
    /// The hub cannot be reached, keeps failing, or asks to come back later.
    Unreachable,
    /// The hub sent something unexpected: a wrong length or checksum, or a malformed answer.
    BadContent,
    /// The repository has no weights in a supported format.
    Unsupported,
    /// The disk has too little space for the download.
    NoSpace,
    /// The operating system refused to read or write the cache.
    Io,
    /// The progress function returned false.
    Cancelled,
}

/// Longest message, in characters: some quote a server.
const MAX_MESSAGE: usize = 2000;

/// An error: kind, message, and details.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
struct Inner {
    kind: ErrorKind,
    message: String,
    url: Option<String>,
    status: Option<u16>,
    retry_after: Option<Duration>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = without_secrets(&message.into());
        Error(Box::new(Inner { kind, message, url: None, status: None, retry_after: None }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn bad_content(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadContent, message)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the download was cancelled")
    }

    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{}: {error}", path.display()))
    }

    /// Sets the address that it is about.
    pub(crate) fn at(mut self, url: &str) -> Self {
        let url = without_secrets(url);
        self.0.message = format!("{url}: {}", self.0.message);
        self.0.url = Some(url);
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.0.retry_after = delay;
        self
    }

    pub(crate) fn context(mut self, prefix: impl fmt::Display) -> Self {
        self.0.message = format!("{prefix}: {}", self.0.message);
        self
    }

    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.0.message = format!("{}; {hint}", self.0.message);
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was expected, what was found, and what to do.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The address it is about, without its query.
    pub fn url(&self) -> Option<&str> {
        self.0.url.as_deref()
    }

    /// The HTTP status, if the server gave one.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// How long the server asks to wait before the next request.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

/// `text` with all addresses shortened: without queries, which are secret in signed addresses, and without passwords.
fn without_secrets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        let (address, following) = after.split_at(end);
        let plain = address.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = plain.find('/').map_or((plain, ""), |at| plain.split_at(at));
        out.push_str(authority.rsplit_once('@').map_or(authority, |(_, host)| host));
        out.push_str(path);
        if plain.len() < address.len() && address.ends_with([')', ',', ';', ':']) {
            out.push_str(&address[address.len() - 1..]);
        }
        rest = following;
    }
    out.push_str(rest);
    if let Some((at, _)) = out.char_indices().nth(MAX_MESSAGE) {
        out.truncate(at);
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_no_secrets() {
        for (text, shown) in [
            ("plain", "plain"),
            ("https://a.b/c?X-Amz-Signature=1#x", "https://a.b/c"),
            ("bad uri: https://a.b/c?sig=1: no", "bad uri: https://a.b/c: no"),
            ("found \"http://me:secret@proxy:80/?x\"", "found \"http://proxy:80/\""),
            ("(see https://a/?s=1) and http://b/?t=2, too", "(see https://a/) and http://b/, too"),
            ("://", "://"),
            ("a://b@c@d?e", "a://d"),
        ] {
            assert_eq!(Error::invalid(text).message(), shown);
        }
        let error = Error::invalid("no").at("https://me:pw@h/x?sig=1");
        assert_eq!((error.message(), error.url()), ("https://h/x: no", Some("https://h/x")));
        assert_eq!(Error::invalid("\u{fc}".repeat(5000)).message().chars().count(), MAX_MESSAGE + 3);
    }
}
