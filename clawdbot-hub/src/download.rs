//! Downloads one file: resumes an earlier download, verifies it, and moves it into place when it is complete.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::cache::{CHUNK, Cache, add_up, create_parent};
use crate::checksum::{Checksum, Sum};
use crate::control::{Control, Patience};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Answer, Failure, Repeat, cut_off};
use crate::listing::Remote;
use crate::lock::Lock;

/// A file to download.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) checksum: Checksum,
}

/// Path of the incomplete file.
pub(crate) fn incomplete(blob: &Path) -> PathBuf {
    blob.with_extension("incomplete")
}

impl Remote<'_> {
    /// Makes sure that the cache has the content of `job`, under its checksum.
    ///
    /// # Errors
    /// `Unreachable`, `NotFound`, `AccessDenied`; `BadContent` for a wrong length or checksum; `NoSpace`, `Io`;
    /// `Cancelled`.
    pub(crate) fn download(&self, cache: &Cache, commit: &str, job: &Job) -> Result<()> {
        let blob = cache.blob(&job.checksum);
        let _lock = Lock::acquire(&cache.lock(&job.checksum), self.control)?;
        // Another process may have downloaded it while holding the lock.
        if fs::metadata(&blob).is_ok_and(|file| file.is_file() && file.len() == job.size) {
            self.control.add_bytes(job.size);
            return Ok(());
        }
        let path = incomplete(&blob);
        create_parent(&path)?;
        let fail = |error: &std::io::Error| Error::io(&path, error);
        let mut partial = Partial::open(&path, job, self.control)?;
        self.control.add_bytes(partial.length);
        let mut resumed = partial.length > 0;
        let url = self.url(commit, &job.name);
        let mut patience = Patience::new(self.settings, self.control);
        loop {
            while partial.length < job.size {
                self.control.check()?;
                let before = partial.length;
                if let Err(failure) = self.receive(&url, &mut partial, &path) {
                    if partial.length > before {
                        patience.renew();
                    }
                    patience.wait(failure)?;
                }
            }
            partial.file.sync_data().map_err(|error| fail(&error))?;
            let found = partial.sum.finish();
            if found == job.checksum {
                drop(partial.file);
                return fs::rename(&path, &blob).map_err(|error| Error::io(&blob, &error));
            }
            fs::remove_file(&path).map_err(|error| fail(&error))?;
            self.control.remove_bytes(job.size);
            if !resumed {
                let (expected, found) = (job.checksum.text(), found.text());
                let message = format!("expected a file with checksum {expected}, found {found}");
                return Err(Error::bad_content(message).at(&url));
            }
            // The part from an earlier download may have been corrupt.
            resumed = false;
            partial = Partial::open(&path, job, self.control)?;
        }
    }

    /// Requests the rest of a file and appends what arrives.
    fn receive(&self, url: &str, partial: &mut Partial, path: &Path) -> Result<(), Failure> {
        let from = (partial.length > 0).then_some(partial.length);
        let answer = self.client.get(url, from)?;
        if !self.continues(&answer, partial, url)? {
            self.control.remove_bytes(partial.length);
            partial.restart().map_err(|error| Error::io(path, &error))?;
            if answer.status != 200 {
                let error = Error::bad_content("expected the rest of a file, found something else").at(url);
                return Err(Failure { error, repeat: Repeat::Yes });
            }
        }
        let mut body = answer.body;
        let mut buffer = vec![0; CHUNK];
        loop {
            self.control.check()?;
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(cut_off(&error).at(url)),
            };
            if n as u64 > partial.size - partial.length {
                return Err(wrong_length(partial.size, "more", url).into());
            }
            partial.append(&buffer[..n]).map_err(|error| Error::io(path, &error))?;
            self.control.receive(n as u64);
        }
        if partial.length < partial.size {
            let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(cut_off(&error).at(url));
        }
        Ok(())
    }

    /// Whether the answer continues where `partial` ends.
    fn continues(&self, answer: &Answer, partial: &Partial, url: &str) -> Result<bool> {
        match answer.status {
            206 => {
                let range = answer.header("content-range").and_then(parse_range);
                if let Some(ContentRange { total: Some(total), .. }) = range
                    && total != partial.size
                {
                    return Err(wrong_length(partial.size, &total.to_string(), url));
                }
                Ok(range.is_some_and(|range| range.start == partial.length))
            }
            200 => {
                let length = answer.header("content-length").and_then(|length| length.parse::<u64>().ok());
                match length {
                    Some(length) if length != partial.size => {
                        Err(wrong_length(partial.size, &length.to_string(), url))
                    }
                    _ => Ok(partial.length == 0),
                }
            }
            _ => Ok(false),
        }
    }
}

fn wrong_length(expected: u64, found: &str, url: &str) -> Error {
    Error::new(ErrorKind::BadContent, format!("expected a file of {expected} bytes, found {found}")).at(url)
}

/// What `bytes START-END/TOTAL` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    start: u64,
    /// None if it is `*`.
    total: Option<u64>,
}

fn parse_range(text: &str) -> Option<ContentRange> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some(ContentRange { start, total })
}

/// A partly downloaded file.
struct Partial<'a> {
    file: File,
    length: u64,
    size: u64,
    checksum: &'a Checksum,
    sum: Sum,
}

impl<'a> Partial<'a> {
    /// Opens and hashes the existing part, or creates an empty file.
    fn open(path: &Path, job: &'a Job, control: &Control) -> Result<Self> {
        let fail = |error: std::io::Error| Error::io(path, &error);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let (size, checksum) = (job.size, &job.checksum);
        let mut partial =
            Partial { file: file.map_err(fail)?, length: 0, size, checksum, sum: checksum.start(size) };
        if partial.file.metadata().map_err(fail)?.len() > size {
            partial.restart().map_err(fail)?;
        }
        partial.length = add_up(&mut partial.file, &mut partial.sum, control, path)?;
        Ok(partial)
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.length, self.sum) = (0, self.checksum.start(self.size));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes 5-9/10"), Some(ContentRange { start: 5, total: Some(10) }));
        assert_eq!(parse_range("bytes 5-9/*"), Some(ContentRange { start: 5, total: None }));
        for bad in
            ["", "bytes */10", "items 5-9/10", "bytes 5/10", "bytes 5-9", "bytes -5-9/10", "bytes 5-9/x"]
        {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
    }
}
