//! The prefix cache of a model in a file, from one process to the next.
//!
//! It is written when the model is closed or its last owner goes, and read when the model is loaded. It is a cache: what is wrong
//! with it goes to the log, and nothing of it is used.

use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use super::loaded::Loaded;
use super::saved::{CHECKSUM, Kind, Numerics, Reader, Writer};
use crate::cache::{KvCache, Stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::load::load_cache::create_dir;
use crate::runtime::{LogLevel, Runtime};
use crate::weights::{Readers, no_file, open_regular, write_file};

const BUFFER: usize = 64 << 10;

/// The file of a model in `dir`, which is made if it is not there.
///
/// # Errors
/// `Io` if the directory cannot be made.
pub(super) fn path(dir: &Path, model: &str, numerics: &Numerics) -> Result<PathBuf> {
    create_dir(dir).map_err(|error| error.with("option", "prefix_cache_dir"))?;
    let model = Path::new(model).file_name().unwrap_or_default().to_string_lossy();
    Ok(dir.join(format!("{model}-{}.prefixes", numerics.digits())))
}

/// Reads the file at `path`, if there is one, into the empty index of `cache`.
pub(super) fn load(runtime: &Runtime, path: &Path, numerics: &Numerics, cache: &mut KvCache) {
    match read(path, numerics, cache) {
        Ok((entries, Stopped::AtTheEnd)) => {
            runtime.log(LogLevel::Info, || format!("{}: {entries} pages of prefixes", path.display()));
        }
        Ok((entries, Stopped::NoRoom)) => runtime.log(LogLevel::Info, || {
            format!(
                "{}: {entries} pages of prefixes, of which as many are used as there is room for",
                path.display()
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            cache.forget_prefixes();
            complain(runtime, &error);
        }
    }
}

/// Reads the whole file twice: to compare its checksum, and then for what is in it.
fn read(path: &Path, numerics: &Numerics, cache: &mut KvCache) -> Result<(u64, Stopped)> {
    let name = path.display().to_string();
    let io = |error| Error::io(path, error);
    let file = open_regular(path)?;
    let length = file.metadata().map_err(io)?.len();
    let file = BufReader::with_capacity(BUFFER, file);
    let mut reader = Reader::new(file, &name, Kind::Prefixes, numerics)?;
    let rest = length.saturating_sub(reader.position()).saturating_sub(CHECKSUM);
    io::copy(&mut (&mut reader).take(rest), &mut io::sink()).map_err(io)?;
    let mut file = reader.finish()?;
    file.rewind().map_err(io)?;
    let mut reader = Reader::new(file, &name, Kind::Prefixes, numerics)?;
    let count = reader.number()?;
    let stopped = cache.read_prefixes(count, &mut reader).map_err(|error| reader.failed(error))?;
    Ok((count, stopped))
}

fn complain(runtime: &Runtime, error: &Error) {
    runtime.log(LogLevel::Warning, || format!("prefix_cache_dir: {error}"));
}

impl Loaded {
    /// Writes the prefix cache to its file, if it has one. What goes wrong goes to the log.
    pub(super) fn keep_prefix_file(&self) {
        let Some(path) = &self.prefix_file else { return };
        if let Err(error) = self.write_prefix_file(path) {
            complain(&self.runtime, &error);
        }
    }

    fn write_prefix_file(&self, path: &Path) -> Result<()> {
        let engine = self.engine()?;
        let cache = engine.cache();
        let count = cache.saved_prefixes();
        // Nothing is known now; what is in the file may be of use later.
        if engine.is_closed() || count == 0 {
            return Ok(());
        }
        let io = |error| Error::io(path, error);
        let numerics = self.numerics()?;
        let written = write_file(path, Readers::Owner, check_target, |file| {
            let mut writer = Writer::new(file, Kind::Prefixes, &numerics).map_err(io)?;
            io::Write::write_all(&mut writer, &(count as u64).to_le_bytes()).map_err(io)?;
            cache.write_prefixes(&mut writer).map_err(io)?;
            writer.finish().map(Some).map_err(io)
        });
        written.map(drop)
    }
}

/// Refuses what is no file. The name is made of a checksum, so a file of that name is one of these.
fn check_target(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(no_file(path, metadata.file_type())),
        _ => Ok(()),
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // In the child of a fork the engine is out of reach.
        if self.runtime.pool().check_fork().is_ok() {
            self.keep_prefix_file();
        }
    }
}
