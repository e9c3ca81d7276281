//! Mamba-2 layers, as Granite 4 has them on most layers.
//! Source: transformers 5, `models/granitemoehybrid/modeling_granitemoehybrid.py`; Dao, Gu 2024,
//! <https://arxiv.org/abs/2405.21060>.
//!
//! ```text
//! x, B, C = silu(conv(...));   t = softplus(dt + dt_bias),  decay = exp(-exp(A_log) t)
//! S = decay S + B (t x)^T;     out = norm((C^T S + D x) * silu(z))
//! ```

use clawdbot_kernels::{Epilogue, Lhs, PackedMatrix, gemm};

use super::MixContext;
use super::recurrence::{Channels, Convolution, Recurrence, softplus};
use crate::error::{Error, Result};
use crate::forward::decoder::Linear;
use crate::forward::states::sequence_states;
use crate::spec::{Activation, MambaSpec};

/// Weights of a Mamba-2 layer.
pub(crate) struct MambaWeights {
    /// hidden_size -> z, x, B, C
    pub(crate) input: Linear,
    /// f32, `[heads, hidden_size]`: dt
    pub(crate) steps: PackedMatrix,
    /// `[kernel_size, channels]`
    pub(crate) conv: Vec<f32>,
    /// `[channels]`
    pub(crate) conv_bias: Option<Vec<f32>>,
    /// `[heads]`: `-exp(A_log)`
    pub(crate) minus_a: Vec<f32>,
    /// `[heads]`
    pub(crate) dt_bias: Vec<f32>,
    /// `[heads]`
    pub(crate) skip: Vec<f32>,
    /// `[heads * head_dim]`
    pub(crate) norm: Vec<f32>,
}

impl MambaSpec {
    /// Elements of x, and of z.
    pub(crate) fn inner(&self) -> usize {
        self.num_heads * self.head_dim
    }

    pub(crate) fn recurrence(&self) -> Recurrence {
        Recurrence {
            heads: self.num_heads,
            key_heads: self.num_groups,
            tiled: false,
            key_dim: self.state_size,
            value_dim: self.head_dim,
            kernel_size: self.kernel_size,
        }
    }

    /// See `DecoderSpec::wide_sizes`.
    pub(crate) fn wide_sizes(&self) -> [usize; 5] {
        let recurrence = self.recurrence();
        let channels = recurrence.channels();
        [self.inner() + channels, channels, self.num_heads, recurrence.results(), 2 * self.num_heads]
    }
}

impl MambaWeights {
    /// See [`crate::forward::mixers::Mixer::forward`].
    pub(crate) fn forward(&self, context: &mut MixContext<'_>, x: &[f32], out: &mut [f32]) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, quantized, .. } = context;
        let mamba = spec.mamba.ok_or_else(|| Error::internal("a Mamba layer without sizes"))?;
        let (recurrence, inner, heads) = (mamba.recurrence(), mamba.inner(), mamba.num_heads);
        let (rows, channels) = (batch.rows(), recurrence.channels());
        let [input, mixed, steps, results, gates] = &mut scratch.wide;

        let width = self.input.weight.n();
        let input = &mut input[..rows * width];
        ops.linear(x, rows, &self.input, input, false, quantized)?;
        let input = &*input;
        let steps = &mut steps[..rows * heads];
        gemm(ops.kernels, ops.region, Lhs::F32(x), rows, &self.steps, steps, Epilogue::default());
        // Head by head, of each token: decay, and the weight of what is added.
        let gates = gates[..heads * rows * 2].as_chunks_mut::<2>().0;
        ops.region.parallel_chunks_mut(gates, rows, |head, gates| {
            for (gates, steps) in gates.iter_mut().zip(steps.chunks_exact(heads)) {
                let step = softplus(steps[head] + self.dt_bias[head]);
                *gates = [libm::expf(self.minus_a[head] * step), step];
            }
        });

        let mut states = sequence_states(cache, *layer, batch, recurrence.state_len())?;
        let mixed = &mut mixed[..rows * channels];
        let conv = Convolution { weights: &self.conv, bias: self.conv_bias.as_deref() };
        recurrence.convolve(ops, &mut states, conv, (input, inner, width), mixed, |_| {});
        let keys = mamba.num_groups * mamba.state_size;
        let at = Channels { queries: inner + keys, keys: inner, values: 0 };
        let results = &mut results[..rows * recurrence.results()];
        recurrence.scan(ops, states, (mixed, at), (gates, false), results);

        let (mixed, group) = (&*mixed, inner / mamba.num_groups);
        recurrence.gather(ops, batch, results, out, |row, out| {
            let values = mixed[row * channels..][..inner].chunks_exact(mamba.head_dim);
            for ((out, values), &skip) in out.chunks_exact_mut(mamba.head_dim).zip(values).zip(&self.skip) {
                ops.kernels.add_scaled(values, skip, out);
            }
            let z = &input[row * width..][..inner];
            ops.kernels.activate(Activation::Silu, z, out);
            for (out, gains) in out.chunks_exact_mut(group).zip(self.norm.chunks_exact(group)) {
                ops.kernels.norm_in_place(out, gains, spec.rms_norm_eps);
            }
        });
        Ok(())
    }
}
