//! Mamba-2 (<https://arxiv.org/abs/2405.21060>) as in Granite 4 and Nemotron-H.

use super::{DescribeMixer, MixerNames, MixerTensors, OutputProjection};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::expect::expect;
use crate::spec::tensors::{LinearNames, Part, PartStorage, Runs, VectorName, linear};

/// Sizes of a Mamba-2 layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MambaSpec {
    /// Tokens that the convolution before the recurrence covers, the current one included.
    pub(crate) kernel_size: usize,
    /// Whether the convolution has a bias.
    pub(crate) conv_bias: bool,
    pub(crate) num_heads: usize,
    pub(crate) head_dim: usize,
    /// Groups of `B` and `C`; divides `num_heads`.
    pub(crate) num_groups: usize,
    /// Rows of a head's state.
    pub(crate) state_size: usize,
}

/// The tensors of a Mamba-2 layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MambaNames {
    /// `[2 * inner + 2 * num_groups * state_size, hidden_size]`: `z`, `x`, `B` and `C`.
    pub(crate) input: LinearNames,
    /// `[heads, hidden_size]`: the projection that gives `dt`.
    pub(crate) steps: VectorName,
    /// `[channels, 1, kernel_size]`
    pub(crate) conv: VectorName,
    /// `[channels]`
    pub(crate) conv_bias: Option<VectorName>,
    /// `[heads]`: negative decay rates.
    pub(crate) minus_a: VectorName,
    /// `[heads]`
    pub(crate) dt_bias: VectorName,
    /// `[heads]`: `D`, the weight of a head's own `x`.
    pub(crate) skip: VectorName,
    /// `[heads * head_dim]`
    pub(crate) norm: VectorName,
}

impl MixerTensors for MambaNames {
    fn packed(&self) -> Vec<&[LinearNames]> {
        vec![std::slice::from_ref(&self.input)]
    }

    fn vectors(&self) -> Vec<&VectorName> {
        let vectors = [&self.steps, &self.conv].into_iter().chain(&self.conv_bias);
        vectors.chain([&self.minus_a, &self.dt_bias, &self.skip, &self.norm]).collect()
    }

    /// None: some rows of the projection are computed separately.
    fn adaptable(&self) -> Vec<&[LinearNames]> {
        Vec::new()
    }
}

impl MambaSpec {
    /// Elements of x, and as many of z.
    pub(crate) fn inner(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Channels of the convolution: x, B and C.
    pub(crate) fn channels(&self) -> usize {
        self.inner() + 2 * self.num_groups * self.state_size
    }
}

impl DescribeMixer for MambaSpec {
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("mamba_d_conv", self.kernel_size),
            ("mamba_n_heads", self.num_heads),
            ("mamba_d_head", self.head_dim),
            ("mamba_n_groups", self.num_groups),
            ("mamba_d_state", self.state_size),
        ]
    }

    fn check(&self, _: &DecoderSpec) -> Result<()> {
        let divides = format!("a divisor of mamba_n_heads, which is {}", self.num_heads);
        let fits = self.num_heads.is_multiple_of(self.num_groups);
        expect(fits, "mamba_n_groups", &divides, self.num_groups)
    }

    fn tensors(&self, model: &DecoderSpec, prefix: &str, _layer: usize) -> MixerNames {
        let (hidden, heads, inner) = (model.hidden_size, self.num_heads, self.inner());
        let channels = self.channels();
        let (wide, all) = (inner + channels, inner + channels + heads);
        let module = format!("{prefix}.{}", model.names.mamba.mixer);
        let joined = linear(&module, "in_proj", all, hidden);
        let tensor = joined.weight.name.clone();
        let steps = Part {
            tensor: tensor.clone(),
            shape: vec![all, hidden],
            first: wide * hidden,
            run: usize::MAX,
            stride: 0,
            storage: PartStorage::Rows,
        };
        let vector = |name: &str, len| VectorName::new(format!("{module}.{name}"), len, 0.0);
        let conv = format!("{module}.conv1d.weight");
        MixerNames::Mamba(Box::new(MambaNames {
            input: Runs { first: 0, run: wide, stride: 0, of: all }.linear(&joined, "input", wide),
            steps: VectorName {
                name: format!("{tensor}.steps"),
                len: heads * hidden,
                part: Some(Box::new(steps)),
                offset: 0.0,
                k: Some(hidden),
            },
            conv: VectorName::convolution(conv, channels, self.kernel_size),
            conv_bias: self.conv_bias.then(|| vector("conv1d.bias", channels)),
            minus_a: VectorName::decay_rates(&module, heads),
            dt_bias: vector("dt_bias", heads),
            skip: vector("D", heads),
            norm: vector("norm.weight", inner),
        }))
    }

    fn mixed_size(&self, _: &DecoderSpec, _layer: usize) -> usize {
        self.inner()
    }

    fn output(&self, model: &DecoderSpec) -> OutputProjection {
        OutputProjection { module: model.names.mamba.output, bias: false }
    }
}
