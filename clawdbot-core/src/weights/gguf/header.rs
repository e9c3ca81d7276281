//! The header: metadata and the places of the tensors.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::TensorType;
use super::cursor::Cursor;
use super::value::{MAX_KEY_BYTES, Metadata, Value};
use crate::error::{Error, Result};
use crate::weights::{DataFile, quoted};

/// The first bytes of every file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Longest header in bytes. A vocabulary of a million tokens with their merges is a tenth of this.
const MAX_HEADER_BYTES: usize = 256 << 20;
/// Most pairs of metadata.
const MAX_PAIRS: u64 = 1 << 16;
/// Most tensors of a file.
const MAX_TENSORS: u64 = 1 << 20;
/// Most dimensions of a tensor.
const MAX_RANK: u32 = 4;
/// Fewest bytes of a pair (empty key, type, one byte) and of a tensor (empty name, rank, type, offset).
const PAIR_BYTES: usize = 8 + 4 + 1;
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;
/// Where tensors begin unless `general.alignment` says otherwise: at multiples of this.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A checked header: every range lies in the file, has the size that shape and type say, and overlaps no other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GgufHeader {
    pub(crate) metadata: Metadata,
    /// In the order of their data.
    pub(crate) tensors: Vec<GgufTensor>,
    /// Where the header ends.
    pub(crate) header_bytes: usize,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GgufTensor {
    pub(crate) name: String,
    pub(crate) kind: TensorType,
    /// Outermost dimension first, in weights.
    pub(crate) shape: Vec<usize>,
    /// Bytes of the file, counted from its start.
    pub(crate) range: Range<usize>,
}

impl GgufHeader {
    /// Reads and checks the header of `file`.
    ///
    /// # Errors
    /// `InvalidModel` naming file, key or tensor, expected and found; `UnsupportedModel` for other versions, byte order and
    /// tensor types; as [`DataFile::read_at`].
    pub(crate) fn read(file: &DataFile) -> Result<Self> {
        let parsed = Self::parse(file);
        parsed.map_err(|error| error.context(file.name()).with("file", file.name()))
    }

    fn parse(file: &DataFile) -> Result<Self> {
        let mut cursor = Cursor::new(file, MAX_HEADER_BYTES);
        let magic = cursor.array::<4>()?;
        if magic != *MAGIC {
            return Err(Error::invalid_model(format!(
                "expected a GGUF file, which begins with GGUF, found {magic:?}"
            )));
        }
        check_version(cursor.u32()?)?;
        let (tensors, pairs) = (cursor.u64()?, cursor.u64()?);
        for (count, most, what) in [(tensors, MAX_TENSORS, "tensors"), (pairs, MAX_PAIRS, "metadata pairs")] {
            if count > most {
                return Err(Error::invalid_model(format!("expected at most {most} {what}, found {count}")));
            }
        }
        let mut map = BTreeMap::new();
        for _ in 0..cursor.check_count(pairs, PAIR_BYTES, "metadata pairs")? {
            let key = cursor.string(MAX_KEY_BYTES).map_err(|error| error.context("a metadata key"))?;
            let value = Value::read(&mut cursor);
            let value = value.map_err(|error| error.context(format!("metadata {}", quoted(&key))))?;
            if map.contains_key(&key) {
                return Err(Error::invalid_model(format!("metadata {}: the key occurs twice", quoted(&key))));
            }
            map.insert(key, value);
        }
        let metadata = Metadata { file: file.name().to_owned(), map };
        let mut infos = Vec::new();
        let mut names = HashSet::new();
        for number in 0..cursor.check_count(tensors, TENSOR_BYTES, "tensors")? {
            let name = cursor.string(MAX_KEY_BYTES);
            let name = name.map_err(|error| error.context(format!("the name of tensor {number}")))?;
            let info = Info::read(&mut cursor);
            let info = info.map_err(|error| error.context(format!("tensor {}", quoted(&name))))?;
            if !names.insert(name.clone()) {
                return Err(Error::invalid_model(format!("tensor {}: the name occurs twice", quoted(&name))));
            }
            infos.push((name, info));
        }
        let header_bytes = cursor.position();
        let alignment = alignment(&metadata)?;
        let places =
            Places { start: data_start(header_bytes, alignment)?, end: file.len() as u64, alignment };
        let mut tensors = Vec::new();
        for (name, info) in infos {
            let range =
                places.range(&info).map_err(|error| error.context(format!("tensor {}", quoted(&name))))?;
            tensors.push(GgufTensor { name, kind: info.kind, shape: info.shape, range });
        }
        tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
        for pair in tensors.windows(2) {
            if pair[1].range.start < pair[0].range.end {
                return Err(Error::invalid_model(format!(
                    "tensor {}: expected its data after that of {}, which ends at byte {}, found it at byte {}",
                    quoted(&pair[1].name),
                    quoted(&pair[0].name),
                    pair[0].range.end,
                    pair[1].range.start
                )));
            }
        }
        Ok(GgufHeader { metadata, tensors, header_bytes })
    }
}

fn check_version(version: u32) -> Result<()> {
    match version {
        2 | 3 => Ok(()),
        _ if version & 0xffff == 0 && version != 0 => Err(Error::unsupported_model(format!(
            "expected a little-endian file, found big-endian (version {})",
            version.swap_bytes()
        ))),
        _ => Err(Error::unsupported_model(format!("expected GGUF version 2 or 3, found {version}"))),
    }
}

/// # Errors
/// `InvalidModel` for what is no power of two.
fn alignment(metadata: &Metadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    match metadata.opt_u64(KEY)? {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(alignment) if alignment.is_power_of_two() => Ok(alignment),
        Some(_) => Err(metadata.invalid(KEY, "a power of two")),
    }
}

/// Where the data begins. Without tensors there may be none, so nothing says that this is inside of the file.
fn data_start(header_bytes: usize, alignment: u64) -> Result<u64> {
    (header_bytes as u64).checked_next_multiple_of(alignment).ok_or_else(|| {
        Error::invalid_model(format!("general.alignment: expected one that fits the file, found {alignment}"))
    })
}

/// What the header says of a tensor.
struct Info {
    kind: TensorType,
    /// Outermost dimension first.
    shape: Vec<usize>,
    /// Of its data.
    bytes: u64,
    offset: u64,
}

impl Info {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        let rank = cursor.u32()?;
        if rank > MAX_RANK {
            return Err(Error::invalid_model(format!(
                "expected at most {MAX_RANK} dimensions, found {rank}"
            )));
        }
        let mut dims = Vec::new();
        for _ in 0..rank {
            dims.push(cursor.u64()?);
        }
        let kind = TensorType::from_id(cursor.u32()?)?;
        let offset = cursor.u64()?;
        let bytes = size(kind, &dims)?;
        let overflow = || Error::invalid_model(format!("the size of {} {dims:?} overflows", kind.name()));
        let shape = dims.iter().rev().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<_>>>();
        Ok(Info { kind, shape: shape.ok_or_else(overflow)?, bytes, offset })
    }
}

/// Bytes of a tensor of these dimensions, innermost first: rows of whole blocks.
fn size(kind: TensorType, dims: &[u64]) -> Result<u64> {
    let overflow = || Error::invalid_model(format!("the size of {} {dims:?} overflows", kind.name()));
    let (&row, outer) = dims.split_first().unwrap_or((&1, &[]));
    let block = kind.block() as u64;
    if !row.is_multiple_of(block) {
        return Err(Error::invalid_model(format!(
            "expected rows of a multiple of {block} weights, as {} has them in blocks, found {row}",
            kind.name()
        )));
    }
    // A zero does not excuse absurd other dimensions: the product without it must fit as well.
    let mut bytes = (row / block).max(1).checked_mul(kind.block_bytes() as u64).ok_or_else(overflow)?;
    for &dim in outer {
        bytes = bytes.checked_mul(dim.max(1)).ok_or_else(overflow)?;
    }
    Ok(if dims.contains(&0) { 0 } else { bytes })
}

/// Where tensors may be.
struct Places {
    /// First byte of the data.
    start: u64,
    /// Length of the file.
    end: u64,
    alignment: u64,
}

impl Places {
    fn range(&self, info: &Info) -> Result<Range<usize>> {
        let Info { bytes, offset, .. } = *info;
        if !offset.is_multiple_of(self.alignment) {
            return Err(Error::invalid_model(format!(
                "expected an offset that is a multiple of {}, found {offset}",
                self.alignment
            )));
        }
        let start = self.start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes)).filter(|&end| end <= self.end);
        let range = start
            .zip(end)
            .and_then(|(start, end)| Some((usize::try_from(start).ok()?, usize::try_from(end).ok()?)));
        match range {
            Some((start, end)) => Ok(start..end),
            None => Err(Error::invalid_model(format!(
                "expected {bytes} bytes of data within the {} after the header, found the offset {offset}; \
                 the file may be truncated",
                self.end.saturating_sub(self.start)
            ))),
        }
    }
}
