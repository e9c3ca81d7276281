//! Recurrent layers: convolutions over the last tokens, and states that each token changes and reads.
//!
//! Token after token, so that a row's bits do not depend on how a prompt is cut into passes. The columns of a state do not
//! depend on each other: 16 of a head are one task, which stays in the first-level cache over all its tokens.

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::simd::LANES;
use clawdbot_kernels::{ConvArgs, DeltaArgs, KernelSet};

use super::Cpu;
use super::states::{History, SequenceState, Snapshot, sequence_states};
use crate::cache::KvCache;
use crate::error::Result;
use crate::forward::batch::Batch;
use crate::forward::ops::{
    Convolution, GateFormula, GroupNorm, OutputGate, Recur, RecurBuffers, Shape, StateSource, UnitLength,
    UpdateRule,
};
use crate::forward::recurrence::Recurrence;
use crate::spec::Activation;

type Values = AlignedBuf<f32>;

/// See [`crate::forward::ops::Ops::short_conv`].
pub(super) fn short_conv(
    cpu: &Cpu<'_>,
    states: StateSource<'_, KvCache>,
    conv: Convolution<'_>,
    bcx: &[f32],
    width: usize,
    inputs: &mut [f32],
    out: &mut [f32],
) -> Result<()> {
    let StateSource { cache, layer, batch } = states;
    let Convolution { weights, bias, kernel_size } = conv;
    let part = |row: usize, part: usize| &bcx[(3 * row + part) * width..][..width];
    let inputs = &mut inputs[..batch.rows() * width];
    cpu.by_rows(inputs, width, |row, out| {
        for (out, (b, x)) in out.iter_mut().zip(part(row, 0).iter().zip(part(row, 2))) {
            *out = b * x;
        }
    });
    let floats = (kernel_size - 1).max(1) * width;
    for state in sequence_states(cache, layer, batch, floats)? {
        let rows = &inputs[state.row * width..][..state.rows * width];
        let (earlier, _) = state.live.split_at_mut((kernel_size - 1) * width);
        let history = History { earlier, rows, stride: width, width };
        let out = &mut out[state.row * width..][..state.rows * width];
        cpu.by_rows(out, width, |row, out| {
            let inputs = &history.seen_by(row, kernel_size)[..];
            cpu.kernels.causal_conv(ConvArgs { inputs, weights, bias, silu: false, out });
            for (out, c) in out.iter_mut().zip(part(state.row + row, 1)) {
                *out *= c;
            }
        });
        for Snapshot { after, copy } in state.snapshots {
            copy[..(kernel_size - 1) * width].copy_from_slice(&history.after(after, kernel_size));
        }
        let after = history.after(state.rows, kernel_size);
        earlier.copy_from_slice(&after);
    }
    Ok(())
}

/// See [`crate::forward::ops::Ops::recurrence_gates`].
pub(super) fn gates(
    cpu: &Cpu<'_>,
    formula: GateFormula<'_>,
    logits: &[f32],
    shape: Shape,
    gates: &mut [f32],
) {
    let Shape { rows, width: heads } = shape;
    let gates = gates[..heads * rows * 2].as_chunks_mut::<2>().0;
    cpu.region.parallel_chunks_mut(gates, rows, |head, gates| match formula {
        GateFormula::DeltaNet { minus_a, bias } => {
            for (gates, logits) in gates.iter_mut().zip(logits.chunks_exact(2 * heads)) {
                let (b, a) = (logits[head], logits[heads + head] + bias[head]);
                *gates = [libm::expf(minus_a[head] * softplus(a)), 1.0 / (1.0 + libm::expf(-b))];
            }
        }
        GateFormula::Mamba { minus_a, bias } => {
            for (gates, steps) in gates.iter_mut().zip(logits.chunks_exact(heads)) {
                let step = softplus(steps[head] + bias[head]);
                *gates = [libm::expf(minus_a[head] * step), step];
            }
        }
    });
}

/// `ln(1 + exp(x))`, as PyTorch has it: x itself where the difference is below its precision.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1pf(libm::expf(x)) }
}

/// See [`crate::forward::ops::Ops::recur`].
pub(super) fn recur(
    cpu: &Cpu<'_>,
    source: StateSource<'_, KvCache>,
    recur: &Recur<'_, Values>,
    buffers: RecurBuffers<'_, Values>,
) -> Result<()> {
    let (rows, recurrence) = (source.batch.rows(), recur.recurrence);
    let mut states = sequence_states(source.cache, source.layer, source.batch, recurrence.state_len())?;
    let mixed = &mut buffers.mixed[..rows * recurrence.channels()];
    convolve(cpu, &mut states, recur, mixed);
    let gates = recur.gates[..recurrence.heads * rows * 2].as_chunks::<2>().0;
    let results = &mut buffers.results[..rows * recurrence.results()];
    scan(cpu, states, recur, mixed, gates, results);
    Ok(())
}

/// `mixed = silu(conv(inputs))`, `[rows, channels]`, queries and keys scaled to length 1 where they are to be.
fn convolve(cpu: &Cpu<'_>, states: &mut [SequenceState<'_>], recur: &Recur<'_, Values>, mixed: &mut [f32]) {
    let Recur { recurrence, conv, inputs, unit_length, .. } = recur;
    let Convolution { weights, bias, kernel_size } = *conv;
    let (channels, conv_len) = (recurrence.channels(), recurrence.conv_len());
    let kernels = cpu.kernels;
    for state in states {
        let rows = &inputs.rows[state.row * inputs.stride + inputs.first..];
        let earlier = &mut state.live[..conv_len];
        let history = History { earlier, rows, stride: inputs.stride, width: channels };
        let out = &mut mixed[state.row * channels..][..state.rows * channels];
        cpu.by_rows(out, channels, |row, out| {
            let inputs = &history.seen_by(row, kernel_size)[..];
            kernels.causal_conv(ConvArgs { inputs, weights, bias, silu: true, out });
            let Some(UnitLength { eps }) = *unit_length else { return };
            let (keys, dim) = (recurrence.key_heads * recurrence.key_dim, recurrence.key_dim);
            let (queries, rest) = out.split_at_mut(keys);
            let factor = 1.0 / (dim as f32).sqrt();
            for query in queries.chunks_exact_mut(dim) {
                kernels.l2_norm(query, eps, factor);
            }
            for key in rest[..keys].chunks_exact_mut(dim) {
                kernels.l2_norm(key, eps, 1.0);
            }
        });
        for Snapshot { after, copy } in &mut state.snapshots {
            copy[..conv_len].copy_from_slice(&history.after(*after, kernel_size));
        }
        let after = history.after(state.rows, kernel_size);
        earlier.copy_from_slice(&after);
    }
}

/// Runs the states over all rows. `gates` are `[heads, rows]`: what a state is multiplied with and the weight of what is
/// added. Results lie sequence by sequence, and in each head by head: [`gather`].
fn scan(
    cpu: &Cpu<'_>,
    states: Vec<SequenceState<'_>>,
    recur: &Recur<'_, Values>,
    mixed: &[f32],
    gates: &[[f32; 2]],
    results: &mut [f32],
) {
    let Recur { recurrence, at, rule, .. } = recur;
    let (kernels, corrects) = (cpu.kernels, *rule == UpdateRule::Delta);
    let Recurrence { heads, key_dim, value_dim, .. } = *recurrence;
    let (blocks, panel, stride) = (recurrence.blocks(), key_dim * LANES, recurrence.channels());
    let rows = gates.len() / heads;
    let mut tasks = Vec::with_capacity(states.len() * heads * blocks);
    let mut rest = results;
    for state in states {
        let (of_sequence, others) = rest.split_at_mut(state.rows * heads * blocks * LANES);
        rest = others;
        let panels = state.live[recurrence.conv_len()..].chunks_exact_mut(panel);
        let snapshots = state.snapshots.into_iter();
        let mut snapshots: Vec<_> = snapshots
            .map(|Snapshot { after, copy }| (after, copy[recurrence.conv_len()..].chunks_exact_mut(panel)))
            .collect();
        let outs = of_sequence.chunks_exact_mut(state.rows * LANES);
        for (index, (panel, out)) in panels.zip(outs).enumerate() {
            let of_panel = snapshots.iter_mut();
            let of_panel =
                of_panel.filter_map(|(after, panels)| Some(Snapshot { after: *after, copy: panels.next()? }));
            let snapshots = of_panel.collect();
            let (head, block) = (index / blocks, index % blocks);
            let (row, rows) = (state.row, state.rows);
            tasks.push(Task { head, block, row, rows, state: panel, snapshots, out });
        }
    }
    let per_key_head = heads / recurrence.key_heads;
    cpu.region.parallel_chunks_mut(&mut tasks, 1, |_, tasks| {
        for Task { head, block, row, rows: count, state, snapshots, out } in tasks {
            let key_head = if recurrence.tiled { *head % recurrence.key_heads } else { *head / per_key_head };
            let key_head = key_head * key_dim;
            let column = *head * value_dim + *block * LANES;
            let mut run = |from: usize, to: usize, state: &mut [f32]| {
                let first = &mixed[(*row + from) * stride..];
                kernels.delta_rule(DeltaArgs {
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
            let mut done = 0;
            for Snapshot { after, copy } in snapshots {
                run(done, *after, state);
                copy.copy_from_slice(state);
                done = *after;
            }
            run(done, *count, state);
        }
    });
}

/// 16 columns of a head of one sequence.
struct Task<'a> {
    head: usize,
    block: usize,
    /// First row in the batch
    row: usize,
    rows: usize,
    /// `[key_dim, 16]`
    state: &'a mut [f32],
    snapshots: Vec<Snapshot<'a>>,
    /// `[rows, 16]`
    out: &'a mut [f32],
}

/// See [`crate::forward::ops::Ops::gather_results`].
pub(super) fn gather(
    cpu: &Cpu<'_>,
    recurrence: Recurrence,
    batch: &Batch<'_>,
    results: &[f32],
    gate: &OutputGate<'_, Values>,
    out: &mut [f32],
) {
    let value_dim = recurrence.value_dim;
    let (blocks, width) = (recurrence.blocks(), recurrence.heads * value_dim);
    let kernels = cpu.kernels;
    let mut row = 0;
    for sequence in batch.sequences.iter().filter(|sequence| sequence.rows > 0) {
        let (first, count) = (row, sequence.rows);
        row += count;
        let of_sequence = &results[first * recurrence.results()..];
        let out = &mut out[first * width..][..count * width];
        cpu.by_rows(out, width, |row, out| {
            for (head, out) in out.chunks_exact_mut(value_dim).enumerate() {
                for (block, out) in out.chunks_mut(LANES).enumerate() {
                    let at = ((head * blocks + block) * count + row) * LANES;
                    out.copy_from_slice(&of_sequence[at..][..out.len()]);
                }
            }
            apply(kernels, gate, value_dim, first + row, out);
        });
    }
}

/// Gates the heads of row `row`.
fn apply(kernels: &KernelSet, gate: &OutputGate<'_, Values>, value_dim: usize, row: usize, out: &mut [f32]) {
    match gate {
        OutputGate::NormThenGate { norm, eps, z } => {
            let z = z.of_row(row, out.len());
            for (out, z) in out.chunks_exact_mut(value_dim).zip(z.chunks_exact(value_dim)) {
                kernels.norm_in_place(out, norm, *eps);
                kernels.activate(Activation::Silu, z, out);
            }
        }
        OutputGate::SkipGateThenNorm { skip, values, z, norm: GroupNorm { gains, size, eps } } => {
            let values = values.of_row(row, out.len()).chunks_exact(value_dim);
            for ((out, values), &skip) in out.chunks_exact_mut(value_dim).zip(values).zip(*skip) {
                kernels.add_scaled(values, skip, out);
            }
            kernels.activate(Activation::Silu, z.of_row(row, out.len()), out);
            for (out, gains) in out.chunks_exact_mut(*size).zip(gains.chunks_exact(*size)) {
                kernels.norm_in_place(out, gains, *eps);
            }
        }
    }
}
