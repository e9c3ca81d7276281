//! Multi-head latent attention (DeepSeek-V2, <https://arxiv.org/abs/2405.04434>).

use super::{DescribeMixer, MixerNames, MixerTensors, OutputProjection};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::expect::{MAX_EXPERTS, expect};
use crate::spec::tensors::{LinearNames, MatrixName, Part, PartStorage, VectorName, linear};

/// Sizes of latent attention. The cache keeps one key of `qk_rope_head_dim + kv_lora_rank` elements for each token, shared
/// by all heads. So attention itself has one key head, and `head_dim` is that sum: queries and outputs are projected to and
/// from the compressed space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MlaSpec {
    /// Elements between the two projections of queries; `None`: a single projection.
    pub(crate) q_lora_rank: Option<usize>,
    /// Elements of the latent vector from which keys and values are projected.
    pub(crate) kv_lora_rank: usize,
    /// Elements of a head without rotation.
    pub(crate) qk_nope_head_dim: usize,
    /// Elements of a head with rotation; all heads share these elements of the keys.
    pub(crate) qk_rope_head_dim: usize,
    /// Elements of a head's values.
    pub(crate) v_head_dim: usize,
}

/// The tensors of latent attention.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MlaNames {
    /// To `q_lora_rank` (or directly to the queries), and to `kv_lora_rank + qk_rope_head_dim`.
    pub(crate) down: Vec<LinearNames>,
    /// `[q_lora_rank]`
    pub(crate) q_norm: Option<VectorName>,
    /// `[heads * (qk_nope_head_dim + qk_rope_head_dim), q_lora_rank]`; at most one.
    pub(crate) q_up: Vec<LinearNames>,
    /// `[kv_lora_rank]`
    pub(crate) kv_norm: VectorName,
    /// `[kv_lora_rank, qk_nope_head_dim]` for each head.
    pub(crate) key_up: Vec<LinearNames>,
    /// `[v_head_dim, kv_lora_rank]` for each head.
    pub(crate) value_up: Vec<LinearNames>,
}

impl MixerTensors for MlaNames {
    fn packed(&self) -> Vec<&[LinearNames]> {
        let heads = self.key_up.chunks(1).chain(self.value_up.chunks(1));
        [self.down.as_slice(), &self.q_up].into_iter().chain(heads).collect()
    }

    fn vectors(&self) -> Vec<&VectorName> {
        self.q_norm.iter().chain([&self.kv_norm]).collect()
    }

    /// Not the projections of single heads.
    fn adaptable(&self) -> Vec<&[LinearNames]> {
        vec![&self.down, &self.q_up]
    }
}

impl DescribeMixer for MlaSpec {
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
        ]
    }

    fn check(&self, model: &DecoderSpec) -> Result<()> {
        let fits = model.head_dim == self.qk_rope_head_dim + self.kv_lora_rank;
        let fits = fits && model.num_key_value_heads == 1;
        expect(fits, "head_dim", "qk_rope_head_dim + kv_lora_rank", model.head_dim)?;
        let all = model.num_attention_heads.saturating_mul(model.num_hidden_layers);
        expect(all <= MAX_EXPERTS, "heads of all layers", &format!("at most {MAX_EXPERTS}"), all)
    }

    fn tensors(&self, model: &DecoderSpec, prefix: &str, _layer: usize) -> MixerNames {
        let (hidden, heads, rank) = (model.hidden_size, model.num_attention_heads, self.kv_lora_rank);
        let queries = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim);
        let norm =
            |module: &str, len| VectorName::new(format!("{prefix}.self_attn.{module}.weight"), len, 0.0);
        let q_down = match self.q_lora_rank {
            Some(rank) => linear(prefix, "self_attn.q_a_proj", rank, hidden).with_bias(model.qkv_bias),
            None => linear(prefix, "self_attn.q_proj", queries, hidden),
        };
        let kv = rank + self.qk_rope_head_dim;
        let of_head = self.qk_nope_head_dim + self.v_head_dim;
        let tensor = format!("{prefix}.self_attn.kv_b_proj.weight");
        let up = |head: usize, what: &str, (n, k): (usize, usize), first: usize, storage: PartStorage| {
            let (shape, run, stride) = (vec![heads * of_head, rank], usize::MAX, 0);
            let part = Part { tensor: tensor.clone(), shape, first, run, stride, storage };
            let name = format!("{tensor}.{head}.{what}");
            LinearNames {
                weight: MatrixName { name, n, k, part: Some(Box::new(part)), sensitive: false },
                bias: None,
            }
        };
        let key_up = |head: usize| {
            let storage = PartStorage::Columns { from: head * of_head };
            up(head, "keys", (rank, self.qk_nope_head_dim), 0, storage)
        };
        let value_up = |head: usize| {
            let first = head * of_head + self.qk_nope_head_dim;
            up(head, "values", (self.v_head_dim, rank), first, PartStorage::Rows)
        };
        MixerNames::Mla(Box::new(MlaNames {
            down: vec![
                q_down,
                linear(prefix, "self_attn.kv_a_proj_with_mqa", kv, hidden).with_bias(model.qkv_bias),
            ],
            q_norm: self.q_lora_rank.map(|rank| norm("q_a_layernorm", rank)),
            q_up: self
                .q_lora_rank
                .map(|rank| linear(prefix, "self_attn.q_b_proj", queries, rank))
                .into_iter()
                .collect(),
            kv_norm: norm("kv_a_layernorm", rank),
            key_up: (0..heads).map(key_up).collect(),
            value_up: (0..heads).map(value_up).collect(),
        }))
    }

    fn mixed_size(&self, model: &DecoderSpec, _layer: usize) -> usize {
        model.num_attention_heads * self.v_head_dim
    }

    fn output(&self, model: &DecoderSpec) -> OutputProjection {
        OutputProjection { module: model.names.o, bias: model.o_bias }
    }
}
