//! Per-layer embeddings, as Gemma 4 has them: each layer gets a few elements more for a token, and adds what they say about
//! the residual stream to it.
//! Source: transformers 5, `models/gemma4/modeling_gemma4.py`.
//!
//! ```text
//! p[layer] = (norm(projection(x) / sqrt(hidden_size)) + sqrt(size) * embedding[token][layer]) / sqrt(2)
//! after each layer:  x += norm(projection(act(gate(x)) * p[layer]))
//! ```

use clawdbot_kernels::{PackedMatrix, QuantizedRows};

use super::batch::Batch;
use super::decoder::{Linear, Ops};
use super::scratch::InputScratch;
use crate::error::{Error, Result};
use crate::spec::{DecoderSpec, PerLayerSpec};

/// Weights that all layers have in common.
pub(crate) struct LayerInputs {
    /// `[vocab_size, layers * size]`
    pub(crate) embedding: PackedMatrix,
    /// hidden_size -> layers * size
    pub(crate) projection: Linear,
    /// `[size]`
    pub(crate) norm: Vec<f32>,
}

/// Weights of one layer.
pub(crate) struct LayerInput {
    /// hidden_size -> size
    pub(crate) gate: Linear,
    /// size -> hidden_size
    pub(crate) projection: Linear,
    /// `[hidden_size]`
    pub(crate) norm: Vec<f32>,
}

impl LayerInputs {
    /// Packed matrices, in the order of `TensorNames::packed_matrices`.
    pub(crate) fn matrices(&self) -> [&PackedMatrix; 2] {
        [&self.embedding, &self.projection.weight]
    }

    /// What the layers get for the tokens of `batch`, whose rows of the first embedding are `x`, `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward(
        &self,
        ops: &Ops<'_>,
        spec: &DecoderSpec,
        batch: &Batch<'_>,
        x: &[f32],
        scratch: &mut InputScratch,
        quantized: &mut QuantizedRows,
    ) -> Result<()> {
        let (rows, width, size) = (batch.rows(), self.projection.weight.n(), self.norm.len());
        let looked_up = &mut scratch.looked_up[..rows * width];
        let factor = (size as f32).sqrt();
        ops.by_rows(looked_up, width, |row, out| {
            self.embedding.read_row(ops.kernels, batch.tokens[row] as usize, out);
            ops.kernels.scale_and_cap(factor, None, out);
        });
        let all = &mut scratch.all[..rows * width];
        ops.linear(x, rows, &self.projection, all, false, quantized)?;
        let factor = 1.0 / (spec.hidden_size as f32).sqrt();
        ops.by_rows(all, width, |row, out| {
            ops.kernels.scale_and_cap(factor, None, out);
            for out in out.chunks_exact_mut(size) {
                ops.kernels.norm_in_place(out, &self.norm, spec.rms_norm_eps);
            }
            ops.kernels.add_scaled(&looked_up[row * width..][..width], 1.0, out);
            ops.kernels.scale_and_cap(std::f32::consts::FRAC_1_SQRT_2, None, out);
        });
        Ok(())
    }
}

impl LayerInput {
    /// Adds to `x`, `[rows, hidden_size]`, what layer `layer` has got.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward(
        &self,
        ops: &Ops<'_>,
        (spec, layer): (&DecoderSpec, usize),
        (x, rows): (&mut [f32], usize),
        sublayer: &mut [f32],
        scratch: &mut InputScratch,
        quantized: &mut QuantizedRows,
    ) -> Result<()> {
        let PerLayerSpec { size, .. } =
            spec.per_layer_inputs.ok_or_else(|| Error::internal("an input of a layer without sizes"))?;
        let InputScratch { all, gates, gated, .. } = scratch;
        let gates = &mut gates[..rows * size];
        ops.linear(x, rows, &self.gate, gates, false, quantized)?;
        let (gated, width) = (&mut gated[..rows * size], size * spec.num_hidden_layers);
        ops.by_rows(gated, size, |row, out| {
            out.copy_from_slice(&all[row * width + layer * size..][..size]);
            ops.kernels.activate(spec.activation, &gates[row * size..][..size], out);
        });
        ops.linear(gated, rows, &self.projection, sublayer, false, quantized)?;
        ops.join(spec, sublayer, Some(&self.norm), x);
        Ok(())
    }
}
