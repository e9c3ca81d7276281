//! Writes a file in pieces as large as huge pages.
//!
//! Linux keeps what is written in its page cache, in pages that are as large as the writes that fill them (ext4 since 6.16,
//! XFS). Where whole huge pages were written at once, a mapping of the file has huge pages too, and weights are read from it a
//! tenth faster.

use std::io::Write;

use super::file::resize;
use crate::error::Result;

/// Bytes of a piece: a huge page.
const PIECE: usize = 2 << 20;

/// Bytes on their way to a file.
#[derive(Debug)]
pub(super) struct Pieces<W> {
    file: W,
    /// The piece that is not complete; its first `filled` bytes are there.
    piece: Vec<u8>,
    filled: usize,
}

impl<W: Write> Pieces<W> {
    /// To `file`, which is empty.
    ///
    /// # Errors
    /// `OutOfBudget` without memory for a piece.
    pub(super) fn new(file: W) -> Result<Self> {
        let mut piece = Vec::new();
        resize(&mut piece, PIECE)?;
        Ok(Pieces { file, piece, filled: 0 })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            if self.filled == 0 && bytes.len() >= PIECE {
                let (whole, rest) = bytes.split_at(bytes.len() / PIECE * PIECE);
                self.file.write_all(whole)?;
                bytes = rest;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
            self.piece[self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.piece[..self.filled])?;
        self.filled = 0;
        Ok(())
    }

    /// Writes the last piece, and gives the file back.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn end(&mut self) -> std::io::Result<&mut W> {
        self.flush()?;
        Ok(&mut self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, and where each write began.
    #[derive(Default)]
    struct Written {
        bytes: Vec<u8>,
        starts: Vec<usize>,
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.starts.push(self.bytes.len());
            self.bytes.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_begin_at_multiples_of_their_size() {
        let all: Vec<u8> = (0..5 * PIECE + 1000).map(|i| (i * 31 % 251) as u8).collect();
        for lengths in
            [&[4096, 64, 3 * PIECE, 1][..], &[2 * PIECE, 700, PIECE - 700, 5], &[PIECE - 1, 1, 1], &[7]]
        {
            let mut pieces = Pieces::new(Written::default()).unwrap();
            let mut start = 0;
            for length in lengths.iter().cycle() {
                let end = all.len().min(start + length);
                pieces.write_all(&all[start..end]).unwrap();
                start = end;
                if start == all.len() {
                    break;
                }
                // The shortest would take long.
                if *length == 7 && start < all.len() - 3000 {
                    pieces.write_all(&all[start..all.len() - 2000]).unwrap();
                    start = all.len() - 2000;
                }
            }
            let written = pieces.end().unwrap();
            assert!(written.bytes == all, "{lengths:?}");
            assert!(
                written.starts.iter().all(|start| start % PIECE == 0),
                "{lengths:?}: {:?}",
                written.starts
            );
        }
    }
}
