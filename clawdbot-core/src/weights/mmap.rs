//! Read-only file mapping, and advice about files. [unsafe corner]
//!
//! A mapped file must not be changed or shortened while a model uses it: the operating system then delivers other
//! bytes, or a signal. Packed model files are written once and replaced as a whole; whoever cannot promise that has the
//! load option `mmap = false`.
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
        // SAFETY: the mapping is private to this value and read-only. That nobody changes the file meanwhile is the
        // contract stated at the head of this module; every length is taken from the mapping, not from the file.
        unsafe { memmap2::Mmap::map(file) }.map(Mapping)
    }
}

// SAFETY: a mapping stays at its address until it is dropped, and its pages are readable and initialised by the file.
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
    // SAFETY: the descriptor is open while `file` lives. A refused advice changes nothing but the speed.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_WILLNEED) };
}
