//! The tensors of a model: names as Hugging Face checkpoints have them, and the shapes the spec demands.

use super::mixer_names::MixerNames;
use crate::weights::RowOrder;

/// A matrix `[n, k]`: `n` outputs, `k` inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MatrixName {
    /// Of the stored tensor, or what distinguishes a part of one.
    pub(crate) name: String,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Where it is, unless it is the tensor `name` as it stands.
    pub(crate) part: Option<Box<Part>>,
}

/// A vector `[len]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VectorName {
    /// Of the stored tensor, or what distinguishes a part of one.
    pub(crate) name: String,
    pub(crate) len: usize,
    /// Where it is, unless it is the tensor `name` as it stands; in elements.
    pub(crate) part: Option<Box<Part>>,
    /// Added to the elements as checkpoints store them.
    pub(crate) offset: f32,
    /// Of a small matrix that is computed with in f32 whatever the others are: `[len / k, k]`, row-major.
    pub(crate) k: Option<usize>,
}

/// Rows of a stored tensor, which is seen as a matrix: all its dimensions but the last are one. Row `r` of the part is row
/// `first + r / run * stride + r % run` of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) tensor: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) first: usize,
    pub(crate) run: usize,
    pub(crate) stride: usize,
    pub(crate) storage: PartStorage,
}

/// How a [`Part`] is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartStorage {
    /// Row by row.
    Rows,
    /// Column by column: `k` rows of the tensor from the given one on; the part's rows are columns of these.
    Columns { from: usize },
    /// Row by row, of a vector whose elements `x` stand for `-exp(x)`.
    MinusExp,
    /// Row by row, in MXFP4: `{tensor}_blocks` `[.., k / 32, 16]` and `{tensor}_scales` `[.., k / 32]`.
    Mxfp4,
}

impl Part {
    /// Where its rows are in the tensor.
    pub(crate) fn order(&self) -> RowOrder {
        RowOrder::Runs { first: self.first, run: self.run, stride: self.stride }
    }

    /// Index of row `row` in the tensor.
    pub(crate) fn row(&self, row: usize) -> usize {
        self.order().stored(row)
    }
}

/// A projection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LinearNames {
    pub(crate) weight: MatrixName,
    /// `[n]`.
    pub(crate) bias: Option<VectorName>,
}

/// The tensors of one layer, in the order of their use. Which norms there are is explained at [`Names`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerNames {
    /// `[hidden_size]`, before attention.
    pub(crate) input_norm: Option<NormNames>,
    pub(crate) mixer: MixerNames,
    /// To the residual stream.
    pub(crate) o: LinearNames,
    /// `[hidden_size]`, after attention.
    pub(crate) attention_out_norm: Option<NormNames>,
    /// `[hidden_size]`, of the stream after attention.
    pub(crate) attention_sum_norm: Option<NormNames>,
    /// `[hidden_size]`, before the MLP.
    pub(crate) mlp_norm: Option<NormNames>,
    pub(crate) mlp: MlpNames,
    /// `[hidden_size]`, after the MLP.
    pub(crate) mlp_out_norm: Option<NormNames>,
    /// `[hidden_size]`, of the stream after the MLP.
    pub(crate) mlp_sum_norm: Option<NormNames>,
    pub(crate) input: Option<LayerInputNames>,
    /// `[1]`
    pub(crate) scalar: Option<VectorName>,
}

/// The tensors of a norm, `[hidden_size]` each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NormNames {
    pub(crate) gains: VectorName,
    pub(crate) bias: Option<VectorName>,
}

impl NormNames {
    pub(super) fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        std::iter::once(&self.gains).chain(&self.bias)
    }
}

/// The tensors of a layer after pooling, which stay in f32.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DenseNames {
    /// `[outputs, inputs]`, row-major.
    pub(crate) weight: VectorName,
    /// `[outputs]`
    pub(crate) bias: Option<VectorName>,
    /// `[outputs]`
    pub(crate) norm: Option<NormNames>,
}

impl DenseNames {
    pub(super) fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        std::iter::once(&self.weight).chain(&self.bias).chain(self.norm.iter().flat_map(NormNames::vectors))
    }
}

/// The tensors that a layer reads its part of the second embedding by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerInputNames {
    /// `[size, hidden_size]`
    pub(crate) gate: LinearNames,
    /// `[hidden_size, size]`
    pub(crate) projection: LinearNames,
    /// `[hidden_size]`
    pub(crate) norm: VectorName,
}

/// The tensors of the second embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerInputsNames {
    /// `[vocab_size, layers * size]`
    pub(crate) embedding: MatrixName,
    /// `[layers * size, hidden_size]`
    pub(crate) projection: LinearNames,
    /// `[size]`
    pub(crate) norm: VectorName,
}

/// The tensors of a layer's second half.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MlpNames {
    Dense(GatedNames),
    Plain(PlainNames),
    Moe(Box<MoeNames>),
}

/// The tensors of a gated MLP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatedNames {
    /// `[intermediate_size, hidden_size]`
    pub(crate) gate: LinearNames,
    /// `[intermediate_size, hidden_size]`
    pub(crate) up: LinearNames,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) down: LinearNames,
}

/// The tensors of an MLP without a gate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlainNames {
    /// `[intermediate_size, hidden_size]`
    pub(crate) up: LinearNames,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) down: LinearNames,
}

/// The tensors of an expert layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MoeNames {
    /// `[experts, hidden_size]`, row-major: what chooses stays in f32.
    pub(crate) router: VectorName,
    /// `[experts]`
    pub(crate) router_bias: Option<VectorName>,
    /// `[experts]`
    pub(crate) correction: Option<VectorName>,
    pub(crate) experts: Vec<GatedNames>,
    pub(crate) shared: Option<GatedNames>,
    /// `[1, hidden_size]`
    pub(crate) shared_gate: Option<VectorName>,
    pub(crate) parallel_mlp: Option<ParallelMlpNames>,
}

/// The tensors of an expert layer next to a dense MLP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParallelMlpNames {
    pub(crate) dense: GatedNames,
    /// `[hidden_size]`, of what the dense MLP gives.
    pub(crate) dense_out_norm: VectorName,
    /// `[hidden_size]`, of what experts read.
    pub(crate) expert_norm: VectorName,
    /// `[hidden_size]`, of what they give.
    pub(crate) expert_out_norm: VectorName,
    /// `[hidden_size]`, of what the router reads, times the root of `hidden_size`.
    pub(crate) router_norm: VectorName,
    /// `[experts]`: what their weights are multiplied with.
    pub(crate) expert_scale: VectorName,
}

/// All tensors of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorNames {
    /// `[vocab_size, hidden_size]`.
    pub(crate) embed_tokens: MatrixName,
    /// `[positions, hidden_size]`, row-major.
    pub(crate) positions: Option<VectorName>,
    /// `[token types, hidden_size]`, row-major.
    pub(crate) token_types: Option<VectorName>,
    /// `[hidden_size]`, of their sum.
    pub(crate) embedding_norm: Option<NormNames>,
    pub(crate) layer_inputs: Option<LayerInputsNames>,
    pub(crate) layers: Vec<LayerNames>,
    /// `[hidden_size]`, after the last layer.
    pub(crate) final_norm: Option<NormNames>,
    /// Behind the pooling.
    pub(crate) dense_head: Vec<DenseNames>,
    /// `[vocab_size, hidden_size]`; `None` if tied to the embedding.
    pub(crate) lm_head: Option<MatrixName>,
}

pub(crate) const LM_HEAD: &str = "lm_head.weight";
impl VectorName {
    pub(crate) fn new(name: String, len: usize, offset: f32) -> Self {
        VectorName { name, len, part: None, offset, k: None }
    }

    /// All of a tensor of `shape`, as a matrix of rows of `k`.
    pub(crate) fn matrix(name: String, shape: Vec<usize>, k: usize) -> Self {
        let len = shape.iter().product();
        let part = Some(Box::new(Part::whole(name.clone(), shape)));
        VectorName { name, len, part, offset: 0.0, k: Some(k) }
    }

    /// Elements in memory: a small matrix is packed in panels of 16 rows.
    pub(crate) fn padded_len(&self) -> usize {
        self.k.map_or(self.len, |k| (self.len / k.max(1)).next_multiple_of(16) * k)
    }
}

impl Part {
    /// All of a tensor.
    fn whole(tensor: String, shape: Vec<usize>) -> Self {
        Part { tensor, shape, first: 0, run: usize::MAX, stride: 0, storage: PartStorage::Rows }
    }
}

pub(crate) fn linear(prefix: &str, module: &str, n: usize, k: usize, bias: bool) -> LinearNames {
    let name = format!("{prefix}.{module}");
    LinearNames {
        weight: MatrixName { name: format!("{name}.weight"), n, k, part: None },
        bias: bias.then(|| VectorName::new(format!("{name}.bias"), n, 0.0)),
    }
}
