//! Packed model files: a whole model in one safetensors file, its weights as kernels read them.
//!
//! ```text
//! header     safetensors, padded with spaces so that the data begins at a multiple of 4096
//!   __metadata__      format=clawdbot-packed, and the rest of `PackedInfo`
//! data       in this order, without holes; a tensor named `padding.N` keeps what follows it aligned to 64 bytes
//!   files/NAME        U8    config.json, tokenizer.json, ... as they were
//!   padding.tables    U8    the tokenizer's tables, in any place; who does not know them skips them as padding
//!   A+B               I8, BF16 or F32: matrices A and B as one, in the panels of `matrix.rs` of clawdbot-kernels
//!   A+B.scales        BF16  (int8 and int4)
//!   NAME              F32   norms and biases
//!   padding.evaluation U8   the report of an evaluation, at the end (`packed_report.rs`)
//! ```
//! The file is untrusted. What is checked when: opening it checks the header, the version, and that every tensor that the
//! model needs is there, of the right type, shape, size and alignment, and no other. The values of codes, scales and
//! weights are not looked at: any of them are safe to compute with, scales that are not finite end in `NonFinite`, and
//! reading them all would take as long as the mapping saves. [`PackedFile::verify`] reads everything.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use clawdbot_kernels::memory::{ALIGNMENT, Panel, Pod, SharedBytes, bytes_of_mut};
use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{PanelElement, PanelPart, PanelSource};
use sha2::{Digest, Sha256};

use super::file::{DataFile, resize};
use super::packed_info::{FORMAT, PackedInfo};
use super::safetensors::{Entry, Header, quoted};
use super::{Dtype, matrix::shape_text};
use crate::error::{Error, ErrorKind, Result};

/// In front of the names of the model's small files.
pub(super) const FILES_PREFIX: &str = "files/";
/// In front of the numbers of what only keeps the rest aligned.
pub(super) const PADDING_PREFIX: &str = "padding.";
/// The tokenizer's tables: a copy of what `tokenizer.json` says, which a reader may skip.
pub(super) const TABLES: &str = "padding.tables";
/// Most bytes of them.
pub(crate) const MAX_TABLES: usize = 512 << 20;
/// Bytes that are read at a time.
pub(super) const PIECE: usize = 4 << 20;

/// A matrix that a packed file must have, as these arrays.
pub(crate) struct ExpectedMatrix {
    pub(crate) name: String,
    pub(crate) parts: Vec<PanelPart>,
}

/// A vector of `len` elements that a packed file must have.
pub(crate) struct ExpectedVector<'a> {
    pub(crate) name: &'a str,
    pub(crate) len: usize,
}

/// An opened packed file: its header is read and checked, nothing else.
#[derive(Debug)]
pub(crate) struct PackedFile {
    pub(super) file: DataFile,
    pub(super) tensors: Vec<Entry>,
    /// Name -> tensor.
    index: HashMap<String, usize>,
    info: PackedInfo,
    data_start: usize,
}

impl PackedFile {
    /// Opens a packed file.
    ///
    /// # Errors
    /// `InvalidArgument` if it is some other file, `UnsupportedModel` for another version of the format, `InvalidModel`
    /// if its header is malformed or does not fit the file.
    pub(crate) fn open(file: DataFile) -> Result<Self> {
        let not_packed = |found: &str| {
            let name = file.name();
            Error::invalid_argument(format!(
                "{name}: expected a model directory, a GGUF or a packed model file, found {found}"
            ))
            .with("path", name)
        };
        // Any safetensors file has a brace after the length, whose upper bytes are zeros.
        let start = file.read(0..file.len().min(9))?;
        if !matches!(start.as_slice(), [.., 0, 0, 0, 0, b'{']) {
            return Err(not_packed("a file of another kind"));
        }
        let Header { tensors, metadata } = file.header()?;
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(not_packed(
                "safetensors that were not packed: give their directory, with config.json and tokenizer.json",
            ));
        }
        let info = PackedInfo::parse(metadata).map_err(|error| error.context(file.name()))?;
        let data_start = tensors.first().map_or(file.len(), |entry| entry.range.start);
        let index = tensors.iter().enumerate().map(|(i, entry)| (entry.name.clone(), i)).collect();
        Ok(PackedFile { file, tensors, index, info, data_start })
    }

    /// Path, for messages.
    pub(crate) fn name(&self) -> &str {
        self.file.name()
    }

    pub(crate) fn info(&self) -> &PackedInfo {
        &self.info
    }

    /// Size of the file in bytes.
    pub(crate) fn len(&self) -> usize {
        self.file.len()
    }

    /// Whether there is a tensor `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// An error about tensor `name`.
    pub(super) fn error(&self, name: &str, message: impl std::fmt::Display) -> Error {
        let file = self.name();
        Error::invalid_model(format!("{file}: tensor {}: {message}", quoted(name)))
            .with("file", file)
            .with("tensor", name)
    }

    fn entry(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&Entry> {
        let entry = self.index.get(name).map(|&i| &self.tensors[i]);
        let entry = entry.ok_or_else(|| self.error(name, "expected it, found none"))?;
        if entry.dtype != dtype || entry.shape != shape {
            return Err(self.error(
                name,
                format!(
                    "expected {} {}, found {} {}",
                    dtype,
                    shape_text(shape),
                    entry.dtype,
                    shape_text(&entry.shape)
                ),
            ));
        }
        Ok(entry)
    }

    /// Where the part of matrix `name` is in the file.
    fn part(&self, name: &str, part: &PanelPart) -> Result<Range<usize>> {
        let name = format!("{name}{}", part.suffix);
        let range = self.entry(&name, dtype_of(part.element), &part.shape)?.range.clone();
        if !range.start.is_multiple_of(ALIGNMENT) {
            let at = range.start;
            return Err(self
                .error(&name, format!("expected it at a multiple of {ALIGNMENT} bytes, found it at {at}")));
        }
        Ok(range)
    }

    /// Checks that the file has exactly these matrices and vectors, and nothing but them, small files and padding.
    ///
    /// # Errors
    /// `InvalidModel` naming the first tensor that is missing, wrong or unknown.
    pub(crate) fn check(
        &self,
        matrices: &[ExpectedMatrix],
        vectors: &[ExpectedVector<'_>],
        files: &[&str],
    ) -> Result<()> {
        let mut known = 0;
        for ExpectedMatrix { name, parts } in matrices {
            for part in parts {
                self.part(name, part)?;
                known += 1;
            }
        }
        for ExpectedVector { name, len } in vectors {
            self.entry(name, Dtype::F32, &[*len])?;
            known += 1;
        }
        let rest = self.tensors.iter().filter(|entry| {
            let file = entry.name.strip_prefix(FILES_PREFIX);
            entry.name.starts_with(PADDING_PREFIX) || file.is_some_and(|file| files.contains(&file))
        });
        if known + rest.count() == self.tensors.len() {
            return Ok(());
        }
        let expected: std::collections::HashSet<String> = matrices
            .iter()
            .flat_map(|matrix| matrix.parts.iter().map(|part| format!("{}{}", matrix.name, part.suffix)))
            .chain(vectors.iter().map(|vector| vector.name.to_owned()))
            .chain(files.iter().map(|file| format!("{FILES_PREFIX}{file}")))
            .collect();
        let unknown = self
            .tensors
            .iter()
            .find(|entry| !entry.name.starts_with(PADDING_PREFIX) && !expected.contains(&entry.name));
        match unknown {
            Some(entry) => Err(self.error(&entry.name, "the model has no such tensor")),
            None => Err(Error::internal("more tensors than names")),
        }
    }

    /// The small file `name` of the model, if there is one.
    ///
    /// # Errors
    /// `InvalidModel` if it is no list of bytes or longer than `limit`, and as [`DataFile::read`].
    pub(crate) fn model_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.bytes(&format!("{FILES_PREFIX}{name}"), limit)
    }

    /// Bytes of the small file `name`, if there is one.
    pub(crate) fn model_file_len(&self, name: &str) -> Option<u64> {
        let index = self.index.get(&format!("{FILES_PREFIX}{name}"))?;
        Some(self.tensors[*index].range.len() as u64)
    }

    /// The tokenizer's tables, if there are any.
    ///
    /// # Errors
    /// As [`model_file`](Self::model_file).
    pub(crate) fn tables(&self) -> Result<Option<Vec<u8>>> {
        self.bytes(TABLES, MAX_TABLES as u64)
    }

    pub(super) fn bytes(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(&index) = self.index.get(name) else { return Ok(None) };
        let entry = &self.tensors[index];
        if entry.dtype != Dtype::U8 || entry.shape.len() != 1 {
            let (dtype, shape) = (entry.dtype, shape_text(&entry.shape));
            return Err(self.error(name, format!("expected bytes, U8 [length], found {dtype} {shape}")));
        }
        if entry.range.len() as u64 > limit {
            let found = entry.range.len();
            return Err(self.error(name, format!("expected at most {limit} bytes, found {found}")));
        }
        self.file.read(entry.range.clone()).map(Some)
    }

    /// The vector `name`, `[len]`.
    ///
    /// # Errors
    /// `InvalidModel` if it is not there, and as [`DataFile::read`].
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let bytes = self.file.read(self.entry(name, Dtype::F32, &[len])?.range.clone())?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    /// Maps the file.
    ///
    /// # Errors
    /// `Io` when the system refuses, `InvalidModel` if the file has another length than when it was opened.
    pub(crate) fn map(&self) -> Result<Arc<dyn SharedBytes>> {
        let mapping = self.file.map()?;
        if mapping.bytes().len() != self.file.len() {
            let (expected, found) = (self.file.len(), mapping.bytes().len());
            return Err(Error::invalid_model(format!(
                "{}: expected {expected} bytes, as when it was opened, found {found}",
                self.name()
            )));
        }
        Ok(Arc::new(mapping))
    }

    /// The arrays of matrix `name`: ranges of `mapped`.
    pub(crate) fn mapped_panels<'a>(
        &'a self,
        name: &'a str,
        mapped: &'a Arc<dyn SharedBytes>,
    ) -> impl PanelSource + 'a {
        Panels { file: self, name, access: Access::Mapped(mapped) }
    }

    /// The arrays of matrix `name`, read into memory of their own.
    pub(crate) fn read_panels<'a>(&'a self, name: &'a str, region: &'a Region<'a>) -> impl PanelSource + 'a {
        Panels { file: self, name, access: Access::Read(region) }
    }

    /// Reads all data and compares it with the checksum; bf16 scales must be finite, and those of `int8` not negative.
    /// `progress` is called with bytes done and bytes in all; false cancels.
    ///
    /// # Errors
    /// `InvalidModel` for data that is not as it was written or cannot be weights; `Cancelled`; as
    /// [`DataFile::read_at`].
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<()> {
        let (mut sha256, mut buffer) = (Sha256::new(), Vec::new());
        let total = (self.file.len() - self.data_start) as u64;
        let mut done = 0;
        for entry in &self.tensors {
            let mut start = entry.range.start;
            while start < entry.range.end {
                let end = entry.range.end.min(start + PIECE);
                resize(&mut buffer, end - start)?;
                self.file.read_at(start, &mut buffer)?;
                sha256.update(&buffer);
                self.check_values(entry, &buffer)?;
                done += (end - start) as u64;
                start = end;
                if !progress(done, total) {
                    return Err(Error::new(ErrorKind::Cancelled, "verifying was cancelled"));
                }
            }
        }
        self.check_sum(&hex(&sha256.finalize()))
    }

    /// Compares the checksum of all data with what the file says.
    pub(super) fn check_sum(&self, found: &str) -> Result<()> {
        if found != self.info.data_sha256 {
            let expected = &self.info.data_sha256;
            return Err(Error::invalid_model(format!(
                "{}: the data is not as it was written: expected SHA-256 {expected}, found {found}",
                self.name()
            ))
            .with("expected", expected.clone())
            .with("found", found));
        }
        Ok(())
    }

    fn check_values(&self, entry: &Entry, bytes: &[u8]) -> Result<()> {
        let scales = entry.dtype == Dtype::BF16 && entry.name.ends_with(".scales");
        // The scales of int4, and those that a file has, may be negative.
        let signed = self.info.weights != "int8";
        // The sign bit, or all bits of the exponent.
        let unusable =
            |&[low, high]: &[u8; 2]| (high >= 0x80 && !signed) || (high & 0x7f == 0x7f && low >= 0x80);
        let message = if scales && bytes.as_chunks().0.iter().any(unusable) {
            if signed {
                "expected finite scales, found another"
            } else {
                "expected finite scales >= 0, found another"
            }
        } else {
            return Ok(());
        };
        Err(self.error(&entry.name, message))
    }
}

/// What the elements of an array are called in the file.
pub(super) fn dtype_of(element: PanelElement) -> Dtype {
    match element {
        PanelElement::I8 => Dtype::I8,
        PanelElement::U8 => Dtype::U8,
        PanelElement::Bf16 => Dtype::BF16,
        PanelElement::F32 => Dtype::F32,
        PanelElement::U16 => Dtype::U16,
    }
}

struct Panels<'a> {
    file: &'a PackedFile,
    name: &'a str,
    access: Access<'a>,
}

enum Access<'a> {
    Mapped(&'a Arc<dyn SharedBytes>),
    Read(&'a Region<'a>),
}

impl PanelSource for Panels<'_> {
    fn panel<T: Pod>(&mut self, part: &PanelPart) -> clawdbot_kernels::Result<Panel<T>> {
        let range = self.file.part(self.name, part)?;
        match self.access {
            Access::Mapped(mapped) => Panel::shared(mapped, range)
                .map_err(|error| Error::from(error).context(self.file.name()).into()),
            Access::Read(region) => {
                let mut buffer = region.zeroed::<T>(part.elements())?;
                let outcome = Mutex::new(Ok(()));
                region.parallel_chunks_mut(bytes_of_mut(&mut buffer), PIECE, |i, piece| {
                    if let Err(error) = self.file.file.read_at(range.start + i * PIECE, piece) {
                        *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                    }
                });
                outcome.into_inner().unwrap_or_else(PoisonError::into_inner)?;
                Ok(buffer.into())
            }
        }
    }
}

/// In hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
