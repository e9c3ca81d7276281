//! Gated delta nets, as Qwen3-Next and Qwen3.5 have them on three layers of four.
//! Source: transformers 5, `models/qwen3_next/modeling_qwen3_next.py`; Yang et al. 2024, <https://arxiv.org/abs/2412.06464>.
//!
//! ```text
//! q, k, v = silu(conv(...)), q and k of length 1;   decay = exp(-exp(A_log) softplus(a + dt_bias)),  beta = sigmoid(b)
//! S = decay S;   S += k (beta (v - k^T S))^T;   out = norm(q^T S / sqrt(key_head_dim)) * silu(z)
//! ```

use clawdbot_kernels::{Epilogue, Lhs, PackedMatrix, gemm};

use super::MixContext;
use super::recurrence::{Channels, Convolution, Recurrence, softplus};
use crate::error::{Error, Result};
use crate::forward::decoder::Linear;
use crate::forward::states::sequence_states;
use crate::spec::{Activation, DeltaNetSpec};

/// Added to the squared length of queries and keys.
const LENGTH_EPS: f32 = 1e-6;

/// Weights of a gated delta net.
pub(crate) struct DeltaNetWeights {
    /// hidden_size -> queries, keys, values, gates
    pub(crate) qkvz: Linear,
    /// f32, `[2 * value_heads, hidden_size]`: logits of beta, then the decays' `a`
    pub(crate) gates: PackedMatrix,
    /// `[kernel_size, channels]`
    pub(crate) conv: Vec<f32>,
    /// `[value_heads]`: `-exp(A_log)`
    pub(crate) minus_a: Vec<f32>,
    /// `[value_heads]`
    pub(crate) dt_bias: Vec<f32>,
    /// `[value_head_dim]`
    pub(crate) norm: Vec<f32>,
}

impl DeltaNetSpec {
    fn keys(&self) -> usize {
        self.num_key_heads * self.key_head_dim
    }

    fn values(&self) -> usize {
        self.num_value_heads * self.value_head_dim
    }

    pub(crate) fn recurrence(&self) -> Recurrence {
        Recurrence {
            heads: self.num_value_heads,
            key_heads: self.num_key_heads,
            tiled: self.tiled,
            key_dim: self.key_head_dim,
            value_dim: self.value_head_dim,
            kernel_size: self.kernel_size,
        }
    }

    /// See `DecoderSpec::wide_sizes`.
    pub(crate) fn wide_sizes(&self) -> [usize; 5] {
        let (heads, recurrence) = (self.num_value_heads, self.recurrence());
        let channels = recurrence.channels();
        [channels + self.values(), channels, 2 * heads, recurrence.results(), 2 * heads]
    }
}

impl DeltaNetWeights {
    /// See [`crate::forward::mixers::Mixer::forward`].
    pub(crate) fn forward(&self, context: &mut MixContext<'_>, x: &[f32], out: &mut [f32]) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, quantized, .. } = context;
        let delta = spec.delta_net.ok_or_else(|| Error::internal("a delta net without sizes"))?;
        let DeltaNetSpec { num_value_heads: heads, key_head_dim, value_head_dim, .. } = delta;
        let recurrence = delta.recurrence();
        let (rows, channels, keys) = (batch.rows(), recurrence.channels(), delta.keys());
        let [qkvz, mixed, logits, results, gates] = &mut scratch.wide;

        let width = self.qkvz.weight.n();
        let qkvz = &mut qkvz[..rows * width];
        ops.linear(x, rows, &self.qkvz, qkvz, false, quantized)?;
        let qkvz = &*qkvz;
        let logits = &mut logits[..rows * 2 * heads];
        gemm(ops.kernels, ops.region, Lhs::F32(x), rows, &self.gates, logits, Epilogue::default());
        // Head by head, of each token: decay and beta.
        let gates = gates[..heads * rows * 2].as_chunks_mut::<2>().0;
        ops.region.parallel_chunks_mut(gates, rows, |head, gates| {
            for (gates, logits) in gates.iter_mut().zip(logits.chunks_exact(2 * heads)) {
                let (b, a) = (logits[head], logits[heads + head] + self.dt_bias[head]);
                *gates = [libm::expf(self.minus_a[head] * softplus(a)), 1.0 / (1.0 + libm::expf(-b))];
            }
        });

        let mut states = sequence_states(cache, *layer, batch, recurrence.state_len())?;
        let mixed = &mut mixed[..rows * channels];
        let conv = Convolution { weights: &self.conv, bias: None };
        recurrence.convolve(ops, &mut states, conv, (qkvz, 0, width), mixed, |row| {
            let (queries, rest) = row.split_at_mut(keys);
            let factor = 1.0 / (key_head_dim as f32).sqrt();
            for query in queries.chunks_exact_mut(key_head_dim) {
                ops.kernels.l2_norm(query, LENGTH_EPS, factor);
            }
            for key in rest[..keys].chunks_exact_mut(key_head_dim) {
                ops.kernels.l2_norm(key, LENGTH_EPS, 1.0);
            }
        });
        let at = Channels { queries: 0, keys, values: 2 * keys };
        let results = &mut results[..rows * recurrence.results()];
        recurrence.scan(ops, states, (mixed, at), (gates, true), results);

        recurrence.gather(ops, batch, results, out, |row, out| {
            let gates = &qkvz[row * width + channels..][..out.len()];
            for (out, z) in out.chunks_exact_mut(value_head_dim).zip(gates.chunks_exact(value_head_dim)) {
                ops.kernels.norm_in_place(out, &self.norm, spec.rms_norm_eps);
                ops.kernels.activate(Activation::Silu, z, out);
            }
        });
        Ok(())
    }
}
