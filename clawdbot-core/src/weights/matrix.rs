//! Views of stored tensors: raw, and as matrices whose rows can be read as f32 whatever they are stored in.

use half::bf16;

use super::{Dtype, FloatType};
use crate::error::{Error, ErrorKind, Result};

/// A stored tensor. `data` has exactly the size that `shape` and `dtype` say, at any alignment, little-endian.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorView<'a> {
    /// File, for messages.
    pub(crate) file: &'a str,
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    /// Outermost dimension first, in elements.
    pub(crate) shape: &'a [usize],
    pub(crate) data: &'a [u8],
}

impl TensorView<'_> {
    /// An error about this tensor; the message is put behind file and name.
    pub(crate) fn error(&self, kind: ErrorKind, message: impl std::fmt::Display) -> Error {
        let name = super::quoted(self.name);
        Error::new(kind, format!("{}: tensor {name}: {message}", self.file))
            .with("file", self.file)
            .with("tensor", self.name)
    }
}

/// `[2, 3]`.
pub(super) fn shape_text(shape: &[usize]) -> String {
    format!("{shape:?}")
}

/// A matrix `[n, k]`, row-major: `n` outputs, `k` inputs. Made by `WeightSource::matrix`, which checked the sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatrixView<'a> {
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) source: MatrixSource<'a>,
}

/// How a matrix is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MatrixSource<'a> {
    /// `data`: `[n, k]` elements, little-endian, at any alignment.
    Float { dtype: FloatType, data: &'a [u8] },
    /// Codes with a scale per row and group.
    Int8(Int8View<'a>),
}

impl MatrixView<'_> {
    /// Row `row` as f32: exact for floats, code times scale for int8.
    ///
    /// # Panics
    /// If `row >= n` or `out.len() != k`.
    pub(crate) fn read_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n && out.len() == self.k, "row {row} of {} x {}, {}", self.n, self.k, out.len());
        match self.source {
            MatrixSource::Float { dtype, data } => {
                let bytes = self.k * dtype.bytes();
                dtype.decode(&data[row * bytes..][..bytes], out);
            }
            MatrixSource::Int8(int8) => {
                let codes = int8.row(row).chunks(int8.group);
                for (group, (out, codes)) in out.chunks_mut(int8.group).zip(codes).enumerate() {
                    let scale = int8.scale(row, group);
                    for (x, &code) in out.iter_mut().zip(codes) {
                        *x = f32::from(code as i8) * scale;
                    }
                }
            }
        }
    }

    /// The dtype of the elements as stored.
    pub(crate) fn dtype(&self) -> Dtype {
        match self.source {
            MatrixSource::Float { dtype: FloatType::F32, .. } => Dtype::F32,
            MatrixSource::Float { dtype: FloatType::F16, .. } => Dtype::F16,
            MatrixSource::Float { dtype: FloatType::BF16, .. } => Dtype::BF16,
            MatrixSource::Int8(_) => Dtype::I8,
        }
    }
}

/// Symmetric int8: `weight[row][i] = code[row][i] * scale[row][i / group]`. Every scale is finite and not negative.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int8View<'a> {
    /// `[n, k]`, two's complement.
    pub(super) codes: TensorView<'a>,
    /// `[n, groups]`, bf16, little-endian.
    pub(super) scales: &'a [u8],
    /// Codes per row.
    pub(super) k: usize,
    /// Codes that share a scale; the last group of a row may be shorter.
    pub(super) group: usize,
}

impl<'a> Int8View<'a> {
    /// Codes that share a scale.
    pub(crate) fn group(&self) -> usize {
        self.group
    }

    /// Scales per row.
    pub(crate) fn groups(&self) -> usize {
        self.k.div_ceil(self.group)
    }

    /// The scale of one group of a row.
    ///
    /// # Panics
    /// If the group does not exist.
    pub(crate) fn scale(&self, row: usize, group: usize) -> f32 {
        assert!(group < self.groups(), "group {group} of {}", self.groups());
        self.scale_at(row * self.groups() + group)
    }

    pub(super) fn scale_at(&self, i: usize) -> f32 {
        bf16::from_bits(self.scale_bits(i)).to_f32()
    }

    fn scale_bits(&self, i: usize) -> u16 {
        u16::from_le_bytes([self.scales[2 * i], self.scales[2 * i + 1]])
    }

    /// Copies the scales of row `row`, one per group, as bf16 bits.
    ///
    /// # Panics
    /// If the row does not exist.
    pub(crate) fn read_scales(&self, row: usize, out: &mut [u16]) {
        out.iter_mut()
            .enumerate()
            .for_each(|(group, scale)| *scale = self.scale_bits(row * self.groups() + group));
    }

    /// Copies the codes of row `row`, `k` of them.
    ///
    /// # Errors
    /// `InvalidModel` if one is -128, which symmetric kernels cannot negate.
    ///
    /// # Panics
    /// If the row does not exist or `out.len() != k`.
    pub(crate) fn read_codes(&self, row: usize, out: &mut [i8]) -> Result<()> {
        assert_eq!(out.len(), self.k, "length of the output");
        let mut lowest = 0;
        for (x, &code) in out.iter_mut().zip(self.row(row)) {
            *x = code as i8;
            lowest = lowest.min(*x);
        }
        if lowest == i8::MIN {
            let message = format!("expected codes in [-127, 127], found -128 in row {row}");
            return Err(self.codes.error(ErrorKind::InvalidModel, message));
        }
        Ok(())
    }

    fn row(&self, row: usize) -> &'a [u8] {
        &self.codes.data[row * self.k..][..self.k]
    }
}
