//! Operations on whole rows that take more than one kernel.

use clawdbot_kernels::KernelSet;
use clawdbot_kernels::memory::AlignedBuf;

use super::Cpu;
use crate::forward::batch::Batch;
use crate::forward::ops::{AddedTables, Columns, Embedding, Norm, Shape};
use crate::spec::{Activation, DecoderSpec, NormKind};

/// `out = norm(x)`
pub(super) fn norm_row(kernels: &KernelSet, norm: Norm<'_>, x: &[f32], out: &mut [f32]) {
    let (gains, bias) = norm.gains.split_at(x.len());
    match norm.kind {
        NormKind::Rms { .. } => kernels.rms_norm(x, gains, norm.eps, out),
        NormKind::Layer { bias: has } => kernels.layer_norm(x, gains, has.then_some(bias), norm.eps, out),
    }
}

/// See [`crate::forward::ops::Ops::embed`].
pub(super) fn embed(cpu: &Cpu<'_>, embedding: &Embedding<'_>, batch: &Batch<'_>, out: &mut [f32]) {
    let (kernels, width) = (cpu.kernels, embedding.table.k());
    cpu.by_rows(&mut out[..batch.rows() * width], width, |row, out| {
        // Only a second embedding may lack tokens, see `PerLayerSpec`.
        let token = Some(batch.tokens[row] as usize).filter(|&token| token < embedding.table.n());
        embedding.table.read_row(kernels, token.unwrap_or(0), out);
        if embedding.multiplier != 1.0 {
            kernels.scale_and_cap(embedding.multiplier, None, out);
        }
        if let Some(added) = embedding.added {
            add_tables(kernels, added, batch, row, out);
        }
    });
}

/// Adds to a row of the embedding what belongs to its position and type.
fn add_tables(kernels: &KernelSet, added: AddedTables<'_>, batch: &Batch<'_>, row: usize, out: &mut [f32]) {
    let AddedTables { tables, first_position } = added;
    let width = out.len();
    let token_type = batch.token_types.get(row).map_or(0, |&token_type| token_type as usize);
    let added =
        [(&tables.token_types, token_type), (&tables.positions, first_position + batch.positions[row])];
    for (table, index) in added {
        if let Some(table) = table {
            kernels.add_scaled(&table[index * width..][..width], 1.0, out);
        }
    }
}

/// See [`crate::forward::ops::Ops::combine_layer_inputs`].
pub(super) fn combine_layer_inputs(
    cpu: &Cpu<'_>,
    x: &mut [f32],
    looked_up: &[f32],
    gains: &[f32],
    spec: &DecoderSpec,
    width: usize,
) {
    let factor = 1.0 / (spec.hidden_size as f32).sqrt();
    cpu.by_rows(x, width, |row, x| {
        cpu.kernels.scale_and_cap(factor, None, x);
        for piece in x.chunks_exact_mut(gains.len()) {
            cpu.kernels.norm_in_place(piece, gains, spec.rms_norm_eps);
        }
        cpu.kernels.add_scaled(&looked_up[row * width..][..width], 1.0, x);
        cpu.kernels.scale_and_cap(std::f32::consts::FRAC_1_SQRT_2, None, x);
    });
}

/// See [`crate::forward::ops::Ops::add_weighted`].
pub(super) fn add_weighted(
    cpu: &Cpu<'_>,
    ys: &[AlignedBuf<f32>],
    weights: Columns<'_, AlignedBuf<f32>>,
    shape: Shape,
    x: &mut [f32],
) {
    cpu.by_rows(&mut x[..shape.len()], shape.width, |row, x| {
        for (y, &weight) in ys.iter().zip(weights.of_row(row, ys.len())) {
            cpu.kernels.add_scaled(&y[row * shape.width..][..shape.width], weight, x);
        }
    });
}

/// See [`crate::forward::ops::Ops::level`].
pub(super) fn level(cpu: &Cpu<'_>, like: &[f32], shape: Shape, x: &mut [f32]) {
    /// Least mean square that a row is leveled by, as in transformers.
    const LEAST: f32 = 1e-5;
    cpu.by_rows(&mut x[..shape.len()], shape.width, |row, x| {
        let wanted = cpu.kernels.mean_square(&like[row * shape.width..][..shape.width]);
        let own = cpu.kernels.mean_square(x);
        // Not `max`, which would hide what is not a number.
        let own = if own < LEAST { LEAST } else { own };
        cpu.kernels.scale_and_cap(wanted.sqrt() / own.sqrt(), None, x);
    });
}

/// See [`crate::forward::ops::Ops::cut_off_gate`].
pub(super) fn cut_off_gate(
    cpu: &Cpu<'_>,
    gate_up: &[f32],
    deviations: f32,
    activation: Activation,
    shape: Shape,
    out: &mut [f32],
) {
    cpu.by_rows(&mut out[..shape.len()], shape.width, |row, out| {
        let (gate, up) = gate_up[row * 2 * shape.width..][..2 * shape.width].split_at(shape.width);
        cpu.kernels.cut_off(deviations, gate, out);
        cpu.kernels.activate_in_place(activation, out);
        cpu.kernels.multiply(up, out);
    });
}
