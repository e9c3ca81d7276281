//! Mixtures of experts.

/// An MLP in parts; each token uses some of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MoeSpec {
    pub(crate) num_experts: usize,
    /// Experts of each token.
    pub(crate) num_experts_per_tok: usize,
    /// Elements between an expert's projections.
    pub(crate) intermediate_size: usize,
    /// What makes weights of the router's logits.
    pub(crate) scoring: Scoring,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub(crate) norm_topk_prob: bool,
    /// What they are multiplied with then.
    pub(crate) routed_scaling_factor: f32,
    /// Experts are in `n_group` groups; those chosen are in the best `topk_group` groups.
    pub(crate) groups: Option<ExpertGroups>,
    /// The router has a bias.
    pub(crate) router_bias: bool,
    /// Experts have biases.
    pub(crate) expert_bias: bool,
    /// An MLP that all tokens use.
    pub(crate) shared: Option<SharedExpert>,
    /// The experts are next to a dense MLP and read the residual stream by norms of their own, as does the router.
    pub(crate) parallel_mlp: bool,
    /// How experts are stored.
    pub(crate) storage: ExpertStorage,
}

/// See [`MoeSpec::scoring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scoring {
    /// Over all experts.
    Softmax,
    /// Of each expert by itself, with a correction that counts for the choice alone.
    Sigmoid,
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
    /// Multiplied by the sigmoid of a projection of its own.
    pub(crate) gated: bool,
}

/// How the experts of a layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertStorage {
    /// Three matrices for each.
    Separate,
    /// All in one tensor, `[experts, outputs, inputs]`, gate before up.
    JoinedRows,
    /// All in one tensor, `[experts, inputs, outputs]`, with gate and up in turn.
    Joined,
    /// As `Joined`, but `[experts, outputs, inputs]` in MXFP4 blocks with scales.
    JoinedMxfp4,
}
