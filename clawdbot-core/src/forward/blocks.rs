//! What a layer is put together from: norms of the residual stream, gated MLPs, and how their results are added.

use clawdbot_kernels::{Epilogue, KernelSet, Lhs, QuantizedRows, gemm, gemm_gated, takes_gated};

use super::decoder::{Linear, Ops};
use super::moe::{Choice, MoeWeights};
use crate::error::Result;
use crate::spec::{Activation, DecoderSpec, NormKind};

/// The second half of a layer.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
pub(crate) enum Mlp {
    Dense(GatedMlp),
    Plain(PlainMlp),
    Moe(Box<MoeWeights>),
}

/// Weights of a gated MLP.
pub(crate) struct GatedMlp {
    /// hidden_size -> gate and up, `PackedMatrix::pack_gated`
    pub(crate) gate_up: Linear,
    /// intermediate_size -> hidden_size
    pub(crate) down: Linear,
}

/// Weights of an MLP without a gate.
pub(crate) struct PlainMlp {
    /// hidden_size -> intermediate_size
    pub(crate) up: Linear,
    /// intermediate_size -> hidden_size
    pub(crate) down: Linear,
}

/// The buffers of [`GatedMlp::forward`].
pub(crate) struct MlpBuffers<'a> {
    /// `[rows, intermediate_size]` or more
    pub(crate) activated: &'a mut [f32],
    pub(crate) quantized: &'a mut QuantizedRows,
    /// Of what is activated
    pub(crate) codes: &'a mut QuantizedRows,
}

impl GatedMlp {
    /// `out = down(act(gate(x)) * up(x))`, or `out += ...` with `residual`. `x` and `out` are `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward(
        &self,
        ops: &Ops<'_>,
        activation: Activation,
        (x, rows): (&[f32], usize),
        (out, residual): (&mut [f32], bool),
        buffers: &mut MlpBuffers<'_>,
    ) -> Result<()> {
        let MlpBuffers { activated, quantized, codes } = buffers;
        let gate_up = &self.gate_up;
        let adapted = ops.is_adapted(gate_up) || ops.is_adapted(&self.down);
        if let Some((group, rotated)) = self.activations()
            && !adapted
        {
            quantized.quantize(ops.kernels, ops.region, x, rows, gate_up.weight.k(), group, rotated)?;
            return self.of_codes(ops, activation, (quantized, rows), (out, residual), (activated, codes));
        }
        let activated = &mut activated[..rows * self.down.weight.k()];
        let gate = Epilogue { bias: gate_up.bias.as_deref(), gate: Some(activation), ..Epilogue::default() };
        ops.adapted(x, rows, gate_up, activated, gate, quantized)?;
        ops.linear(activated, rows, &self.down, out, residual, quantized)
    }

    /// What its inputs are quantized to; none where they are not.
    pub(crate) fn activations(&self) -> Option<(usize, bool)> {
        self.gate_up.weight.format().activations()
    }

    /// As [`GatedMlp::forward`], of rows that are quantized already, as [`GatedMlp::activations`] says: those of `from` that
    /// `taken` lists, or all.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward_quantized(
        &self,
        ops: &Ops<'_>,
        activation: Activation,
        (from, taken, rows): (&QuantizedRows, Option<&[Choice]>, usize),
        out: &mut [f32],
        buffers: &mut MlpBuffers<'_>,
    ) -> Result<()> {
        let MlpBuffers { activated, quantized, codes } = buffers;
        let mut from = from;
        if let Some(taken) = taken {
            quantized.gather(from, rows, taken.iter().map(|choice| choice.row))?;
            from = quantized;
        }
        self.of_codes(ops, activation, (from, rows), (out, false), (activated, codes))
    }

    fn of_codes(
        &self,
        ops: &Ops<'_>,
        activation: Activation,
        (from, rows): (&QuantizedRows, usize),
        (out, residual): (&mut [f32], bool),
        (activated, codes): (&mut [f32], &mut QuantizedRows),
    ) -> Result<()> {
        let Ops { kernels, region, .. } = ops;
        let (gate_up, down) = (&self.gate_up.weight, &self.down.weight);
        let activated = &mut activated[..rows * down.k()];
        let bias = self.gate_up.bias.as_deref();
        let gate = Epilogue { bias, gate: Some(activation), ..Epilogue::default() };
        if takes_gated(rows, gate_up, down) {
            gemm_gated(kernels, region, from, rows, gate_up, gate, down, activated, codes)?;
            let epilogue = Epilogue { bias: self.down.bias.as_deref(), residual, ..Epilogue::default() };
            gemm(kernels, region, Lhs::Int8(codes), rows, down, out, epilogue);
            return Ok(());
        }
        gemm(kernels, region, Lhs::Int8(from), rows, gate_up, activated, gate);
        ops.linear(activated, rows, &self.down, out, residual, codes)
    }
}

impl PlainMlp {
    /// `out = down(act(up(x)))`, or `out += ...` with `residual`; without `x` the input is `out`. Both are
    /// `[rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward(
        &self,
        ops: &Ops<'_>,
        activation: Activation,
        (x, rows): (Option<&[f32]>, usize),
        (out, residual): (&mut [f32], bool),
        buffers: &mut MlpBuffers<'_>,
    ) -> Result<()> {
        let MlpBuffers { activated, quantized, .. } = buffers;
        let width = self.down.weight.k();
        let activated = &mut activated[..rows * width];
        ops.linear(x.unwrap_or(out), rows, &self.up, activated, false, quantized)?;
        ops.by_rows(activated, width, |_, row| ops.kernels.activate_in_place(activation, row));
        ops.linear(activated, rows, &self.down, out, residual, quantized)
    }
}

impl DecoderSpec {
    /// Whether what a half of a layer gives can be added to the residual stream as it is.
    pub(crate) fn adds_directly(&self, out_norm: Option<&Vec<f32>>) -> bool {
        out_norm.is_none() && self.residual_multiplier == 1.0
    }

    /// Whether some half of a layer needs a buffer for what it gives.
    pub(crate) fn needs_sublayer(&self) -> bool {
        let norms = self.names.attention_out_norm.or(self.names.mlp_out_norm);
        let inputs = self.per_layer_inputs.is_some();
        let moe = self.layers.iter().any(|layer| layer.moe);
        norms.is_some() || self.residual_multiplier != 1.0 || inputs || moe
    }
}

/// One row of the residual stream, normed. `gains` has the biases after them, if there are any.
pub(crate) fn norm_row(kernels: &KernelSet, spec: &DecoderSpec, x: &[f32], gains: &[f32], out: &mut [f32]) {
    let (gains, bias) = gains.split_at(x.len());
    match spec.norm {
        NormKind::Rms { .. } => kernels.rms_norm(x, gains, spec.rms_norm_eps, out),
        NormKind::Layer { bias: has } => {
            kernels.layer_norm(x, gains, has.then_some(bias), spec.rms_norm_eps, out);
        }
    }
}

impl Ops<'_> {
    /// The input of a half of a layer: `out = norm(x)`; without gains a copy. `[rows, hidden_size]` each.
    pub(crate) fn input(&self, spec: &DecoderSpec, x: &[f32], gains: Option<&[f32]>, out: &mut [f32]) {
        let (width, kernels) = (spec.hidden_size, self.kernels);
        self.by_rows(out, width, |row, out| {
            let x = &x[row * width..][..width];
            match gains {
                Some(gains) => norm_row(kernels, spec, x, gains, out),
                None => out.copy_from_slice(x),
            }
        });
    }

    /// `x += norm(sublayer) * residual_multiplier`; without gains `sublayer` as it is. It is normed in place.
    pub(crate) fn join(
        &self,
        spec: &DecoderSpec,
        sublayer: &mut [f32],
        gains: Option<&[f32]>,
        x: &mut [f32],
    ) {
        let width = spec.hidden_size;
        if let Some(gains) = gains {
            self.by_rows(sublayer, width, |_, row| {
                self.kernels.norm_in_place(row, gains, spec.rms_norm_eps);
            });
        }
        self.by_rows(x, width, |row, x| {
            self.kernels.add_scaled(&sublayer[row * width..][..width], spec.residual_multiplier, x);
        });
    }
}
