//! Files that are read piece by piece. Nothing is mapped: a file that somebody shortens is an error, not a signal.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
#[cfg(feature = "candle")]
use std::sync::Arc;

use super::mmap::Mapping;
use super::safetensors::{Header, MAX_HEADER_BYTES, PREFIX_BYTES};
use crate::error::{Error, ErrorKind, Result};

/// A file of a known length, on disk or in memory.
#[derive(Debug)]
pub(crate) struct DataFile {
    /// Path or name, for messages.
    name: String,
    source: Source,
    /// Bytes, as they were when it was opened.
    len: usize,
}

#[derive(Debug)]
enum Source {
    Disk(File, PathBuf),
    Memory(Cow<'static, [u8]>),
    #[cfg(feature = "candle")]
    Program(Arc<dyn HandedIn>),
}

/// Tensors that the program hands in, as the bytes of a file without a header.
#[cfg(feature = "candle")]
pub(crate) trait HandedIn: std::fmt::Debug + Send + Sync {
    /// Fills `out` with the bytes from `offset` on, whole elements of one tensor, little-endian.
    ///
    /// # Errors
    /// `InvalidModel` for a tensor that the program does not have as it should; `Internal` for bytes of none.
    fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<()>;
}

/// Whether there is something of that name. A link that leads nowhere is there: what it should lead to is missing.
pub(crate) fn is_there(path: &Path) -> bool {
    !std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

impl DataFile {
    /// Opens the regular file at `path`.
    ///
    /// # Errors
    /// `NotFound` if it does not exist; `Io` if it is not a regular file or cannot be opened; `UnsupportedModel` if this
    /// machine has no addresses for its length.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let len = file.metadata().map_err(|error| Error::io(path, error))?.len();
        let name = path.display().to_string();
        let Ok(len) = usize::try_from(len) else {
            let message = format!("{name}: {len} bytes are more than this machine can address");
            return Err(Error::unsupported_model(message).with("path", name));
        };
        Ok(DataFile { name, source: Source::Disk(file, path.to_owned()), len })
    }

    /// `bytes` as a file called `name`.
    pub(crate) fn from_memory(bytes: impl Into<Cow<'static, [u8]>>, name: &str) -> Self {
        let bytes = bytes.into();
        DataFile { name: name.to_owned(), len: bytes.len(), source: Source::Memory(bytes) }
    }

    /// `len` bytes of tensors, called `name`.
    #[cfg(feature = "candle")]
    pub(crate) fn from_program(bytes: Arc<dyn HandedIn>, len: usize, name: &str) -> Self {
        DataFile { name: name.to_owned(), len, source: Source::Program(bytes) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Maps it.
    ///
    /// # Errors
    /// `Io` when the system refuses; `InvalidArgument` for a file in memory.
    pub(crate) fn map(&self) -> Result<Mapping> {
        match &self.source {
            Source::Disk(file, path) => Mapping::of(file).map_err(|error| Error::io(path, error)),
            _ => Err(Error::invalid_argument(format!("{}: not on disk", self.name))),
        }
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `InvalidModel` if the file ends before, `Io` if it cannot be read.
    pub(crate) fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        let wanted = out.len();
        let ended = |len: usize| {
            let message = format!(
                "{}: expected {wanted} bytes from byte {offset} on, but the file ends at byte {len}",
                self.name
            );
            Err(Error::invalid_model(message).with("file", self.name.clone()))
        };
        match &self.source {
            Source::Memory(bytes) => match bytes.get(offset..).and_then(|rest| rest.get(..out.len())) {
                Some(part) => out.copy_from_slice(part),
                None => return ended(bytes.len()),
            },
            Source::Disk(file, path) => match read_exact_at(file, out, offset as u64) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    let now = file.metadata().map_or(0, |metadata| metadata.len());
                    return ended(usize::try_from(now).unwrap_or(usize::MAX));
                }
                Err(error) => return Err(Error::io(path, error)),
            },
            #[cfg(feature = "candle")]
            Source::Program(bytes) => return bytes.read_at(offset, out),
        }
        Ok(())
    }

    /// The bytes in `range`.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); `OutOfBudget` when there is no memory for them.
    pub(crate) fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A range that the file does not have is refused before memory is asked for.
        let len = if range.end <= self.len { range.len() } else { 0 };
        resize(&mut bytes, len)?;
        if len != range.len() {
            let message =
                format!("{}: expected a range within {} bytes, found {range:?}", self.name, self.len);
            return Err(Error::invalid_model(message));
        }
        self.read_at(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads and checks the safetensors header.
    ///
    /// # Errors
    /// As [`Header::parse`], and when the file cannot be read.
    pub(crate) fn header(&self) -> Result<Header> {
        let mut start = self.read(0..PREFIX_BYTES.min(self.len))?;
        if let Some(prefix) = start.first_chunk::<PREFIX_BYTES>() {
            let length = u64::from_le_bytes(*prefix);
            // Anything else is what `parse` refuses.
            if length <= MAX_HEADER_BYTES && length as usize <= self.len - PREFIX_BYTES {
                start = self.read(0..PREFIX_BYTES + length as usize)?;
            }
        }
        Header::parse(&start, self.len, &self.name)
    }

    /// The safetensors header as it is written, with its length in front.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn header_bytes(&self) -> Result<Vec<u8>> {
        let mut prefix = [0; PREFIX_BYTES];
        self.read_at(0, &mut prefix)?;
        // `header` checked it; a file that has changed since is refused by `read`.
        let length = usize::try_from(u64::from_le_bytes(prefix)).unwrap_or(usize::MAX);
        self.read(0..length.saturating_add(PREFIX_BYTES))
    }

    /// Its name without the directory.
    pub(crate) fn file_name(&self) -> std::borrow::Cow<'_, str> {
        match &self.source {
            Source::Disk(_, path) => path.file_name().unwrap_or_default().to_string_lossy(),
            _ => self.name.as_str().into(),
        }
    }

    /// What is different when the file was written again, as far as one can say without reading all of it: when it was
    /// last written and (Unix) last changed in any way, and what it holds at some places. `None` for a file in memory.
    ///
    /// # Errors
    /// `Io` when the system does not say, or the file cannot be read.
    pub(crate) fn version(&self) -> Result<Option<Vec<u8>>> {
        /// Bytes of each place, and how many places there are.
        const SAMPLE: (usize, usize) = (4096, 16);
        let Source::Disk(file, path) = &self.source else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| Error::io(path, error))?;
        let written = metadata.modified().map_err(|error| Error::io(path, error))?;
        // Before 1970 there were no models.
        let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut version = written.to_le_bytes().to_vec();
        // Who sets the time of writing back cannot set this one.
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            version.extend(metadata.ctime().to_le_bytes());
            version.extend(metadata.ctime_nsec().to_le_bytes());
        }
        let (size, places) = SAMPLE;
        let size = size.min(self.len);
        for place in 0..places {
            let start = (self.len - size) / (places - 1) * place;
            version.extend(self.read(start..start + size)?);
        }
        Ok(Some(version))
    }

    /// Tells the system that `range` will be read soon.
    pub(crate) fn will_need(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if let Source::Disk(file, _) = &self.source {
            super::mmap::will_need(file, range);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}

/// Opens the regular file at `path`.
///
/// # Errors
/// `NotFound` if it does not exist; `Io` if it is not a regular file or cannot be opened.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    // Asked before opening: to open a FIFO would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    if !metadata.is_file() {
        let message = format!("{}: expected a regular file", path.display());
        return Err(Error::new(ErrorKind::Io, message).with("path", path.display().to_string()));
    }
    File::open(path).map_err(|error| Error::io(path, error))
}

/// Makes `bytes` `len` long, whatever it holds.
///
/// # Errors
/// `OutOfBudget` without memory.
pub(crate) fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<()> {
    bytes.try_reserve_exact(len.saturating_sub(bytes.len())).map_err(|_| {
        Error::new(ErrorKind::OutOfBudget, format!("the system has no memory for a buffer of {len} bytes"))
            .with("bytes", len)
    })?;
    bytes.resize(len, 0);
    Ok(())
}

/// The contents of a file of at most `limit` bytes.
///
/// # Errors
/// `NotFound` or `Io` if it cannot be read; `InvalidModel` if it is longer.
pub(crate) fn read_small_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    if bytes.len() as u64 > limit {
        let message = format!("{}: expected at most {limit} bytes, found more", path.display());
        return Err(Error::invalid_model(message).with("path", path.display().to_string()));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = &mut out[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;

    #[test]
    fn missing_files_and_directories_are_errors() {
        let dir = TempDir::new();
        assert_eq!(DataFile::open(dir.path()).unwrap_err().kind(), ErrorKind::Io);
        let missing = dir.path().join("none");
        assert_eq!(DataFile::open(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn ranges_are_read_and_a_file_that_became_shorter_is_an_error() {
        let dir = TempDir::new();
        dir.write("f", b"0123456789");
        let on_disk = DataFile::open(&dir.path().join("f")).unwrap();
        let in_memory = DataFile::from_memory(&b"0123456789"[..], "memory");
        for file in [&on_disk, &in_memory] {
            assert_eq!((file.len(), file.read(2..5).unwrap()), (10, b"234".to_vec()));
            assert_eq!(file.read(10..10).unwrap(), b"");
            for range in [9..11, 0..usize::MAX, 11..12] {
                assert_eq!(file.read(range).unwrap_err().kind(), ErrorKind::InvalidModel);
            }
            let error = file.read_at(8, &mut [0; 4]).unwrap_err();
            assert!(
                error.message().contains("4 bytes from byte 8 on, but the file ends at byte 10"),
                "{error}"
            );
        }
        dir.write("f", b"0123");
        let error = on_disk.read(2..10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert!(error.message().contains("ends at byte 4"), "{error}");
    }
}
