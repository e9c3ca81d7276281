//! The caches of the hubs' own tools: their layouts, and how files are added.
//!
//! ```text
//! Hugging Face, in HF_HUB_CACHE              ModelScope, in MODELSCOPE_CACHE
//! models--OWNER--NAME/                       models/OWNER--NAME/
//!   refs/REVISION            the commit
//!   blobs/CHECKSUM           content           blobs/CHECKSUM
//!   blobs/CHECKSUM.incomplete                  ...
//!   snapshots/COMMIT/PATH -> ../../blobs/...   snapshots/REVISION/PATH -> ../../blobs/...
//!   .no_exist/COMMIT/PATH    empty: the commit has no such file
//! .locks/models--OWNER--NAME/CHECKSUM.lock   .lock/OWNER--NAME/CHECKSUM.lock
//! ```
//! ModelScope's own tool stores the files themselves in `snapshots`; they are used if their checksum is right.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checksum::{Checksum, Sum};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::id::{ModelId, Site, check_relative, is_commit};
use crate::settings::Settings;

/// Deepest directory of a snapshot that is listed.
const MAX_DEPTH: usize = 8;
/// Bytes read at a time.
pub(crate) const CHUNK: usize = 1 << 18;

/// One repository in a cache.
pub(crate) struct Cache {
    site: Site,
    root: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(crate) fn new(settings: &Settings, id: &ModelId) -> Self {
        let (cache, site) = (&settings.cache, settings.site);
        let (root, locks) = match site {
            Site::HuggingFace => {
                let folder = format!("models--{}", id.folder());
                (cache.join(&folder), cache.join(".locks").join(folder))
            }
            Site::ModelScope => {
                (cache.join("models").join(id.folder()), cache.join(".lock").join(id.folder()))
            }
        };
        Cache { site, root, locks }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, checksum: &Checksum) -> PathBuf {
        self.root.join("blobs").join(checksum.text())
    }

    pub(crate) fn lock(&self, checksum: &Checksum) -> PathBuf {
        self.locks.join(format!("{}.lock", checksum.text()))
    }

    /// The commit of `revision` at its last download; for ModelScope the revision itself.
    ///
    /// # Errors
    /// `Io`; `BadContent` if it is not a commit.
    pub(crate) fn commit(&self, revision: &str) -> Result<Option<String>> {
        if self.site == Site::ModelScope || is_commit(revision) {
            return Ok(Some(revision.to_owned()));
        }
        let path = self.root.join("refs").join(revision);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(100).read_to_string(&mut text)) {
            Ok(_) if is_commit(text.trim()) => Ok(Some(text.trim().to_owned())),
            Ok(_) => {
                Err(Error::bad_content(format!("{}: expected a commit, found {text:?}", path.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, &error)),
        }
    }

    /// Records the commit of a branch or tag.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn note_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision).ok().flatten().as_deref() == Some(commit) {
            return Ok(());
        }
        self.replace(&self.root.join("refs").join(revision), |path| fs::write(path, commit))
    }

    /// Records that `commit` has no file `name`. A branch on ModelScope may have had it before; then it is removed, so
    /// that it is not loaded with the directory.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn note_absent(&self, commit: &str, name: &str) -> Result<()> {
        if self.site == Site::ModelScope {
            let path = self.snapshot(commit).join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(&path, &error));
                }
                _ => {}
            }
        }
        if self.is_absent(commit, name) {
            return Ok(());
        }
        self.replace(&self.root.join(".no_exist").join(commit).join(name), |path| fs::write(path, ""))
    }

    /// Whether `commit` is known to have no file `name`.
    pub(crate) fn is_absent(&self, commit: &str, name: &str) -> bool {
        self.root.join(".no_exist").join(commit).join(name).is_file()
    }

    /// Whether missing files of `commit` were ever recorded.
    pub(crate) fn notes_absences(&self, commit: &str) -> bool {
        self.root.join(".no_exist").join(commit).exists()
    }

    /// Names of the files in a snapshot.
    pub(crate) fn names(&self, commit: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        collect(&self.snapshot(commit), "", MAX_DEPTH, &mut names);
        names
    }

    /// Whether the snapshot has the file with this content. A snapshot of a commit never changes; one of a branch may.
    ///
    /// # Errors
    /// `Io`; `Cancelled`.
    pub(crate) fn has(
        &self,
        commit: &str,
        name: &str,
        size: u64,
        checksum: &Checksum,
        control: &Control,
    ) -> Result<bool> {
        let path = self.snapshot(commit).join(name);
        if !fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == size) {
            return Ok(false);
        }
        if self.site == Site::HuggingFace {
            return Ok(true);
        }
        if let Ok(target) = fs::read_link(&path) {
            return Ok(target.file_name().is_some_and(|name| name == checksum.text()));
        }
        let mut file = File::open(&path).map_err(|error| Error::io(&path, &error))?;
        let mut sum = checksum.start(size);
        add_up(&mut file, &mut sum, control, &path)?;
        Ok(sum.finish() == *checksum)
    }

    /// Adds a blob of the cache to a snapshot: by a relative link, or where the file system has none, by a hard link,
    /// or by moving the file.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn link(&self, commit: &str, name: &str, checksum: &Checksum) -> Result<()> {
        let blob = self.blob(checksum);
        // `snapshots` counts in place of the file's own name.
        let depth = commit.split('/').count() + name.split('/').count();
        let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
        target.extend(["blobs", checksum.text()]);
        self.replace(&self.snapshot(commit).join(name), |path| {
            symlink(&target, path)
                .or_else(|_| fs::hard_link(&blob, path))
                .or_else(|_| fs::rename(&blob, path))
        })
    }

    /// Creates or replaces `path`, under a temporary name first, so that nobody sees a partial file.
    fn replace(&self, path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{count}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        create_parent(path)?;
        let made = make(&temporary).and_then(|()| fs::rename(&temporary, path));
        made.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::io(path, &error)
        })
    }
}

/// Creates the parent directory of `path`.
///
/// # Errors
/// `Io`.
pub(crate) fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(|error| Error::io(parent, &error)),
        None => Ok(()),
    }
}

/// Updates `sum` with the rest of `file`, whose path is `path`. Returns its length in bytes.
///
/// # Errors
/// `Io`; `Cancelled`, as it takes seconds for each gigabyte.
pub(crate) fn add_up(file: &mut File, sum: &mut Sum, control: &Control, path: &Path) -> Result<u64> {
    let (mut length, mut buffer) = (0, vec![0; CHUNK]);
    loop {
        control.check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(n) => {
                sum.update(&buffer[..n]);
                length += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path, &error)),
        }
    }
}

fn collect(directory: &Path, prefix: &str, depth: usize, names: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (name, path) = (format!("{prefix}{name}"), entry.path());
        // Follows links; dangling ones do not count.
        match fs::metadata(&path) {
            Ok(file) if file.is_file() && check_relative("a file", &name).is_ok() => drop(names.insert(name)),
            Ok(file) if file.is_dir() && depth > 0 => collect(&path, &format!("{name}/"), depth - 1, names),
            _ => {}
        }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn hashing_can_be_stopped() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        fs::write(&path, b"hello").unwrap();
        // `printf hello | git hash-object --stdin`
        let checksum = Checksum::parse("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0").unwrap();
        let (control, mut file, mut sum) =
            (Control::default(), File::open(&path).unwrap(), checksum.start(5));
        assert_eq!(add_up(&mut file, &mut sum, &control, &path).unwrap(), 5);
        assert_eq!(sum.finish(), checksum);
        control.stop();
        let error = add_up(&mut file, &mut checksum.start(5), &control, &path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}
