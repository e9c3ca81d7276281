//! Files of cached keys and values: a saved session, or a prefix cache.
//!
//! ```text
//! magic, version u32, kind u8, library, kernels, kv      texts: length u8, bytes
//! fingerprint of the model                               32 bytes
//! ... what the kind has ...
//! SHA-256 of all before                                  32 bytes
//! ```
//! Numbers are little-endian. What is read is not trusted: nothing of it is used before the checksum was compared, and nothing
//! is allocated for what it only claims to have.

use std::io::{self, Read, Write};
use std::path::Path;

use clawdbot_kernels::threads::ThreadPool;
use sha2::{Digest, Sha256};

use super::loaded::{Loaded, Shared};
use crate::error::{Error, Result};
use crate::load::fingerprint::{self, Fingerprint};
use crate::options::KvType;
use crate::runtime::Runtime;
use crate::weights::hex;

/// How such a file begins.
pub(super) const MAGIC: &[u8; 8] = b"CLAWDKV\n";
/// Version of the format.
const VERSION: u32 = 1;
/// Bytes of the checksum at the end.
pub(super) const CHECKSUM: u64 = 32;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Session = 1,
    // 2 had full pages alone.
    Prefixes = 3,
}

impl Kind {
    fn name(kind: u8) -> &'static str {
        match kind {
            1 => "a saved session",
            2 => "a prefix cache in an older format",
            3 => "a prefix cache",
            _ => "something that this version does not know",
        }
    }
}

/// What keys and values depend on apart from tokens and adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numerics {
    model: Fingerprint,
    kv: &'static str,
    /// The instruction-set tier, where it has numerics of its own.
    kernels: &'static str,
}

/// What the tiers that give equal bits are called.
const EQUAL_KERNELS: &str = "equal";

impl Shared {
    /// What tells the model's numbers from another's. The first call reads all weights.
    ///
    /// # Errors
    /// `ForkedRuntime`.
    pub(super) fn fingerprint(&self, pool: &ThreadPool) -> Result<Fingerprint> {
        // In the child of a fork, a thread that is not there may hold the lock.
        pool.check_fork()?;
        let mut known = self.fingerprint.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match *known {
            Some(model) => Ok(model),
            None => Ok(*known.insert(fingerprint::of_model(&self.decoder, &self.vectors, pool)?)),
        }
    }
}

impl Loaded {
    /// What its keys and values depend on. The first call reads all weights.
    ///
    /// # Errors
    /// `ForkedRuntime`.
    pub(super) fn numerics(&self) -> Result<Numerics> {
        let model = self.shared.fingerprint(self.runtime.pool())?;
        Ok(Numerics::of(&self.runtime, model, self.options.kv_type()))
    }
}

impl Numerics {
    /// Those of a model on `runtime`.
    pub(super) fn of(runtime: &Runtime, model: Fingerprint, kv: KvType) -> Self {
        let (kv, kernels) = (kv.name(), runtime.kernels());
        let own = clawdbot_kernels::named().contains(&kernels);
        Numerics { model, kv, kernels: if own { kernels } else { EQUAL_KERNELS } }
    }

    /// Digits that tell it from others.
    pub(super) fn digits(&self) -> String {
        let mut sha256 = Sha256::new();
        sha256.update(format!("{VERSION} {} {} {}", env!("CARGO_PKG_VERSION"), self.kv, self.kernels));
        sha256.update(self.model);
        hex(&sha256.finalize()[..16])
    }
}

/// Writes a file.
pub(super) struct Writer<W> {
    inner: W,
    sha256: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A writer may lie about how much it took.
        let written = self.inner.write(bytes)?.min(bytes.len());
        self.sha256.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a file of that kind.
    ///
    /// # Errors
    /// What the writer says.
    pub(super) fn new(inner: W, kind: Kind, numerics: &Numerics) -> io::Result<Self> {
        let mut writer = Writer { inner, sha256: Sha256::new(), bytes: 0 };
        writer.write_all(MAGIC)?;
        writer.write_all(&VERSION.to_le_bytes())?;
        writer.write_all(&[kind as u8])?;
        for text in [env!("CARGO_PKG_VERSION"), numerics.kernels, numerics.kv] {
            writer.write_all(&[text.len().min(255) as u8])?;
            writer.write_all(&text.as_bytes()[..text.len().min(255)])?;
        }
        writer.write_all(&numerics.model)?;
        Ok(writer)
    }

    /// Ends it with the checksum. Returns its size in bytes.
    ///
    /// # Errors
    /// What the writer says.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        let checksum = std::mem::take(&mut self.sha256).finalize();
        self.inner.write_all(&checksum)?;
        self.inner.flush()?;
        Ok((self.inner, self.bytes + CHECKSUM))
    }
}

/// Reads a file.
pub(super) struct Reader<'a, R> {
    inner: R,
    /// What it is called in errors.
    name: &'a str,
    sha256: Sha256,
    /// Bytes that were read.
    bytes: u64,
    /// Whether the end came too early.
    cut: bool,
}

impl<R: Read> Read for Reader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A reader may lie about how much it gave.
        let read = self.inner.read(buffer)?.min(buffer.len());
        self.cut |= read == 0 && !buffer.is_empty();
        self.sha256.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<'a, R: Read> Reader<'a, R> {
    /// Begins to read a file of that kind, which must be one of a model with these numerics.
    ///
    /// # Errors
    /// `InvalidArgument` if it is something else; `Io`.
    pub(super) fn new(inner: R, name: &'a str, kind: Kind, numerics: &Numerics) -> Result<Self> {
        let mut reader = Reader { inner, name, sha256: Sha256::new(), bytes: 0, cut: false };
        let magic = match reader.array::<8>() {
            Err(_) if reader.cut => {
                let bytes = match reader.bytes {
                    0 => "an empty file".to_owned(),
                    1 => "a file of 1 byte".to_owned(),
                    bytes => format!("a file of {bytes} bytes"),
                };
                return Err(reader.refuse(Kind::name(kind as u8), &bytes));
            }
            magic => magic?,
        };
        if magic != *MAGIC {
            return Err(reader.refuse(Kind::name(kind as u8), "something else"));
        }
        let version = u32::from_le_bytes(reader.array()?);
        if version != VERSION {
            return Err(reader.refuse(&format!("version {VERSION} of the format"), &version.to_string()));
        }
        let [found] = reader.array()?;
        if found != kind as u8 {
            return Err(reader.refuse(Kind::name(kind as u8), Kind::name(found)));
        }
        let texts = [
            ("what version %s of this library has written", env!("CARGO_PKG_VERSION")),
            ("keys and values of kernels '%s'", numerics.kernels),
            ("keys and values of type %s (option kv)", numerics.kv),
        ];
        for (what, expected) in texts {
            let found = reader.text()?;
            if found != expected {
                return Err(reader.refuse(&what.replace("%s", expected), &found));
            }
        }
        let model: Fingerprint = reader.array()?;
        if model != numerics.model {
            return Err(reader.refuse(
                &format!("one of this model, with these weights ({})", hex(&numerics.model)),
                &format!("one of another ({})", hex(&model)),
            ));
        }
        Ok(reader)
    }

    /// The next bytes.
    ///
    /// # Errors
    /// `InvalidArgument` at the end; `Io`.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// As [`Reader::array`].
    pub(super) fn number(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// `count` tokens, for which there is room.
    ///
    /// # Errors
    /// As [`Reader::array`]; `OutOfBudget` if the system has no memory for them.
    pub(super) fn tokens(&mut self, count: usize) -> Result<Vec<u32>> {
        let mut tokens: Vec<u32> = Vec::new();
        tokens.try_reserve_exact(count).map_err(|_| {
            let message = format!("{}: the system has no memory for {count} tokens", self.name);
            Error::new(crate::error::ErrorKind::OutOfBudget, message)
        })?;
        let mut buffer = [0; 4096];
        while tokens.len() < count {
            let bytes = &mut buffer[..4 * (count - tokens.len()).min(1024)];
            self.read_exact(bytes).map_err(|error| self.failed(error))?;
            tokens.extend(bytes.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)));
        }
        Ok(tokens)
    }

    fn text(&mut self) -> Result<String> {
        let [length] = self.array()?;
        let mut bytes = [0; 255];
        let bytes = &mut bytes[..length.into()];
        self.read_exact(bytes).map_err(|error| self.failed(error))?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Bytes that were read so far.
    pub(super) fn position(&self) -> u64 {
        self.bytes
    }

    /// Reads the checksum and compares it with what was read.
    ///
    /// # Errors
    /// `InvalidArgument` if it is another one; as [`Reader::array`].
    pub(super) fn finish(mut self) -> Result<R> {
        let expected = std::mem::take(&mut self.sha256).finalize();
        let found: Fingerprint = self.array()?;
        if found != *expected {
            let (expected, found) = (hex(&expected), hex(&found));
            return Err(
                self.refuse(&format!("the checksum {expected}"), &format!("{found}: the file was changed"))
            );
        }
        Ok(self.inner)
    }

    /// The error of a read that failed.
    pub(super) fn failed(&self, error: io::Error) -> Error {
        match self.cut {
            true => self.refuse("a whole file", &format!("its end after {} bytes", self.bytes)),
            false => Error::stream(self.name, error),
        }
    }

    /// The error for a file that is not as expected.
    pub(super) fn refuse(&self, expected: &str, found: &str) -> Error {
        refuse(self.name, expected, found)
    }
}

/// The error for what is called `name` and is not as expected.
pub(super) fn refuse(name: &str, expected: &str, found: &str) -> Error {
    let message = format!("{name}: expected {expected}, found {found}");
    Error::invalid_argument(message).with("path", name).with("expected", expected).with("found", found)
}

/// Whether a file begins as those of that kind do, in any version of the format.
pub(super) fn is_saved(path: &Path, kind: Kind) -> bool {
    let start = || -> io::Result<[u8; 13]> {
        let mut start = [0; 13];
        std::fs::File::open(path)?.read_exact(&mut start)?;
        Ok(start)
    };
    start().is_ok_and(|start| start.starts_with(MAGIC) && start.last() == Some(&(kind as u8)))
}
