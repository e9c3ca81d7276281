//! Per-layer embeddings, as in Gemma 3n and 4: a second embedding has a short vector for each token and layer. A layer gates its
//! vector with the residual stream, projects it and adds it.
//! Source: transformers 5, `models/gemma4/modeling_gemma4.py`.
//!
//! ```text
//! p[layer] = (norm(projection(x) / sqrt(hidden_size)) + sqrt(size) * embedding[token][layer]) / sqrt(2)
//! after each layer:  x += norm(projection(act(gate(x)) * p[layer]))
//! ```

use clawdbot_kernels::PackedMatrix;

use super::batch::Batch;
use super::blocks::join;
use super::linear::Linear;
use super::ops::{Codes, Columns, Embedding, LayerRef, Ops, Rows, Shape, Store};
use super::scratch::InputScratch;
use crate::error::{Error, Result};
use crate::spec::{DecoderSpec, PerLayerSpec};

/// Weights that are shared by all layers.
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

/// The buffers of [`LayerInput::forward`].
pub(crate) struct LayerInputBuffers<'a, O: Ops> {
    /// `[rows, hidden_size]`
    pub(crate) sublayer: &'a mut Rows<O>,
    pub(crate) inputs: &'a mut InputScratch<O::Memory>,
    pub(crate) codes: &'a mut Codes<O>,
}

impl LayerInputs {
    /// Packed matrices, in the order of `TensorNames::packed_matrices`.
    pub(crate) fn matrices(&self) -> [&PackedMatrix; 2] {
        [&self.embedding, &self.projection.weight]
    }

    /// Computes the vectors of all layers for the tokens of `batch`, whose embeddings are `x`, `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        batch: &Batch<'_>,
        x: &Rows<O>,
        scratch: &mut InputScratch<O::Memory>,
        codes: &mut Codes<O>,
    ) -> Result<()> {
        let InputScratch { all, looked_up, .. } = scratch;
        let multiplier = (self.norm.len() as f32).sqrt();
        ops.embed(&Embedding { table: &self.embedding, multiplier, added: None }, batch, looked_up);
        ops.linear(x, batch.rows(), &self.projection, Store::Overwrite, all, codes)?;
        let shape = Shape { rows: batch.rows(), width: self.projection.weight.n() };
        ops.combine_layer_inputs(all, looked_up, &self.norm, spec, shape);
        Ok(())
    }
}

impl LayerInput {
    /// Adds the layer's gated vectors to `x`, `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        LayerRef { spec, layer }: LayerRef<'_>,
        x: &mut Rows<O>,
        rows: usize,
        mut buffers: LayerInputBuffers<'_, O>,
    ) -> Result<()> {
        self.gated(ops, LayerRef { spec, layer }, x, rows, &mut buffers)?;
        join(ops, spec, buffers.sublayer, Some(&self.norm), rows, x);
        Ok(())
    }

    /// Leaves the layer's vectors, gated with `x`, `[rows, hidden_size]`, and projected, in `buffers.sublayer`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn gated<O: Ops>(
        &self,
        ops: &O,
        LayerRef { spec, layer }: LayerRef<'_>,
        x: &Rows<O>,
        rows: usize,
        LayerInputBuffers { sublayer, inputs: scratch, codes }: &mut LayerInputBuffers<'_, O>,
    ) -> Result<()> {
        let PerLayerSpec { size, .. } =
            spec.per_layer_inputs.ok_or_else(|| Error::internal("an input of a layer without sizes"))?;
        let InputScratch { all, gates, gated, .. } = scratch;
        ops.linear(x, rows, &self.gate, Store::Overwrite, gates, codes)?;
        let inputs = Columns { rows: &*all, stride: size * spec.num_hidden_layers, first: layer * size };
        ops.gate_columns(inputs, gates, spec.activation, Shape { rows, width: size }, gated);
        ops.linear(gated, rows, &self.projection, Store::Overwrite, sublayer, codes)
    }
}
