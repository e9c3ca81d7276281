//! A file read from front to back, in pieces, with its end known.

use crate::error::{Error, ErrorKind, Result};
use crate::weights::DataFile;
use crate::weights::file::resize;

/// Bytes read at once.
const PIECE: usize = 1 << 16;

/// A position in a file. Lengths are checked against what remains before anything is allocated for them.
pub(super) struct Cursor<'a> {
    file: &'a DataFile,
    /// Bytes of the file from `piece_start` on.
    piece: Vec<u8>,
    piece_start: usize,
    /// Of the next byte, in the file.
    at: usize,
    /// Where reading must end.
    end: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `file`. No more than `limit` bytes are read.
    pub(super) fn new(file: &'a DataFile, limit: usize) -> Self {
        Cursor { file, piece: Vec::new(), piece_start: 0, at: 0, end: file.len().min(limit) }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Checks that `count` things of at least `size` bytes each can follow.
    ///
    /// # Errors
    /// `InvalidModel` saying how many there could be.
    pub(super) fn check_count(&self, count: u64, size: usize, what: &str) -> Result<usize> {
        let remaining = self.end - self.at;
        let most = remaining / size;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(Error::invalid_model(format!(
                "expected at most {most} {what}, as {remaining} bytes remain, found {count}"
            ))),
        }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// `InvalidModel` if the file ends before; as [`DataFile::read_at`].
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `len` bytes, after what `out` has.
    ///
    /// # Errors
    /// As [`array`](Self::array); `OutOfBudget` without memory.
    pub(super) fn append(&mut self, len: usize, out: &mut Vec<u8>) -> Result<()> {
        let len = self.check_count(len as u64, 1, "bytes")?;
        let start = out.len();
        if out.capacity() - start < len {
            // Grown by doubling: `resize` alone would copy for each string of an array.
            out.try_reserve(len).map_err(|_| {
                Error::new(
                    ErrorKind::OutOfBudget,
                    format!("the system has no memory for {len} bytes of metadata"),
                )
            })?;
        }
        out.resize(start + len, 0);
        self.read(&mut out[start..])
    }

    /// A string of at most `limit` bytes.
    ///
    /// # Errors
    /// `InvalidModel` if it is longer, cut off, or not UTF-8.
    pub(super) fn string(&mut self, limit: usize) -> Result<String> {
        let len = self.string_len(limit)?;
        let mut bytes = Vec::new();
        self.append(len, &mut bytes)?;
        String::from_utf8(bytes).map_err(|error| not_utf8(error.utf8_error()))
    }

    /// The length of a string of at most `limit` bytes that follows.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub(super) fn string_len(&mut self, limit: usize) -> Result<usize> {
        let len = self.u64()?;
        if len > limit as u64 {
            let message = format!("expected a string of at most {limit} bytes, found a length of {len}");
            return Err(Error::invalid_model(message));
        }
        self.check_count(len, 1, "bytes of a string")
    }

    fn read(&mut self, out: &mut [u8]) -> Result<()> {
        if out.len() > self.end - self.at {
            return Err(Error::invalid_model(format!(
                "expected {} more bytes of header at byte {}, found {}; the file is truncated",
                out.len(),
                self.at,
                self.end - self.at
            )));
        }
        let mut done = 0;
        while done < out.len() {
            let from = self.at - self.piece_start;
            if from == self.piece.len() {
                // What is longer than a piece needs no buffer.
                if out.len() - done >= PIECE {
                    self.file.read_at(self.at, &mut out[done..])?;
                    self.at += out.len() - done;
                    self.piece_start = self.at;
                    self.piece.clear();
                    return Ok(());
                }
                resize(&mut self.piece, PIECE.min(self.end - self.at))?;
                self.file.read_at(self.at, &mut self.piece)?;
                self.piece_start = self.at;
                continue;
            }
            let count = (self.piece.len() - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&self.piece[from..from + count]);
            done += count;
            self.at += count;
        }
        Ok(())
    }
}

pub(super) fn not_utf8(error: std::str::Utf8Error) -> Error {
    Error::invalid_model(format!(
        "expected a string in UTF-8, found other bytes from {} on",
        error.valid_up_to()
    ))
}
