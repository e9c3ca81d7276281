//! Experts: the choice of each row, an expert's products, and their sum.

use clawdbot_kernels::memory::AlignedBuf;

use super::products::{gated_mlp, gated_mlp_of_codes};
use super::{Cpu, Host};
use crate::error::Result;
use crate::forward::ops::{
    ActivatedMlp, Columns, ExpertBuffers, ExpertInput, MlpBuffers, Shape, SharedGate, Store,
};
use crate::forward::routing::{Choice, Choices, sigmoid};
use crate::spec::MoeSpec;

/// The place of a row that did not choose the expert.
const ABSENT: usize = usize::MAX;

/// See [`crate::forward::ops::Ops::choose_experts`].
pub(super) fn choose(
    cpu: &Cpu<'_>,
    moe: &MoeSpec,
    logits: Columns<'_, AlignedBuf<f32>>,
    rows: usize,
    correction: Option<&[f32]>,
    scales: Option<&[f32]>,
    choices: &mut Choices,
) -> Result<()> {
    let stop = cpu.region.stop();
    choices.begin(rows, moe)?;
    for row in 0..rows {
        if stop.is_set() {
            return Ok(());
        }
        choices.choose(moe, row, logits.of_row(row, moe.num_experts), correction, scales);
    }
    choices.sort();
    Ok(())
}

/// See [`crate::forward::ops::Ops::expert`].
pub(super) fn forward(
    cpu: &Cpu<'_>,
    expert: ActivatedMlp<'_>,
    input: ExpertInput<'_, AlignedBuf<f32>>,
    out: &mut [f32],
    buffers: ExpertBuffers<'_, Host>,
) -> Result<()> {
    let ExpertInput { x, shape: Shape { rows, width }, taken } = input;
    let ExpertBuffers { mlp: MlpBuffers { activated, codes, activated_codes }, layer_codes, gathered } =
        buffers;
    let count = taken.len();
    let out = &mut out[..count * width];
    if cpu.watcher.is_some() {
        for choice in taken {
            cpu.show(&expert.weights.gate_up, &x[choice.row * width..][..width])?;
        }
    }
    let scaled = taken.iter().any(|choice| choice.input != 1.0);
    if let Some(format) = expert.weights.gate_up.weight.format().activations().filter(|_| !scaled) {
        // Each row is quantized once, not once for each of its experts.
        if !layer_codes.are(rows, width, format) {
            layer_codes.quantize(cpu.kernels, cpu.region, &x[..rows * width], rows, width, format)?;
        }
        let of_expert = if count < rows {
            codes.gather(layer_codes, count, taken.iter().map(|choice| choice.row))?;
            codes
        } else {
            layer_codes
        };
        let store = Store::Overwrite;
        return gated_mlp_of_codes(cpu, expert, of_expert, count, store, out, activated, activated_codes);
    }
    let input = if count == rows && !scaled {
        &x[..count * width]
    } else {
        let gathered = &mut gathered[..count * width];
        cpu.by_rows(gathered, width, |place, to| {
            let Choice { row, input, .. } = taken[place];
            to.copy_from_slice(&x[row * width..][..width]);
            if input != 1.0 {
                cpu.kernels.scale_and_cap(input, None, to);
            }
        });
        &*gathered
    };
    let buffers = MlpBuffers { activated, codes, activated_codes };
    gated_mlp(cpu, expert, input, count, Store::Overwrite, out, buffers)
}

/// See [`crate::forward::ops::Ops::scatter_add`].
pub(super) fn scatter_add(
    cpu: &Cpu<'_>,
    y: &[f32],
    choices: &[Choice],
    shape: Shape,
    out: &mut [f32],
    places: &mut Vec<usize>,
) {
    let width = shape.width;
    places.clear();
    places.resize(shape.rows, ABSENT);
    choices.iter().enumerate().for_each(|(place, choice)| places[choice.row] = place);
    let places = &*places;
    cpu.by_rows(&mut out[..shape.len()], width, |row, out| {
        if let Some(choice) = choices.get(places[row]) {
            cpu.kernels.add_scaled(&y[places[row] * width..][..width], choice.weight, out);
        }
    });
}

/// See [`crate::forward::ops::Ops::add_shared_expert`].
pub(super) fn add_shared(
    cpu: &Cpu<'_>,
    y: &[f32],
    gate: SharedGate<'_, AlignedBuf<f32>>,
    shape: Shape,
    out: &mut [f32],
) {
    let width = shape.width;
    cpu.by_rows(&mut out[..shape.len()], width, |row, out| {
        let weight = gate.map_or(1.0, |gate| sigmoid(gate.of_row(row, 1)[0]));
        cpu.kernels.add_scaled(&y[row * width..][..width], weight, out);
    });
}
