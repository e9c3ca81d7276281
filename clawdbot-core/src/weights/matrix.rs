//! Views of stored tensors: raw, and as matrices whose rows can be read as f32 whatever they are stored in.

use std::ops::Range;

use half::bf16;

use super::file::{DataFile, resize};
use super::{Dtype, FloatType};
use crate::error::{Error, ErrorKind, Result};

/// A stored tensor, little-endian. Its range has exactly the size that `shape` and `dtype` say.
#[derive(Debug, Clone)]
pub(crate) struct TensorView<'a> {
    pub(crate) file: &'a DataFile,
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    /// Outermost dimension first, in elements.
    pub(crate) shape: &'a [usize],
    /// Bytes of the file.
    pub(crate) range: Range<usize>,
}

impl TensorView<'_> {
    /// An error about this tensor; the message is put after file and name.
    pub(crate) fn error(&self, kind: ErrorKind, message: impl std::fmt::Display) -> Error {
        let (file, name) = (self.file.name(), super::quoted(self.name));
        Error::new(kind, format!("{file}: tensor {name}: {message}"))
            .with("file", file)
            .with("tensor", self.name)
    }

    /// All its bytes.
    ///
    /// # Errors
    /// As [`DataFile::read`].
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        self.file.read(self.range.clone())
    }
}

/// `[2, 3]`.
pub(super) fn shape_text(shape: &[usize]) -> String {
    format!("{shape:?}")
}

/// Of a matrix `[n, k]`: outputs and inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MatrixSize {
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// A matrix `[n, k]`, row-major: `n` outputs, `k` inputs. Made by `WeightSource::matrix`, which checked the sizes.
#[derive(Debug, Clone)]
pub(crate) struct MatrixView<'a> {
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// The elements, or the codes: `[n, k]`.
    pub(super) tensor: TensorView<'a>,
    pub(crate) format: MatrixFormat,
}

/// How a matrix is stored.
#[derive(Debug, Clone)]
pub(crate) enum MatrixFormat {
    /// Elements.
    Float(FloatType),
    /// Codes with a scale per row and group.
    Int8(Int8Scales),
}

impl MatrixView<'_> {
    /// Reads rows `rows` as they are stored, one after another, to `buffer`, whatever that holds.
    ///
    /// # Errors
    /// As [`DataFile::read_at`]; `OutOfBudget` without memory.
    ///
    /// # Panics
    /// If the rows do not exist.
    pub(crate) fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> Result<()> {
        assert!(rows.start <= rows.end && rows.end <= self.n, "rows {rows:?} of {}", self.n);
        let row = self.row_bytes();
        // No overflow: the range of the tensor holds `n` rows.
        resize(buffer, rows.len() * row)?;
        self.tensor.file.read_at(self.tensor.range.start + rows.start * row, buffer)
    }

    /// Bytes of a row as stored.
    fn row_bytes(&self) -> usize {
        match self.format {
            MatrixFormat::Float(dtype) => self.k * dtype.bytes(),
            MatrixFormat::Int8(_) => self.k,
        }
    }

    /// Row `row` as f32: exact for floats, code times scale for int8. `stored` is what [`fetch`](Self::fetch) read of it.
    ///
    /// # Panics
    /// If `row >= n`, `stored` is not a row long, or `out.len() != k`.
    pub(crate) fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        assert!(row < self.n && out.len() == self.k, "row {row} of {} x {}, {}", self.n, self.k, out.len());
        assert_eq!(stored.len(), self.row_bytes(), "bytes of a row");
        match &self.format {
            MatrixFormat::Float(dtype) => dtype.decode(stored, out),
            MatrixFormat::Int8(scales) => {
                let codes = stored.chunks(scales.group);
                for (group, (out, codes)) in out.chunks_mut(scales.group).zip(codes).enumerate() {
                    let scale = scales.scale(row, group);
                    for (x, &code) in out.iter_mut().zip(codes) {
                        *x = f32::from(code as i8) * scale;
                    }
                }
            }
        }
    }

    /// Copies the codes of row `row`. `stored` is what [`fetch`](Self::fetch) read of it.
    ///
    /// # Errors
    /// `InvalidModel` if one is -128, which the format does not have.
    ///
    /// # Panics
    /// If the lengths are not k.
    pub(crate) fn read_codes(&self, row: usize, stored: &[u8], out: &mut [i8]) -> Result<()> {
        assert!(stored.len() == self.k && out.len() == self.k, "length of a row of codes");
        let mut lowest = 0;
        for (x, &code) in out.iter_mut().zip(stored) {
            *x = code as i8;
            lowest = lowest.min(*x);
        }
        if lowest == i8::MIN {
            let message = format!("expected codes in [-127, 127], found -128 in row {row}");
            return Err(self.tensor.error(ErrorKind::InvalidModel, message));
        }
        Ok(())
    }

    /// Tells the system that the matrix will be read soon.
    pub(crate) fn will_need(&self) {
        self.tensor.file.will_need(self.tensor.range.clone());
    }

    /// The dtype of the elements as stored.
    pub(crate) fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }
}

/// Scales of symmetric int8: `weight[row][i] = code[row][i] * scale[row][i / group]`, finite and not negative.
#[derive(Debug, Clone)]
pub(crate) struct Int8Scales {
    /// `[n, groups]`, bf16 bits.
    scales: Vec<u16>,
    /// Codes that share a scale; the last group of a row may be shorter.
    group: usize,
    /// Scales per row.
    groups: usize,
}

/// A scale that cannot be used.
pub(super) struct InvalidScale {
    pub(super) row: usize,
    pub(super) group: usize,
    pub(super) value: f32,
}

impl Int8Scales {
    /// `bytes`: `[n, groups]`, bf16, little-endian.
    pub(super) fn new(bytes: &[u8], k: usize, group: usize) -> Self {
        let scales = bytes.as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect();
        Int8Scales { scales, group, groups: k.div_ceil(group) }
    }

    /// Codes that share a scale.
    pub(crate) fn group(&self) -> usize {
        self.group
    }

    /// The first scale that is not finite or is negative.
    pub(super) fn invalid(&self) -> Option<InvalidScale> {
        let scale = |bits: u16| bf16::from_bits(bits).to_f32();
        let index = self.scales.iter().position(|&bits| !(scale(bits).is_finite() && scale(bits) >= 0.0))?;
        let value = scale(self.scales[index]);
        Some(InvalidScale { row: index / self.groups, group: index % self.groups, value })
    }

    /// The scale of one group of a row.
    ///
    /// # Panics
    /// If the group does not exist.
    pub(crate) fn scale(&self, row: usize, group: usize) -> f32 {
        bf16::from_bits(self.row(row)[group]).to_f32()
    }

    /// The scales of row `row`, one per group, as bf16 bits.
    ///
    /// # Panics
    /// If the row does not exist.
    pub(crate) fn row(&self, row: usize) -> &[u16] {
        &self.scales[row * self.groups..][..self.groups]
    }
}
