//! The end of a pass: from the residual stream to logits.

use clawdbot_kernels::PackedMatrix;

use super::ops::{Norm, Ops, Shape};
use super::scratch::Scratch;
use crate::error::Result;
use crate::spec::DecoderSpec;

/// From the residual stream to logits.
pub(crate) struct Head<'a> {
    pub(crate) spec: &'a DecoderSpec,
    /// `[hidden_size]`
    pub(crate) norm: Option<&'a [f32]>,
    /// hidden_size -> vocab_size
    pub(crate) weight: &'a PackedMatrix,
    /// `[vocab_size]`
    pub(crate) bias: Option<&'a [f32]>,
}

impl Head<'_> {
    /// Leaves the logits of rows `taken` of `scratch.hidden` in `scratch.logits`, `[taken, vocab_size]`. There is room for
    /// them.
    ///
    /// # Errors
    /// `OutOfBudget` when scratch memory cannot be had.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        taken: &[usize],
        scratch: &mut Scratch<O::Memory>,
    ) -> Result<()> {
        let (spec, rows) = (self.spec, taken.len());
        if rows == 0 {
            return Ok(());
        }
        let norm = self.norm.map(|gains| Norm::of(spec, gains));
        ops.take_rows(&scratch.hidden, taken, norm, spec.hidden_size, &mut scratch.last);
        let logits = &mut scratch.logits;
        ops.matmul(&scratch.last, rows, self.weight, self.bias, logits, &mut scratch.codes)?;
        if spec.logit_scale != 1.0 || spec.final_logit_softcapping.is_some() {
            let shape = Shape { rows, width: spec.vocab_size };
            ops.scale_and_cap(logits, spec.logit_scale, spec.final_logit_softcapping, shape);
        }
        Ok(())
    }
}
