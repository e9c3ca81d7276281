//! Tensor names of families.

/// Names of a family's modules in its checkpoints; those of a layer follow `{layers}.{layer}.`.
///
/// The names also determine which norms a layer has. Without `input_norm` the first half reads the residual stream
/// itself. Without `mlp_norm` the second half has the same input as the first (a parallel block), or, if there is no
/// `input_norm` either, the current residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) layers: &'static str,
    pub(crate) embedding: &'static str,
    /// Position embeddings.
    pub(crate) positions: &'static str,
    pub(crate) token_types: &'static str,
    pub(crate) embedding_norm: &'static str,
    /// Before attention.
    pub(crate) input_norm: Option<&'static str>,
    /// Norm of attention's output, before it is added.
    pub(crate) attention_out_norm: Option<&'static str>,
    /// Norm of the residual stream after attention was added.
    pub(crate) attention_sum_norm: Option<&'static str>,
    /// Before the MLP.
    pub(crate) mlp_norm: Option<&'static str>,
    /// Norm of the MLP's output, before it is added.
    pub(crate) mlp_out_norm: Option<&'static str>,
    /// Norm of the residual stream after the MLP was added.
    pub(crate) mlp_sum_norm: Option<&'static str>,
    /// After the last layer.
    pub(crate) final_norm: Option<&'static str>,
    /// Projections of queries, keys and values: three, or one that holds all.
    pub(crate) qkv: &'static [&'static str],
    pub(crate) o: &'static str,
    pub(crate) q_norm: &'static str,
    pub(crate) k_norm: &'static str,
    /// Modules of a Mamba-2 layer.
    pub(crate) mamba: MambaModules,
    /// Modules of a dense MLP.
    pub(crate) mlp: MlpModules,
    /// Modules of an expert layer.
    pub(crate) moe: MoeModules,
}

/// Names of a Mamba-2 layer's modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MambaModules {
    /// All of it.
    pub(crate) mixer: &'static str,
    pub(crate) output: &'static str,
}

/// Names of an MLP's modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MlpModules {
    /// Gate and up projections: two, or one that holds both; only the up projection of an MLP without a gate.
    pub(crate) gate_up: &'static [&'static str],
    pub(crate) down: &'static str,
}

/// Names of an expert layer's modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MoeModules {
    pub(crate) router: &'static str,
    /// Tensor with the corrections of scores.
    pub(crate) correction: &'static str,
    /// Module before the expert's number.
    pub(crate) experts: &'static str,
    /// Tensors with the gate and up projections, and with the down projections, of all experts.
    pub(crate) joined: [&'static str; 2],
    /// Modules after the expert's number.
    pub(crate) expert: MlpModules,
    pub(crate) shared: MlpModules,
    pub(crate) shared_gate: &'static str,
}

/// Llama's names, and those that other families have in addition.
pub(crate) const LLAMA: Names = Names {
    layers: "model.layers",
    embedding: "model.embed_tokens",
    positions: "embeddings.position_embeddings",
    token_types: "embeddings.token_type_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    input_norm: Some("input_layernorm"),
    attention_out_norm: None,
    attention_sum_norm: None,
    mlp_norm: Some("post_attention_layernorm"),
    mlp_out_norm: None,
    mlp_sum_norm: None,
    final_norm: Some("model.norm"),
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    o: "self_attn.o_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    mamba: MambaModules { mixer: "mamba", output: "mamba.out_proj" },
    mlp: MlpModules { gate_up: &["mlp.gate_proj", "mlp.up_proj"], down: "mlp.down_proj" },
    moe: MoeModules {
        router: "mlp.gate",
        correction: "mlp.gate.e_score_correction_bias",
        experts: "mlp.experts",
        joined: ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        expert: MlpModules { gate_up: &["gate_proj", "up_proj"], down: "down_proj" },
        shared: MlpModules {
            gate_up: &["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"],
            down: "mlp.shared_expert.down_proj",
        },
        shared_gate: "mlp.shared_expert_gate",
    },
};
