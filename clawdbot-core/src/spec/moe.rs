//! Mixtures of experts.

/// An MLP made of experts. Each token uses some of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MoeSpec {
    pub(crate) num_experts: usize,
    /// Experts of each token.
    pub(crate) num_experts_per_tok: usize,
    /// Elements between the projections of an expert.
    pub(crate) intermediate_size: usize,
    /// How the router's logits become weights.
    pub(crate) scoring: Scoring,
    /// Whether the weights of the selected experts are divided by their sum.
    pub(crate) norm_topk_prob: bool,
    /// Whether the weight of an expert multiplies its input instead of its result.
    pub(crate) scaled_input: bool,
    /// Factor of these weights.
    pub(crate) routed_scaling_factor: f32,
    /// Experts are divided into `n_group` groups; only experts in the best `topk_group` groups are selected.
    pub(crate) groups: Option<ExpertGroups>,
    /// Whether the router has a bias.
    pub(crate) router_bias: bool,
    /// Whether experts, the shared one included, have gate projections in addition to their up projections.
    pub(crate) gate: bool,
    /// Whether experts have biases.
    pub(crate) expert_bias: bool,
    /// An MLP that all tokens use.
    pub(crate) shared: Option<SharedExpert>,
    /// Whether a dense MLP runs in parallel; experts and router then have norms of their own.
    pub(crate) parallel_mlp: bool,
    /// How experts are stored.
    pub(crate) storage: ExpertStorage,
}

/// See [`MoeSpec::scoring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each expert's logit, with a correction that only affects the selection.
    Sigmoid,
    /// Sigmoid of each expert's logit; the largest logits are selected.
    SigmoidOfLargest,
}

/// Weights of the selected experts: [`MoeSpec::norm_topk_prob`] of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChoiceWeights {
    /// Divided by their sum.
    Normed,
    /// As the router scores them.
    AsScored,
}

impl ChoiceWeights {
    pub(crate) fn are_normed(self) -> bool {
        self == ChoiceWeights::Normed
    }
}

/// See [`MoeSpec::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpertGroups {
    pub(crate) n_group: usize,
    pub(crate) topk_group: usize,
}

/// See [`MoeSpec::shared`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedExpert {
    pub(crate) intermediate_size: usize,
    /// Whether its output is multiplied by the sigmoid of a projection of its own.
    pub(crate) gated: bool,
}

/// How the experts of a layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertStorage {
    /// Three matrices for each expert.
    Separate,
    /// All experts in one tensor, `[experts, outputs, inputs]`, gate before up.
    JoinedRows,
    /// All experts in one tensor, `[experts, inputs, outputs]`, with gate and up interleaved.
    Joined,
    /// All experts in one tensor, `[experts, inputs, outputs]`, gate before up.
    JoinedColumns,
    /// As `Joined`, but `[experts, outputs, inputs]` in MXFP4 blocks with scales.
    JoinedMxfp4,
}
