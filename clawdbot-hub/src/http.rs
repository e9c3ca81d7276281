//! HTTP requests: redirects (the token goes only to the hub), timeouts, and the meaning of statuses.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ureq::http::uri::{PathAndQuery, Scheme, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, ErrorKind, Result};
use crate::id::Site;
use crate::settings::Settings;

/// Most redirects of a request.
const MAX_REDIRECTS: usize = 10;
/// Most bytes of an answer that is read into memory.
const MAX_ANSWER: u64 = 64 << 20;
/// Most bytes of a server's message that errors quote.
const MAX_MESSAGE: usize = 300;
/// Most bytes of a file of certificates.
const MAX_CERTIFICATES: u64 = 16 << 20;

/// Whether and when a failed request can be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    No,
    Yes,
    /// Not before this time has passed.
    After(Duration),
}

/// A failed request.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) repeat: Repeat,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, repeat: Repeat::No }
    }
}

/// An answer with status 200 or 206; 416 for a request with a range; for a HEAD request also a redirect to another
/// server.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Box<dyn Read + Send>,
}

impl Answer {
    /// The value of a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Body { from: Option<u64> },
    Head,
}

/// Sends requests to one hub and to the servers that it redirects to.
pub(crate) struct Client {
    agent: ureq::Agent,
    site: Site,
    /// What may see the token.
    origin: Origin,
    /// Headers with the token, which are only sent to `origin`.
    credentials: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let endpoint = parse(&settings.endpoint).ok().and_then(|uri| origin(&uri));
        let origin = endpoint.ok_or_else(|| {
            let found = &settings.endpoint;
            Error::invalid(format!("expected an endpoint such as https://huggingface.co, found {found:?}"))
        })?;
        let mut credentials = Vec::new();
        if let Some(token) = &settings.token {
            let mut add = |name, text: String| match HeaderValue::from_str(&text) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    credentials.push((name, value));
                    Ok(())
                }
                Err(_) => Err(Error::invalid(
                    "expected a token that an HTTP header can hold, found other characters",
                )),
            };
            add(header::AUTHORIZATION, format!("Bearer {token}"))?;
            if settings.site == Site::ModelScope {
                add(header::COOKIE, format!("m_session_id={token}"))?;
            }
        }
        let roots = match &settings.certificates {
            Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
            None => RootCerts::WebPki,
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("clawdbot/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .proxy(if settings.proxy { ureq::Proxy::try_from_env() } else { None })
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_recv_response(Some(settings.read_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .timeout_per_write(Some(settings.read_timeout))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Client { agent: config.new_agent(), site: settings.site, origin, credentials })
    }

    /// Gets `url`: all of it, or from byte `from` on.
    pub(crate) fn get(&self, url: &str, from: Option<u64>) -> Result<Answer, Failure> {
        self.send(url, Wanted::Body { from })
    }

    /// The headers of the hub itself for `url`.
    pub(crate) fn head(&self, url: &str) -> Result<Answer, Failure> {
        self.send(url, Wanted::Head)
    }

    fn send(&self, url: &str, wanted: Wanted) -> Result<Answer, Failure> {
        let mut uri = parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let ours = self.owns(&uri);
            let mut request = match wanted {
                Wanted::Body { .. } => self.agent.get(uri.clone()),
                Wanted::Head => self.agent.head(uri.clone()),
            };
            for (name, value) in self.credentials.iter().filter(|_| ours) {
                request = request.header(name, value);
            }
            if let Wanted::Body { from: Some(from) } = wanted {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| transport(&error).at(&uri.to_string()))?;
            let (head, body) = response.into_parts();
            let status = head.status.as_u16();
            let redirect = match status {
                301 | 302 | 303 | 307 | 308 => Some(redirected(&uri, &head.headers)?),
                _ => None,
            };
            let done = match (status, wanted) {
                (200, _) | (206 | 416, Wanted::Body { from: Some(_) }) => true,
                (_, Wanted::Head) => redirect.as_ref().is_some_and(|target| !self.owns(target)),
                _ => false,
            };
            match redirect {
                _ if done => {
                    return Ok(Answer { status, headers: head.headers, body: Box::new(body.into_reader()) });
                }
                Some(target) => uri = target,
                None => return Err(self.refusal(&uri, status, &head.headers)),
            }
        }
        let message = format!("expected at most {MAX_REDIRECTS} redirects, found more");
        Err(Error::bad_content(message).at(url).into())
    }

    /// Whether `uri` is at the hub and may see the token.
    fn owns(&self, uri: &Uri) -> bool {
        origin(uri).as_ref() == Some(&self.origin)
    }

    /// Gets `url` into memory.
    pub(crate) fn get_small(&self, url: &str) -> Result<Vec<u8>, Failure> {
        let answer = self.get(url, None)?;
        let mut bytes = Vec::new();
        answer.body.take(MAX_ANSWER + 1).read_to_end(&mut bytes).map_err(|error| cut_off(&error).at(url))?;
        if bytes.len() as u64 > MAX_ANSWER {
            let message = format!("expected an answer of at most {MAX_ANSWER} bytes, found a longer one");
            return Err(Error::bad_content(message).at(url).into());
        }
        Ok(bytes)
    }

    /// The error for a status other than success.
    fn refusal(&self, uri: &Uri, status: u16, headers: &HeaderMap) -> Failure {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let said = text("x-error-message").map_or(String::new(), |said| {
            let said: String = said.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
            format!(" ({said})")
        });
        let code = text("x-error-code").unwrap_or_default();
        let new = |kind, message: String| Error::new(kind, message).with_status(status).at(&uri.to_string());
        let fails = |kind, message| Failure { error: new(kind, message), repeat: Repeat::No };
        match (status, code) {
            (404, "RevisionNotFound") => {
                fails(ErrorKind::NotFound, format!("the repository has no such revision{said}"))
            }
            (404, "EntryNotFound") => {
                fails(ErrorKind::NotFound, format!("the repository has no such file{said}"))
            }
            (404 | 410, _) => fails(ErrorKind::NotFound, format!("expected a repository, found none{said}")),
            (401 | 403, "GatedRepo") => fails(
                ErrorKind::AccessDenied,
                format!(
                    "the repository is gated{said}: accept its conditions on its page, {}",
                    self.token_hint()
                ),
            ),
            (401 | 403, _) if self.owns(uri) => fails(
                ErrorKind::AccessDenied,
                format!(
                    "the hub answers {status}{said}: no such repository, or a private one; {}",
                    self.token_hint()
                ),
            ),
            (429, _) => {
                let delay =
                    text("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                let asked = delay.map_or(String::new(), |delay| format!(" for {} s", delay.as_secs()));
                let message = format!("the hub asks to wait{asked}: too many requests{said}");
                Failure {
                    error: new(ErrorKind::Unreachable, message).with_retry_after(delay),
                    repeat: delay.map_or(Repeat::Yes, Repeat::After),
                }
            }
            // 401 and 403 of another host: a signed address has expired. The hub signs a new one.
            (401 | 403 | 408 | 500.., _) => Failure {
                error: new(ErrorKind::Unreachable, format!("the server answers {status}{said}")),
                repeat: Repeat::Yes,
            },
            _ => fails(ErrorKind::BadContent, format!("expected status 200, found {status}{said}")),
        }
    }

    fn token_hint(&self) -> &'static str {
        match (self.credentials.is_empty(), self.site) {
            (false, _) => "see whether the token has the right to read it",
            (true, Site::HuggingFace) => "set HF_TOKEN (or log in with the hub's own tool)",
            (true, Site::ModelScope) => "set MODELSCOPE_API_TOKEN",
        }
    }
}

/// Reads an address.
fn parse(url: &str) -> Result<Uri> {
    url.parse::<Uri>()
        .map_err(|error| Error::bad_content(format!("expected an address, found {error}")).at(url))
}

/// The server of an address.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// The origin of an address; `None` for one without scheme or host, or with a password.
fn origin(uri: &Uri) -> Option<Origin> {
    let (scheme, authority) = (uri.scheme()?, uri.authority()?);
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    if authority.as_str().contains('@') {
        return None;
    }
    Some(Origin {
        scheme: scheme.clone(),
        host: authority.host().to_ascii_lowercase(),
        port: authority.port_u16().unwrap_or(default),
    })
}

/// The target of a redirect. Never from HTTPS to HTTP.
fn redirected(from: &Uri, headers: &HeaderMap) -> Result<Uri> {
    let refuse = |message: &str| Error::bad_content(message).at(&from.to_string());
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| refuse("expected a redirect with a location, found none"))?;
    let bad = || refuse("expected a redirect to an http or https address");
    let target = if location.contains("://") {
        parse(location)?
    } else {
        // Relative to the server or to the scheme.
        let mut parts = from.clone().into_parts();
        let path = match location.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_once('/').ok_or_else(bad)?;
                parts.authority = Some(authority.parse().map_err(|_| bad())?);
                format!("/{path}")
            }
            None if location.starts_with('/') => location.to_owned(),
            None => return Err(bad()),
        };
        parts.path_and_query = Some(path.parse::<PathAndQuery>().map_err(|_| bad())?);
        Uri::from_parts(parts).map_err(|_| bad())?
    };
    if origin(&target).is_none() {
        return Err(bad());
    }
    if from.scheme() == Some(&Scheme::HTTPS) && target.scheme() != Some(&Scheme::HTTPS) {
        return Err(refuse("expected a redirect to an https address, found an http one"));
    }
    Ok(target)
}

impl Failure {
    pub(crate) fn at(mut self, url: &str) -> Self {
        self.error = self.error.at(url);
        self
    }
}

/// The error of a request that got no answer.
fn transport(error: &ureq::Error) -> Failure {
    let (message, repeat) = match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::TlsRequired | ureq::Error::Pem(_) => {
            (format!("{error} (SSL_CERT_FILE names the certificates to trust)"), Repeat::No)
        }
        ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => (error.to_string(), Repeat::No),
        // An untrusted certificate is reported as a read error.
        ureq::Error::Io(inner) if inner.kind() == std::io::ErrorKind::InvalidData => {
            (format!("{inner} (SSL_CERT_FILE names the certificates to trust)"), Repeat::No)
        }
        _ => (error.to_string(), Repeat::Yes),
    };
    Failure { error: Error::new(ErrorKind::Unreachable, format!("no answer: {message}")), repeat }
}

/// The error of a body that ended early.
pub(crate) fn cut_off(error: &std::io::Error) -> Failure {
    let message = format!("the connection broke: {error}");
    Failure { error: Error::new(ErrorKind::Unreachable, message), repeat: Repeat::Yes }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_CERTIFICATES).read_to_end(&mut pem))
        .map_err(|error| Error::io(path, &error))?;
    let expected = || {
        let path = path.display();
        Error::invalid(format!("SSL_CERT_FILE: {path}: expected certificates in PEM, found none"))
    };
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| expected())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(expected()) } else { Ok(found) }
}

/// What becomes of `/` in a part of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slash {
    Kept,
    Escaped,
}

/// Escapes `text` as a part of a URL: everything but letters, digits and `-_.~` (and `/`, where it is kept) as `%XX`.
pub(crate) fn escape(text: &str, slash: Slash) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if slash == Slash::Kept => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(from: &str, to: &str) -> Result<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_str(to).unwrap());
        redirected(&from.parse().unwrap(), &headers).map(|uri| uri.to_string())
    }

    #[test]
    fn redirects() {
        let from = "https://hub.example/a/b?c=1";
        assert_eq!(location(from, "/x?y=2").unwrap(), "https://hub.example/x?y=2");
        assert_eq!(location(from, "//cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(location(from, "https://cdn.example:8443/x").unwrap(), "https://cdn.example:8443/x");
        for bad in
            ["http://hub.example/x", "ftp://hub.example/x", "file:///etc/passwd", "x", "https://a:b@c/"]
        {
            assert_eq!(location(from, bad).unwrap_err().kind(), ErrorKind::BadContent, "{bad}");
        }
    }

    #[test]
    fn origins() {
        let of = |url: &str| origin(&url.parse().unwrap());
        assert_eq!(of("https://Hub.example/a"), of("https://hub.example:443/b"));
        assert_ne!(of("https://hub.example"), of("https://hub.example:8443"));
        assert_ne!(of("https://hub.example"), of("http://hub.example"));
        assert_ne!(of("https://hub.example"), of("https://sub.hub.example"));
        assert_eq!(of("https://me:secret@hub.example"), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(escape("refs/pr/1", Slash::Escaped), "refs%2Fpr%2F1");
        assert_eq!(escape("a b/ü&.gguf", Slash::Kept), "a%20b/%C3%BC%26.gguf");
    }
}
