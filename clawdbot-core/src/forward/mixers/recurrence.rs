//! What recurrent layers with a matrix for a state have in common: a convolution over the last tokens, then, for each head,
//! a state `S` that each token changes and reads.
//!
//! Token after token, so that a row's bits do not depend on how a prompt is cut into passes. The columns of `S` do not
//! depend on each other: 16 of a head are one task, which stays in the first-level cache over all its tokens.
//!
//! A layer's state is the last `kernel_size - 1` inputs of the convolution, the oldest first, then
//! `[heads][columns / 16][key_dim][16]`.

use clawdbot_kernels::simd::LANES;
use clawdbot_kernels::{ConvArgs, DeltaArgs};

use crate::forward::batch::Batch;
use crate::forward::decoder::Ops;
use crate::forward::states::{History, SequenceState};

/// Sizes of a recurrence.
#[derive(Clone, Copy)]
pub(crate) struct Recurrence {
    pub(crate) heads: usize,
    /// Heads of keys and queries, a divisor of `heads`.
    pub(crate) key_heads: usize,
    /// Heads have key heads in turn; otherwise neighbours have the same.
    pub(crate) tiled: bool,
    pub(crate) key_dim: usize,
    /// Columns of a head's state.
    pub(crate) value_dim: usize,
    /// Tokens that the convolution sees, the current one included.
    pub(crate) kernel_size: usize,
}

/// Weights of the convolution.
pub(crate) struct Convolution<'a> {
    /// `[kernel_size, channels]`
    pub(crate) weights: &'a [f32],
    /// `[channels]`
    pub(crate) bias: Option<&'a [f32]>,
}

/// Where queries, keys and values are among the channels.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) values: usize,
}

impl Recurrence {
    /// Of the convolution: queries, keys, values.
    pub(crate) fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.heads * self.value_dim
    }

    /// Groups of 16 columns of a head's state.
    fn blocks(&self) -> usize {
        self.value_dim.div_ceil(LANES)
    }

    /// Floats of the convolution's part of the state.
    fn conv_len(&self) -> usize {
        (self.kernel_size - 1) * self.channels()
    }

    /// Floats of a layer's state.
    pub(crate) fn state_len(&self) -> usize {
        self.conv_len() + self.heads * self.blocks() * self.key_dim * LANES
    }

    /// Floats of a token's results in [`Recurrence::scan`].
    pub(crate) fn results(&self) -> usize {
        self.heads * self.blocks() * LANES
    }

    /// `mixed = silu(conv(inputs))`, then `then` of each row. The inputs are `[rows, width]`, of which the columns from
    /// `first` on are taken; `mixed` is `[rows, channels]`.
    pub(crate) fn convolve(
        &self,
        ops: &Ops<'_>,
        states: &mut [SequenceState<'_>],
        Convolution { weights, bias }: Convolution<'_>,
        (inputs, first, width): (&[f32], usize, usize),
        mixed: &mut [f32],
        then: impl Fn(&mut [f32]) + Sync,
    ) {
        let (kernel_size, channels) = (self.kernel_size, self.channels());
        for state in states {
            let rows = &inputs[state.row * width + first..];
            let earlier = &mut state.live[..self.conv_len()];
            let history = History { earlier, rows, stride: width, width: channels };
            let out = &mut mixed[state.row * channels..][..state.rows * channels];
            ops.by_rows(out, channels, |row, out| {
                let inputs = &history.seen_by(row, kernel_size)[..];
                ops.kernels.causal_conv(ConvArgs { inputs, weights, bias, silu: true, out });
                then(out);
            });
            if let Some((rows, snapshot)) = &mut state.snapshot {
                snapshot[..self.conv_len()].copy_from_slice(&history.after(*rows, kernel_size));
            }
            let after = history.after(state.rows, kernel_size);
            earlier.copy_from_slice(&after);
        }
    }

    /// Runs the states over all rows. `gates` are `[heads, rows]`: what a state is multiplied with and the weight of what is
    /// added; with `corrects` by the delta rule, see `KernelSet::delta_rule`. Results lie sequence by sequence, and in each
    /// head by head: [`Recurrence::gather`].
    pub(crate) fn scan(
        &self,
        ops: &Ops<'_>,
        states: Vec<SequenceState<'_>>,
        (mixed, at): (&[f32], Channels),
        (gates, corrects): (&[[f32; 2]], bool),
        results: &mut [f32],
    ) {
        let Recurrence { heads, key_dim, value_dim, .. } = *self;
        let (blocks, panel, stride) = (self.blocks(), key_dim * LANES, self.channels());
        let rows = gates.len() / heads;
        let mut tasks = Vec::with_capacity(states.len() * heads * blocks);
        let mut rest = results;
        for state in states {
            let (of_sequence, others) = rest.split_at_mut(state.rows * heads * blocks * LANES);
            rest = others;
            let panels = state.live[self.conv_len()..].chunks_exact_mut(panel);
            let mut snapshots =
                state.snapshot.map(|(after, data)| (after, data[self.conv_len()..].chunks_exact_mut(panel)));
            let outs = of_sequence.chunks_exact_mut(state.rows * LANES);
            for (index, (panel, out)) in panels.zip(outs).enumerate() {
                let snapshot = snapshots.as_mut().and_then(|(after, panels)| Some((*after, panels.next()?)));
                let (head, block) = (index / blocks, index % blocks);
                let (row, rows) = (state.row, state.rows);
                tasks.push(Task { head, block, row, rows, state: panel, snapshot, out });
            }
        }
        let per_key_head = heads / self.key_heads;
        ops.region.parallel_chunks_mut(&mut tasks, 1, |_, tasks| {
            for Task { head, block, row, rows: count, state, snapshot, out } in tasks {
                let key_head = if self.tiled { *head % self.key_heads } else { *head / per_key_head };
                let key_head = key_head * key_dim;
                let column = *head * value_dim + *block * LANES;
                let mut run = |from: usize, to: usize, state: &mut [f32]| {
                    let first = &mixed[(*row + from) * stride..];
                    ops.kernels.delta_rule(DeltaArgs {
                        state,
                        gates: &gates[*head * rows + *row..][from..to],
                        corrects,
                        queries: &first[at.queries + key_head..],
                        keys: &first[at.keys + key_head..],
                        values: &first[at.values + column..],
                        stride,
                        columns: LANES.min(value_dim - *block * LANES),
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
    }

    /// What [`Recurrence::scan`] gave, row by row: `[rows, heads * value_dim]`, then `then(row, heads)` of each.
    pub(crate) fn gather(
        &self,
        ops: &Ops<'_>,
        batch: &Batch<'_>,
        results: &[f32],
        out: &mut [f32],
        then: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let (blocks, width) = (self.blocks(), self.heads * self.value_dim);
        let mut row = 0;
        for sequence in batch.sequences.iter().filter(|sequence| sequence.rows > 0) {
            let (first, count) = (row, sequence.rows);
            row += count;
            let of_sequence = &results[first * self.results()..];
            let out = &mut out[first * width..][..count * width];
            ops.by_rows(out, width, |row, out| {
                for (head, out) in out.chunks_exact_mut(self.value_dim).enumerate() {
                    for (block, out) in out.chunks_mut(LANES).enumerate() {
                        let at = ((head * blocks + block) * count + row) * LANES;
                        out.copy_from_slice(&of_sequence[at..][..out.len()]);
                    }
                }
                then(first + row, out);
            });
        }
    }
}

/// 16 columns of a head of one sequence.
struct Task<'a> {
    head: usize,
    block: usize,
    /// First row in the batch.
    row: usize,
    rows: usize,
    /// `[key_dim, 16]`
    state: &'a mut [f32],
    snapshot: Option<(usize, &'a mut [f32])>,
    /// `[rows, 16]`
    out: &'a mut [f32],
}

/// `ln(1 + exp(x))`, as PyTorch has it: x itself where the difference is below its precision.
pub(crate) fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1pf(libm::expf(x)) }
}
