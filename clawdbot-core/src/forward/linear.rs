//! Weights that operations read: a matrix with its bias, a gated MLP, tables of the input.

use clawdbot_kernels::PackedMatrix;

/// A matrix with its bias.
pub(crate) struct Linear {
    /// Name of the first tensor that it was packed from: adapters find it by this name.
    pub(crate) name: String,
    pub(crate) weight: PackedMatrix,
    /// `[n]`
    pub(crate) bias: Option<Vec<f32>>,
}

/// Weights of a gated MLP: `down(act(gate(x)) * up(x))`; or of an expert, which may have no gate: `down(act(up(x)))`.
pub(crate) struct GatedMlp {
    /// hidden_size -> gate and up, `PackedMatrix::pack_gated`; or up alone
    pub(crate) gate_up: Linear,
    /// Whether there is a gate
    pub(crate) gated: bool,
    /// intermediate_size -> hidden_size
    pub(crate) down: Linear,
}

/// What is added to rows of the embedding, see `InputSpec`.
pub(crate) struct InputTables {
    /// `[positions, hidden_size]`
    pub(crate) positions: Option<Vec<f32>>,
    /// `[token types, hidden_size]`
    pub(crate) token_types: Option<Vec<f32>>,
    /// Of the sum, `[hidden_size]`
    pub(crate) norm: Option<Vec<f32>>,
}
