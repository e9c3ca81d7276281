//! Gated short convolutions, as LFM2 has them on most layers: `out(C * conv(B * x))`.
//! Source: transformers 5, `models/lfm2/modeling_lfm2.py`.

use clawdbot_kernels::ConvArgs;

use super::MixContext;
use crate::error::{Error, Result};
use crate::forward::decoder::Linear;
use crate::forward::states::{History, sequence_states};

/// Weights of a short convolution. Its state is the last `kernel_size - 1` inputs of the convolution, the oldest first.
pub(crate) struct ShortConvWeights {
    /// hidden_size -> B, C, x
    pub(crate) input: Linear,
    /// `[kernel_size, hidden_size]`
    pub(crate) conv: Vec<f32>,
    /// `[hidden_size]`
    pub(crate) conv_bias: Option<Vec<f32>>,
}

impl ShortConvWeights {
    /// See [`crate::forward::mixers::Mixer::forward`].
    pub(crate) fn forward(&self, context: &mut MixContext<'_>, x: &[f32], out: &mut [f32]) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, quantized, .. } = context;
        let conv = spec.short_conv.ok_or_else(|| Error::internal("a convolution without sizes"))?;
        let (rows, hidden, kernel_size) = (batch.rows(), spec.hidden_size, conv.kernel_size);
        let [bcx, inputs, ..] = &mut scratch.wide;
        let bcx = &mut bcx[..rows * 3 * hidden];
        ops.linear(x, rows, &self.input, bcx, false, quantized)?;
        let part = |row: usize, part: usize| &bcx[(3 * row + part) * hidden..][..hidden];
        let inputs = &mut inputs[..rows * hidden];
        ops.by_rows(inputs, hidden, |row, out| {
            for (out, (b, x)) in out.iter_mut().zip(part(row, 0).iter().zip(part(row, 2))) {
                *out = b * x;
            }
        });
        let floats = (kernel_size - 1).max(1) * hidden;
        for state in sequence_states(cache, *layer, batch, floats)? {
            let rows = &inputs[state.row * hidden..][..state.rows * hidden];
            let (earlier, _) = state.live.split_at_mut((kernel_size - 1) * hidden);
            let history = History { earlier, rows, stride: hidden, width: hidden };
            let out = &mut out[state.row * hidden..][..state.rows * hidden];
            ops.by_rows(out, hidden, |row, out| {
                let (inputs, bias) = (&history.seen_by(row, kernel_size)[..], self.conv_bias.as_deref());
                ops.kernels.causal_conv(ConvArgs { inputs, weights: &self.conv, bias, silu: false, out });
                for (out, c) in out.iter_mut().zip(part(state.row + row, 1)) {
                    *out *= c;
                }
            });
            if let Some((rows, snapshot)) = state.snapshot {
                snapshot[..(kernel_size - 1) * hidden].copy_from_slice(&history.after(rows, kernel_size));
            }
            let after = history.after(state.rows, kernel_size);
            earlier.copy_from_slice(&after);
        }
        Ok(())
    }
}
