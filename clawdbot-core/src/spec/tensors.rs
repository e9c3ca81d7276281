//! The tensors of a model: their names in Hugging Face checkpoints, and the shapes that the spec requires.

use super::mixers::MixerNames;
pub(crate) use super::streams::{LayerStreamsNames, LowRankNames, StreamsNames};
pub(crate) use super::tensor_name::{LinearNames, MatrixName, Part, PartStorage, Runs, VectorName, linear};

/// The tensors of one layer, in order of use. [`Names`] explains which norms there are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerNames {
    /// `[hidden_size]`, before attention.
    pub(crate) input_norm: Option<NormNames>,
    pub(crate) mixer: MixerNames,
    /// Output projection of the mixer, added to the residual stream.
    pub(crate) o: LinearNames,
    pub(crate) low_rank: Option<LowRankNames>,
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
    pub(crate) streams: Option<LayerStreamsNames>,
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

/// The tensors of a layer of the dense head, which stay in f32.
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

/// The tensors with which a layer reads its slice of the second embedding.
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

/// The tensors of a layer's MLP.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MlpNames {
    Dense(GatedNames),
    /// As `Dense`, with [`super::LayerSpec::cutoff`]: gate and up are packed row after row.
    Sparse(GatedNames),
    Plain(PlainNames),
    Moe(Box<MoeNames>),
    /// The layer has none.
    None,
}

/// The tensors of a gated MLP, or of an expert, which may have no gate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatedNames {
    /// `[intermediate_size, hidden_size]`
    pub(crate) gate: Option<LinearNames>,
    /// `[intermediate_size, hidden_size]`
    pub(crate) up: LinearNames,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) down: LinearNames,
}

impl GatedNames {
    /// The first of the projections that are packed as one.
    pub(crate) fn first(&self) -> &LinearNames {
        self.gate.as_ref().unwrap_or(&self.up)
    }
}

/// The tensors of an MLP without a gate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlainNames {
    /// `[intermediate_size, hidden_size]`
    pub(crate) up: LinearNames,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) down: LinearNames,
    pub(crate) xielu: Option<XieluNames>,
}

/// The parameters of xIELU, one element each, as they are stored: see `load/build.rs`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct XieluNames {
    /// `[1]`
    pub(crate) alpha_p: VectorName,
    /// `[1]`
    pub(crate) alpha_n: VectorName,
    /// A scalar.
    pub(crate) beta: VectorName,
    /// A scalar.
    pub(crate) eps: VectorName,
}

impl XieluNames {
    pub(super) fn vectors(&self) -> [&VectorName; 4] {
        [&self.alpha_p, &self.alpha_n, &self.beta, &self.eps]
    }
}

/// The tensors of an expert layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MoeNames {
    /// `[experts, hidden_size]`, row-major: the router stays in f32.
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

/// The tensors of an expert layer with a parallel dense MLP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParallelMlpNames {
    pub(crate) dense: GatedNames,
    /// `[hidden_size]`, of the dense MLP's output.
    pub(crate) dense_out_norm: VectorName,
    /// `[hidden_size]`, of the experts' input.
    pub(crate) expert_norm: VectorName,
    /// `[hidden_size]`, of the experts' output.
    pub(crate) expert_out_norm: VectorName,
    /// `[hidden_size]`, of the router's input, times the square root of `hidden_size`.
    pub(crate) router_norm: VectorName,
    /// `[experts]`: factors of the experts' weights.
    pub(crate) expert_scale: VectorName,
}

/// All tensors of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorNames {
    /// `[vocab_size, hidden_size]`.
    pub(crate) embed_tokens: MatrixName,
    /// `[positions, hidden_size]`, row-major.
    pub(crate) positions: Option<VectorName>,
    /// `[token types, hidden_size]`, row-major.
    pub(crate) token_types: Option<VectorName>,
    /// `[hidden_size]`, norm of the sum of embeddings.
    pub(crate) embedding_norm: Option<NormNames>,
    pub(crate) layer_inputs: Option<LayerInputsNames>,
    pub(crate) streams: Option<StreamsNames>,
    pub(crate) layers: Vec<LayerNames>,
    /// `[hidden_size]`, after the last layer.
    pub(crate) final_norm: Option<NormNames>,
    /// Layers after pooling.
    pub(crate) dense_head: Vec<DenseNames>,
    /// `[vocab_size, hidden_size]`; `None` if tied to the embedding.
    pub(crate) lm_head: Option<MatrixName>,
    /// `[vocab_size]`
    pub(crate) lm_head_bias: Option<VectorName>,
}

pub(crate) const LM_HEAD: &str = "lm_head.weight";
pub(crate) const LM_HEAD_BIAS: &str = "lm_head.bias";
