//! Read-only file mapping. [unsafe corner]
//!
//! A mapped file must not be changed or shortened while a model uses it: the operating system then delivers other
//! bytes, or a signal. Model files are written once and replaced as a whole, so mapping them is the usual contract.
#![allow(unsafe_code, reason = "mapping a file is this module's purpose")]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// A whole file, mapped read-only. Dereferences to its bytes.
#[derive(Debug)]
pub(crate) struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps the regular file at `path`.
    ///
    /// # Errors
    /// `NotFound` if it does not exist; `Io` if it is not a regular file, cannot be opened or cannot be mapped.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Asked before opening: to open a FIFO would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
        if !metadata.is_file() {
            let message = format!("{}: expected a regular file", path.display());
            return Err(Error::new(ErrorKind::Io, message).with("path", path.display().to_string()));
        }
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        // SAFETY: the mapping is private to this value and read-only. That nobody changes the file meanwhile is the
        // contract stated at the head of this module; every length is taken from the mapping, not from the file.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| Error::io(path, &error))?;
        // Packing reads front to back. A refused advice changes nothing but the speed of the first read.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(Mapping(map))
    }
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_and_directories_are_errors() {
        let dir = std::env::temp_dir();
        assert_eq!(Mapping::open(&dir).unwrap_err().kind(), ErrorKind::Io);
        let missing = dir.join("clawdbot-no-such-file");
        assert_eq!(Mapping::open(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
