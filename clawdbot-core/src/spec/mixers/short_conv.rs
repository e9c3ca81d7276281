//! A gated convolution over the last tokens (LFM2): `out(C * conv(B * x))`, with `B`, `C` and `x` projected from the input.

use super::{DescribeMixer, MixerNames, MixerTensors, OutputProjection};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::tensors::{LinearNames, VectorName, linear};

/// Sizes of a short convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShortConvSpec {
    /// Tokens in the convolution's window, the current one included.
    pub(crate) kernel_size: usize,
    /// Whether convolution and projections have biases.
    pub(crate) bias: bool,
}

/// The tensors of a short convolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShortConvNames {
    /// `[3 * hidden_size, hidden_size]`
    pub(crate) input: LinearNames,
    /// `[hidden_size, 1, kernel_size]`
    pub(crate) conv: VectorName,
    /// `[hidden_size]`
    pub(crate) conv_bias: Option<VectorName>,
}

impl MixerTensors for ShortConvNames {
    fn packed(&self) -> Vec<&[LinearNames]> {
        vec![std::slice::from_ref(&self.input)]
    }

    fn vectors(&self) -> Vec<&VectorName> {
        std::iter::once(&self.conv).chain(&self.conv_bias).collect()
    }
}

impl DescribeMixer for ShortConvSpec {
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![("conv_L_cache", self.kernel_size)]
    }

    fn check(&self, _: &DecoderSpec) -> Result<()> {
        Ok(())
    }

    fn tensors(&self, model: &DecoderSpec, prefix: &str, _layer: usize) -> MixerNames {
        let hidden = model.hidden_size;
        MixerNames::ShortConv(Box::new(ShortConvNames {
            input: linear(prefix, "conv.in_proj", 3 * hidden, hidden).with_bias(self.bias),
            conv: VectorName::convolution(format!("{prefix}.conv.conv.weight"), hidden, self.kernel_size),
            conv_bias: self.bias.then(|| VectorName::new(format!("{prefix}.conv.conv.bias"), hidden, 0.0)),
        }))
    }

    fn mixed_size(&self, model: &DecoderSpec, _layer: usize) -> usize {
        model.hidden_size
    }

    fn output(&self, _: &DecoderSpec) -> OutputProjection {
        OutputProjection { module: "conv.out_proj", bias: self.bias }
    }
}
