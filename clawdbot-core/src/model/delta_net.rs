//! Gated delta nets, as Qwen3-Next has them on three layers of four.
//! Source: transformers 5, `models/qwen3_next/modeling_qwen3_next.py`; Yang et al. 2024, <https://arxiv.org/abs/2412.06464>.
//!
//! ```text
//! q, k, v = silu(conv(...)), q and k of length 1;   decay = exp(-exp(A_log) softplus(a + dt_bias)),  beta = sigmoid(b)
//! S = decay S;   S += k (beta (v - k^T S))^T;   out = norm(q^T S / sqrt(key_head_dim)) * silu(z)
//! ```
//! Token after token, so that a row's bits do not depend on how a prompt is cut into passes. The columns of `S` do not
//! depend on each other: 16 of a head are one task, which stays in the first-level cache over all its tokens.

use super::decoder::Linear;
use super::mixer::MixContext;
use super::spec::DeltaNetSpec;
use crate::cache::LANES;
use crate::error::{Error, Result};
use crate::kernels::{ConvArgs, DeltaArgs, Epilogue, Lhs, PackedMatrix, gemm};
use crate::layers::states::{History, sequence_states};

/// Added to the squared length of queries and keys.
const LENGTH_EPS: f32 = 1e-6;

/// Weights of a gated delta net. Its state: the last `taps - 1` inputs of the convolution, the oldest first, then
/// `[value_heads][columns / 16][key_head_dim][16]`.
pub(crate) struct DeltaNetWeights {
    /// hidden_size -> queries, keys, values, gates
    pub(crate) qkvz: Linear,
    /// f32, `[2 * value_heads, hidden_size]`: logits of beta, then the decays' `a`
    pub(crate) gates: PackedMatrix,
    /// `[taps, channels]`
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

    /// Of the convolution: queries, keys, values.
    fn channels(&self) -> usize {
        2 * self.keys() + self.values()
    }

    /// Groups of 16 columns of a head's state.
    fn blocks(&self) -> usize {
        self.value_head_dim.div_ceil(LANES)
    }

    /// Floats of the convolution's part of the state.
    fn conv_len(&self) -> usize {
        (self.taps - 1) * self.channels()
    }

    /// Floats of a layer's state.
    pub(super) fn state_len(&self) -> usize {
        self.conv_len() + self.num_value_heads * self.blocks() * self.key_head_dim * LANES
    }

    /// See `DecoderSpec::wide_sizes`.
    pub(super) fn wide_sizes(&self) -> [usize; 5] {
        let heads = self.num_value_heads;
        let qkvz = 2 * self.keys() + 2 * self.values();
        [qkvz, self.channels(), 2 * heads, heads * self.blocks() * LANES, 2 * heads]
    }
}

/// 16 columns of a head of one sequence.
struct Task<'a> {
    head: usize,
    block: usize,
    /// First row in the batch.
    row: usize,
    rows: usize,
    /// `[key_head_dim, 16]`
    state: &'a mut [f32],
    snapshot: Option<(usize, &'a mut [f32])>,
    /// `[rows, 16]`
    out: &'a mut [f32],
}

impl DeltaNetWeights {
    /// See [`super::mixer::Mixer::forward`].
    pub(super) fn forward(&self, context: &mut MixContext<'_>, x: &[f32], out: &mut [f32]) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, quantized, .. } = context;
        let delta = spec.delta_net.ok_or_else(|| Error::internal("a delta net without sizes"))?;
        let DeltaNetSpec { taps, num_value_heads: heads, key_head_dim, value_head_dim, .. } = delta;
        let (rows, channels, keys) = (batch.rows(), delta.channels(), delta.keys());
        let [qkvz, mixed, logits, results, gates] = &mut scratch.wide;

        let width = self.qkvz.weight.n();
        let qkvz = &mut qkvz[..rows * width];
        ops.linear(x, rows, &self.qkvz, qkvz, false, quantized)?;
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

        let mut states = sequence_states(cache, *layer, batch, delta.state_len())?;
        let mixed = &mut mixed[..rows * channels];
        for state in &mut states {
            let of_sequence = &qkvz[state.row * width..][..state.rows * width];
            let earlier = &mut state.live[..delta.conv_len()];
            let history = History { earlier, rows: of_sequence, stride: width, width: channels };
            let out = &mut mixed[state.row * channels..][..state.rows * channels];
            ops.by_rows(out, channels, |row, out| {
                let (inputs, weights) = (&history.seen_by(row, taps)[..], self.conv.as_slice());
                ops.kernels.causal_conv(ConvArgs { inputs, weights, bias: None, silu: true, out });
                let (queries, rest) = out.split_at_mut(keys);
                let factor = 1.0 / (key_head_dim as f32).sqrt();
                for query in queries.chunks_exact_mut(key_head_dim) {
                    ops.kernels.l2_norm(query, LENGTH_EPS, factor);
                }
                for key in rest[..keys].chunks_exact_mut(key_head_dim) {
                    ops.kernels.l2_norm(key, LENGTH_EPS, 1.0);
                }
            });
            if let Some((rows, snapshot)) = &mut state.snapshot {
                snapshot[..delta.conv_len()].copy_from_slice(&history.after(*rows, taps));
            }
            let after = history.after(state.rows, taps);
            earlier.copy_from_slice(&after);
        }

        let (blocks, panel) = (delta.blocks(), key_head_dim * LANES);
        let mut tasks = Vec::with_capacity(states.len() * heads * blocks);
        let mut rest = &mut results[..rows * heads * blocks * LANES];
        for state in states {
            let (of_sequence, others) = rest.split_at_mut(state.rows * heads * blocks * LANES);
            rest = others;
            let panels = state.live[delta.conv_len()..].chunks_exact_mut(panel);
            let mut snapshots =
                state.snapshot.map(|(after, data)| (after, data[delta.conv_len()..].chunks_exact_mut(panel)));
            let outs = of_sequence.chunks_exact_mut(state.rows * LANES);
            for (index, (panel, out)) in panels.zip(outs).enumerate() {
                let snapshot = snapshots.as_mut().and_then(|(after, panels)| Some((*after, panels.next()?)));
                let (head, block) = (index / blocks, index % blocks);
                let (row, rows) = (state.row, state.rows);
                tasks.push(Task { head, block, row, rows, state: panel, snapshot, out });
            }
        }
        let per_key_head = heads / delta.num_key_heads;
        ops.region.parallel_chunks_mut(&mut tasks, 1, |_, tasks| {
            for Task { head, block, row, rows: count, state, snapshot, out } in tasks {
                let key_head = *head / per_key_head * key_head_dim;
                let column = *head * value_head_dim + *block * LANES;
                let mut run = |from: usize, to: usize, state: &mut [f32]| {
                    let first = &mixed[(*row + from) * channels..];
                    ops.kernels.delta_rule(DeltaArgs {
                        state,
                        gates: &gates[*head * rows + *row..][from..to],
                        queries: &first[key_head..],
                        keys: &first[keys + key_head..],
                        values: &first[2 * keys + column..],
                        stride: channels,
                        columns: LANES.min(value_head_dim - *block * LANES),
                        out: &mut out[from * LANES..to * LANES],
                    });
                };
                let after = match snapshot {
                    Some((after, snapshot)) => {
                        run(0, *after, state);
                        snapshot.copy_from_slice(state);
                        *after
                    }
                    None => 0,
                };
                run(after, *count, state);
            }
        });

        // What the tasks gave lies sequence by sequence, and in each head by head.
        let mut row = 0;
        for sequence in batch.sequences.iter().filter(|sequence| sequence.rows > 0) {
            let (first, count) = (row, sequence.rows);
            row += count;
            let of_sequence = &results[first * heads * blocks * LANES..];
            let out = &mut out[first * heads * value_head_dim..][..count * heads * value_head_dim];
            ops.by_rows(out, heads * value_head_dim, |row, out| {
                let gates = &qkvz[(first + row) * width + channels..][..heads * value_head_dim];
                let each = out.chunks_exact_mut(value_head_dim).zip(gates.chunks_exact(value_head_dim));
                for (head, (out, z)) in each.enumerate() {
                    for (block, out) in out.chunks_mut(LANES).enumerate() {
                        let at = ((head * blocks + block) * count + row) * LANES;
                        out.copy_from_slice(&of_sequence[at..][..out.len()]);
                    }
                    ops.kernels.norm_in_place(out, &self.norm, spec.rms_norm_eps);
                    ops.kernels.sigmoid_mul(z, out);
                    for (out, z) in out.iter_mut().zip(z) {
                        *out *= z;
                    }
                }
            });
        }
        Ok(())
    }
}

/// `ln(1 + exp(x))`, as PyTorch has it: x itself where the difference is below its precision.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1pf(libm::expf(x)) }
}
