//! Token mixers: the first half of a layer, in which tokens of a sequence read each other. One file each; their sizes and
//! tensors are described in `spec/mixers`.

use clawdbot_kernels::PackedMatrix;

use super::batch::Batch;
use super::linear::Linear;
use super::ops::{Cache, Codes, LayerRef, Ops, Rows, WorkspaceOf};
use super::rope::RopeTables;
use super::scratch::MixerScratch;
use crate::cache::LayerState;
use crate::error::{Error, Result};
use crate::spec::mixers::MixerNames;
use crate::spec::tensors::{LinearNames, VectorName};
use crate::spec::{DecoderSpec, MixerSpec};

/// The weights of a mixer, without its output projection, and how it computes with them.
pub(crate) trait MixerWeights: Sized {
    /// Its sizes.
    type Spec;
    /// Its tensors.
    type Names;

    /// Reads and packs the weights of a layer.
    ///
    /// # Errors
    /// As the reader gives them.
    fn read(
        spec: &Self::Spec,
        layer: LayerRef<'_>,
        names: &Self::Names,
        weights: &mut impl ReadWeights,
    ) -> Result<Self>;

    /// The state that a layer keeps of each sequence.
    fn state(spec: &Self::Spec, layer: LayerRef<'_>) -> LayerState;

    /// Elements per row of each of the buffers in [`MixerScratch::wide`]: at most five, with 0 for those that `forward` does
    /// not use. Their contents before it are unspecified.
    fn wide_sizes(spec: &Self::Spec, layer: LayerRef<'_>) -> [usize; 5];

    /// Inputs of the largest matrix of a single head, for [`Ops::head_matmul`]; 0 without such matrices.
    fn head_input(_: &Self::Spec) -> usize {
        0
    }

    /// What `ReadWeights::linear` and `matrices_of` returned, in the order of `MixerTensors::packed`.
    fn matrices(&self) -> Vec<&PackedMatrix>;

    /// Mixes `x`, `[rows, hidden_size]`, into `out`, `[rows, mixed_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory, `Internal` when a page or state is missing.
    fn forward<O: Ops>(
        &self,
        spec: &Self::Spec,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()>;
}

/// Reads and packs the weights of a model.
pub(crate) trait ReadWeights {
    /// A vector in f32.
    ///
    /// # Errors
    /// As the weight files give them; for all methods.
    fn vector(&self, name: &VectorName) -> Result<Vec<f32>>;

    /// A matrix of `n` rows that is computed with in f32, whatever the model's weight type.
    fn float_matrix(&self, values: &[f32], n: usize) -> Result<PackedMatrix>;

    /// Projections of the same input as one: a group of `MixerTensors::packed`.
    fn linear(&mut self, parts: &[LinearNames]) -> Result<Linear>;

    /// The matrices one by one, without biases.
    fn matrices_of(&mut self, names: &[LinearNames]) -> Result<Vec<PackedMatrix>>;

    /// The vector, if there is one.
    fn optional(&self, name: Option<&VectorName>) -> Result<Option<Vec<f32>>> {
        name.map(|name| self.vector(name)).transpose()
    }

    /// The projections as one, if there are any.
    fn optional_linear(&mut self, parts: &[LinearNames]) -> Result<Option<Linear>> {
        if parts.is_empty() { Ok(None) } else { self.linear(parts).map(Some) }
    }

    /// A convolution's weights `[channels, 1, kernel_size]` as `[kernel_size, channels]`.
    fn convolution(&self, name: &VectorName, channels: usize) -> Result<Vec<f32>> {
        let weights = self.vector(name)?;
        let kernel_size = weights.len() / channels.max(1);
        Ok((0..weights.len()).map(|i| weights[i % channels * kernel_size + i / channels]).collect())
    }
}

macro_rules! mixers {
    ($($variant:ident: $module:ident::$weights:ident,)+) => {
        $(pub(crate) mod $module;)+

        /// Weights of a token mixer, without its output projection.
        pub(crate) enum Mixer {
            $($variant(Box<$module::$weights>),)+
        }

        impl Mixer {
            /// See [`MixerWeights::read`].
            pub(crate) fn read(
                layer: LayerRef<'_>,
                names: &MixerNames,
                weights: &mut impl ReadWeights,
            ) -> Result<Self> {
                match (&layer.spec.layers[layer.layer].mixer, names) {
                    $((MixerSpec::$variant(spec), MixerNames::$variant(names)) => {
                        Ok(Mixer::$variant(Box::new(MixerWeights::read(spec, layer, names.as_ref(), weights)?)))
                    })+
                    _ => Err(Error::internal("a layer has the tensors of another mixer")),
                }
            }

            /// See [`MixerWeights::matrices`].
            pub(crate) fn matrices(&self) -> Vec<&PackedMatrix> {
                match self {
                    $(Mixer::$variant(weights) => weights.matrices(),)+
                }
            }

            /// See [`MixerWeights::forward`].
            pub(crate) fn forward<O: Ops>(
                &self,
                context: MixContext<'_, O>,
                x: &Rows<O>,
                out: &mut Rows<O>,
            ) -> Result<()> {
                match (self, &context.spec.layers[context.layer].mixer) {
                    $((Mixer::$variant(weights), MixerSpec::$variant(spec)) => {
                        weights.forward(spec, context, x, out)
                    })+
                    _ => Err(Error::internal("a layer has the weights of another mixer")),
                }
            }
        }

        impl DecoderSpec {
            /// See [`MixerWeights::state`].
            fn layer_state(&self, layer: usize) -> LayerState {
                match &self.layers[layer].mixer {
                    $(MixerSpec::$variant(spec) => $module::$weights::state(spec, LayerRef { spec: self, layer }),)+
                }
            }

            /// See [`MixerWeights::wide_sizes`].
            fn layer_wide_sizes(&self, layer: usize) -> [usize; 5] {
                match &self.layers[layer].mixer {
                    $(MixerSpec::$variant(spec) => $module::$weights::wide_sizes(spec, LayerRef { spec: self, layer }),)+
                }
            }

            /// See [`MixerWeights::head_input`].
            fn layer_head_input(&self, layer: usize) -> usize {
                match &self.layers[layer].mixer {
                    $(MixerSpec::$variant(spec) => $module::$weights::head_input(spec),)+
                }
            }
        }
    };
}

mixers! {
    Attention: attention::AttentionWeights,
    Mla: mla::MlaWeights,
    ShortConv: short_conv::ShortConvWeights,
    DeltaNet: delta_net::DeltaNetWeights,
    Mamba: mamba::MambaWeights,
}

/// What a mixer computes with.
pub(crate) struct MixContext<'a, O: Ops> {
    pub(crate) ops: &'a O,
    pub(crate) spec: &'a DecoderSpec,
    pub(crate) layer: usize,
    pub(crate) cache: &'a mut Cache<O>,
    pub(crate) batch: &'a Batch<'a>,
    /// Where attention writes the batch's keys and values.
    pub(crate) plan: &'a O::WritePlan,
    /// The rotations of the batch's positions.
    pub(crate) tables: &'a RopeTables<'a>,
    pub(crate) scratch: &'a mut MixerScratch<O::Memory>,
    /// For the quantized input of a product.
    pub(crate) codes: &'a mut Codes<O>,
    /// Buffers of the device's own operations.
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
        (0..self.layers.len()).map(|layer| self.layer_state(layer)).collect()
    }

    /// Elements per row of each of the buffers in [`MixerScratch::wide`], for the layers that need the most.
    pub(crate) fn wide_sizes(&self) -> [usize; 5] {
        let layers = (0..self.layers.len()).map(|layer| self.layer_wide_sizes(layer));
        layers.fold([0; 5], |most, sizes| std::array::from_fn(|i| most[i].max(sizes[i])))
    }

    /// Elements per row of each thread's buffer for [`Ops::head_matmul`]; 0 where no layer uses it.
    pub(crate) fn head_input(&self) -> usize {
        (0..self.layers.len()).map(|layer| self.layer_head_input(layer)).max().unwrap_or(0)
    }

    /// Elements per row of the widest mixer's result, before the output projection.
    pub(crate) fn widest_mixed(&self) -> usize {
        (0..self.layers.len()).map(|layer| self.mixed_size(layer)).max().unwrap_or(0)
    }
}
