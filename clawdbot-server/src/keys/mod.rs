//! API keys: who may ask, for what, and how much. A key itself is nowhere kept: what is compared is its SHA-256.

mod limits;

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawdbot_core::{Error, ErrorKind};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::fault::Fault;
pub(crate) use limits::{Running, Usage};

/// The SHA-256 of a key.
pub(crate) type KeyDigest = [u8; 32];

/// What the holder of a key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyLimits {
    /// What the key is called in errors and logs. Its requests share a group, so keys get equal shares of a model.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Models that may be asked for; all without.
    pub models: Option<Vec<String>>,
    /// Most requests in a minute.
    pub requests_per_minute: Option<u64>,
    /// Most tokens in a minute, of prompts and answers. A request is refused while there are none left, and may take more
    /// than are left.
    pub tokens_per_minute: Option<u64>,
    /// Most requests at the same time.
    pub concurrent: Option<u64>,
    /// Most tokens of a request, prompt and answer.
    pub max_context: Option<u64>,
    /// Priority of its requests, 0 to 100; they may ask for a lower one.
    pub priority: Option<u32>,
}

impl KeyLimits {
    /// A key without limits.
    pub fn new(name: impl Into<String>, sha256: [u8; 32]) -> Self {
        KeyLimits {
            name: name.into(),
            sha256,
            models: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrent: None,
            max_context: None,
            priority: None,
        }
    }

    /// A key without limits, from the key itself.
    pub fn of_key(name: impl Into<String>, key: &str) -> Self {
        Self::new(name, Sha256::digest(key.as_bytes()).into())
    }
}

/// The bytes of a SHA-256 in hexadecimal digits.
pub(crate) fn digest_of(text: &str) -> Option<KeyDigest> {
    let mut digest = KeyDigest::default();
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// A new key of 256 random bits, and its SHA-256 in hexadecimal digits.
///
/// # Errors
/// `Io` if the system gives no random numbers.
pub fn new_key() -> Result<(String, String), Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Io, format!("random numbers: {error}")))?;
    let key = format!("cb-{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    let digest = Sha256::digest(key.as_bytes());
    Ok((key, digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// A key with what has been used of its limits.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) limits: KeyLimits,
    pub(crate) usage: Usage,
}

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Arc<Key>>);

impl Keys {
    /// The keys of `limits`. Those that `before` had keep what has been used of them.
    pub(crate) fn new(limits: &[KeyLimits], before: &Keys) -> Self {
        let key = |limits: &KeyLimits| match before.0.iter().find(|key| key.limits == *limits) {
            Some(key) => Arc::clone(key),
            None => Arc::new(Key { limits: limits.clone(), usage: Usage::new(limits) }),
        };
        Keys(limits.iter().map(key).collect())
    }

    /// The key of a request with these headers. `None` where none is needed.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Result<Option<Arc<Key>>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let given = presented(headers)
            .ok_or_else(|| denied("expected an API key (Authorization: Bearer KEY), found none"))?;
        let digest: KeyDigest = Sha256::digest(given).into();
        // All are compared, and each in the same time.
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.limits.sha256.ct_eq(&digest)) {
                found = Some(key);
            }
        }
        found
            .map(|key| Some(Arc::clone(key)))
            .ok_or_else(|| denied("expected an API key of this server, found another"))
    }
}

/// The key that a client sends: as OpenAI's clients do, or as Anthropic's.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()))
}

fn denied(message: &str) -> Fault {
    let fault: Fault = Error::new(ErrorKind::InvalidArgument, message).into();
    fault.with_status(StatusCode::UNAUTHORIZED).coded("invalid_api_key")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(value))])
    }

    #[test]
    fn keys_are_found_by_their_digest() {
        let text = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(digest_of(text), Some(KeyLimits::of_key("a", "secret").sha256));
        for wrong in ["", "2b", &text[1..], &text.replace('2', "g"), &text.replace('2', "é")] {
            assert_eq!(digest_of(wrong), None);
        }
    }

    #[test]
    fn new_keys_are_accepted() {
        let (key, digest) = new_key().expect("random numbers");
        assert_eq!(digest_of(&digest), Some(KeyLimits::of_key("a", &key).sha256));
        assert!(key.len() == 46 && new_key().expect("random numbers").0 != key, "{key}");
    }

    #[test]
    fn a_request_needs_a_key() {
        let keys = [KeyLimits::of_key("a", "secret"), KeyLimits::of_key("b", "other")];
        let keys = Keys::new(&keys, &Keys::default());
        let name = |headers| keys.of(&headers).map(|key| key.expect("one").limits.name.clone());
        assert_eq!(name(headers("authorization", "Bearer secret")).expect("known"), "a");
        assert_eq!(name(headers("authorization", "bearer other")).expect("known"), "b");
        assert_eq!(name(headers("x-api-key", "other")).expect("known"), "b");
        for wrong in [
            HeaderMap::new(),
            headers("authorization", "secret"),
            headers("authorization", "Basic secret"),
            headers("authorization", "Bearer "),
            headers("authorization", "Bearer secre"),
            headers("x-api-key", ""),
        ] {
            let fault = name(wrong).expect_err("refused");
            assert_eq!((fault.status, fault.code), (StatusCode::UNAUTHORIZED, Some("invalid_api_key")));
            assert!(!fault.message.contains("secre"));
        }
        assert!(Keys::default().of(&HeaderMap::new()).expect("open").is_none());
    }
}
