//! As `tests`, for families whose MLPs have no gate.

use serde_json::json;

use super::tests::{kind, refused, spec, windows, with};
use crate::spec::tensors::MatrixName;
use crate::spec::{DecoderSpec, Halves, NormSpec, Scoring, SharedExpert};

#[test]
fn starcoder2_has_windows_and_no_gate() {
    let base = json!({"architectures": ["Starcoder2ForCausalLM"], "bos_token_id": 0, "eos_token_id": 0,
        "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072, "intermediate_size": 12_288,
        "layer_norm_epsilon": 1e-5, "max_position_embeddings": 16_384, "mlp_type": "default",
        "model_type": "starcoder2", "norm_epsilon": 1e-5, "norm_type": "layer_norm", "num_attention_heads": 24,
        "num_hidden_layers": 30, "num_key_value_heads": 2, "rope_theta": 999_999.442_035_881_3,
        "sliding_window": 4096, "use_bias": true, "vocab_size": 49_152});
    let found = spec(&base);
    assert_eq!(windows(&found), [Some(4096); 30]);
    assert!(found.tie_word_embeddings && !found.mlp_gate && found.head_dim == 128);
    assert_eq!(spec(&with(&base, &json!({"norm_epsilon": null, "use_bias": null}))), found);
    let biases =
        |spec: &DecoderSpec| spec.tensors().vectors().filter(|name| name.name.contains("bias")).count();
    // Norms always have one.
    let without = spec(&with(&base, &json!({"use_bias": false})));
    assert_eq!((biases(&found), biases(&without)), (30 * 8 + 1, 30 * 2 + 1));
    refused(&base, json!({"norm_type": "rms_norm"}), "norm_type: expected \"layer_norm\"");
    refused(&base, json!({"mlp_type": "gated"}), "mlp_type: expected \"default\"");
    refused(&base, json!({"num_key_value_heads": null}), "num_key_value_heads: expected an integer");
    refused(&base, json!({"sliding_window": 0}), "sliding_window");
    refused(&base, json!({"hidden_act": "mish"}), "hidden_act");
}

#[test]
fn phi2_adds_a_bias_to_logits() {
    let base = json!({"architectures": ["PhiForCausalLM"], "bos_token_id": 50_256, "eos_token_id": 50_256,
        "hidden_act": "gelu_new", "hidden_size": 2560, "intermediate_size": 10_240, "layer_norm_eps": 1e-5,
        "max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": false, "rope_scaling": null,
        "rope_theta": 10_000.0, "tie_word_embeddings": false, "vocab_size": 51_200});
    let found = spec(&base);
    assert_eq!((found.ropes[0].rotary_dim, found.names.mlp_norm), (32, None));
    let bias = found.tensors().lm_head_bias.unwrap();
    assert_eq!((bias.name.as_str(), bias.len), ("lm_head.bias", 51_200));
    assert_eq!(spec(&with(&base, &json!({"partial_rotary_factor": null}))).ropes[0].rotary_dim, 40);
    refused(&base, json!({"qk_layernorm": true}), "qk_layernorm: expected false");
    refused(&base, json!({"hidden_act": "mish"}), "hidden_act");
}

#[test]
fn gpt2_stores_its_projections_by_inputs() {
    let base = json!({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50_256, "eos_token_id": 50_256, "layer_norm_epsilon": 1e-5, "model_type": "gpt2",
        "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50_257});
    let found = spec(&base);
    assert_eq!((found.intermediate_size, found.max_position_embeddings), (3072, 1024));
    assert!(found.tie_word_embeddings && found.layers.iter().all(|layer| layer.rope.is_none()));
    let names = found.tensors();
    let stored = names.matrices().find(|matrix| matrix.name == "h.3.attn.c_attn.weight").unwrap();
    assert_eq!((stored.n, stored.k), (3 * 768, 768));
    assert_eq!(stored.part.as_ref().unwrap().shape, [768, 3 * 768]);
    assert_eq!(spec(&with(&base, &json!({"n_inner": 3000}))).intermediate_size, 3000);
    refused(&base, json!({"scale_attn_weights": false}), "scale_attn_weights: expected true");
    refused(&base, json!({"scale_attn_by_inverse_layer_idx": true}), "scale_attn_by_inverse_layer_idx");
    refused(&base, json!({"add_cross_attention": true}), "add_cross_attention");
    refused(&base, json!({"activation_function": "mish"}), "activation_function");
    refused(&base, json!({"n_head": 7}), "n_head: expected a divisor");
}

#[test]
fn apertus_learns_its_activation() {
    let base = json!({"architectures": ["ApertusForCausalLM"], "attention_bias": false, "bos_token_id": 1,
        "eos_token_id": 68, "hidden_act": "xielu", "hidden_size": 4096, "intermediate_size": 21_504,
        "max_position_embeddings": 65_536, "mlp_bias": false, "model_type": "apertus", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "post_norm": false, "qk_norm": true,
        "rms_norm_eps": 1e-5, "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 12_000_000,
        "tie_word_embeddings": false, "vocab_size": 131_072});
    let found = spec(&base);
    assert_eq!(found.qk_norm, Some(NormSpec::of_heads(1e-5)));
    assert_eq!(spec(&with(&base, &json!({"rope_theta": null}))), found);
    let parameters = found.tensors();
    let parameters = parameters.vectors().filter(|vector| vector.name.contains("act_fn")).count();
    assert_eq!(parameters, 32 * 4);
    refused(&base, json!({"hidden_act": "silu"}), "hidden_act: expected \"xielu\"");
    refused(&base, json!({"qk_norm": false}), "qk_norm: expected true");
    refused(&base, json!({"post_norm": true}), "post_norm: expected false");
    refused(&base, json!({"mlp_bias": true}), "mlp_bias: expected false");
    refused(&base, json!({"rope_scaling": null}), "rope_parameters: expected an object");
}

#[test]
fn nemotron_h_counts_halves_of_layers() {
    let base = json!({"architectures": ["NemotronHForCausalLM"], "attention_bias": false, "attention_head_dim": 128,
        "bos_token_id": 1, "conv_kernel": 4, "eos_token_id": 2, "expand": 2, "hidden_size": 4096,
        "hybrid_override_pattern": "M-MM-M*-", "intermediate_size": 21_504, "layer_norm_epsilon": 1e-5,
        "mamba_head_dim": 64, "mamba_hidden_act": "silu", "mamba_num_heads": 128, "mamba_proj_bias": false,
        "max_position_embeddings": 8192, "mlp_bias": false, "mlp_hidden_act": "relu2", "model_type": "nemotron_h",
        "n_groups": 8, "num_attention_heads": 32, "num_hidden_layers": 8, "num_key_value_heads": 8,
        "sliding_window": null, "ssm_state_size": 128, "tie_word_embeddings": false, "use_bias": false,
        "use_conv_bias": true, "vocab_size": 131_072});
    let found = spec(&base);
    let kinds: Vec<&str> = found.layers.iter().map(kind).collect();
    assert_eq!(kinds, ["mamba", "mamba", "mamba", "mamba", "attention"]);
    let halves: Vec<_> = found.layers.iter().filter_map(|layer| layer.halves).collect();
    let expected = [(0, Some(1)), (2, None), (3, Some(4)), (5, None), (6, Some(7))];
    assert_eq!(halves, expected.map(|(mixer, mlp)| Halves { mixer, mlp }));
    let names = found.tensors();
    let norms: Vec<&str> = names
        .vectors()
        .map(|vector| vector.name.as_str())
        .filter(|name| name.ends_with(".norm.weight") && !name.contains("mixer"))
        .collect();
    let numbers: Vec<String> =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|n| format!("backbone.layers.{n}.norm.weight")).into();
    assert_eq!(norms, numbers);
    assert_eq!((found.head_dim, found.num_hidden_layers), (128, 5));
    let kinds = json!({"hybrid_override_pattern": null, "layers_block_type": ["mamba", "mlp", "linear_attention",
        "mamba", "mlp", "mamba", "attention", "mlp"]});
    assert_eq!(spec(&with(&base, &kinds)), found);
    let pattern = |pattern: &str| json!({"hybrid_override_pattern": pattern, "num_hidden_layers": null});
    refused(
        &base,
        pattern("M-MX"),
        "hybrid_override_pattern: expected Mamba, attention, MLPs and experts alone",
    );
    refused(&base, pattern("-M"), "hybrid_override_pattern: expected another kind before each MLP");
    refused(&base, pattern("M--"), "hybrid_override_pattern: expected another kind before each MLP");
    refused(&base, pattern(""), "num_hidden_layers: expected a positive integer");
    refused(&base, json!({"num_hidden_layers": 9}), "num_hidden_layers: expected 8");
    refused(&base, json!({"hybrid_override_pattern": null}), "hybrid_override_pattern: expected a string");
    refused(&base, json!({"head_dim": 64}), "head_dim");
    refused(&base, json!({"mamba_proj_bias": true}), "mamba_proj_bias: expected false");
    refused(&base, json!({"attention_bias": true}), "attention_bias: expected false");
    refused(&base, json!({"sliding_window": 64}), "sliding_window: expected null");
    refused(&base, json!({"mamba_hidden_act": "relu"}), "mamba_hidden_act: expected \"silu\"");
    refused(&base, json!({"time_step_limit": [0.0, 0.1]}), "time_step_limit: expected no limit");
    refused(&base, json!({"n_groups": 3}), "mamba_n_groups: expected a divisor");
}

#[test]
fn nemotron_3_has_experts_without_gates() {
    let base = json!({"architectures": ["NemotronHForCausalLM"], "attention_bias": false, "bos_token_id": 1,
        "conv_kernel": 4, "eos_token_id": 2, "head_dim": 128, "hidden_size": 2688,
        "hybrid_override_pattern": "MEM*EME", "intermediate_size": 1856, "layer_norm_epsilon": 1e-5,
        "mamba_head_dim": 64, "mamba_num_heads": 64, "max_position_embeddings": 262_144, "mlp_bias": false,
        "mlp_hidden_act": "relu2", "model_type": "nemotron_h", "moe_intermediate_size": 1856,
        "moe_shared_expert_intermediate_size": 3712, "n_group": 1, "n_groups": 8, "n_routed_experts": 128,
        "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 32, "num_experts_per_tok": 6,
        "num_hidden_layers": 7, "num_key_value_heads": 2, "routed_scaling_factor": 2.5, "ssm_state_size": 128,
        "tie_word_embeddings": false, "topk_group": 1, "vocab_size": 131_072});
    let found = spec(&base);
    assert_eq!(found.layers.iter().map(|layer| layer.moe).collect::<Vec<_>>(), [true, false, true, true]);
    let moe = found.moe.unwrap();
    assert_eq!((moe.gate, moe.scoring, moe.routed_scaling_factor), (false, Scoring::Sigmoid, 2.5));
    assert_eq!(moe.shared, Some(SharedExpert { intermediate_size: 3712, gated: false }));
    let names = found.tensors();
    let of_expert = |matrix: &&MatrixName| matrix.name.starts_with("backbone.layers.4.mixer.experts.7.");
    let experts: Vec<_> = names.matrices().filter(of_expert).map(|matrix| (matrix.n, matrix.k)).collect();
    assert_eq!(experts, [(1856, 2688), (2688, 1856)]);
    refused(&base, json!({"mlp_bias": true}), "mlp_bias: expected false, as there are experts");
    refused(&base, json!({"n_shared_experts": 0}), "n_shared_experts: expected a shared expert");
    refused(&base, json!({"moe_latent_size": 1024}), "moe_latent_size: expected null");
    refused(&base, json!({"n_group": 3}), "n_group: expected a divisor");
    refused(&base, json!({"moe_intermediate_size": null}), "moe_intermediate_size: expected an integer");
}
