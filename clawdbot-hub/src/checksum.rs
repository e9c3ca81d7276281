//! Checksums of files on hubs.

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::id::is_hex;

/// The expected checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// SHA-256 of the content, in lower-case hexadecimal digits.
    Sha256(String),
    /// SHA-1 of the content as a git blob: of `blob LENGTH\0` and the content.
    Git(String),
}

impl Checksum {
    /// Distinguished by the number of digits: 64 or 40.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.len() {
            64 if is_hex(&text) => Some(Checksum::Sha256(text)),
            40 if is_hex(&text) => Some(Checksum::Git(text)),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Checksum::Sha256(text) | Checksum::Git(text) => text,
        }
    }

    /// Starts a checksum of `length` bytes.
    pub(crate) fn start(&self, length: u64) -> Sum {
        match self {
            Checksum::Sha256(_) => Sum::Sha256(Box::default()),
            Checksum::Git(_) => {
                let mut sum = Box::<Sha1>::default();
                sum.update(format!("blob {length}\0"));
                Sum::Git(sum)
            }
        }
    }
}

/// A checksum in progress.
pub(crate) enum Sum {
    Sha256(Box<Sha256>),
    Git(Box<Sha1>),
}

impl Sum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Sum::Sha256(sum) => sum.update(bytes),
            Sum::Git(sum) => sum.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Checksum {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Sum::Sha256(sum) => Checksum::Sha256(hex(&sum.finalize())),
            Sum::Git(sum) => Checksum::Git(hex(&sum.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        // `printf hello | sha256sum`, `printf hello | git hash-object --stdin`
        for text in [
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
        ] {
            let checksum = Checksum::parse(&text.to_uppercase()).unwrap();
            let mut sum = checksum.start(5);
            sum.update(b"hel");
            sum.update(b"lo");
            assert_eq!(sum.finish(), checksum);
            assert_eq!(checksum.text(), text);
        }
        assert_eq!(Checksum::parse("../etc"), None);
        assert_eq!(Checksum::parse(&"g".repeat(40)), None);
    }
}
