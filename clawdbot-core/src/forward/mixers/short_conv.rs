//! Gated short convolutions, as in LFM2: `out(C * conv(B * x))`.
//! Source: transformers 5, `models/lfm2/modeling_lfm2.py`.

use super::MixContext;
use crate::error::{Error, Result};
use crate::forward::linear::Linear;
use crate::forward::ops::{Convolution, Ops, Rows, StateSource, Store};

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
    pub(crate) fn forward<O: Ops>(
        &self,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, codes, .. } = context;
        let sizes = spec.short_conv.ok_or_else(|| Error::internal("a convolution without sizes"))?;
        let [bcx, inputs, ..] = &mut scratch.wide;
        ops.linear(x, batch.rows(), &self.input, Store::Overwrite, bcx, codes)?;
        let (bias, kernel_size) = (self.conv_bias.as_deref(), sizes.kernel_size);
        let conv = Convolution { weights: &self.conv, bias, kernel_size };
        let states = StateSource { cache, layer, batch };
        ops.short_conv(states, conv, bcx, spec.hidden_size, inputs, out)
    }
}
