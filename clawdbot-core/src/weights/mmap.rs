//! Read-only file mapping, and advice about files.
//!
//! A mapped file must not be changed or shortened while a model uses it: the operating system would then deliver other
//! bytes, or a signal. Packed model files are written once and replaced as a whole; where that cannot be promised, the
//! load option `mmap = false` reads the file instead.
#![allow(unsafe_code, reason = "mapping a file is this module's purpose")]

use std::fs::File;

use clawdbot_kernels::memory::SharedBytes;

/// A whole file, mapped read-only.
#[derive(Debug)]
pub(crate) struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps `file`, which is open for reading.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        // SAFETY: the mapping is read-only and belongs to this value. That nobody changes the file meanwhile is the contract
        // at the head of this module; every length is taken from the mapping, not from the file.
        let mapping = unsafe { memmap2::Mmap::map(file) }?;
        // So that what is not in the page cache yet is read in huge pages. If the system refuses, only speed is lost.
        #[cfg(target_os = "linux")]
        let _ = mapping.advise(memmap2::Advice::HugePage);
        Ok(Mapping(mapping))
    }
}

// SAFETY: `memmap2::Mmap` stays at its address until it is dropped, also when it is moved; its pages are readable, and
// initialised from the file.
unsafe impl SharedBytes for Mapping {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Tells the system that `range` of `file` will be read soon.
#[cfg(target_os = "linux")]
pub(super) fn will_need(file: &File, range: std::ops::Range<usize>) {
    use std::os::fd::AsRawFd;
    let (Ok(start), Ok(len)) = (range.start.try_into(), range.len().try_into()) else { return };
    // SAFETY: the descriptor is open, because `file` is borrowed; the call accesses no memory of this process. If the system
    // refuses, only speed is lost.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_WILLNEED) };
}
