//! Files that appear under their names when they are complete.

use std::fs::{File, FileType, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

/// The error for `target`, where something is that is no file.
pub(crate) fn no_file(target: &Path, found: FileType) -> Error {
    let (name, found) = (target.display().to_string(), kind_of(found));
    let message = format!("{name}: expected the name of a file, found {found}");
    Error::invalid_argument(message).with("path", name)
}

/// What is no file, in words.
fn kind_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        _ => "a device, pipe or socket",
    }
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// As of any file that the process makes.
    AsUsual,
    /// The owner alone (Unix): it says what somebody has written.
    Owner,
}

impl Readers {
    fn options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        if self == Readers::Owner {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        options
    }
}

/// Bytes that are written at once, at least.
const BUFFER: usize = 64 << 10;

/// What writes a file; gives it back with a result, or nothing, and then there is no file.
pub(crate) type Written<T> = Result<Option<(BufWriter<File>, T)>>;

/// Lets `write` write the file `target`, which appears when it is complete, if `check` lets it replace what is there.
///
/// # Errors
/// Those of `check` and `write`; what the system says.
pub(crate) fn write_file<T>(
    target: &Path,
    readers: Readers,
    check: impl Fn(&Path) -> Result<()>,
    write: impl FnOnce(BufWriter<File>) -> Written<T>,
) -> Result<Option<T>> {
    check(target)?;
    let (temporary, file) = Temporary::create(target, readers)?;
    let Some((file, result)) = write(BufWriter::with_capacity(BUFFER, file))? else { return Ok(None) };
    let file = file.into_inner().map_err(|error| Error::io(target, error.into_error()))?;
    temporary.finish(&file, target, check)?;
    Ok(Some(result))
}

/// The path of a file that is removed when dropped.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// A new file next to `target`, whose name no other process uses.
    ///
    /// # Errors
    /// `InvalidArgument` for a path without a name; what the system says.
    pub(crate) fn create(target: &Path, readers: Readers) -> Result<(Self, File)> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(name) = target.file_name() else {
            let message = format!("{}: expected the name of a file", target.display());
            return Err(Error::invalid_argument(message).with("path", target.display().to_string()));
        };
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut temporary = std::ffi::OsString::from(".");
            temporary.push(name);
            temporary.push(format!(".{}-{number}.tmp", std::process::id()));
            let path = target.with_file_name(temporary);
            match readers.options().open(&path) {
                Ok(file) => return Ok((Temporary(path), file)),
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                // The caller knows the file by its own name.
                Err(error) => return Err(Error::io(target, error)),
            }
        }
    }

    /// Who may do what with it.
    pub(crate) fn set_permissions(&self, permissions: std::fs::Permissions) -> std::io::Result<()> {
        std::fs::set_permissions(&self.0, permissions)
    }

    /// Makes it last, and gives it its name, unless `check` refuses to replace what is there by now. `file`: itself, which is
    /// complete.
    ///
    /// # Errors
    /// Those of `check`; what the system says.
    pub(crate) fn finish(
        mut self,
        file: &File,
        target: &Path,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        file.sync_all().map_err(|error| Error::io(target, error))?;
        check(target)?;
        std::fs::rename(&self.0, target).map_err(|error| Error::io(target, error))?;
        self.0 = PathBuf::new();
        #[cfg(unix)]
        {
            let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // The file is whole under either name; a directory that cannot be synced (some network file systems) is
            // no reason to call it failed.
            if let Ok(dir) = File::open(dir) {
                let _ = dir.sync_all();
            }
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // What cannot be removed stays; there is nobody to tell.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
