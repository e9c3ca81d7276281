//! Downloads a whole model: finds out which files it needs and which are missing, checks the disk space, and fetches
//! them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cache::Cache;
use crate::control::{Control, Patience, Progress};
use crate::download::{Job, incomplete};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Client, cut_off};
use crate::id::{ModelId, check_relative, is_commit};
use crate::listing::Remote;
use crate::select::{INDEX, SINGLE, Selection, Wish, select};
use crate::settings::Settings;

/// Time between two calls of the progress function.
const TICK: Duration = Duration::from_millis(50);
/// A file without which a snapshot with weights may be incomplete.
const TOKENIZER: &str = "tokenizer.json";
/// Most bytes of a small file: no model has a tokenizer of this size.
const MAX_SMALL: u64 = 256 << 20;
/// Most bytes of the index of a sharded safetensors model.
const MAX_INDEX: u64 = 64 << 20;
/// Most bytes of the header of a safetensors file, as in the format's specification.
const MAX_HEADER: u64 = 100_000_000;

/// What to download.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The repository.
    pub id: ModelId,
    /// Branch, tag or commit; by default the hub's main branch.
    pub revision: Option<String>,
    /// A GGUF file (any part of a split one) or a packed model. Without it: safetensors, or else the only GGUF file.
    pub file: Option<String>,
    /// The quantization of the GGUF file, such as `Q4_K_M`, instead of its name.
    pub quantization: Option<String>,
    /// Names of small files to download with safetensors, if the repository has them: configuration, tokenizer, chat
    /// template.
    pub small_files: Vec<String>,
}

impl Request {
    /// The default request for the model `id`.
    pub fn new(id: ModelId) -> Self {
        Request { id, revision: None, file: None, quantization: None, small_files: Vec::new() }
    }
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The directory with the files; or the file, if the model is a single one (the first part of a split one).
    pub path: PathBuf,
    /// The commit; for ModelScope the revision.
    pub revision: String,
    /// Bytes received over the network, those fetched twice included.
    pub downloaded_bytes: u64,
}

/// Makes sure that the model is in the cache, and returns where. A commit that is in the cache already costs no
/// request.
///
/// `progress` is called on this thread, about 20 times a second; returning false stops the download, which can be
/// resumed later. Stopping takes at most as long as a read from the network, [`Settings::read_timeout`].
///
/// # Errors
/// All of [`ErrorKind`].
pub fn fetch(
    settings: &Settings,
    request: &Request,
    progress: impl FnMut(&Progress) -> bool,
) -> Result<Snapshot> {
    fetch_with_warnings(settings, request, progress, |_| ())
}

/// [`fetch`] that calls `warning` on this thread for every retry: why, and when.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_with_warnings(
    settings: &Settings,
    request: &Request,
    mut progress: impl FnMut(&Progress) -> bool,
    mut warning: impl FnMut(&str),
) -> Result<Snapshot> {
    let control = Control::default();
    thread::scope(|scope| {
        let (sender, receiver) = channel::<()>();
        let work = || {
            // Dropped at the end, after a panic too, which wakes up the other side.
            let _done = sender;
            run(settings, request, &control)
        };
        let worker = spawn(scope, work)?;
        let mut tell = || control.warnings().iter().for_each(|text| warning(text));
        while receiver.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            if !progress(&control.progress()) {
                control.stop();
            }
            tell();
        }
        let result = worker.join();
        tell();
        result.map_err(|_| Error::new(ErrorKind::Io, "the downloading thread panicked"))?
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>> {
    let spawned = thread::Builder::new().name("clawdbot-hub".into()).spawn_scoped(scope, work);
    spawned.map_err(|error| Error::new(ErrorKind::Io, format!("starting a thread: {error}")))
}

fn run(settings: &Settings, request: &Request, control: &Control) -> Result<Snapshot> {
    let (id, cache) = (&request.id, Cache::new(settings, &request.id));
    let revision = request.revision.as_deref().unwrap_or(settings.site.default_revision());
    check_relative("a revision", revision)?;
    // Names of missing files are recorded in the cache, and the files perhaps removed.
    request.small_files.iter().try_for_each(|name| check_relative("a file", name))?;
    if settings.offline {
        let commit = cache.commit(revision)?;
        let found = commit.as_deref().map(|commit| local(&cache, commit, request));
        return match (found, commit) {
            (Some(Ok(selection)), Some(commit)) => Ok(snapshot(&cache, &commit, &selection, 0)),
            (Some(Err(error)), _) if error.kind() == ErrorKind::InvalidArgument => Err(error),
            (found, _) => {
                let why = found.and_then(Result::err).map_or(String::new(), |error| format!(": {error}"));
                let place = cache.root().display();
                let message = format!(
                    "{id} at {revision}: expected all its files in {place}, found it missing or incomplete{why}; download it once \
                     without offline mode (the option offline, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)"
                );
                Err(Error::new(ErrorKind::NotFound, message))
            }
        };
    }
    // A commit never changes: files of it in the cache are right.
    let pinned = match is_commit(revision) {
        true => local(&cache, revision, request).ok(),
        false => None,
    };
    if let Some(selection) = &pinned
        && (is_known_complete(&cache, revision, selection) || is_untouched(&cache, revision, selection))
    {
        return Ok(snapshot(&cache, revision, selection, 0));
    }
    let remote = Client::new(settings).and_then(|client| {
        Remote { settings, client: &client, control, id }.fetch(&cache, revision, request)
    });
    match (remote, pinned) {
        (Err(error), Some(selection))
            if error.kind() == ErrorKind::Unreachable && !lacks_tokenizer(&selection) =>
        {
            let names = selection.absent.join(", ");
            control.warn(format!(
                "{error}; using the copy in the cache, without checking whether the commit has {names}"
            ));
            Ok(snapshot(&cache, revision, &selection, 0))
        }
        (Err(error), None)
            if error.kind() == ErrorKind::Unreachable && has_copy(&cache, revision, request) =>
        {
            Err(error.hint("the cache has a copy, which offline mode uses (--offline, or HF_HUB_OFFLINE=1)"))
        }
        (result, _) => result,
    }
}

/// Whether all missing files are known to be missing.
fn is_known_complete(cache: &Cache, commit: &str, selection: &Selection) -> bool {
    selection.absent.iter().all(|name| cache.is_absent(commit, name))
}

/// Whether no missing files of the commit were ever recorded, as after a download with Hugging Face's tool: then the
/// snapshot is complete if the model is.
fn is_untouched(cache: &Cache, commit: &str, selection: &Selection) -> bool {
    selection.file.is_none() && !lacks_tokenizer(selection) && !cache.notes_absences(commit)
}

fn lacks_tokenizer(selection: &Selection) -> bool {
    selection.absent.iter().any(|name| name == TOKENIZER)
}

/// Whether offline mode would find the model.
fn has_copy(cache: &Cache, revision: &str, request: &Request) -> bool {
    let commit = cache.commit(revision).ok().flatten();
    commit.is_some_and(|commit| local(cache, &commit, request).is_ok())
}

/// What the cache alone has of the model.
fn local(cache: &Cache, commit: &str, request: &Request) -> Result<Selection> {
    let names = cache.names(commit);
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let index = || read_index(&cache.snapshot(commit).join(INDEX));
    let single = cache.snapshot(commit).join(SINGLE);
    choose(&names, request, index, || {
        let failed = |error| Error::io(&single, &error);
        Ok((index()?, header(File::open(&single).map_err(failed)?).map_err(failed)?))
    })
}

/// The header of a safetensors file, without the data after it; other files give some bytes.
fn header(mut file: impl Read) -> std::io::Result<Vec<u8>> {
    let (mut length, mut header) = (Vec::new(), Vec::new());
    file.by_ref().take(8).read_to_end(&mut length)?;
    let length = length.try_into().map_or(0, u64::from_le_bytes);
    file.take(length.min(MAX_HEADER)).read_to_end(&mut header)?;
    Ok(header)
}

fn choose(
    names: &BTreeSet<&str>,
    request: &Request,
    index: impl FnOnce() -> Result<Vec<u8>>,
    both: impl FnOnce() -> Result<(Vec<u8>, Vec<u8>)>,
) -> Result<Selection> {
    let small: Vec<&str> = request.small_files.iter().map(String::as_str).collect();
    let wish = Wish { file: request.file.as_deref(), quantization: request.quantization.as_deref() };
    select(names, wish, &small, index, both)
}

fn snapshot(cache: &Cache, commit: &str, selection: &Selection, downloaded_bytes: u64) -> Snapshot {
    let directory = cache.snapshot(commit);
    let path = selection.file.as_ref().map_or_else(|| directory.clone(), |file| directory.join(file));
    Snapshot { path, revision: commit.to_owned(), downloaded_bytes }
}

fn read_index(path: &Path) -> Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(|error| Error::io(path, &error))?.len();
    check_index(size)?;
    fs::read(path).map_err(|error| Error::io(path, &error))
}

fn check_small(job: &Job) -> Result<()> {
    if job.size > MAX_SMALL {
        let (name, size) = (&job.name, job.size);
        return Err(Error::bad_content(format!("{name}: expected at most {MAX_SMALL} bytes, found {size}")));
    }
    Ok(())
}

fn check_index(size: u64) -> Result<()> {
    if size > MAX_INDEX {
        return Err(Error::bad_content(format!("{INDEX}: expected at most {MAX_INDEX} bytes, found {size}")));
    }
    Ok(())
}

impl Remote<'_> {
    fn fetch(&self, cache: &Cache, revision: &str, request: &Request) -> Result<Snapshot> {
        let listing = self.list(revision)?;
        let commit = listing.commit.as_str();
        let names: BTreeSet<&str> = listing.files.keys().map(String::as_str).collect();
        let job = |name: &str| -> Result<Job> {
            let missing = || Error::new(ErrorKind::NotFound, format!("{}: no file {name}", self.id));
            let (size, checksum) =
                self.describe(commit, name, listing.files.get(name).ok_or_else(missing)?)?;
            Ok(Job { name: name.to_owned(), size, checksum })
        };
        // The index names the shards, so it is needed for the plan.
        let index = || {
            let index = job(INDEX)?;
            check_index(index.size)?;
            self.obtain(cache, commit, vec![index])?;
            read_index(&cache.snapshot(commit).join(INDEX))
        };
        // An index next to a single file is read before it is known whether the model uses it.
        let selection =
            choose(&names, request, index, || Ok((self.small(commit, INDEX)?, self.header(commit, SINGLE)?)))
                .map_err(|error| error.context(format!("{} at {revision}", self.id)))?;
        let jobs: Vec<Job> = selection.names.iter().map(|name| job(name)).collect::<Result<_>>()?;
        jobs.iter().filter(|job| request.small_files.contains(&job.name)).try_for_each(check_small)?;
        self.obtain(cache, commit, jobs)?;
        for name in &selection.absent {
            cache.note_absent(commit, name)?;
        }
        // Last, so that whoever finds a commit by its branch finds all of it.
        if !is_commit(revision) {
            cache.note_commit(revision, commit)?;
        }
        Ok(snapshot(cache, commit, &selection, self.control.received()))
    }

    /// The content of a small file, without the cache.
    fn small(&self, commit: &str, name: &str) -> Result<Vec<u8>> {
        let url = self.url(commit, name);
        Patience::new(self.settings, self.control)
            .repeat(|| self.client.get_small(&url))
            .map_err(|error| error.context(name))
    }

    /// The header of a safetensors file, without waiting for the rest.
    fn header(&self, commit: &str, name: &str) -> Result<Vec<u8>> {
        let url = self.url(commit, name);
        let get = || {
            let answer = self.client.get(&url, None)?;
            header(answer.body).map_err(|error| cut_off(&error).at(&url))
        };
        Patience::new(self.settings, self.control).repeat(get).map_err(|error| error.context(name))
    }

    /// Downloads missing files, several at a time, small ones first.
    fn obtain(&self, cache: &Cache, commit: &str, jobs: Vec<Job>) -> Result<()> {
        let mut missing = Vec::new();
        for job in jobs {
            if !cache.has(commit, &job.name, job.size, &job.checksum, self.control)? {
                missing.push(job);
            }
        }
        missing.sort_by_key(|job| std::cmp::Reverse(job.size));
        let total = missing.iter().fold(0_u64, |sum, job| sum.saturating_add(job.size));
        let there = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let have: u64 = missing
            .iter()
            .map(|job| {
                let blob = cache.blob(&job.checksum);
                there(blob.clone()).max(there(incomplete(&blob))).min(job.size)
            })
            .fold(0, u64::saturating_add);
        check_space(cache.root(), total.saturating_sub(have))?;
        self.control.plan(total);

        let threads = self.settings.connections.clamp(1, missing.len().max(1));
        let queue = Mutex::new(missing);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || -> Result<()> {
            while let Some(job) = next() {
                let placed = self.place(cache, commit, &job);
                placed.map_err(|error| {
                    // Stop the others: the caller gets an error anyway.
                    self.control.stop();
                    error.context(format!("{}: {}", self.id, job.name))
                })?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| spawn(scope, work)).collect::<Result<_>>()?;
            let mut results = vec![work()];
            let panicked = |_| Err(Error::new(ErrorKind::Io, "a downloading thread panicked"));
            results.extend(workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked)));
            // Prefer the error that stopped the others to their `Cancelled`.
            let mut errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
            errors.sort_by_key(|error| error.kind() == ErrorKind::Cancelled);
            errors.into_iter().next().map_or(Ok(()), Err)
        })
    }

    fn place(&self, cache: &Cache, commit: &str, job: &Job) -> Result<()> {
        self.download(cache, commit, job)?;
        cache.link(commit, &job.name, &job.checksum)
    }
}

/// Checks that `needed` bytes fit on the disk of `directory`, which may not exist yet.
fn check_space(directory: &Path, needed: u64) -> Result<()> {
    let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    match fs4::available_space(existing) {
        Ok(available) if available < needed => {
            let message = format!(
                "{}: expected {needed} bytes free on the disk, found {available}",
                directory.display()
            );
            Err(Error::new(ErrorKind::NoSpace, message))
        }
        // If the file system does not say, a full disk is found when writing.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_small() {
        let checksum = crate::checksum::Checksum::parse(&"a".repeat(40)).unwrap();
        let job = |size| Job { name: "config.json".into(), size, checksum: checksum.clone() };
        check_small(&job(MAX_SMALL)).unwrap();
        assert_eq!(check_small(&job(MAX_SMALL + 1)).unwrap_err().kind(), ErrorKind::BadContent);
    }

    #[test]
    fn space() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("not/there/yet");
        check_space(&path, 0).unwrap();
        let error = check_space(&path, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.message().contains(&u64::MAX.to_string()), "{error}");
    }
}
