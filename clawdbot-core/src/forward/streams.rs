//! Several residual streams (AltUp), as in Gemma 3n: layers compute with one of them, and their results correct all.
//! Source: transformers 5, `models/gemma3n/modeling_gemma3n.py`; <https://arxiv.org/abs/2301.13310>.
//!
//! ```text
//! before all layers:  s[0] = x,  s[i] = leveled(spread[i](x), x)
//! each layer:         p[i] = s[i] + sum over j of prediction(routed(s[active]))[i][j] * s[j]
//!                     y = layer(p[active])
//!                     s[i] = p[i] + (1 + correction(routed(y))[i]) * (y - p[active])
//!                     s[i] += per-layer embeddings gated with scale * s[active], but for s[0]
//! after all layers:   x = mean of s[0] and leveled(merge[i](s[i]), s[0])
//!
//! routed(x) = tanh(router(norm(x) / hidden_size))
//! leveled(a, b) = a * sqrt(mean(b^2)) / sqrt(max(mean(a^2), 1e-5))
//! ```

use clawdbot_kernels::PackedMatrix;

use super::layer_inputs::{LayerInput, LayerInputBuffers};
use super::linear::Linear;
use super::ops::{Codes, Columns, LayerRef, Ops, Rows, Shape, Store};
use super::scratch::StreamScratch;
use crate::error::{Error, Result};
use crate::spec::{Activation, DecoderSpec, StreamsSpec};

/// Weights before and after all layers, one for each stream but the first.
pub(crate) struct Streams {
    /// hidden_size -> hidden_size
    pub(crate) spread: Vec<Linear>,
    /// hidden_size -> hidden_size
    pub(crate) merge: Vec<Linear>,
}

/// Weights of one layer. Matrices are f32.
pub(crate) struct LayerStreams {
    /// `[hidden_size]`: gains divided by `hidden_size`
    pub(crate) router_norm: Vec<f32>,
    /// hidden_size -> streams
    pub(crate) router: PackedMatrix,
    /// streams -> streams * streams
    pub(crate) prediction: PackedMatrix,
    /// streams -> streams
    pub(crate) correction: PackedMatrix,
    /// `[streams]`: ones, which are added to the corrections
    pub(crate) ones: Vec<f32>,
    /// `[hidden_size]`
    pub(crate) scale: Option<Vec<f32>>,
}

/// The active stream, and room for its norm, `[rows, hidden_size]` each.
pub(crate) struct ActiveStream<'a, R> {
    pub(crate) x: &'a mut R,
    pub(crate) normed: &'a mut R,
}

impl DecoderSpec {
    fn streams(&self) -> Result<StreamsSpec> {
        self.streams.ok_or_else(|| Error::internal("weights of several streams, and one stream"))
    }
}

impl Streams {
    /// Packed matrices, in the order of `TensorNames::packed_matrices`.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        self.spread.iter().chain(&self.merge).map(|linear| &linear.weight)
    }

    /// Makes all streams of `x`, `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn spread<O: Ops>(
        &self,
        ops: &O,
        x: &Rows<O>,
        shape: Shape,
        scratch: &mut StreamScratch<O::Memory>,
        codes: &mut Codes<O>,
    ) -> Result<()> {
        let Some((first, others)) = scratch.now.split_first_mut() else { return Ok(()) };
        ops.copy(x, shape, first);
        for (weights, stream) in self.spread.iter().zip(others) {
            ops.linear(x, shape.rows, weights, Store::Overwrite, stream, codes)?;
            ops.level(x, shape, stream);
        }
        Ok(())
    }

    /// Makes `x`, `[rows, hidden_size]`, of all streams. `one` is scratch for one of them.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn merge<O: Ops>(
        &self,
        ops: &O,
        ActiveStream { x, normed: one }: ActiveStream<'_, Rows<O>>,
        shape: Shape,
        scratch: &StreamScratch<O::Memory>,
        codes: &mut Codes<O>,
    ) -> Result<()> {
        let Some((first, others)) = scratch.now.split_first() else { return Ok(()) };
        ops.copy(first, shape, x);
        for (weights, stream) in self.merge.iter().zip(others) {
            ops.linear(stream, shape.rows, weights, Store::Overwrite, one, codes)?;
            ops.level(first, shape, one);
            ops.add_scaled(one, 1.0, shape, x);
        }
        ops.scale_and_cap(x, 1.0 / scratch.now.len() as f32, None, shape);
        Ok(())
    }
}

impl LayerStreams {
    /// Predicts all streams, and leaves the prediction of the active one in `stream.x`.
    ///
    /// # Errors
    /// `Internal` for a model with one stream.
    pub(crate) fn predict<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        stream: ActiveStream<'_, Rows<O>>,
        shape: Shape,
        scratch: &mut StreamScratch<O::Memory>,
    ) -> Result<()> {
        let StreamsSpec { count, active, .. } = spec.streams()?;
        let StreamScratch { now, predicted, routed, coefficients } = scratch;
        self.route(ops, spec, &now[active], stream.normed, shape, routed);
        ops.matmul_f32(routed, shape.rows, &self.prediction, None, coefficients);
        for (i, predicted) in predicted.iter_mut().enumerate() {
            let weights = Columns { rows: &*coefficients, stride: count * count, first: i * count };
            ops.copy(&now[i], shape, predicted);
            ops.add_weighted(now, weights, shape, predicted);
        }
        ops.copy(&predicted[active], shape, stream.x);
        Ok(())
    }

    /// Corrects all streams by the layer's result, `stream.x`, which is overwritten.
    ///
    /// # Errors
    /// `Internal` for a model with one stream.
    pub(crate) fn correct<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        stream: ActiveStream<'_, Rows<O>>,
        shape: Shape,
        scratch: &mut StreamScratch<O::Memory>,
    ) -> Result<()> {
        let StreamsSpec { count, active, .. } = spec.streams()?;
        let StreamScratch { now, predicted, routed, coefficients } = scratch;
        self.route(ops, spec, stream.x, stream.normed, shape, routed);
        ops.matmul_f32(routed, shape.rows, &self.correction, Some(&self.ones), coefficients);
        ops.add_scaled(&predicted[active], -1.0, shape, stream.x);
        for (i, predicted) in predicted.iter_mut().enumerate() {
            let weights = Columns { rows: &*coefficients, stride: count, first: i };
            ops.add_weighted(std::slice::from_ref(&*stream.x), weights, shape, predicted);
        }
        std::mem::swap(now, predicted);
        Ok(())
    }

    /// Adds the layer's slice of per-layer embeddings to all streams but the first. `scaled` is scratch,
    /// `[rows, hidden_size]`.
    ///
    /// # Errors
    /// As [`LayerInput::gated`]; `Internal` for a model with one stream.
    pub(crate) fn add_input<O: Ops>(
        &self,
        ops: &O,
        (of_layer, input): (LayerRef<'_>, &LayerInput),
        scaled: &mut Rows<O>,
        shape: Shape,
        scratch: &mut StreamScratch<O::Memory>,
        mut buffers: LayerInputBuffers<'_, O>,
    ) -> Result<()> {
        let spec = of_layer.spec;
        let now = &mut scratch.now;
        ops.copy(&now[spec.streams()?.active], shape, scaled);
        if let Some(scale) = &self.scale {
            ops.scale_columns(scaled, scale, shape);
        }
        input.gated(ops, of_layer, scaled, shape.rows, &mut buffers)?;
        ops.norm_in_place(buffers.sublayer, &input.norm, spec.rms_norm_eps, shape);
        for stream in now.iter_mut().skip(1) {
            ops.add_scaled(buffers.sublayer, spec.residual_multiplier, shape, stream);
        }
        Ok(())
    }

    /// `routed = tanh(router(norm(x) / hidden_size))`, `[rows, streams]`
    fn route<O: Ops>(
        &self,
        ops: &O,
        spec: &DecoderSpec,
        x: &Rows<O>,
        normed: &mut Rows<O>,
        shape: Shape,
        routed: &mut Rows<O>,
    ) {
        let all = Columns { rows: x, stride: shape.width, first: 0 };
        ops.norm_columns(all, &self.router_norm, spec.rms_norm_eps, shape.rows, normed);
        ops.matmul_f32(normed, shape.rows, &self.router, None, routed);
        let routed_shape = Shape { rows: shape.rows, width: self.router.n() };
        ops.activate(routed, Activation::Tanh, routed_shape);
    }
}
