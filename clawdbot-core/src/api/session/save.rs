//! Sessions in files: all that they need to go on as if nothing had happened.
//!
//! After what every such file has (`saved.rs`):
//! ```text
//! adapter: u8 1, fingerprint; or u8 0
//! long frequencies of LongRoPE: u8
//! tokens u64, those of them that are computed u64
//! tokens, u32 each
//! the image of those that are computed (cache/image.rs)
//! ```

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::Session;
use super::prompt::{Wanted, check_vocabulary, overflow};
use super::slot::Slot;
use crate::api::loaded::Loaded;
use crate::api::model::Model;
use crate::api::saved::{CHECKSUM, Kind, Reader, Writer, is_saved, refuse};
use crate::cache::StoredPage;
use crate::cancel::CancelHandle;
use crate::engine::{Held, Image, SwappedImage, lost};
use crate::error::{Error, Result};
use crate::forward::adapter::Adapter;
use crate::load::fingerprint::{Fingerprint, of_adapter};
use crate::runtime::ExtentReader;
use crate::weights::{Readers, hex, no_file, open_regular, write_file};

/// How often saving to a file begins again because requests took the session's memory.
const ATTEMPTS: usize = 3;
/// What a reader or writer is called in errors.
const UNNAMED: &str = "saved session";
/// Bytes that are read at once, at least.
const BUFFER: usize = 64 << 10;

impl Session {
    /// Writes the conversation to the file `path`, with all that is cached of it: [`Model::restore_session`] goes on with the
    /// same bits, and computes nothing again. What is not cached, because it was not computed yet or requests needed the
    /// memory, is computed after restoring. The file appears when it is complete, and only its owner may read it. It replaces an
    /// earlier one. Returns its size in bytes.
    ///
    /// The first call for a model reads all its weights, to know what the file belongs to.
    ///
    /// # Errors
    /// `InvalidArgument` while a stream is running, and if there is something at `path` that is no saved session; `NotFound`,
    /// `Io`, `OutOfBudget`, `Closed`, `ForkedRuntime`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        let io = |error| Error::io(path, error);
        for _ in 0..ATTEMPTS {
            if let Some(bytes) = write_file(path, Readers::Owner, check_target, |file| self.write(file, &io))?
            {
                return Ok(bytes);
            }
        }
        Err(lost())
    }

    /// As [`Session::save`], to a writer, which gets many small pieces. Returns the number of bytes.
    ///
    /// # Errors
    /// As [`Session::save`]; `Io` for an error of the writer.
    pub fn save_to(&self, writer: impl Write) -> Result<u64> {
        let io = |error| Error::stream(UNNAMED, error);
        let (_, bytes) = self.write(writer, &io)?.ok_or_else(lost)?;
        Ok(bytes)
    }

    /// Writes to `writer`, and flushes it. `None` if requests took the session's memory meanwhile.
    fn write<W: Write>(&self, writer: W, io: &dyn Fn(std::io::Error) -> Error) -> Result<Option<(W, u64)>> {
        let loaded = &self.slot.loaded;
        let numerics = loaded.numerics()?;
        let never = CancelHandle::default();
        let hold = || loaded.engine()?.hold(self.slot.id);
        let slot = Slot::new(Arc::clone(loaded), loaded.when_there_is_room(&never, hold)?);
        let Held { tokens, computed, image, adapter, long } = held(&slot)?;
        let mut writer = Writer::new(writer, Kind::Session, &numerics).map_err(io)?;
        let mut put = |bytes: &[u8]| writer.write_all(bytes).map_err(io);
        match adapter {
            Some(adapter) => {
                put(&[1])?;
                put(&of_adapter(&adapter))?;
            }
            None => put(&[0])?,
        }
        put(&[long.into()])?;
        put(&(tokens.len() as u64).to_le_bytes())?;
        put(&(computed as u64).to_le_bytes())?;
        for ids in tokens.chunks(1024) {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            put(&bytes)?;
        }
        let (mut written, mut swapped) = (0, None);
        match image {
            Image::Swapped(image) => swapped = Some(image),
            Image::Cached(pages) => {
                for (index, page) in pages.iter().enumerate() {
                    // The engine is locked for one page at a time; writing may take as long as it likes.
                    let last = pages.get(index + 1).is_none_or(|next| next.0 != page.0);
                    let copy = || loaded.engine()?.held_page(slot.id, computed, *page, last);
                    let mut of_page = 0;
                    let copied = loop {
                        let Some(copy) = loaded.when_there_is_room(&never, copy)? else { break false };
                        if copy.write(&mut of_page, &mut put)? {
                            break true;
                        }
                    };
                    written += of_page;
                    if !copied {
                        swapped = loaded.engine()?.held_swapped(slot.id)?;
                        if swapped.is_none() {
                            return Ok(None);
                        }
                        break;
                    }
                }
            }
        }
        if let Some(image) = swapped {
            put_swapped(loaded, &image, written, &mut put)?;
        }
        writer.finish().map(Some).map_err(io)
    }
}

/// What the held sequence of `slot` is now. What it has in the swap space, and cannot be read, is computed after restoring.
fn held(slot: &Slot) -> Result<Held> {
    let held = slot.loaded.engine()?.held(slot.id)?;
    match &held.image {
        Image::Swapped(image) if !image.extent.is_sound() => {
            let mut engine = slot.loaded.engine()?;
            engine.lose_swapped(slot.id);
            engine.held(slot.id)
        }
        _ => Ok(held),
    }
}

/// Writes an image from the swap space, without its first `written` bytes. It needs memory for one page, whatever its length.
///
/// # Errors
/// Those of `put`; `OutOfBudget`; `Io` if it cannot be read, or is not what was written.
fn put_swapped(
    loaded: &Loaded,
    image: &SwappedImage,
    mut written: u64,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let failed = |error| Error::stream("swap space", error);
    let mut reader = image.extent.reader();
    let mut buffer = vec![0; BUFFER];
    for page in &image.pages {
        let known = if page.is_wanted { written.min(page.bytes) } else { page.bytes };
        written -= if page.is_wanted { known } else { 0 };
        if let Some(slot) = page.clear_from.filter(|_| known < page.bytes) {
            reader = put_cut(loaded, reader, *page, slot, known, put)?;
            continue;
        }
        let mut at = 0;
        while at < page.bytes {
            let len = (page.bytes - at).min(BUFFER as u64);
            let part = &mut buffer[..len as usize];
            reader.read_exact(part).map_err(failed)?;
            put(&part[known.saturating_sub(at).min(len) as usize..])?;
            at += len;
        }
    }
    match reader.is_sound() {
        true => Ok(()),
        false => Err(failed(std::io::ErrorKind::InvalidData.into())),
    }
}

/// Writes the next page of `reader`, from the byte `written` on, with zeros for its tokens from `slot` on. Returns the reader after the
/// page.
///
/// # Errors
/// As [`put_swapped`].
fn put_cut<'a>(
    loaded: &Loaded,
    reader: ExtentReader<'a>,
    page: StoredPage,
    slot: usize,
    mut written: u64,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<ExtentReader<'a>> {
    loop {
        let blank = || loaded.engine()?.blank_copy(page.group);
        let copy = loaded.when_there_is_room(&CancelHandle::default(), blank)?;
        let mut after = reader.clone();
        copy.read(&mut after).map_err(|error| Error::stream("swap space", error))?;
        let engine = loaded.engine()?;
        copy.change(|copy| engine.cache().clear_copy(copy, slot));
        drop(engine);
        if copy.write(&mut written, put)? {
            return Ok(after);
        }
    }
}

impl Model {
    /// A session from a file that [`Session::save`] has written. Nothing is computed: `Usage::cached_tokens` of its next request
    /// shows that, and all that follows has the bits that it would have had. Only where requests need the memory before that, its
    /// tokens are computed again. An adapter that the session used has to be loaded,
    /// under any name.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that is something else, is cut off or was changed, that another version of the library has
    /// written, or that belongs to another model, weight type, type of the KV cache, adapter or (with kernels that have numerics of
    /// their own) tier; `ContextOverflow`, `OutOfBudget`, `NotFound`, `Io`, `Closed`, `ForkedRuntime`. Nothing is kept then.
    pub fn restore_session(&self, path: impl AsRef<Path>) -> Result<Session> {
        let path = path.as_ref();
        let loaded = self.generating()?;
        let file = open_regular(path)?;
        let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
        let name = path.display().to_string();
        let (session, mut file) =
            restore(loaded, BufReader::with_capacity(BUFFER, file), &name, Some(length))?;
        match at_end(&mut file) {
            Ok(true) => Ok(session),
            Ok(false) => Err(refuse(&name, "its end after the checksum", "more bytes")),
            Err(error) => Err(Error::io(path, error)),
        }
    }

    /// As [`Model::restore_session`], from a reader, which is read up to the end of the session and no further.
    ///
    /// # Errors
    /// As [`Model::restore_session`]; `Io` for an error of the reader.
    pub fn restore_session_from(&self, reader: impl Read) -> Result<Session> {
        restore(self.generating()?, reader, UNNAMED, None).map(|(session, _)| session)
    }
}

fn at_end(file: &mut BufReader<File>) -> std::io::Result<bool> {
    Ok(std::io::BufRead::fill_buf(file)?.is_empty())
}

/// Reads a session; `length`: of the file, if that is known.
fn restore<R: Read>(loaded: Arc<Loaded>, reader: R, name: &str, length: Option<u64>) -> Result<(Session, R)> {
    let never = CancelHandle::default();
    let numerics = loaded.numerics()?;
    let mut reader = Reader::new(reader, name, Kind::Session, &numerics)?;
    let adapter = match reader.array()? {
        [0] => None,
        [1] => {
            let wanted = reader.array()?;
            Some(loaded.adapter_of(&wanted).ok_or_else(|| no_adapter(name, &wanted))?)
        }
        [other] => return Err(reader.refuse("0 or 1 for an adapter", &other.to_string())),
    };
    let long = match reader.array()? {
        [0] => false,
        [1] if loaded.decoder.spec.longrope_from().is_some() => true,
        [other] => return Err(reader.refuse("the frequencies of this model", &other.to_string())),
    };
    let (count, computed) = (reader.number()?, reader.number()?);
    if computed > count {
        return Err(reader.refuse(&format!("at most {count} computed tokens"), &computed.to_string()));
    }
    if let Some(length) = length {
        let image = match usize::try_from(computed) {
            Ok(0) => 0,
            Ok(computed) if count < length => loaded.engine()?.image_bytes(computed),
            _ => u64::MAX,
        };
        let rest = count.saturating_mul(4).saturating_add(image).saturating_add(CHECKSUM);
        let expected = reader.position().saturating_add(rest);
        if expected != length {
            return Err(reader.refuse(&format!("a file of {expected} bytes"), &format!("{length}")));
        }
    }
    if count > loaded.max_context as u64 {
        let length = usize::try_from(count).unwrap_or(usize::MAX);
        return Err(overflow(length, Wanted::Nothing, loaded.max_context).context(name));
    }
    // Both are at most `max_context` now.
    let (count, computed) = (count as usize, computed as usize);
    let budget = loaded.runtime.budget();
    let reserve = || budget.reserve_growing(4 * count as u64, "tokens of a session");
    let _reservation = loaded.when_there_is_room(&never, reserve)?;
    let tokens = reader.tokens(count)?;
    check_vocabulary(&loaded, &tokens).map_err(|error| error.context(name))?;
    let pages = match computed {
        0 => None,
        _ => {
            let take = || loaded.engine()?.lend_pages(computed);
            let pages = loaded.when_there_is_room(&never, take)?;
            pages.read(&mut reader).map_err(|error| reader.failed(error))?;
            if !pages.are_finite() {
                return Err(reader.refuse("keys and values that are finite", "others"));
            }
            Some(pages)
        }
    };
    let rest = reader.finish()?;
    let session = Session::new(Arc::clone(&loaded))?;
    let id = session.slot.id;
    loaded.when_there_is_room(&never, || loaded.engine()?.append(id, &tokens))?;
    loaded.engine()?.restore(id, pages, adapter, long)?;
    Ok((session, rest))
}

impl Loaded {
    /// The loaded adapter with that fingerprint.
    fn adapter_of(&self, wanted: &Fingerprint) -> Option<Arc<Adapter>> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner).clone();
        adapters.into_values().find(|adapter| of_adapter(adapter) == *wanted)
    }
}

fn no_adapter(name: &str, wanted: &Fingerprint) -> Error {
    refuse(name, &format!("the adapter of the session to be loaded ({})", hex(wanted)), "no such adapter")
}

/// Refuses to replace what no session was saved to.
fn check_target(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(no_file(path, metadata.file_type())),
        Ok(_) if !is_saved(path, Kind::Session) => Err(refuse(
            &path.display().to_string(),
            "no file of that name, or a saved session to replace",
            "another file",
        )),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
