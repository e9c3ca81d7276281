//! As `tests`, for families of 2025 and 2026, most of them text models of multimodal ones.

use serde_json::{Value, json};

use super::tests::{kind, refused, spec, windows, with};
use crate::spec::mixers::delta_net::DeltaStorage;
use crate::spec::mixers::mamba::MambaSpec;
use crate::spec::{
    DecoderSpec, ExpertStorage, HeadShape, KeySource, MixerSpec, NormSpec, PerLayerSpec, Scoring,
    SharedExpert,
};

/// `value` with `changes` to its `text_config`.
pub(super) fn with_text(value: &Value, changes: &Value) -> Value {
    with(value, &json!({"text_config": with(&value["text_config"], changes)}))
}

fn qwen3_5() -> Value {
    json!({"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "tie_word_embeddings": true,
        "text_config": {"attention_bias": false, "attn_output_gate": true, "eos_token_id": 248_044,
            "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu", "hidden_size": 1024,
            "intermediate_size": 3584, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
            "linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_value_head_dim": 128,
            "max_position_embeddings": 262_144, "model_type": "qwen3_5_text", "num_attention_heads": 8,
            "num_hidden_layers": 8, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": 248_320,
            "rope_parameters": {"mrope_interleaved": true, "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25, "rope_theta": 1e7, "rope_type": "default"}},
        "vision_config": {"depth": 12}})
}

#[test]
fn qwen3_5_is_qwen3_next_with_separate_projections() {
    let base = qwen3_5();
    let found = spec(&base);
    let kinds: Vec<&str> = found.layers.iter().map(kind).collect();
    let (delta, attention) = ("delta net", "attention");
    assert_eq!(kinds, [delta, delta, delta, attention, delta, delta, delta, attention]);
    assert_eq!((found.ropes[0].rotary_dim, found.tie_word_embeddings), (64, true));
    let MixerSpec::DeltaNet(sizes) = found.layers[0].mixer else { panic!("{:?}", found.layers[0]) };
    assert_eq!(sizes.storage, DeltaStorage::Apart);
    assert_eq!(found.eos, [248_044]);
    let names = found.tensors();
    for name in ["linear_attn.in_proj_qkv.weight", "linear_attn.in_proj_z.weight"] {
        let name = format!("model.layers.0.{name}");
        assert!(names.matrices().any(|matrix| matrix.name == name), "{name}");
    }
    // Settings of the whole model win over those of the text model.
    assert!(
        !spec(&with_text(&with(&base, &json!({"tie_word_embeddings": false})), &json!({})))
            .tie_word_embeddings
    );
    assert!(spec(&with_text(&base, &json!({"tie_word_embeddings": false}))).tie_word_embeddings);
    let alone = with(&base["text_config"], &json!({"architectures": ["Qwen3_5ForCausalLM"]}));
    let alone = spec(&with(&alone, &json!({"tie_word_embeddings": true})));
    assert_eq!(alone.layers, found.layers);
    refused(&with_text(&base, &json!({"attn_output_gate": false})), json!({}), "attn_output_gate");
    refused(&base, json!({"text_config": null}), "text_config: expected an object, found nothing");
    refused(&base, json!({"text_config": 3}), "text_config: expected an object or null, found 3");
    let error = with_text(&base, &json!({"linear_key_head_dim": null}));
    refused(&error, json!({}), "text_config.linear_key_head_dim: expected an integer");
}

#[test]
fn qwen3_5_has_experts_in_one_tensor_or_many() {
    let text = json!({"intermediate_size": null, "moe_intermediate_size": 512, "num_experts": 256,
        "num_experts_per_tok": 8, "shared_expert_intermediate_size": 512});
    let architecture = json!({"architectures": ["Qwen3_5MoeForConditionalGeneration"]});
    let found = spec(&with(&with_text(&qwen3_5(), &text), &architecture));
    let moe = found.moe.unwrap();
    assert_eq!(moe.shared, Some(SharedExpert { intermediate_size: 512, gated: true }));
    assert!(moe.norm_topk_prob && found.layers.iter().all(|layer| layer.moe));
    assert_eq!(moe.storage, ExpertStorage::Separate);
    let joined =
        found.clone().with_experts_as_stored(|name| name == "model.layers.0.mlp.experts.gate_up_proj");
    assert_eq!(joined.moe.unwrap().storage, ExpertStorage::JoinedRows);
    assert_eq!(found.clone().with_experts_as_stored(|_| false), found);
}

#[test]
fn multimodal_gemma3_leaves_out_text_settings() {
    let base = json!({"architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106],
        "mm_tokens_per_image": 256, "text_config": {"hidden_size": 2560, "intermediate_size": 10_240,
            "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}});
    let found = spec(&base);
    assert_eq!((found.vocab_size, found.num_attention_heads, found.head_dim), (262_208, 8, 256));
    assert_eq!((found.eos.as_slice(), found.tie_word_embeddings), (&[1, 106][..], true));
    assert_eq!(windows(&found).iter().flatten().count(), 29);
    assert_eq!(found.ropes[0].inv_freq[0], 0.125);
    assert_eq!(found.ropes[1].inv_freq[0], 1.0);
    assert_eq!(spec(&with_text(&base, &json!({"num_attention_heads": 16}))).num_attention_heads, 16);
}

#[test]
fn ministral3_queries_grow() {
    let base = json!({"architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10,
        "text_config": {"head_dim": 128, "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 9216,
            "max_position_embeddings": 262_144, "model_type": "ministral3", "num_attention_heads": 32,
            "num_hidden_layers": 2, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "sliding_window": null,
            "rope_parameters": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "llama_4_scaling_beta": 0.1,
                "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 16_384,
                "rope_theta": 1e6, "rope_type": "yarn", "type": "yarn"},
            "tie_word_embeddings": true, "vocab_size": 131_072}});
    let found = spec(&base);
    let growth = found.ropes[0].growth.unwrap();
    assert_eq!([0, 16_383].map(|position| growth.at(position)), [1.0; 2]);
    assert!((growth.at(16_384) - 1.069_314_7).abs() < 1e-6 && (growth.at(50_000) - 1.138_629_4).abs() < 1e-6);
    assert_eq!(found.ropes[0].attention_scaling, 1.0);
    assert!(found.tie_word_embeddings && windows(&found) == [None; 2]);
    let rope = |key: &str, value: Value| {
        let mut changed = base.clone();
        changed["text_config"]["rope_parameters"][key] = value;
        changed
    };
    refused(&rope("llama_4_scaling_beta", Value::Null), json!({}), "llama_4_scaling_beta in it");
    refused(&rope("llama_4_scaling_beta", json!(-1)), json!({}), "llama_4_scaling_beta");
    // As in transformers, it has no effect in other families.
    let other = json!({"architectures": ["LlamaForCausalLM"]});
    assert!(spec(&with(&base["text_config"], &other)).ropes[0].growth.is_none());
    refused(
        &with_text(&base, &json!({"rope_parameters": null})),
        json!({}),
        "rope_parameters: expected an object",
    );
    // Mistral Small 3.1 and 3.2.
    let mistral = json!({"model_type": "mistral", "rope_parameters": null, "rope_theta": 1e9});
    assert!(spec(&with_text(&base, &mistral)).ropes[0].growth.is_none());
    refused(&with_text(&base, &json!({"model_type": "llama"})), json!({}), "model_type: expected mistral or");
}

#[test]
fn olmo3_extends_the_rotation_of_layers_without_windows() {
    let base = json!({"architectures": ["Olmo3ForCausalLM"], "attention_bias": false, "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 11_008, "max_position_embeddings": 65_536,
        "num_attention_heads": 32, "num_hidden_layers": 8, "num_key_value_heads": 32, "rms_norm_eps": 1e-6,
        "rope_scaling": {"attention_factor": 1.207_944_154_167_983_6, "beta_fast": 32.0, "beta_slow": 1.0,
            "factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "yarn"},
        "rope_theta": 500_000, "sliding_window": 4096, "vocab_size": 100_278});
    let found = spec(&base);
    let kinds: Vec<_> = found.layers.iter().map(|layer| (layer.window, layer.rope)).collect();
    let (local, global) = ((Some(4096), Some(1)), (None, Some(0)));
    assert_eq!(kinds, [local, local, local, global, local, local, local, global]);
    assert_eq!((found.ropes[0].attention_scaling, found.ropes[1].attention_scaling), (1.207_944_2, 1.0));
    assert_eq!((found.names.input_norm, found.names.mlp_norm), (None, None));
}

fn gemma4() -> Value {
    json!({"architectures": ["Gemma4ForConditionalGeneration"], "audio_config": {}, "text_config": {
        "attention_k_eq_v": false, "enable_moe_block": false, "final_logit_softcapping": 30.0,
        "global_head_dim": 512, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1536,
        "hidden_size_per_layer_input": 256, "intermediate_size": 6144, "max_position_embeddings": 131_072,
        "model_type": "gemma4_text", "num_attention_heads": 8, "num_hidden_layers": 10, "num_key_value_heads": 1,
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
            "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
            "full_attention"],
        "num_kv_shared_layers": 5, "rms_norm_eps": 1e-6, "sliding_window": 512, "use_double_wide_mlp": true,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"}},
        "tie_word_embeddings": true, "use_bidirectional_attention": null, "vocab_size": 262_144,
        "vocab_size_per_layer_input": 262_144}})
}

#[test]
fn small_gemma4_shares_keys_and_has_per_layer_inputs() {
    let base = gemma4();
    let found = spec(&base);
    let full = HeadShape { num_key_value_heads: 1, head_dim: 512 };
    assert_eq!((found.heads(0).head_dim, found.heads(4), found.heads(9)), (256, full, full));
    let keys: Vec<KeySource> = found.layers.iter().map(|layer| layer.keys).collect();
    let shared = [3, 3, 3, 3, 4].map(KeySource::Layer);
    assert_eq!(keys, [[KeySource::Own; 5], shared].concat());
    assert_eq!([4, 5].map(|layer| found.dense_size(layer)), [6144, 12_288]);
    assert_eq!(found.per_layer_inputs, Some(PerLayerSpec { vocab_size: 262_144, size: 256, partial: false }));
    assert_eq!((found.attention.divisor, found.final_logit_softcapping), (1.0, Some(30.0)));
    // A quarter of the pairs is rotated, as if in heads of 512.
    let freq = &found.ropes[0].inv_freq;
    assert!(freq.len() == 256 && freq[..64].iter().all(|x| *x > 0.0) && freq[64..].iter().all(|x| *x == 0.0));
    assert!((freq[63] - 1e6_f32.powf(-126.0 / 512.0)).abs() < 1e-6);
    let names = found.tensors();
    assert!(!names.matrices().any(|matrix| matrix.name == "model.layers.5.self_attn.k_proj.weight"));

    let listed = json!({"global_head_dim": null, "per_layer_config": {"4": {"head_dim": 512}, "9": {"head_dim": 512}}});
    assert_eq!(spec(&with_text(&base, &listed)).heads(9), full);
    for (changes, part) in [
        (json!({"num_kv_shared_layers": 10}), "num_kv_shared_layers: expected fewer than"),
        (json!({"num_kv_shared_layers": 6}), "num_kv_shared_layers: expected to leave"),
        (json!({"use_bidirectional_attention": "all"}), "use_bidirectional_attention"),
        (json!({"rope_parameters": null}), "rope_parameters: expected an object"),
        (json!({"vocab_size_per_layer_input": 1000}), "vocab_size_per_layer_input: expected at least"),
        (json!({"global_head_dim": 511}), "dim"),
        (json!({"per_layer_config": {"4": {"heads": 3}}}), "per_layer_config.4.heads"),
        (json!({"per_layer_config": {"0": {"head_dim": 128}}}), "heads that differ by window alone"),
        (json!({"sliding_window": null}), "sliding_window"),
    ] {
        refused(&with_text(&base, &changes), json!({}), part);
    }
}

#[test]
fn large_gemma4_uses_keys_as_values_or_has_experts() {
    let large = json!({"attention_k_eq_v": true, "hidden_size_per_layer_input": 0, "num_attention_heads": 32,
        "num_global_key_value_heads": 4, "num_key_value_heads": 16, "num_kv_shared_layers": 0});
    let found = spec(&with_text(&gemma4(), &large));
    let keys: Vec<KeySource> = found.layers.iter().map(|layer| layer.keys).collect();
    assert_eq!((keys[0], keys[4]), (KeySource::Own, KeySource::KeysAsValues));
    assert_eq!(found.heads(4), HeadShape { num_key_value_heads: 4, head_dim: 512 });
    assert_eq!((found.heads(0).num_key_value_heads, found.per_layer_inputs), (16, None));
    let names = found.tensors();
    assert!(!names.matrices().any(|matrix| matrix.name == "model.layers.4.self_attn.v_proj.weight"));
    let experts = json!({"enable_moe_block": true, "moe_intermediate_size": 704, "num_experts": 128, "top_k_experts": 8});
    let found = spec(&with_text(&with_text(&gemma4(), &large), &experts));
    let moe = found.moe.unwrap();
    assert!(moe.parallel_mlp && found.layers.iter().all(|layer| layer.moe));
    assert_eq!((moe.num_experts_per_tok, moe.storage), (8, ExpertStorage::JoinedRows));
    // Its current name.
    let unified = json!({"architectures": ["Gemma4UnifiedForConditionalGeneration"]});
    let text = with_text(&gemma4(), &json!({"hidden_size_per_layer_input": null}));
    assert_eq!(spec(&with(&text, &unified)).per_layer_inputs, None);
}

#[test]
fn granite4_is_a_hybrid() {
    let base = json!({"architectures": ["GraniteMoeHybridForCausalLM"], "attention_bias": false,
        "attention_multiplier": 0.0078125, "embedding_multiplier": 12, "hidden_act": "silu", "hidden_size": 1536,
        "intermediate_size": 512, "layer_types": ["mamba", "attention", "mamba"], "logits_scaling": 6,
        "mamba_chunk_size": 256, "mamba_conv_bias": true, "mamba_d_conv": 4, "mamba_d_head": 64,
        "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 48,
        "mamba_proj_bias": false, "max_position_embeddings": 131_072, "num_attention_heads": 12,
        "num_experts_per_tok": 6, "num_hidden_layers": 3, "num_key_value_heads": 4, "num_local_experts": 64,
        "position_embedding_type": "nope", "residual_multiplier": 0.22, "rms_norm_eps": 1e-5,
        "rope_theta": 10_000, "shared_intermediate_size": 1024, "tie_word_embeddings": true, "vocab_size": 100_352});
    let found = spec(&base);
    assert_eq!(found.layers.iter().map(kind).collect::<Vec<_>>(), ["mamba", "attention", "mamba"]);
    let sizes = MambaSpec {
        kernel_size: 4,
        conv_bias: true,
        num_heads: 48,
        head_dim: 64,
        num_groups: 1,
        state_size: 128,
    };
    assert_eq!((found.layers[0].mixer, found.attention.divisor), (MixerSpec::Mamba(sizes), 128.0));
    assert!(found.ropes.is_empty() && found.layers.iter().all(|layer| layer.rope.is_none() && layer.moe));
    let moe = found.moe.unwrap();
    assert_eq!((moe.intermediate_size, moe.shared.unwrap().intermediate_size), (512, 1024));
    let dense = json!({"num_local_experts": 0, "num_experts_per_tok": 0, "position_embedding_type": "rope",
        "layer_types": ["linear_attention", "full_attention", "linear_attention"], "mamba_d_head": "auto",
        "time_step_limit": [0.0, {"__float__": "Infinity"}]});
    let dense = spec(&with(&base, &dense));
    assert_eq!((dense.moe, dense.intermediate_size, dense.layers[1].rope), (None, 1024, Some(0)));
    assert_eq!(dense.layers[0].mixer, MixerSpec::Mamba(sizes));
    refused(&base, json!({"mamba_proj_bias": true}), "mamba_proj_bias");
    refused(&base, json!({"mamba_d_head": 32}), "mamba_n_heads: expected heads of 3072");
    refused(&base, json!({"mamba_n_groups": 5}), "mamba_n_groups: expected a divisor");
    refused(&base, json!({"mamba_d_state": 0}), "mamba_d_state");
    refused(&base, json!({"time_step_limit": [0.0, 1.0]}), "time_step_limit");
    refused(&base, json!({"position_embedding_type": "alibi"}), "position_embedding_type");
    refused(&base, json!({"num_experts_per_tok": 65}), "num_experts_per_tok: expected at most");
}

#[test]
fn ernie4_5_rotates_neighbours() {
    let base = json!({"architectures": ["Ernie4_5ForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 131_072,
        "model_type": "ernie4_5", "num_attention_heads": 16, "num_hidden_layers": 18, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000, "tie_word_embeddings": true, "use_bias": false,
        "vocab_size": 103_424});
    let found = spec(&base);
    assert!(found.ropes[0].interleaved && found.tie_word_embeddings && found.head_dim == 128);
    assert_eq!(spec(&with(&base, &json!({"rope_theta": null, "tie_word_embeddings": null}))), found);
    let biases =
        |spec: &DecoderSpec| spec.tensors().vectors().filter(|vector| vector.name.ends_with("bias")).count();
    assert_eq!((biases(&found), biases(&spec(&with(&base, &json!({"use_bias": true}))))), (0, 18 * 7));
    refused(&base, json!({"head_dim": null}), "head_dim: expected an integer");
    refused(&base, json!({"use_bias": 1}), "use_bias: expected");
    refused(&base, json!({"hidden_act": "mish"}), "hidden_act");
}

#[test]
fn hunyuan_norms_heads_after_their_rotation() {
    let base = json!({"architectures": ["HunYuanDenseV1ForCausalLM"], "attention_bias": false, "bos_token_id": 1,
        "eod_token_id": 3, "eos_token_id": 2, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 262_144, "mlp_bias": false,
        "model_type": "hunyuan_v1_dense", "num_attention_heads": 16, "num_hidden_layers": 32,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_scaling": {"alpha": 1000.0, "beta_fast": 32,
            "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "type": "dynamic"},
        "rope_theta": 10_000.0, "tie_word_embeddings": true, "use_cla": false, "use_qk_norm": true,
        "vocab_size": 120_818});
    let found = spec(&base);
    assert!(found.qk_norm.unwrap().rotated);
    // 10000 * 1000^(128 / 126) to the power of -2 / 128 and -126 / 128.
    let freq = &found.ropes[0].inv_freq;
    assert!(freq[0] == 1.0 && (freq[1] - 0.776_034_36).abs() < 1e-6, "{}", freq[1]);
    let expected = 1.154_782e-4 / 1000.0;
    assert!((freq[63] / expected - 1.0).abs() < 1e-5, "{}", freq[63]);
    let scaling = |changes: Value| json!({"rope_scaling": with(&base["rope_scaling"], &changes)});
    refused(&base, scaling(json!({"alpha": null})), "alpha: expected a number > 0");
    refused(&base, scaling(json!({"alpha": 0})), "alpha: expected a number > 0");
    refused(&base, json!({"use_qk_norm": false}), "use_qk_norm: expected true");
    refused(&base, json!({"use_cla": true}), "use_cla: expected false");
    // In other families the type depends on the length of the sequence.
    refused(&base, json!({"architectures": ["LlamaForCausalLM"]}), "type: expected one of");
}

#[test]
fn glm4_moe_has_the_experts_of_deepseek() {
    let base = json!({"architectures": ["Glm4MoeForCausalLM"], "attention_bias": true, "eos_token_id": [151_329],
        "first_k_dense_replace": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 10_944, "max_position_embeddings": 131_072, "model_type": "glm4_moe",
        "moe_intermediate_size": 1408, "n_group": 1, "n_routed_experts": 128, "n_shared_experts": 1,
        "norm_topk_prob": true, "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 46,
        "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-5, "rope_scaling": null, "rope_theta": 1_000_000, "routed_scaling_factor": 1.0,
        "tie_word_embeddings": false, "topk_group": 1, "use_qk_norm": false, "vocab_size": 151_552});
    let found = spec(&base);
    let moe = found.moe.unwrap();
    assert_eq!((moe.scoring, moe.norm_topk_prob, moe.num_experts), (Scoring::Sigmoid, true, 128));
    assert_eq!(moe.shared, Some(SharedExpert { intermediate_size: 1408, gated: false }));
    assert_eq!(found.layers.iter().filter(|layer| !layer.moe).count(), 1);
    assert!(found.qkv_bias && !found.o_bias && found.qk_norm.is_none());
    assert_eq!((found.ropes[0].rotary_dim, found.ropes[0].interleaved), (64, false));
    assert_eq!(spec(&with(&base, &json!({"use_qk_norm": true}))).qk_norm, Some(NormSpec::of_heads(1e-5)));
    refused(&base, json!({"n_shared_experts": null}), "n_shared_experts: expected an integer");
    refused(&base, json!({"n_group": 3}), "n_group: expected a divisor");
    refused(&base, json!({"num_experts_per_tok": 129}), "num_experts_per_tok: expected at most");
}

#[test]
fn minimax_m2_norms_all_heads_at_once() {
    let base = json!({"architectures": ["MiniMaxM2ForCausalLM"], "attn_type_list": [1, 1, 1, 1], "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 1536, "max_position_embeddings": 196_608,
        "model_type": "minimax_m2", "num_attention_heads": 48, "num_experts_per_tok": 8, "num_hidden_layers": 4,
        "num_key_value_heads": 8, "num_local_experts": 256, "qk_norm_type": "per_layer", "rms_norm_eps": 1e-6,
        "rope_theta": 5_000_000, "rotary_dim": 64, "scoring_func": "sigmoid", "shared_intermediate_size": 0,
        "tie_word_embeddings": false, "use_qk_norm": true, "use_routing_bias": true, "vocab_size": 200_064});
    let found = spec(&base);
    let moe = found.moe.unwrap();
    assert_eq!((moe.scoring, moe.num_experts, moe.intermediate_size), (Scoring::Sigmoid, 256, 1536));
    assert!(found.qk_norm.unwrap().whole && found.layers.iter().all(|layer| layer.moe));
    assert_eq!(found.ropes[0].rotary_dim, 64);
    assert_eq!(spec(&with(&base, &json!({"rotary_dim": null}))).ropes[0].rotary_dim, 128);
    assert_eq!(spec(&with(&base, &json!({"rope_theta": null}))), found);
    let names = found.tensors();
    let name = "model.layers.3.block_sparse_moe.e_score_correction_bias";
    assert!(names.vectors().any(|vector| vector.name == name && vector.len == 256));
    refused(&base, json!({"head_dim": null}), "head_dim: expected an integer");
    refused(&base, json!({"rotary_dim": 7}), "partial_rotary_factor: expected");
    refused(&base, json!({"scoring_func": "softmax"}), "scoring_func: expected \"sigmoid\"");
    refused(&base, json!({"qk_norm_type": "per_head"}), "qk_norm_type: expected \"per_layer\"");
    refused(&base, json!({"use_qk_norm": false}), "use_qk_norm: expected true");
    refused(&base, json!({"use_routing_bias": false}), "use_routing_bias: expected true");
    refused(&base, json!({"attn_type_list": [1, 0, 1, 1]}), "attn_type_list: expected 1");
    refused(&base, json!({"shared_intermediate_size": 64}), "shared_intermediate_size: expected 0");
}

#[test]
fn llama4_sees_chunks_or_grows_queries() {
    let base = json!({"architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 200_080,
        "model_type": "llama4", "tie_word_embeddings": false, "text_config": {"attention_bias": false,
            "attention_chunk_size": 8192, "eos_token_id": [200_001, 200_007, 200_008],
            "for_llm_compression": false, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
            "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16_384,
            "max_position_embeddings": 10_485_760, "model_type": "llama4_text", "no_rope_layers": [],
            "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 8,
            "num_key_value_heads": 8, "num_local_experts": 16, "rms_norm_eps": 1e-5,
            "rope_scaling": {"factor": 16.0, "high_freq_factor": 1.0, "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            "rope_theta": 500_000.0, "use_qk_norm": true, "vocab_size": 202_048}});
    let found = spec(&base);
    let chunk = Some(8192);
    assert_eq!(windows(&found), [chunk, chunk, chunk, None, chunk, chunk, chunk, None]);
    assert!(found.layers.iter().enumerate().all(|(i, layer)| {
        let rotated = i % 4 != 3;
        let rope = usize::from(!rotated);
        layer.moe && (layer.chunked, layer.qk_norm, layer.rope) == (rotated, rotated, Some(rope))
    }));
    let growth = found.ropes[1].growth.unwrap();
    assert_eq!([0, 8190].map(|position| growth.at(position)), [1.0; 2]);
    assert!((growth.at(8191) - 1.069_314_7).abs() < 1e-6 && found.ropes[1].inv_freq.is_empty());
    assert!(found.ropes[0].interleaved && found.ropes[0].growth.is_none());
    assert_eq!((found.intermediate_size, found.moe.unwrap().intermediate_size), (16_384, 8192));
    assert!(!found.qk_norm.unwrap().gains);
    let text = |changes: Value| spec(&with_text(&base, &changes));
    // Maverick: every second layer is dense, and heads have no norms.
    let maverick = text(json!({"interleave_moe_layer_step": 2, "use_qk_norm": false, "rope_scaling": null}));
    let moe: Vec<bool> = maverick.layers.iter().take(4).map(|layer| layer.moe).collect();
    assert!(moe == [false, true, false, true] && maverick.qk_norm.is_none());
    let listed = text(json!({"moe_layers": [2], "no_rope_layers": [0, 1, 1, 1, 1, 1, 1, 1]}));
    assert!(listed.layers[2].moe && !listed.layers[1].moe && listed.layers[0].window.is_none());
    for off in [json!(false), json!(0)] {
        let plain = text(json!({"attn_temperature_tuning": off}));
        assert_eq!((plain.ropes.len(), plain.layers[3].rope), (1, None));
    }
    assert_eq!(text(json!({"attn_temperature_tuning": 4})), found);
    assert_eq!(windows(&text(json!({"layer_types": vec!["full_attention"; 8]}))), [None; 8]);
    for (changes, words) in [
        (json!({"intermediate_size_mlp": null}), "intermediate_size_mlp: expected an integer"),
        (json!({"head_dim": null}), "head_dim: expected an integer"),
        (json!({"floor_scale": 0}), "floor_scale: expected a positive integer"),
        (json!({"attn_scale": -1}), "attn_scale: expected a number from 0"),
        (json!({"attention_chunk_size": 0}), "attention_chunk_size: expected a positive integer"),
        (json!({"interleave_moe_layer_step": 0}), "interleave_moe_layer_step"),
        (json!({"no_rope_layer_interval": 0}), "no_rope_layer_interval"),
        (json!({"no_rope_layers": [1]}), "no_rope_layers: expected at least 8 numbers"),
        (json!({"layer_types": ["full_attention"]}), "layer_types: expected 8 entries"),
    ] {
        refused(&with_text(&base, &changes), json!({}), words);
    }
}

#[test]
fn the_text_of_qwen3_vl_is_qwen3() {
    let base = json!({"architectures": ["Qwen3VLForConditionalGeneration"], "image_token_id": 151_655,
        "model_type": "qwen3_vl", "tie_word_embeddings": true, "text_config": {"attention_bias": false,
            "bos_token_id": 151_643, "eos_token_id": 151_645, "head_dim": 128, "hidden_act": "silu",
            "hidden_size": 2560, "intermediate_size": 9728, "max_position_embeddings": 262_144,
            "model_type": "qwen3_vl_text", "num_attention_heads": 32, "num_hidden_layers": 36,
            "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_scaling": {"mrope_interleaved": true,
                "mrope_section": [24, 20, 20], "rope_type": "default"}, "rope_theta": 5_000_000,
            "vocab_size": 151_936},
        "vision_config": {"deepstack_visual_indexes": [5, 11, 17], "depth": 24}});
    let found = spec(&base);
    let text = &base["text_config"];
    let changes =
        json!({"architectures": ["Qwen3ForCausalLM"], "rope_scaling": null, "tie_word_embeddings": true});
    let alone = spec(&with(text, &changes));
    assert_eq!(DecoderSpec { architecture: alone.architecture, ..found.clone() }, alone);
    assert!(found.tie_word_embeddings && found.qk_norm.is_some());
    let without = spec(&with_text(&base, &json!({"rope_theta": null})));
    assert!((without.ropes[0].inv_freq[32] * 500_000_f32.sqrt() - 1.0).abs() < 1e-6);
    refused(&with_text(&base, &json!({"head_dim": null})), json!({}), "text_config.head_dim: expected");
    let rope = json!({"rope_scaling": {"rope_type": "mrope"}});
    refused(&with_text(&base, &rope), json!({}), "rope_type: expected one of");
}
