//! The architectures of GGUF files: what of each differs from Llama. (Encoders are in `encoders.rs`.)
//!
//! Source: the converter and the model definitions of <https://github.com/ggml-org/llama.cpp>, and its `gguf` package.
//! Gains that checkpoints store less one are stored whole, tensors of experts one behind another.

use serde_json::{Map, Value};

use super::encoders::{self, BERT_NAMES, EMBEDDING_GEMMA_NAMES, MODERNBERT_NAMES};
use super::fields::{
    cohere2, deepseek2, dense, gemma, gemma2, gemma3, gpt_oss, granite, lfm2, llama, qwen2moe, qwen3moe,
    qwen3next,
};
use super::metadata::{EXPERT_SIZE, Family, PREDICTING_LAYERS};
use super::{fields, gemma4};

pub(super) type Config = Map<String, Value>;

const LLAMA: Family = Family {
    name: "llama",
    architecture: "LlamaForCausalLM",
    windowed: Some("MistralForCausalLM"),
    pairs: true,
    partial: false,
    bidirectional: false,
    uneven: false,
    eps: ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    names: &[],
    renamed: &[],
    keys: &[],
    fields: llama,
};

/// Most families: no pairs, no windows.
const PLAIN: Family = Family { windowed: None, pairs: false, fields: dense, ..LLAMA };

/// Norms on both sides of attention.
pub(super) const SANDWICH: &[(&str, &str)] = &[("post_attention_layernorm", "post_attention_norm")];

pub(super) const SHARED_SIZE: &str = "expert_shared_feed_forward_length";
pub(super) const WINDOW: &str = "attention.sliding_window";
pub(super) const PATTERN: &str = "attention.sliding_window_pattern";
/// Base of the rotation on layers with a window.
pub(super) const LOCAL_THETA: &str = "rope.freq_base_swa";

const QWEN3_NEXT: Family = Family {
    name: "qwen3next",
    architecture: "Qwen3NextForCausalLM",
    partial: true,
    names: SANDWICH,
    keys: &[
        EXPERT_SIZE,
        SHARED_SIZE,
        "expert_weights_norm",
        "full_attention_interval",
        "ssm.conv_kernel",
        "ssm.inner_size",
        "ssm.state_size",
        "ssm.time_step_rank",
        "ssm.group_count",
    ],
    fields: qwen3next,
    ..PLAIN
};

/// Every architecture: the only list.
pub(super) const FAMILIES: &[Family] = &[
    LLAMA,
    Family { name: "qwen2", architecture: "Qwen2ForCausalLM", ..PLAIN },
    Family { name: "qwen3", architecture: "Qwen3ForCausalLM", ..PLAIN },
    Family {
        name: "qwen2moe",
        architecture: "Qwen2MoeForCausalLM",
        keys: &[EXPERT_SIZE, SHARED_SIZE, "expert_weights_norm"],
        fields: qwen2moe,
        ..PLAIN
    },
    Family {
        name: "qwen3moe",
        architecture: "Qwen3MoeForCausalLM",
        keys: &[EXPERT_SIZE, "expert_weights_norm"],
        fields: qwen3moe,
        ..PLAIN
    },
    QWEN3_NEXT,
    Family {
        name: "qwen35",
        architecture: "Qwen3_5ForCausalLM",
        keys: &[
            PREDICTING_LAYERS,
            "attention.recurrent_layers",
            "rope.dimension_sections",
            "full_attention_interval",
            "ssm.conv_kernel",
            "ssm.inner_size",
            "ssm.state_size",
            "ssm.time_step_rank",
            "ssm.group_count",
        ],
        fields: fields::qwen35,
        ..QWEN3_NEXT
    },
    Family {
        name: "qwen35moe",
        architecture: "Qwen3_5MoeForCausalLM",
        keys: &[
            PREDICTING_LAYERS,
            EXPERT_SIZE,
            SHARED_SIZE,
            "expert_weights_norm",
            "attention.recurrent_layers",
            "rope.dimension_sections",
            "full_attention_interval",
            "ssm.conv_kernel",
            "ssm.inner_size",
            "ssm.state_size",
            "ssm.time_step_rank",
            "ssm.group_count",
        ],
        fields: fields::qwen35moe,
        ..QWEN3_NEXT
    },
    Family { name: "gemma", architecture: "GemmaForCausalLM", fields: gemma, ..PLAIN },
    Family {
        name: "gemma2",
        architecture: "Gemma2ForCausalLM",
        windowed: Some("Gemma2ForCausalLM"),
        names: SANDWICH,
        keys: &["attn_logit_softcapping", "final_logit_softcapping"],
        fields: gemma2,
        ..PLAIN
    },
    Family {
        name: "gemma3",
        architecture: "Gemma3ForCausalLM",
        windowed: Some("Gemma3ForCausalLM"),
        names: SANDWICH,
        keys: &[LOCAL_THETA, PATTERN, "attn_logit_softcapping", "final_logit_softcapping"],
        fields: gemma3,
        ..PLAIN
    },
    Family {
        name: "gemma4",
        architecture: "Gemma4ForCausalLM",
        windowed: Some("Gemma4ForCausalLM"),
        uneven: true,
        names: gemma4::GEMMA4_NAMES,
        keys: &[
            EXPERT_SIZE,
            PATTERN,
            LOCAL_THETA,
            "attention.shared_kv_layers",
            "attention.key_length_swa",
            "attention.value_length_swa",
            "rope.dimension_count_swa",
            "embedding_length_per_layer_input",
            "final_logit_softcapping",
        ],
        fields: gemma4::gemma4,
        ..PLAIN
    },
    Family {
        name: "gemma-embedding",
        architecture: "Gemma3TextModel",
        windowed: Some("Gemma3TextModel"),
        bidirectional: true,
        names: EMBEDDING_GEMMA_NAMES,
        keys: &[
            LOCAL_THETA,
            PATTERN,
            "dense_2_feat_in",
            "dense_2_feat_out",
            "dense_3_feat_in",
            "dense_3_feat_out",
        ],
        fields: encoders::embedding_gemma,
        ..PLAIN
    },
    Family {
        name: "bert",
        architecture: "BertModel",
        bidirectional: true,
        eps: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        names: BERT_NAMES,
        keys: &["classifier.output_labels"],
        fields: encoders::bert,
        ..PLAIN
    },
    Family {
        name: "modern-bert",
        architecture: "ModernBertModel",
        windowed: Some("ModernBertModel"),
        bidirectional: true,
        eps: ("attention.layer_norm_epsilon", "norm_eps"),
        names: MODERNBERT_NAMES,
        keys: &[LOCAL_THETA, PATTERN, "hidden_activation"],
        fields: encoders::modernbert,
        ..PLAIN
    },
    Family {
        name: "mistral3",
        architecture: "MistralForCausalLM",
        windowed: Some("MistralForCausalLM"),
        pairs: true,
        keys: &["attention.temperature_scale", "rope.scaling.yarn_log_multiplier"],
        fields: fields::mistral3,
        ..PLAIN
    },
    Family {
        name: "phi3",
        architecture: "Phi3ForCausalLM",
        windowed: Some("Phi3ForCausalLM"),
        partial: true,
        ..PLAIN
    },
    Family { name: "smollm3", architecture: "SmolLM3ForCausalLM", pairs: true, ..PLAIN },
    Family {
        name: "olmo2",
        architecture: "Olmo2ForCausalLM",
        windowed: Some("Olmo3ForCausalLM"),
        names: SANDWICH,
        keys: &[LOCAL_THETA, PATTERN],
        fields: fields::olmo2,
        ..PLAIN
    },
    Family {
        name: "granite",
        architecture: "GraniteForCausalLM",
        pairs: true,
        keys: &["attention.scale", "embedding_scale", "residual_scale", "logit_scale"],
        fields: granite,
        ..PLAIN
    },
    Family {
        name: "granitehybrid",
        architecture: "GraniteMoeHybridForCausalLM",
        pairs: true,
        names: &[("block_sparse_moe.router.layer", "ffn_gate_inp")],
        keys: &[
            SHARED_SIZE,
            "attention.scale",
            "embedding_scale",
            "residual_scale",
            "logit_scale",
            "ssm.conv_kernel",
            "ssm.inner_size",
            "ssm.state_size",
            "ssm.time_step_rank",
            "ssm.group_count",
        ],
        fields: fields::granite_hybrid,
        ..PLAIN
    },
    Family {
        name: "cohere2",
        architecture: "Cohere2ForCausalLM",
        windowed: Some("Cohere2ForCausalLM"),
        eps: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        keys: &["logit_scale", PATTERN],
        fields: cohere2,
        ..PLAIN
    },
    Family { name: "glm4", architecture: "Glm4ForCausalLM", partial: true, ..PLAIN },
    Family {
        name: "gpt-oss",
        architecture: "GptOssForCausalLM",
        windowed: Some("GptOssForCausalLM"),
        names: SANDWICH,
        keys: &[EXPERT_SIZE],
        fields: gpt_oss,
        ..PLAIN
    },
    Family {
        name: "deepseek2",
        architecture: "DeepseekV3ForCausalLM",
        partial: true,
        keys: &[
            EXPERT_SIZE,
            "attention.q_lora_rank",
            "attention.kv_lora_rank",
            "attention.key_length_mla",
            "attention.value_length_mla",
            "leading_dense_block_count",
            "expert_shared_count",
            "expert_weights_scale",
            "expert_weights_norm",
            "expert_gating_func",
            "expert_group_count",
            "expert_group_used_count",
            "rope.scaling.yarn_log_multiplier",
        ],
        fields: deepseek2,
        ..PLAIN
    },
    Family {
        name: "lfm2",
        architecture: "Lfm2ForCausalLM",
        eps: ("attention.layer_norm_rms_epsilon", "norm_eps"),
        names: &[
            ("operator_norm", "attn_norm"),
            ("ffn_norm", "ffn_norm"),
            ("model.embedding_norm", "output_norm"),
            ("self_attn.out_proj", "attn_output"),
            ("self_attn.q_layernorm", "attn_q_norm"),
            ("self_attn.k_layernorm", "attn_k_norm"),
            ("feed_forward.w1", "ffn_gate"),
            ("feed_forward.w3", "ffn_up"),
            ("feed_forward.w2", "ffn_down"),
            ("conv.in_proj", "shortconv.in_proj"),
            ("conv.out_proj", "shortconv.out_proj"),
            ("conv.conv", "shortconv.conv"),
        ],
        renamed: &[("output_norm", "token_embd_norm")],
        keys: &["shortconv.l_cache"],
        fields: lfm2,
        ..PLAIN
    },
];
