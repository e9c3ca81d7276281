//! What outputs should be besides those of the weights, as far as the inputs explain it.

use super::BLOCK;
use super::gram::{TOKENS_PER_SCALE, Turned, columns, turn};
use crate::memory::AlignedBuf;
use crate::quantize::{ActivationFormat, QuantizedRows};
use crate::threads::Region;
use crate::{ComputeFormat, Epilogue, KernelSet, Lhs, OutColumns, PackedMatrix, Result, gemm_columns};

/// The sum of `t^T x` over inputs `x`, `[tokens, k]`, and what outputs should be besides `W x`: `t`, `[tokens, n]`.
pub struct Drift {
    /// `[n, k]`
    pub(super) sums: AlignedBuf<f32>,
    pub(super) n: usize,
    pub(super) k: usize,
    turned: [AlignedBuf<f32>; 2],
    codes: QuantizedRows,
}

impl Drift {
    /// Of `n` outputs for `k` inputs.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub fn new(n: usize, k: usize) -> Result<Self> {
        let turned = [AlignedBuf::default(), AlignedBuf::default()];
        Ok(Drift { sums: AlignedBuf::zeroed(n * k)?, n, k, turned, codes: QuantizedRows::default() })
    }

    /// Bytes of one, `tokens` at a time; none on overflow.
    pub fn bytes(n: usize, k: usize, tokens: usize) -> Option<u64> {
        let (n, k, tokens) = (n as u64, k as u64, tokens as u64);
        // Turned, as codes, and their scales; a block of inputs packed.
        let turned = n.checked_add(k)?.checked_add(BLOCK as u64)?.checked_mul(6)?.checked_mul(tokens)?;
        n.checked_mul(k)?.checked_mul(4)?.checked_add(turned)
    }

    /// Number of outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Adds some tokens.
    ///
    /// # Errors
    /// `InvalidArgument` for numbers that are not finite, `OutOfMemory` without memory.
    ///
    /// # Panics
    /// When the lengths disagree.
    pub fn add(&mut self, kernels: &KernelSet, region: &Region<'_>, t: &[f32], x: &[f32]) -> Result<()> {
        let tokens = x.len() / self.k.max(1);
        assert!(x.len() == tokens * self.k && t.len() == tokens * self.n, "inputs and outputs of tokens");
        if tokens == 0 {
            return Ok(());
        }
        let [turned_t, turned_x] = &mut self.turned;
        turned_t.reserve(tokens * self.n)?;
        turned_x.reserve(tokens * self.k)?;
        let (turned_t, turned_x) = (&mut turned_t[..tokens * self.n], &mut turned_x[..tokens * self.k]);
        turn(region, t, self.n, turned_t)?;
        turn(region, x, self.k, turned_x)?;
        let format = ActivationFormat { group: TOKENS_PER_SCALE, rotated: true };
        self.codes.quantize(kernels, region, turned_t, self.n, tokens, format)?;
        for b in 0..self.k.div_ceil(BLOCK) {
            let columns = columns(self.k, b);
            let source = Turned { values: &turned_x[columns.start * tokens..columns.end * tokens], tokens };
            let format = ComputeFormat::Int8 { group: TOKENS_PER_SCALE, rotated: true };
            let packed = PackedMatrix::pack(kernels, region, format, &[&source])?;
            let out = OutColumns { out: &mut self.sums, columns, stride: self.k };
            let epilogue = Epilogue { residual: true, ..Epilogue::default() };
            gemm_columns(kernels, region, Lhs::Int8(&self.codes), self.n, &packed, out, epilogue);
        }
        Ok(())
    }
}
