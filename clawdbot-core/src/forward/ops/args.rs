//! Arguments of operations: shapes, parts of buffers, and the weights and sizes of the larger operations.

use clawdbot_kernels::PackedMatrix;

use super::Memory;
use crate::forward::batch::Batch;
use crate::forward::linear::{GatedMlp, InputTables};
use crate::forward::recurrence::{Channels, Recurrence};
use crate::forward::rope::RopeTables;
use crate::forward::routing::Choice;
use crate::spec::mixers::mla::MlaSpec;
use crate::spec::{Activation, DecoderSpec, NormKind};

/// A number of rows and their width in values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl Shape {
    /// Number of values.
    pub(crate) fn len(self) -> usize {
        self.rows * self.width
    }
}

/// Columns of rows, from `first` on. The operation says how many.
pub(crate) struct Columns<'a, R> {
    pub(crate) rows: &'a R,
    /// Values from one row to the next
    pub(crate) stride: usize,
    pub(crate) first: usize,
}

impl<R> Clone for Columns<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Columns<'_, R> {}

/// Whether a product replaces the contents of its result or adds to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Overwrite,
    Add,
}

/// A norm over rows.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) kind: NormKind,
    /// The gains, then the biases where the kind has them
    pub(crate) gains: &'a [f32],
    pub(crate) eps: f32,
}

impl<'a> Norm<'a> {
    /// The norm of a model's residual stream with these gains.
    pub(crate) fn of(spec: &DecoderSpec, gains: &'a [f32]) -> Self {
        Norm { kind: spec.norm, gains, eps: spec.rms_norm_eps }
    }
}

/// A table lookup for each token.
pub(crate) struct Embedding<'a> {
    /// `[vocab_size, width]`
    pub(crate) table: &'a PackedMatrix,
    pub(crate) multiplier: f32,
    pub(crate) added: Option<AddedTables<'a>>,
}

/// Tables of positions and token types that are added to the embedding.
#[derive(Clone, Copy)]
pub(crate) struct AddedTables<'a> {
    pub(crate) tables: &'a InputTables,
    /// Row of the first position
    pub(crate) first_position: usize,
}

/// A gated MLP with its activation.
#[derive(Clone, Copy)]
pub(crate) struct ActivatedMlp<'a> {
    pub(crate) weights: &'a GatedMlp,
    pub(crate) activation: Activation,
}

/// The buffers of an MLP.
pub(crate) struct MlpBuffers<'a, M: Memory> {
    /// `[rows, intermediate_size]`
    pub(crate) activated: &'a mut M::Rows,
    /// Quantized input
    pub(crate) codes: &'a mut M::Codes,
    /// Quantized `activated`
    pub(crate) activated_codes: &'a mut M::Codes,
}

/// Rows of an expert layer's input that one expert takes.
#[derive(Clone, Copy)]
pub(crate) struct ExpertInput<'a, R> {
    pub(crate) x: &'a R,
    /// Shape of the layer's input
    pub(crate) shape: Shape,
    pub(crate) taken: &'a [Choice],
}

/// The buffers of an expert.
pub(crate) struct ExpertBuffers<'a, M: Memory> {
    pub(crate) mlp: MlpBuffers<'a, M>,
    /// The layer's input, quantized by the first expert that needs it
    pub(crate) layer_codes: &'a mut M::Codes,
    /// `[rows, hidden_size]`
    pub(crate) gathered: &'a mut M::Rows,
}

/// Gates of a shared expert: a column of the router's logits.
pub(crate) type SharedGate<'a, R> = Option<Columns<'a, R>>;

/// A layer of a model.
#[derive(Clone, Copy)]
pub(crate) struct LayerRef<'a> {
    pub(crate) spec: &'a DecoderSpec,
    pub(crate) layer: usize,
}

/// Norms and rotation of a layer's heads.
#[derive(Clone, Copy)]
pub(crate) struct HeadOps<'a> {
    pub(crate) layer: LayerRef<'a>,
    /// Norms of queries and of keys
    pub(crate) qk_norms: Option<&'a (Vec<f32>, Vec<f32>)>,
    /// Ones, `[head_dim]`, where values are normed
    pub(crate) value_norm: Option<&'a [f32]>,
    pub(crate) tables: &'a RopeTables<'a>,
    /// Index of the rotation in `tables`
    pub(crate) rope: Option<usize>,
}

/// Input of latent attention, see `mixers/mla.rs`.
pub(crate) struct LatentInput<'a, R> {
    pub(crate) mla: &'a MlaSpec,
    pub(crate) heads: usize,
    /// Queries of each row: `heads` times `qk_nope_head_dim + qk_rope_head_dim`
    pub(crate) queries: Columns<'a, R>,
    /// Latent and rotated key of each row: `kv_lora_rank + qk_rope_head_dim`
    pub(crate) latent: Columns<'a, R>,
    /// `[kv_lora_rank]`
    pub(crate) kv_norm: &'a [f32],
    pub(crate) eps: f32,
}

/// Columns of each head: those of head `h` start at `columns.first + h * step`.
pub(crate) struct HeadColumns<'a, R> {
    pub(crate) columns: Columns<'a, R>,
    pub(crate) step: usize,
}

/// The states of a layer: the cache, and the batch whose sequences have them.
pub(crate) struct StateSource<'a, C> {
    pub(crate) cache: &'a mut C,
    pub(crate) layer: usize,
    pub(crate) batch: &'a Batch<'a>,
}

/// A causal convolution over each channel's last tokens.
#[derive(Clone, Copy)]
pub(crate) struct Convolution<'a> {
    /// `[kernel_size, channels]`
    pub(crate) weights: &'a [f32],
    /// `[channels]`
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) kernel_size: usize,
}

/// How a recurrent layer's gates, decay and weight of each head, come from its logits.
#[derive(Clone, Copy)]
pub(crate) enum GateFormula<'a> {
    /// Logits are `[beta of each head, a of each head]`: `decay = exp(minus_a softplus(a + bias))`, `weight = sigmoid(beta)`.
    DeltaNet { minus_a: &'a [f32], bias: &'a [f32] },
    /// Logits are `[dt of each head]`: `weight = softplus(dt + bias)`, `decay = exp(minus_a weight)`.
    Mamba { minus_a: &'a [f32], bias: &'a [f32] },
}

/// Queries and keys scaled to length 1; queries then by `1 / sqrt(key_dim)`.
#[derive(Clone, Copy)]
pub(crate) struct UnitLength {
    /// Added to the squared length
    pub(crate) eps: f32,
}

/// How a token changes a recurrent state, see `KernelSet::delta_rule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateRule {
    /// Key times value is added.
    Add,
    /// The state's present answer to the key is subtracted from the value first.
    Delta,
}

/// A recurrence over a batch, see `recurrence.rs`.
pub(crate) struct Recur<'a, R> {
    pub(crate) recurrence: Recurrence,
    pub(crate) conv: Convolution<'a>,
    /// Inputs of the convolution: `recurrence.channels()` of each row
    pub(crate) inputs: Columns<'a, R>,
    /// Where queries, keys and values are among the channels
    pub(crate) at: Channels,
    pub(crate) unit_length: Option<UnitLength>,
    pub(crate) rule: UpdateRule,
    /// As [`super::Ops::recurrence_gates`] leaves them
    pub(crate) gates: &'a R,
}

/// The buffers of a recurrence.
pub(crate) struct RecurBuffers<'a, R> {
    /// `[rows, channels]`: the result of the convolution with SiLU, queries and keys scaled
    pub(crate) mixed: &'a mut R,
    /// For each sequence `[heads][blocks][rows][16]`, `Recurrence::results` of each row; [`super::Ops::gather_results`] reads
    /// them
    pub(crate) results: &'a mut R,
}

/// How the results of a recurrence, `[rows, heads * value_dim]`, are gated and normed.
pub(crate) enum OutputGate<'a, R> {
    /// `norm(head) * silu(z)`
    NormThenGate { norm: &'a [f32], eps: f32, z: Columns<'a, R> },
    /// `norm((head + skip * value) * silu(z))`, normed in groups of channels
    SkipGateThenNorm { skip: &'a [f32], values: Columns<'a, R>, z: Columns<'a, R>, norm: GroupNorm<'a> },
}

/// A norm over groups of channels.
#[derive(Clone, Copy)]
pub(crate) struct GroupNorm<'a> {
    /// `[channels]`
    pub(crate) gains: &'a [f32],
    /// Channels of a group
    pub(crate) size: usize,
    pub(crate) eps: f32,
}
