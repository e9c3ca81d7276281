//! Token mixers: the first half of a layer, in which tokens of a sequence read each other.

pub(crate) mod attention;
pub(crate) mod delta_net;
pub(crate) mod mamba;
pub(crate) mod mla;
pub(crate) mod short_conv;

use clawdbot_kernels::PackedMatrix;

use self::attention::AttentionWeights;
use self::delta_net::DeltaNetWeights;
use self::mamba::MambaWeights;
use self::mla::MlaWeights;
use self::short_conv::ShortConvWeights;
use super::batch::Batch;
use super::ops::{Cache, Codes, LayerRef, Ops, Rows, WorkspaceOf};
use super::rope::RopeTables;
use super::scratch::MixerScratch;
use crate::cache::LayerState;
use crate::error::Result;
use crate::spec::{DecoderSpec, HeadShape, KeySource, LayerSpec, MixerKind};

/// Weights of a token mixer, without its output projection.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
pub(crate) enum Mixer {
    Attention(AttentionWeights),
    Mla(Box<MlaWeights>),
    ShortConv(Box<ShortConvWeights>),
    DeltaNet(Box<DeltaNetWeights>),
    Mamba(Box<MambaWeights>),
}

/// What a mixer computes with.
pub(crate) struct MixContext<'a, O: Ops> {
    pub(crate) ops: &'a O,
    pub(crate) spec: &'a DecoderSpec,
    pub(crate) layer: usize,
    pub(crate) cache: &'a mut Cache<O>,
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) plan: &'a O::WritePlan,
    pub(crate) tables: &'a RopeTables<'a>,
    pub(crate) scratch: &'a mut MixerScratch<O::Memory>,
    pub(crate) codes: &'a mut Codes<O>,
    pub(crate) workspace: &'a mut WorkspaceOf<O>,
}

impl<'a, O: Ops> MixContext<'a, O> {
    /// The layer that is computed.
    fn layer(&self) -> LayerRef<'a> {
        LayerRef { spec: self.spec, layer: self.layer }
    }
}

impl DecoderSpec {
    /// The state each layer keeps.
    pub(crate) fn layer_states(&self) -> Vec<LayerState> {
        let state = |(index, layer): (usize, &LayerSpec)| match layer.mixer {
            MixerKind::Attention => match (layer.keys, self.heads(index)) {
                (KeySource::Layer(layer), _) => LayerState::Shared { layer },
                // An encoder's pass has whole sequences, and no later pass reads their keys: all layers share one layer's pages.
                _ if self.bidirectional && index > 0 => LayerState::Shared { layer: 0 },
                _ if self.bidirectional => LayerState::Attention {
                    window: None,
                    kv_heads: self.num_key_value_heads,
                    head_dim: self.head_dim,
                },
                (_, HeadShape { num_key_value_heads: kv_heads, head_dim }) => {
                    LayerState::Attention { window: layer.window, kv_heads, head_dim }
                }
            },
            MixerKind::ShortConv => LayerState::Recurrent {
                floats: self.short_conv.map_or(0, |conv| (conv.kernel_size - 1).max(1) * self.hidden_size),
            },
            MixerKind::DeltaNet => {
                let floats = self.delta_net.map_or(0, |delta| delta.recurrence().state_len());
                LayerState::Recurrent { floats }
            }
            MixerKind::Mamba => {
                let floats = self.mamba.map_or(0, |mamba| mamba.recurrence().state_len());
                LayerState::Recurrent { floats }
            }
        };
        self.layers.iter().enumerate().map(state).collect()
    }

    /// Elements per row of each of the buffers in [`MixerScratch::wide`].
    pub(crate) fn wide_sizes(&self) -> [usize; 5] {
        // Room for queries, keys and values that are computed in parts, or for the gate.
        let apart = |layer: usize| match self.layers[layer].keys {
            KeySource::Own if !self.attention.gate => 0,
            _ => self.qkv_size(layer),
        };
        let mut sizes = [(0..self.layers.len()).map(apart).max().unwrap_or(0), 0, 0, 0, 0];
        let others = [
            self.mla.map(|mla| mla.wide_sizes(self)),
            self.short_conv.map(|_| [3 * self.hidden_size, self.hidden_size, 0, 0, 0]),
            self.delta_net.map(|delta| delta.wide_sizes()),
            self.mamba.map(|mamba| mamba.wide_sizes()),
        ];
        for other in others.into_iter().flatten() {
            sizes = std::array::from_fn(|i| sizes[i].max(other[i]));
        }
        sizes
    }

    /// Elements per row of the widest mixer's result, before the output projection.
    pub(crate) fn widest_mixed(&self) -> usize {
        (0..self.layers.len()).map(|layer| self.mixed_size(layer)).max().unwrap_or(0)
    }
}

impl Mixer {
    /// Packed matrices, in the order of `MixerNames::packed`.
    pub(crate) fn matrices(&self) -> Vec<&PackedMatrix> {
        match self {
            Mixer::Attention(weights) => weights.matrices(),
            Mixer::Mla(weights) => weights.matrices(),
            Mixer::ShortConv(weights) => vec![&weights.input.weight],
            Mixer::DeltaNet(weights) => vec![&weights.qkvz.weight],
            Mixer::Mamba(weights) => vec![&weights.input.weight],
        }
    }

    /// Mixes `x`, `[rows, hidden_size]`, into `out`, `[rows, inputs of the output projection]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory, `Internal` when a page or state is missing.
    pub(crate) fn forward<O: Ops>(
        &self,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()> {
        match self {
            Mixer::Attention(weights) => weights.forward(context, x, out),
            Mixer::Mla(weights) => weights.forward(context, x, out),
            Mixer::ShortConv(weights) => weights.forward(context, x, out),
            Mixer::DeltaNet(weights) => weights.forward(context, x, out),
            Mixer::Mamba(weights) => weights.forward(context, x, out),
        }
    }
}
