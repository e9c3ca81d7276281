//! A file lock between processes, compatible with that of the hubs' own tools (`flock` on Unix).

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::cache::create_parent;
use crate::control::Control;
use crate::error::{Error, Result};

/// Time between attempts to take a lock that another process holds.
const POLL: Duration = Duration::from_millis(100);

/// Held until dropped. The file stays: otherwise two processes could lock two files of the same name.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Waits for the lock at `path`. On a file system without locks it succeeds at once: two processes may then do the
    /// same work, and the checksum shows if they disturbed each other.
    ///
    /// # Errors
    /// `Io`; `Cancelled`.
    pub(crate) fn acquire(path: &Path, control: &Control) -> Result<Self> {
        create_parent(path)?;
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(path);
            let file = file.map_err(|error| Error::io(path, &error))?;
            match file.try_lock() {
                Ok(()) if is_still(path, &file) => return Ok(Lock(file)),
                // Another tool removed the file after use, before we had locked it.
                Ok(()) => {}
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                    return Ok(Lock(file));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(path, &error)),
                Err(TryLockError::WouldBlock) => control.sleep(POLL)?,
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file releases the lock too.
        let _ = self.0.unlock();
    }
}

#[cfg(unix)]
fn is_still(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still(_: &Path, _: &File) -> bool {
    // An open file cannot be removed.
    true
}
