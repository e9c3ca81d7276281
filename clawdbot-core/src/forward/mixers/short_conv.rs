//! Gated short convolutions, as in LFM2: `out(C * conv(B * x))`.
//! Source: transformers 5, `models/lfm2/modeling_lfm2.py`.

use clawdbot_kernels::PackedMatrix;

use super::{MixContext, MixerWeights, ReadWeights};
use crate::cache::LayerState;
use crate::error::Result;
use crate::forward::linear::Linear;
use crate::forward::ops::{Convolution, LayerRef, Ops, Rows, StateSource, Store};
use crate::spec::mixers::short_conv::{ShortConvNames, ShortConvSpec};

/// Weights of a short convolution. Its state is the last `kernel_size - 1` inputs of the convolution, the oldest first.
pub(crate) struct ShortConvWeights {
    /// hidden_size -> B, C, x
    pub(crate) input: Linear,
    /// `[kernel_size, hidden_size]`
    pub(crate) conv: Vec<f32>,
    /// `[hidden_size]`
    pub(crate) conv_bias: Option<Vec<f32>>,
}

impl MixerWeights for ShortConvWeights {
    type Spec = ShortConvSpec;
    type Names = ShortConvNames;

    fn read(
        _: &ShortConvSpec,
        layer: LayerRef<'_>,
        names: &ShortConvNames,
        weights: &mut impl ReadWeights,
    ) -> Result<Self> {
        Ok(ShortConvWeights {
            input: weights.linear(std::slice::from_ref(&names.input))?,
            conv: weights.convolution(&names.conv, layer.spec.hidden_size)?,
            conv_bias: weights.optional(names.conv_bias.as_ref())?,
        })
    }

    // One input where the convolution covers a single token: a state cannot be empty.
    fn state(spec: &ShortConvSpec, layer: LayerRef<'_>) -> LayerState {
        LayerState::Recurrent { floats: (spec.kernel_size - 1).max(1) * layer.spec.hidden_size }
    }

    fn wide_sizes(_: &ShortConvSpec, layer: LayerRef<'_>) -> [usize; 5] {
        let hidden = layer.spec.hidden_size;
        [3 * hidden, hidden, 0, 0, 0]
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        vec![&self.input.weight]
    }

    fn forward<O: Ops>(
        &self,
        sizes: &ShortConvSpec,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, codes, .. } = context;
        let [bcx, inputs, ..] = &mut scratch.wide;
        ops.linear(x, batch.rows(), &self.input, Store::Overwrite, bcx, codes)?;
        let (bias, kernel_size) = (self.conv_bias.as_deref(), sizes.kernel_size);
        let conv = Convolution { weights: &self.conv, bias, kernel_size };
        let states = StateSource { cache, layer, batch };
        ops.short_conv(states, conv, bcx, spec.hidden_size, inputs, out)
    }
}
