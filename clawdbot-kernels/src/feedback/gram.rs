//! What a matrix's inputs are like: the mean of `x^T x`, or its diagonal alone.

use std::ops::Range;

use super::BLOCK;
use crate::memory::AlignedBuf;
use crate::packing::{RowSource, for_each_part};
use crate::quantize::{ActivationFormat, QuantizedRows};
use crate::simd::LANES;
use crate::threads::Region;
use crate::{ComputeFormat, Epilogue, Error, KernelSet, Lhs, OutColumns, PackedMatrix, Result, gemm_columns};

/// Inputs are multiplied as int8, along tokens: exact sums, and as fast as a forward pass.
pub(super) const TOKENS_PER_SCALE: usize = 128;

/// The upper triangle of a symmetric or triangular matrix of `k` columns, in blocks of [`BLOCK`] columns: block `b` holds the
/// rows up to its own last, `[end of block, width of block]`.
pub(super) struct Triangle {
    pub(super) k: usize,
    pub(super) blocks: Vec<AlignedBuf<f32>>,
}

impl Triangle {
    pub(super) fn zeroed(k: usize) -> Result<Self> {
        let blocks = (0..k.div_ceil(BLOCK)).map(|b| {
            let columns = columns(k, b);
            AlignedBuf::zeroed(columns.end * columns.len())
        });
        Ok(Triangle { k, blocks: blocks.collect::<Result<_>>()? })
    }

    /// Bytes of one; none on overflow.
    fn bytes(k: usize) -> Option<u64> {
        let k = k as u64;
        k.checked_mul(k.checked_add(BLOCK as u64)?)?.checked_mul(2)
    }

    /// The element at `i`, `j` of a symmetric matrix.
    pub(super) fn at(&self, i: usize, j: usize) -> f32 {
        let (i, j) = (i.min(j), i.max(j));
        let columns = columns(self.k, j / BLOCK);
        self.blocks[j / BLOCK][i * columns.len() + j - columns.start]
    }
}

/// The columns of block `b`.
pub(super) fn columns(k: usize, b: usize) -> Range<usize> {
    b * BLOCK..((b + 1) * BLOCK).min(k)
}

/// The sum of `x^T x` over inputs `x`, `[tokens, k]`.
pub struct Gram {
    sums: Triangle,
    tokens: u64,
    /// `[k, tokens]` of one call.
    turned: AlignedBuf<f32>,
    codes: QuantizedRows,
}

impl Gram {
    /// Of inputs of `k` values.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub fn new(k: usize) -> Result<Self> {
        let (turned, codes) = (AlignedBuf::default(), QuantizedRows::default());
        Ok(Gram { sums: Triangle::zeroed(k)?, tokens: 0, turned, codes })
    }

    /// Bytes that inputs of `k` values take at most, `tokens` at a time, with the factors that are made of them; none on
    /// overflow.
    pub fn bytes(k: usize, tokens: usize) -> Option<u64> {
        // Turned, as codes on both sides, and their scales; then, for the factors, a block of columns three times.
        let of_a_column = (tokens as u64).checked_mul(7)?.checked_add(12 * BLOCK as u64)?;
        Triangle::bytes(k)?.checked_mul(2)?.checked_add((k as u64).checked_mul(of_a_column)?)
    }

    /// How many inputs were added.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds the inputs `x`, `[tokens, k]`. Sums depend on how tokens are split into calls.
    ///
    /// # Errors
    /// `InvalidArgument` for inputs that are not finite, `OutOfMemory` without memory.
    ///
    /// # Panics
    /// When `x` is not whole rows.
    pub fn add(&mut self, kernels: &KernelSet, region: &Region<'_>, x: &[f32]) -> Result<()> {
        let k = self.sums.k;
        let tokens = x.len() / k.max(1);
        assert_eq!(x.len(), tokens * k, "inputs of {k} values");
        if tokens == 0 {
            return Ok(());
        }
        self.turned.reserve(tokens * k)?;
        let turned = &mut self.turned[..tokens * k];
        turn(region, x, k, turned)?;
        let format = ActivationFormat { group: TOKENS_PER_SCALE, rotated: true };
        self.codes.quantize(kernels, region, turned, k, tokens, format)?;
        for (b, sums) in self.sums.blocks.iter_mut().enumerate() {
            let columns = columns(k, b);
            let source = Turned { values: &turned[columns.start * tokens..columns.end * tokens], tokens };
            let format = ComputeFormat::Int8 { group: TOKENS_PER_SCALE, rotated: true };
            let packed = PackedMatrix::pack(kernels, region, format, &[&source])?;
            let (width, rows) = (columns.len(), columns.end);
            let out = OutColumns { out: &mut *sums, columns: 0..width, stride: width };
            let epilogue = Epilogue { residual: true, ..Epilogue::default() };
            gemm_columns(kernels, region, Lhs::Int8(&self.codes), rows, &packed, out, epilogue);
        }
        self.tokens += tokens as u64;
        Ok(())
    }

    pub(super) fn sums(&self) -> &Triangle {
        &self.sums
    }

    /// The mean square of each column of the inputs.
    pub fn mean_squares(&self) -> Vec<f32> {
        let tokens = self.tokens.max(1) as f32;
        (0..self.sums.k).map(|i| self.sums.at(i, i) / tokens).collect()
    }
}

/// Columns that are turned at a time.
const TURNED: usize = 64;

/// `out = x^T`: from `[tokens, k]` to `[k, tokens]`. In tiles: single values that are whole rows apart would all fall into one
/// set of the cache.
///
/// # Errors
/// `InvalidArgument` for numbers that are not finite.
pub(super) fn turn(region: &Region<'_>, x: &[f32], k: usize, out: &mut [f32]) -> Result<()> {
    let tokens = x.len() / k;
    for_each_part(region, out.chunks_mut(TURNED * tokens), |part, out| {
        let first = part * TURNED;
        let mut finite = true;
        for (block, x) in x.chunks(LANES * k).enumerate() {
            let mut tile = [[0.0; TURNED]; LANES];
            let count = x.len() / k;
            for (tile, x) in tile.iter_mut().zip(x.chunks_exact(k)) {
                let x = &x[first..k.min(first + TURNED)];
                tile[..x.len()].copy_from_slice(x);
                finite &= x.iter().fold(true, |finite, x| finite & x.is_finite());
            }
            for (column, row) in out.chunks_exact_mut(tokens).enumerate() {
                let to = &mut row[block * LANES..][..count];
                to.iter_mut().zip(&tile).for_each(|(to, tile)| *to = tile[column]);
            }
        }
        match finite {
            true => Ok(()),
            false => Err(Error::InvalidArgument("an input of a matrix is not finite".to_owned())),
        }
    })
}

/// Some rows of turned inputs.
pub(super) struct Turned<'a> {
    pub(super) values: &'a [f32],
    pub(super) tokens: usize,
}

impl RowSource for Turned<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.tokens
    }
    fn cols(&self) -> usize {
        self.tokens
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * self.tokens..][..self.tokens]);
    }
}

/// The sum of squares of each column of inputs.
pub struct MeanSquares {
    sums: Vec<f64>,
}

impl MeanSquares {
    /// Of inputs of `k` values.
    pub fn new(k: usize) -> Self {
        MeanSquares { sums: vec![0.0; k] }
    }

    /// Adds an input.
    ///
    /// # Panics
    /// When it has another number of values.
    pub fn add(&mut self, x: &[f32]) {
        assert_eq!(x.len(), self.sums.len(), "values of an input");
        self.sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }

    /// The sums, by the largest.
    pub fn relative(&self) -> Vec<f32> {
        let most = self.sums.iter().copied().fold(0.0, f64::max);
        let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
        self.sums.iter().map(|sum| (sum / most) as f32).collect()
    }
}
