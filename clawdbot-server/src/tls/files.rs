//! Certificates and keys as files: bounded, and known by their time when they change.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::TlsError;

/// Most bytes of a file. The certificates of all public authorities together have a quarter.
const MAX_BYTES: u64 = 1 << 20;
/// Most labels of a PEM file that a message lists, and most characters of each.
const MAX_LABELS: usize = 4;
const MAX_LABEL: usize = 40;

/// Certificates or a key, in PEM.
#[derive(Clone)]
#[non_exhaustive]
pub enum Pem {
    /// A file. It is read again when it changes.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

/// Texts may be keys: they are not shown.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Text(_) => f.write_str("Text"),
        }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Pem::File(path)
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Pem::File(path.to_owned())
    }
}

/// What a [`Pem`] has in it.
pub(super) struct Content {
    /// Its path, for messages.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Its permissions, if others than its owner and group have any.
    pub(super) open_mode: Option<u32>,
}

/// By what a change of a file is seen: its time, its size, and on Unix which file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Option<(SystemTime, u64, u64)>);

impl Pem {
    /// Reads it.
    pub(super) fn read(&self) -> Result<Content, TlsError> {
        let path = match self {
            Pem::Text(text) => {
                let bytes = text.as_bytes().to_vec();
                return Ok(Content { name: "given text".to_owned(), bytes, open_mode: None });
            }
            Pem::File(path) => path,
        };
        let name = path.display().to_string();
        let io = |source| TlsError::Io { file: name.clone(), source };
        // Before it is opened: that of a pipe would wait for its writer.
        if !fs::metadata(path).map_err(io)?.is_file() {
            let found = "a directory, pipe or device".to_owned();
            return Err(TlsError::Content { file: name, expected: "a file", found });
        }
        let file = File::open(path).map_err(io)?;
        let open_mode = open_mode(&file.metadata().map_err(io)?);
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            let found = format!("more than {MAX_BYTES} bytes");
            return Err(TlsError::Content { file: name, expected: "a PEM file", found });
        }
        Ok(Content { name, bytes, open_mode })
    }

    /// As it is now.
    pub(super) fn stamp(&self) -> Stamp {
        let Pem::File(path) = self else { return Stamp(None) };
        let known = fs::metadata(path).ok();
        Stamp(known.and_then(|known| Some((known.modified().ok()?, known.len(), number(&known)))))
    }
}

impl Content {
    /// The labels of its sections, for messages about what is not there.
    pub(super) fn labels(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if text.contains("Proc-Type: 4,ENCRYPTED") || text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
            return "a private key with a passphrase".to_owned();
        }
        let begins = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN "));
        let labels = begins.map(|rest| rest.trim_end_matches('-').chars().take(MAX_LABEL).collect());
        let labels: Vec<String> = labels.take(MAX_LABELS).collect();
        match labels.is_empty() {
            true => "no PEM section".to_owned(),
            false => labels.join(", "),
        }
    }
}

#[cfg(unix)]
fn open_mode(known: &Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = known.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_mode(_: &Metadata) -> Option<u32> {
    None
}

#[cfg(unix)]
fn number(known: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(known)
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Content {
        Content { name: "a.pem".to_owned(), bytes: text.as_bytes().to_vec(), open_mode: None }
    }

    #[test]
    fn messages_say_what_a_file_has() {
        assert_eq!(content("hello").labels(), "no PEM section");
        assert_eq!(content("").labels(), "no PEM section");
        let two = "-----BEGIN CERTIFICATE-----\r\nA\n-----END CERTIFICATE-----\n-----BEGIN PUBLIC KEY-----\n";
        assert_eq!(content(two).labels(), "CERTIFICATE, PUBLIC KEY");
        let sealed = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
        assert_eq!(content(sealed).labels(), "a private key with a passphrase");
        let long = format!("-----BEGIN {}\n", "x".repeat(1000)).repeat(100);
        assert!(content(&long).labels().len() < 200);
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", Pem::Text("secret".to_owned())), "Text");
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let none = Pem::from(Path::new("no/such.pem")).read();
        assert!(matches!(none, Err(TlsError::Io { .. })));
        let directory = Pem::from(Path::new(env!("CARGO_MANIFEST_DIR"))).read();
        assert!(matches!(directory, Err(TlsError::Content { expected: "a file", .. })));
    }
}
