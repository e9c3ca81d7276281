//! Token mixers as data, one per file: their sizes and their tensors. How they are computed is in `forward/mixers`.

use super::DecoderSpec;
use super::expect::expect_size;
use super::tensors::{LinearNames, VectorName};
use crate::error::Result;

/// The description of a token mixer.
pub(crate) trait DescribeMixer {
    /// Its sizes with their keys in `config.json`. [`MixerSpec::check`] refuses 0 and more than 65,536.
    fn sizes(&self) -> Vec<(&'static str, usize)>;

    /// Checks that its sizes fit each other and the model's.
    ///
    /// # Errors
    /// `InvalidModel` naming the key, expected and found.
    fn check(&self, model: &DecoderSpec) -> Result<()>;

    /// Its tensors in layer `layer`; their names begin with `prefix`, such as `model.layers.3`.
    fn tensors(&self, model: &DecoderSpec, prefix: &str, layer: usize) -> MixerNames;

    /// Elements of its output for a token in layer `layer`, before the output projection.
    fn mixed_size(&self, model: &DecoderSpec, layer: usize) -> usize;

    /// Its output projection.
    fn output(&self, model: &DecoderSpec) -> OutputProjection;
}

/// The output projection of a mixer: from its `mixed_size` to `hidden_size`.
pub(crate) struct OutputProjection {
    /// Its name below the layer's, such as `conv.out_proj`.
    pub(crate) module: &'static str,
    pub(crate) bias: bool,
}

/// The tensors of a token mixer, without its output projection.
pub(crate) trait MixerTensors {
    /// Projections, grouped by what is packed as one. Groups may be empty.
    fn packed(&self) -> Vec<&[LinearNames]>;

    /// All that stays in f32, small matrices included, apart from biases of projections. Packed files have what is listed.
    fn vectors(&self) -> Vec<&VectorName>;

    /// Those of [`packed`](Self::packed) that adapters may change.
    fn adaptable(&self) -> Vec<&[LinearNames]> {
        self.packed()
    }
}

macro_rules! mixers {
    ($($(#[$doc:meta])* $variant:ident: $module:ident::{$spec:ident, $names:ident},)+) => {
        $(pub(crate) mod $module;)+

        /// The token mixer of a layer, with its sizes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum MixerSpec {
            $($(#[$doc])* $variant($module::$spec),)+
        }

        impl MixerSpec {
            /// What all mixers have.
            pub(crate) fn description(&self) -> &dyn DescribeMixer {
                match self {
                    $(MixerSpec::$variant(spec) => spec,)+
                }
            }
        }

        /// The tensors of a token mixer.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum MixerNames {
            $($variant(Box<$module::$names>),)+
        }

        impl MixerNames {
            fn tensors(&self) -> &dyn MixerTensors {
                match self {
                    $(MixerNames::$variant(names) => names.as_ref(),)+
                }
            }
        }
    };
}

mixers! {
    /// Softmax attention.
    Attention: attention::{Attention, AttentionNames},
    /// Multi-head latent attention.
    Mla: mla::{MlaSpec, MlaNames},
    /// A gated convolution over the last tokens.
    ShortConv: short_conv::{ShortConvSpec, ShortConvNames},
    /// Gated DeltaNet.
    DeltaNet: delta_net::{DeltaNetSpec, DeltaNetNames},
    /// Mamba-2.
    Mamba: mamba::{MambaSpec, MambaNames},
}

impl MixerSpec {
    /// Checks each size, and how they fit together.
    ///
    /// # Errors
    /// `InvalidModel` naming the key, expected and found.
    pub(super) fn check(&self, model: &DecoderSpec) -> Result<()> {
        for (key, size) in self.description().sizes() {
            expect_size(key, size)?;
        }
        self.description().check(model)
    }
}

impl MixerNames {
    /// Projections, grouped by what is packed as one.
    pub(crate) fn packed(&self) -> Vec<&[LinearNames]> {
        without_empty(self.tensors().packed())
    }

    /// Those of [`packed`](Self::packed) that adapters may change.
    pub(crate) fn adaptable(&self) -> Vec<&[LinearNames]> {
        without_empty(self.tensors().adaptable())
    }

    /// What stays in f32, apart from biases of projections.
    pub(crate) fn vectors(&self) -> Vec<&VectorName> {
        self.tensors().vectors()
    }
}

fn without_empty(mut groups: Vec<&[LinearNames]>) -> Vec<&[LinearNames]> {
    groups.retain(|group| !group.is_empty());
    groups
}
