//! Swap space: a file for what memory has no room for, shared by the models of a runtime.
//!
//! The file has no name: it is removed from its directory as soon as it is open (on Windows, the system removes it when it is
//! closed), so nothing is left of it, however the process ends. It is divided into blocks. An [`Extent`] is a number of bytes in
//! some blocks, with a checksum, and frees them when it is dropped. What cannot be written, or is read otherwise than it
//! was written, is an error of the one who asks, who computes it again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::worker::Worker;
use crate::error::{Error, Result};

/// Bytes of a block.
const BLOCK: usize = 64 << 10;

/// The file of a runtime.
#[derive(Debug, Clone)]
pub(crate) struct SwapSpace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    /// Number of blocks that there may be.
    capacity: u32,
    blocks: Mutex<Blocks>,
    worker: Worker,
    #[cfg(test)]
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Blocks {
    /// Those below `next` that nobody has.
    free: Vec<u32>,
    /// From here on, none was used yet.
    next: u32,
}

/// What goes wrong, in tests.
#[cfg(test)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Faults {
    /// No more bytes can be written.
    pub(crate) full: bool,
    /// Reading fails.
    pub(crate) unreadable: bool,
    /// A bit of what is read is another one.
    pub(crate) flipped: bool,
    /// Reading a block takes a while.
    pub(crate) slow: bool,
}

impl SwapSpace {
    /// A file of at most `bytes` bytes in `dir`.
    ///
    /// # Errors
    /// `Io` or `NotFound` if it cannot be made.
    pub(crate) fn new(dir: &Path, bytes: u64) -> Result<Self> {
        let file =
            unnamed_file(dir).map_err(|error| Error::io(dir, error).with("option", "swap_directory"))?;
        let capacity = u32::try_from(bytes / BLOCK as u64).unwrap_or(u32::MAX);
        Ok(SwapSpace(Arc::new(Inner {
            file,
            capacity,
            blocks: Mutex::default(),
            worker: Worker::new("clawdbot-swap"),
            #[cfg(test)]
            faults: Mutex::default(),
        })))
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all blocks that are taken.
    pub(crate) fn used(&self) -> u64 {
        let blocks = self.blocks();
        (u64::from(blocks.next) - blocks.free.len() as u64) * BLOCK as u64
    }

    /// Room for `bytes` bytes; `None` if there is none.
    pub(crate) fn writer(&self, bytes: u64) -> Option<ExtentWriter> {
        let wanted = u32::try_from(bytes.div_ceil(BLOCK as u64)).ok()?;
        let mut blocks = self.blocks();
        let left = self.0.capacity - blocks.next + u32::try_from(blocks.free.len()).unwrap_or(u32::MAX);
        if wanted == 0 || wanted > left {
            return None;
        }
        let mut taken = Vec::with_capacity(wanted as usize);
        for _ in 0..wanted {
            let block = blocks.free.pop().unwrap_or_else(|| {
                blocks.next += 1;
                blocks.next - 1
            });
            taken.push(block);
        }
        // Neighbours are written and read one after the other.
        taken.sort_unstable();
        drop(blocks);
        let extent = Extent { space: self.clone(), blocks: taken, bytes: 0, checksum: 0 };
        Some(ExtentWriter { extent, limit: bytes, buffer: Vec::with_capacity(BLOCK) })
    }

    /// Does `job` on the thread of the swap space, after those before it.
    ///
    /// # Errors
    /// `Io` when the system cannot start the thread.
    pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        self.0.worker.spawn(Box::new(job))
    }

    #[cfg(test)]
    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.0.faults.lock().unwrap() = faults;
    }

    fn write_at(&self, bytes: &[u8], block: u32) -> io::Result<()> {
        #[cfg(test)]
        if self.0.faults.lock().unwrap().full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut offset = u64::from(block) * BLOCK as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            #[cfg(unix)]
            let written = std::os::unix::fs::FileExt::write_at(&self.0.file, rest, offset);
            #[cfg(windows)]
            let written = std::os::windows::fs::FileExt::seek_write(&self.0.file, rest, offset);
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], block: u32) -> io::Result<()> {
        let mut offset = u64::from(block) * BLOCK as u64;
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            #[cfg(unix)]
            let read = std::os::unix::fs::FileExt::read_at(&self.0.file, rest, offset);
            #[cfg(windows)]
            let read = std::os::windows::fs::FileExt::seek_read(&self.0.file, rest, offset);
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    done += read;
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        #[cfg(test)]
        {
            let faults = *self.0.faults.lock().unwrap();
            if faults.slow {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            if faults.unreadable {
                return Err(io::Error::other("unreadable"));
            }
            if faults.flipped {
                bytes[done / 2] ^= 4;
            }
        }
        Ok(())
    }
}

/// A file in `dir` that no other process can open, and that goes with its handle.
fn unnamed_file(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
        options.share_mode(0).custom_flags(FILE_FLAG_DELETE_ON_CLOSE);
    }
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".clawdbot-{}-{number}.swap", std::process::id()));
        match options.open(&path) {
            Ok(file) => {
                #[cfg(unix)]
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes in the file. Dropping it frees their blocks.
#[derive(Debug)]
pub(crate) struct Extent {
    space: SwapSpace,
    blocks: Vec<u32>,
    bytes: u64,
    checksum: u64,
}

impl Extent {
    /// Number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether all of it can be read, and is what was written.
    pub(crate) fn is_sound(&self) -> bool {
        let mut reader = self.reader();
        io::copy(&mut reader, &mut io::sink()).is_ok() && reader.is_sound()
    }

    /// Reads it from its beginning.
    pub(crate) fn reader(&self) -> ExtentReader<'_> {
        ExtentReader { extent: self, next: 0, left: self.bytes, checksum: 0, buffer: Vec::new(), at: 0 }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        // In the child of a fork, a thread that is not there may hold the lock.
        if !self.space.0.worker.is_here() {
            return;
        }
        let mut blocks = self.space.blocks();
        blocks.free.append(&mut self.blocks);
        // The list is as long as it has to be.
        if blocks.free.len() as u64 == u64::from(blocks.next) {
            *blocks = Blocks::default();
        }
    }
}

/// Fills an extent.
pub(crate) struct ExtentWriter {
    extent: Extent,
    /// Bytes that there is room for.
    limit: u64,
    buffer: Vec<u8>,
}

impl ExtentWriter {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// What the system says; more bytes than there is room for.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Extent { space, blocks, bytes, checksum } = &mut self.extent;
        let block = blocks.get((*bytes / BLOCK as u64) as usize).ok_or(io::ErrorKind::FileTooLarge)?;
        space.write_at(&self.buffer, *block)?;
        *checksum = hash(&self.buffer, *checksum);
        *bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// What was written.
    ///
    /// # Errors
    /// As [`write`](Self::write); fewer bytes than were announced.
    pub(crate) fn finish(mut self) -> io::Result<Extent> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        match self.extent.bytes == self.limit {
            true => Ok(self.extent),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// Reads an extent.
#[derive(Clone)]
pub(crate) struct ExtentReader<'a> {
    extent: &'a Extent,
    /// Index of the next block.
    next: usize,
    /// Bytes that are not in the buffer yet.
    left: u64,
    checksum: u64,
    /// A block, of which `at` bytes were given.
    buffer: Vec<u8>,
    at: usize,
}

impl ExtentReader<'_> {
    /// Whether all was read, and is what was written.
    pub(crate) fn is_sound(&self) -> bool {
        self.left == 0 && self.at == self.buffer.len() && self.checksum == self.extent.checksum
    }
}

impl Read for ExtentReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() && self.left > 0 {
            self.buffer.resize(self.left.min(BLOCK as u64) as usize, 0);
            let block = self.extent.blocks.get(self.next).ok_or(io::ErrorKind::UnexpectedEof)?;
            // Not given before it is there.
            self.at = self.buffer.len();
            self.extent.space.read_at(&mut self.buffer, *block)?;
            self.checksum = hash(&self.buffer, self.checksum);
            (self.at, self.next) = (0, self.next + 1);
            self.left -= self.buffer.len() as u64;
        }
        let given = to.len().min(self.buffer.len() - self.at);
        to[..given].copy_from_slice(&self.buffer[self.at..][..given]);
        self.at += given;
        Ok(given)
    }
}

/// A checksum that sees any change of one 64-bit word, and almost any other. `seed`: that of the bytes before.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |lane: u64, word: u64| (lane ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mut lanes = [seed, !seed, FACTOR, bytes.len() as u64];
    let (rows, rest) = bytes.as_chunks::<32>();
    for row in rows {
        for (lane, word) in lanes.iter_mut().zip(row.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    for (lane, word) in lanes.iter_mut().zip(last.as_chunks::<8>().0) {
        *lane = step(*lane, u64::from_le_bytes(*word));
    }
    lanes.into_iter().fold(seed, |sum, lane| {
        let mixed = (sum ^ lane).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(blocks: u64) -> SwapSpace {
        SwapSpace::new(&std::env::temp_dir(), blocks * BLOCK as u64).unwrap()
    }

    fn bytes(len: usize, salt: usize) -> Vec<u8> {
        (0..len).map(|i| ((i * 131 + salt * 17) >> 3) as u8).collect()
    }

    fn store(space: &SwapSpace, bytes: &[u8]) -> Option<Extent> {
        let mut writer = space.writer(bytes.len() as u64)?;
        for piece in bytes.chunks(1000) {
            writer.write(piece).unwrap();
        }
        Some(writer.finish().unwrap())
    }

    fn load(extent: &Extent) -> Option<Vec<u8>> {
        let (mut reader, mut found) = (extent.reader(), Vec::new());
        reader.read_to_end(&mut found).ok()?;
        reader.is_sound().then_some(found)
    }

    #[test]
    fn extents_come_back_and_free_their_blocks() {
        let space = space(8);
        let small = store(&space, &bytes(10, 1)).unwrap();
        let large = store(&space, &bytes(3 * BLOCK + 1, 2)).unwrap();
        assert_eq!((space.used(), large.bytes()), (5 * BLOCK as u64, 3 * BLOCK as u64 + 1));
        assert!(store(&space, &bytes(3 * BLOCK + 1, 3)).is_none(), "no room");
        drop(small);
        // In pieces of the file.
        let third = store(&space, &bytes(4 * BLOCK, 3)).unwrap();
        assert_eq!(load(&large).unwrap(), bytes(3 * BLOCK + 1, 2));
        assert_eq!(load(&third).unwrap(), bytes(4 * BLOCK, 3));
        assert!(space.writer(1).is_none() && space.writer(0).is_none());
        drop((large, third));
        assert_eq!(space.used(), 0);
        let mut writer = space.writer(20).unwrap();
        writer.write(&bytes(19, 0)).unwrap();
        assert!(writer.finish().is_err(), "not as announced");
        assert_eq!(space.used(), 0);
    }

    #[test]
    fn what_goes_wrong_is_noticed() {
        let space = space(8);
        let extent = store(&space, &bytes(BLOCK + 77, 1)).unwrap();
        for faults in
            [Faults { unreadable: true, ..Faults::default() }, Faults { flipped: true, ..Faults::default() }]
        {
            space.set_faults(faults);
            assert!(load(&extent).is_none() && !extent.is_sound(), "{faults:?}");
        }
        space.set_faults(Faults { full: true, ..Faults::default() });
        let mut writer = space.writer(BLOCK as u64).unwrap();
        assert!(writer.write(&bytes(BLOCK, 1)).is_err());
        drop(writer);
        space.set_faults(Faults::default());
        assert_eq!((load(&extent).unwrap(), space.used()), (bytes(BLOCK + 77, 1), 2 * BLOCK as u64));
        assert!(extent.is_sound());
        // A read that stops early proves nothing.
        let mut reader = extent.reader();
        reader.read_exact(&mut [0; 100]).unwrap();
        assert!(!reader.is_sound());
    }

    #[test]
    fn the_child_of_a_fork_waits_for_nobody() {
        let mut inner = Arc::into_inner(space(8).0).unwrap();
        inner.worker = Worker::of_parent();
        let space = SwapSpace(Arc::new(inner));
        let extent = store(&space, &bytes(10, 1)).unwrap();
        // As a thread would that is not there.
        let held = space.blocks();
        let (dropped, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(extent);
            dropped.send(()).unwrap();
        });
        end.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        drop(held);
    }

    #[test]
    fn checksums_see_single_bits() {
        let all = bytes(200, 5);
        let sum = hash(&all, 1);
        for bit in 0..8 * all.len() {
            let mut changed = all.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(hash(&changed, 1), sum, "{bit}");
        }
        assert_ne!(hash(&all[..199], 1), sum);
        assert_ne!(hash(&all, 2), sum);
    }

    #[test]
    fn the_file_has_no_name() {
        let dir = std::env::temp_dir().join(format!("clawdbot-swap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let space = SwapSpace::new(&dir, 1 << 20).unwrap();
        #[cfg(unix)]
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        drop(space);
        std::fs::remove_dir(&dir).unwrap();
        let error = SwapSpace::new(&dir, 1 << 20).unwrap_err();
        assert_eq!(
            (error.kind(), error.detail()["option"].as_str()),
            (crate::ErrorKind::NotFound, Some("swap_directory"))
        );
    }
}
