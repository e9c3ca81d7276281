//! What can be wrong with the files of TLS.

use std::io;

use clawdbot_core::{Error, ErrorKind};

/// What is wrong with a certificate or a key. Each message names the file, what was expected, and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// Its path.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file has something else in it.
    #[error("{file}: expected {expected}, found {found}")]
    Content {
        /// Its path.
        file: String,
        /// What is needed.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The key is not the certificate's.
    #[error("{key}: expected the private key of the first certificate in {certificate}, found another key")]
    KeyMismatch {
        /// Path of the key.
        key: String,
        /// Path of the certificate.
        certificate: String,
    },
    /// The certificate is not valid any more: clients would refuse it.
    #[error("{file}: expected a certificate that is valid now, found one that ended at {ended}")]
    Expired {
        /// Its path.
        file: String,
        /// When it ended.
        ended: String,
    },
    /// The certificate is not valid yet: clients would refuse it.
    #[error("{file}: expected a certificate that is valid now, found one that begins at {begins}")]
    NotYetValid {
        /// Its path.
        file: String,
        /// When it begins.
        begins: String,
    },
    /// The library that speaks TLS refuses.
    #[error("TLS: {0}")]
    Stack(String),
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        let message = error.to_string();
        let (kind, file) = match error {
            TlsError::Io { file, source } if source.kind() == io::ErrorKind::NotFound => {
                (ErrorKind::NotFound, file)
            }
            TlsError::Io { file, .. } => (ErrorKind::Io, file),
            TlsError::Content { file, .. }
            | TlsError::KeyMismatch { key: file, .. }
            | TlsError::Expired { file, .. }
            | TlsError::NotYetValid { file, .. } => (ErrorKind::InvalidArgument, file),
            TlsError::Stack(_) => return Error::new(ErrorKind::Internal, message),
        };
        Error::new(kind, message).with("file", file)
    }
}
