//! Products with packed weights, and gated MLPs.

use clawdbot_kernels::{
    Activation, Added, Epilogue, GatedProduct, Lhs, OutColumns, PackedMatrix, QuantizedRows, gemm,
    gemm_columns, gemm_gated, takes_gated,
};

use super::{Cpu, Host};
use crate::error::Result;
use crate::forward::linear::{GatedMlp, Linear};
use crate::forward::ops::{ActivatedMlp, MlpBuffers, Store};

/// See [`crate::forward::ops::Ops::linear`].
pub(super) fn linear(
    cpu: &Cpu<'_>,
    x: &[f32],
    rows: usize,
    linear: &Linear,
    store: Store,
    out: &mut [f32],
    codes: &mut QuantizedRows,
) -> Result<()> {
    cpu.show(linear, x)?;
    let epilogue = Epilogue { residual: store == Store::Add, ..Epilogue::default() };
    cpu.adapted(x, rows, linear, out, epilogue, codes)
}

/// `out = x * weight`, then the epilogue. `x` is `[rows, k]`, `out` is `[rows, n]`, of gated products `[rows, n / 2]`.
pub(super) fn matmul(
    cpu: &Cpu<'_>,
    x: &[f32],
    rows: usize,
    weight: &PackedMatrix,
    out: &mut [f32],
    epilogue: Epilogue<'_>,
    codes: &mut QuantizedRows,
) -> Result<()> {
    let (mut first, mut before) = (0, None);
    for part in weight.segments() {
        let activations = part.format().activations();
        if let Some(format) = activations
            && activations != before
        {
            codes.quantize(cpu.kernels, cpu.region, x, rows, part.k(), format)?;
            before = activations;
        }
        let lhs = match activations {
            Some(_) => Lhs::Int8(codes),
            None if cpu.kernels.rounds(part.format()) => {
                codes.rounded.round(cpu.kernels, cpu.region, x, rows, part.k())?;
                Lhs::Bf16(&codes.rounded)
            }
            None => Lhs::F32(x),
        };
        // A gated matrix has no parts.
        let width = if epilogue.gate.is_some() { out.len() / rows.max(1) } else { weight.n() };
        let count = if epilogue.gate.is_some() { width } else { part.n() };
        let columns = first..first + count;
        let bias = epilogue.bias.map(|bias| &bias[first..first + part.n()]);
        let added = epilogue.added.map(|added| Added { first: added.first + first, ..added });
        first = columns.end;
        let out = OutColumns { out: &mut *out, columns, stride: width };
        gemm_columns(cpu.kernels, cpu.region, lhs, rows, part, out, Epilogue { bias, added, ..epilogue });
    }
    Ok(())
}

/// See [`crate::forward::ops::Ops::gated_mlp`].
pub(super) fn gated_mlp(
    cpu: &Cpu<'_>,
    ActivatedMlp { weights: mlp, activation }: ActivatedMlp<'_>,
    x: &[f32],
    rows: usize,
    store: Store,
    out: &mut [f32],
    buffers: MlpBuffers<'_, Host>,
) -> Result<()> {
    let gate_up = &mlp.gate_up;
    let adapted = cpu.is_adapted(gate_up) || cpu.is_adapted(&mlp.down);
    if let Some(format) = gate_up.weight.format().activations()
        && !adapted
    {
        let MlpBuffers { activated, codes, activated_codes } = buffers;
        codes.quantize(cpu.kernels, cpu.region, x, rows, gate_up.weight.k(), format)?;
        let mlp = ActivatedMlp { weights: mlp, activation };
        return gated_mlp_of_codes(cpu, mlp, codes, rows, store, out, activated, activated_codes);
    }
    let MlpBuffers { activated, codes, .. } = buffers;
    let activated = &mut activated[..rows * mlp.down.weight.k()];
    let gate = Epilogue { gate: mlp.gated.then_some(activation), ..Epilogue::default() };
    cpu.adapted(x, rows, gate_up, activated, gate, codes)?;
    activate_ungated(cpu, mlp, activation, activated);
    linear(cpu, activated, rows, &mlp.down, store, out, codes)
}

/// As [`gated_mlp`], of rows that are quantized already; no adapter changes it.
#[expect(clippy::too_many_arguments, reason = "the operands of an MLP, and its buffers")]
pub(super) fn gated_mlp_of_codes(
    cpu: &Cpu<'_>,
    ActivatedMlp { weights: mlp, activation }: ActivatedMlp<'_>,
    x: &QuantizedRows,
    rows: usize,
    store: Store,
    out: &mut [f32],
    activated: &mut [f32],
    codes: &mut QuantizedRows,
) -> Result<()> {
    let (kernels, region) = (cpu.kernels, cpu.region);
    let (gate_up, down) = (&mlp.gate_up.weight, &mlp.down.weight);
    let activated = &mut activated[..rows * down.k()];
    let (bias, gate) = (mlp.gate_up.bias.as_deref(), mlp.gated.then_some(activation));
    let gate = Epilogue { bias, gate, ..Epilogue::default() };
    // Who watches is shown what `down` reads, which a gated product quantizes at once.
    if mlp.gated && cpu.watcher.is_none() && takes_gated(kernels, rows, gate_up, down) {
        let product = GatedProduct { lhs: x, m: rows, rhs: gate_up, epilogue: gate, next: down };
        gemm_gated(kernels, region, product, activated, codes)?;
        let residual = store == Store::Add;
        let epilogue = Epilogue { bias: mlp.down.bias.as_deref(), residual, ..Epilogue::default() };
        gemm(kernels, region, Lhs::Int8(codes), rows, down, out, epilogue);
        return Ok(());
    }
    gemm(kernels, region, Lhs::Int8(x), rows, gate_up, activated, gate);
    activate_ungated(cpu, mlp, activation, activated);
    linear(cpu, activated, rows, &mlp.down, store, out, codes)
}

/// Activates rows of the up projection of an MLP without a gate. With one, its product has done so.
fn activate_ungated(cpu: &Cpu<'_>, mlp: &GatedMlp, activation: Activation, up: &mut [f32]) {
    if !mlp.gated {
        cpu.by_rows(up, mlp.down.weight.k(), |_, row| cpu.kernels.activate_in_place(activation, row));
    }
}
