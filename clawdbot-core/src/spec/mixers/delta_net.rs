//! Gated DeltaNet (<https://arxiv.org/abs/2412.06464>) as in Qwen3-Next and Qwen3.5.

use super::{DescribeMixer, MixerNames, MixerTensors, OutputProjection};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::expect::expect;
use crate::spec::tensors::{LinearNames, Part, PartStorage, Runs, VectorName, linear};

/// Sizes of a gated delta net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeltaNetSpec {
    /// Tokens that the convolution before the recurrence covers, the current one included.
    pub(crate) kernel_size: usize,
    pub(crate) num_key_heads: usize,
    /// A multiple of `num_key_heads`.
    pub(crate) num_value_heads: usize,
    pub(crate) key_head_dim: usize,
    pub(crate) value_head_dim: usize,
    /// Whether value head `h` uses key head `h % num_key_heads`, instead of `h / (num_value_heads / num_key_heads)`.
    pub(crate) tiled: bool,
    /// How its projections are stored.
    pub(crate) storage: DeltaStorage,
}

/// How the projections of a DeltaNet layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeltaStorage {
    /// Queries, keys, values and gates in one tensor, grouped by key head; corrections and decays likewise.
    Grouped,
    /// Queries, keys and values in one tensor, the others in one each.
    Apart,
}

/// The tensors of a gated delta net.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeltaNetNames {
    /// Queries, keys, values, gates: `[2 * keys + 2 * values, hidden_size]` together.
    pub(crate) qkvz: Vec<LinearNames>,
    /// `[value_heads, hidden_size]`: the strengths of corrections.
    pub(crate) beta: VectorName,
    /// `[value_heads, hidden_size]`: the decays.
    pub(crate) decay: VectorName,
    /// `[channels, 1, kernel_size]`
    pub(crate) conv: VectorName,
    /// `[value_heads]`: negative decay rates.
    pub(crate) minus_a: VectorName,
    /// `[value_heads]`
    pub(crate) dt_bias: VectorName,
    /// `[value_head_dim]`
    pub(crate) norm: VectorName,
}

/// The projections of a gated delta net.
struct Projections {
    qkvz: Vec<LinearNames>,
    beta: VectorName,
    decay: VectorName,
}

impl MixerTensors for DeltaNetNames {
    fn packed(&self) -> Vec<&[LinearNames]> {
        vec![&self.qkvz]
    }

    fn vectors(&self) -> Vec<&VectorName> {
        vec![&self.beta, &self.decay, &self.conv, &self.minus_a, &self.dt_bias, &self.norm]
    }
}

impl DescribeMixer for DeltaNetSpec {
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("linear_conv_kernel_dim", self.kernel_size),
            ("linear_num_key_heads", self.num_key_heads),
            ("linear_num_value_heads", self.num_value_heads),
            ("linear_key_head_dim", self.key_head_dim),
            ("linear_value_head_dim", self.value_head_dim),
        ]
    }

    fn check(&self, _: &DecoderSpec) -> Result<()> {
        let DeltaNetSpec { num_key_heads, num_value_heads, .. } = *self;
        let divides = format!("a multiple of linear_num_key_heads, which is {num_key_heads}");
        let fits = num_value_heads.is_multiple_of(num_key_heads);
        expect(fits, "linear_num_value_heads", &divides, num_value_heads)
    }

    fn tensors(&self, model: &DecoderSpec, prefix: &str, _layer: usize) -> MixerNames {
        let (heads, hidden) = (self.num_value_heads, model.hidden_size);
        let Projections { qkvz, beta, decay } = match self.storage {
            DeltaStorage::Grouped => self.grouped(prefix, hidden),
            DeltaStorage::Apart => self.apart(prefix, hidden),
        };
        let vector = |name: &str, len| VectorName::new(format!("{prefix}.linear_attn.{name}"), len, 0.0);
        let conv = format!("{prefix}.linear_attn.conv1d.weight");
        MixerNames::DeltaNet(Box::new(DeltaNetNames {
            qkvz,
            beta,
            decay,
            conv: VectorName::convolution(conv, self.channels(), self.kernel_size),
            minus_a: VectorName::decay_rates(&format!("{prefix}.linear_attn"), heads),
            dt_bias: vector("dt_bias", heads),
            norm: vector("norm.weight", self.value_head_dim),
        }))
    }

    fn mixed_size(&self, _: &DecoderSpec, _layer: usize) -> usize {
        self.values()
    }

    fn output(&self, _: &DecoderSpec) -> OutputProjection {
        OutputProjection { module: "linear_attn.out_proj", bias: false }
    }
}

impl DeltaNetSpec {
    /// Elements of the keys of all heads, and as many of the queries.
    pub(crate) fn keys(&self) -> usize {
        self.num_key_heads * self.key_head_dim
    }

    /// Elements of the values of all heads.
    pub(crate) fn values(&self) -> usize {
        self.num_value_heads * self.value_head_dim
    }

    /// Channels of the convolution: queries, keys and values.
    pub(crate) fn channels(&self) -> usize {
        2 * self.keys() + self.values()
    }

    fn apart(&self, prefix: &str, hidden: usize) -> Projections {
        let of = |module: &str, n| linear(prefix, module, n, hidden);
        let small = |module: &str| {
            let name = format!("{prefix}.linear_attn.{module}.weight");
            VectorName::matrix(name, vec![self.num_value_heads, hidden], hidden)
        };
        let qkv = of("linear_attn.in_proj_qkv", self.channels());
        Projections {
            qkvz: vec![qkv, of("linear_attn.in_proj_z", self.values())],
            beta: small("in_proj_b"),
            decay: small("in_proj_a"),
        }
    }

    fn grouped(&self, prefix: &str, hidden: usize) -> Projections {
        let DeltaNetSpec { num_key_heads: groups, num_value_heads: heads, key_head_dim: k, .. } = *self;
        let per_group = heads / groups;
        let v = per_group * self.value_head_dim;
        // For each group: queries, keys, values, gates.
        let stride = 2 * k + 2 * v;
        let all = linear(prefix, "linear_attn.in_proj_qkvz", groups * stride, hidden);
        let part = |what: &str, first: usize, run: usize| {
            Runs { first, run, stride, of: groups * stride }.linear(&all, what, groups * run)
        };
        // Likewise corrections and decays; in elements.
        let gate = |what: &str, first: usize| VectorName {
            name: format!("{prefix}.linear_attn.in_proj_ba.weight.{what}"),
            len: heads * hidden,
            part: Some(Box::new(Part {
                tensor: format!("{prefix}.linear_attn.in_proj_ba.weight"),
                shape: vec![2 * heads, hidden],
                first: first * hidden,
                run: per_group * hidden,
                stride: 2 * per_group * hidden,
                storage: PartStorage::Rows,
            })),
            offset: 0.0,
            k: Some(hidden),
        };
        Projections {
            qkvz: vec![
                part("query", 0, k),
                part("key", k, k),
                part("value", 2 * k, v),
                part("gate", 2 * k + v, v),
            ],
            beta: gate("beta", 0),
            decay: gate("decay", per_group),
        }
    }
}
