//! Ids of requests and answers, and the time.

use axum::http::HeaderName;

/// The header with the id of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An id that no other answer has: `prefix` and 24 letters and digits.
pub(crate) fn id(prefix: &str) -> String {
    let mut bytes = [0; 12];
    if getrandom::fill(&mut bytes).is_err() {
        // Without random numbers, the time in nanoseconds tells answers from each other.
        bytes.copy_from_slice(&jiff::Timestamp::now().as_nanosecond().to_le_bytes()[..12]);
    }
    bytes.iter().fold(prefix.to_owned(), |id, byte| id + &format!("{byte:02x}"))
}

/// A random seed, of which the seeds after it are no larger than what JSON's readers keep exactly.
pub(crate) fn seed() -> u64 {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        bytes.copy_from_slice(&jiff::Timestamp::now().as_nanosecond().to_le_bytes()[..8]);
    }
    u64::from_le_bytes(bytes) >> 12
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let (one, other) = (id("chatcmpl-"), id("chatcmpl-"));
        assert!(one != other && one.len() == 33, "{one}");
        assert!(seed() < 1 << 52 && now() > 1_700_000_000);
    }
}
