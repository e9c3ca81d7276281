//! Published configurations of the families, reduced to what is read, in their original notation; and values that make
//! them invalid.

use serde_json::{Value, json};

use crate::error::ErrorKind;
use crate::load::quantization::parse_spec;
use crate::options::Pooling;
use crate::spec::config::ModelConfig;
use crate::spec::mixers::mla::MlaSpec;
use crate::spec::{
    Activation, DecoderSpec, ExpertGroups, ExpertStorage, LayerSpec, MixerSpec, NormKind, Scoring,
    SharedExpert,
};

fn config(value: &Value) -> ModelConfig {
    ModelConfig::parse(value.to_string().as_bytes(), "config.json").unwrap()
}

/// `base` with the settings in `changes`; null removes one.
pub(super) fn with(base: &Value, changes: &Value) -> Value {
    let mut value = base.clone();
    for (key, change) in changes.as_object().unwrap() {
        value[key] = change.clone();
        if change.is_null() {
            value.as_object_mut().unwrap().remove(key);
        }
    }
    value
}

pub(super) fn spec(value: &Value) -> DecoderSpec {
    parse_spec(&config(value)).unwrap()
}

pub(super) fn refused(base: &Value, changes: Value, part: &str) {
    let error = parse_spec(&config(&with(base, &changes))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidModel | ErrorKind::UnsupportedModel), "{error}");
    assert!(error.message().contains(part), "{part:?} is not in: {error}");
}

pub(super) fn windows(spec: &DecoderSpec) -> Vec<Option<usize>> {
    spec.layers.iter().map(|layer| layer.window).collect()
}

fn gemma(name: &str) -> Value {
    json!({"architectures": [name], "head_dim": 256, "hidden_size": 2304, "intermediate_size": 9216,
        "num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 4, "vocab_size": 256_000,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0})
}

#[test]
fn gemma_is_scaled_and_tied() {
    let base = with(&gemma("GemmaForCausalLM"), &json!({"hidden_act": "gelu"}));
    let found = spec(&base);
    assert_eq!((found.activation, found.norm), (Activation::GeluTanh, NormKind::Rms { offset: 1.0 }));
    assert!(
        found.tie_word_embeddings && found.embedding_multiplier == 48.0 && found.attention.divisor == 16.0
    );
    assert_eq!(found.names.mlp_out_norm, None);
    refused(&base, json!({"hidden_act": "mish"}), "hidden_act");
    refused(
        &base,
        json!({"use_bidirectional_attention": true}),
        "use_bidirectional_attention: expected false",
    );
    refused(&base, json!({"head_dim": null}), "head_dim");
}

#[test]
fn gemma2_has_caps_and_every_other_window() {
    let base = with(
        &gemma("Gemma2ForCausalLM"),
        &json!({"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4096,
            "query_pre_attn_scalar": 144, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    );
    let found = spec(&base);
    assert_eq!(windows(&found), [Some(4096), None, Some(4096), None]);
    assert_eq!((found.attention.divisor, found.attention.softcap), (12.0, Some(50.0)));
    assert_eq!(found.final_logit_softcapping, Some(30.0));
    let defaults = json!({"attn_logit_softcapping": null, "final_logit_softcapping": null, "query_pre_attn_scalar": null});
    let found = spec(&with(&base, &defaults));
    assert_eq!((found.attention.divisor, found.attention.softcap), (16.0, Some(50.0)));
    let mut none = base.clone();
    none["attn_logit_softcapping"] = Value::Null;
    assert_eq!(spec(&none).attention.softcap, None);
    refused(&base, json!({"final_logit_softcapping": 0}), "final_logit_softcapping: expected a number > 0");
    refused(&base, json!({"query_pre_attn_scalar": -1}), "query_pre_attn_scalar");
}

#[test]
fn gemma3_rotates_windows_by_another_base() {
    let base = with(
        &gemma("Gemma3ForCausalLM"),
        &json!({"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 512, "sliding_window_pattern": 3,
            "query_pre_attn_scalar": 256, "rope_theta": 1_000_000, "rope_local_base_freq": 10_000,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}),
    );
    let old = spec(&base);
    assert_eq!(windows(&old), [Some(512), Some(512), None, Some(512)]);
    assert_eq!(
        old.layers.iter().map(|layer| layer.rope).collect::<Vec<_>>(),
        [Some(1), Some(1), Some(0), Some(1)]
    );
    assert_eq!((old.ropes[0].inv_freq[0], old.ropes[1].inv_freq[0]), (0.125, 1.0));
    let new = json!({"rope_theta": null, "rope_local_base_freq": null, "rope_scaling": null,
        "sliding_window_pattern": null, "_sliding_window_pattern": 6,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
    assert_eq!(spec(&with(&base, &new)), old);
    refused(
        &base,
        json!({"sliding_window_pattern": 0}),
        "sliding_window_pattern: expected a positive integer",
    );
    refused(&base, json!({"rope_parameters": {"other": {}}}), "rope_parameters.other");
}

#[test]
fn phi3_is_rotated_in_part_and_by_length() {
    let factors = vec![1.5; 48];
    let base = json!({"architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "hidden_size": 3072,
        "intermediate_size": 8192, "num_attention_heads": 24, "num_key_value_heads": 8, "num_hidden_layers": 2,
        "vocab_size": 200_064, "max_position_embeddings": 131_072, "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "sliding_window": 262_144,
        "rope_scaling": {"type": "longrope", "short_factor": factors, "long_factor": factors},
        "tie_word_embeddings": true});
    let found = spec(&base);
    assert_eq!((found.ropes[0].rotary_dim, found.longrope_from()), (96, Some(4096)));
    assert_eq!(windows(&found), [Some(262_144); 2]);
    let names = found.tensors();
    let expected =
        ["self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight.gate", "mlp.gate_up_proj.weight.up"];
    let expected = expected.map(|name| format!("model.layers.0.{name}"));
    assert!(expected.iter().all(|name| names.matrices().any(|matrix| matrix.name == *name)));
    refused(&base, json!({"partial_rotary_factor": 0.01}), "partial_rotary_factor");
}

#[test]
fn smollm3_leaves_layers_unrotated() {
    let base = json!({"architectures": ["SmolLM3ForCausalLM"], "hidden_act": "silu", "hidden_size": 64,
        "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 5,
        "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 5e6,
        "sliding_window": null, "use_sliding_window": false});
    let rotated =
        |value: &Value| spec(value).layers.iter().map(|layer| layer.rope.is_some()).collect::<Vec<_>>();
    assert_eq!(rotated(&base), [true, true, true, false, true]);
    assert!(spec(&base).tie_word_embeddings);
    let list = with(&base, &json!({"no_rope_layers": [1, 0, 1, 1, 0]}));
    assert_eq!(rotated(&list), [true, false, true, true, false]);
    refused(&base, json!({"no_rope_layers": [1, 0]}), "no_rope_layers: expected 5 entries");
    refused(&base, json!({"no_rope_layers": [1, 0, 2, 1, 0]}), "no_rope_layers: expected 5 entries");
    refused(&base, json!({"no_rope_layer_interval": 0}), "no_rope_layer_interval");
}

#[test]
fn granite_has_multipliers() {
    let base = json!({"architectures": ["GraniteForCausalLM"], "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 2,
        "vocab_size": 49_155, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 5e6,
        "attention_multiplier": 0.015625, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
        "logits_scaling": 8.0, "tie_word_embeddings": true});
    let found = spec(&base);
    assert_eq!((found.attention.divisor, found.embedding_multiplier), (64.0, 12.0));
    assert_eq!((found.residual_multiplier, found.logit_scale), (0.22, 0.125));
    assert!(found.needs_sublayer() && !found.adds_directly(None));
    refused(&base, json!({"logits_scaling": 0}), "logits_scaling: expected a number > 0, found 0");
}

#[test]
fn cohere2_is_parallel() {
    let base = json!({"architectures": ["Cohere2ForCausalLM"], "hidden_act": "silu", "hidden_size": 64,
        "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 5,
        "vocab_size": 512, "max_position_embeddings": 512, "layer_norm_eps": 1e-5, "rope_theta": 50000,
        "sliding_window": 4096, "sliding_window_pattern": 4, "order_of_interleaved_layers": "local_attn_first",
        "use_parallel_block": true, "use_gated_activation": true, "use_qk_norm": false, "logit_scale": 0.25});
    let found = spec(&base);
    assert_eq!(found.norm, NormKind::Layer { bias: false });
    let layers = found.layers.iter().map(|layer| (layer.window, layer.rope)).collect::<Vec<_>>();
    let (local, global) = ((Some(4096), Some(0)), (None, None));
    assert_eq!(layers, [local, local, local, global, local]);
    assert!(found.ropes[0].interleaved && found.tie_word_embeddings && found.logit_scale == 0.25);
    assert_eq!(spec(&with(&base, &json!({"logit_scale": null}))).logit_scale, 0.0625);
    refused(&base, json!({"use_parallel_block": false}), "use_parallel_block: expected true, found false");
    refused(&base, json!({"logit_scale": -1.0}), "logit_scale");
}

#[test]
fn glm4_and_olmo2_have_norms_after_halves() {
    let base = json!({"architectures": ["Glm4ForCausalLM"], "hidden_act": "silu", "hidden_size": 64,
        "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "head_dim": 32, "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5, "attention_bias": true});
    let glm = spec(&base);
    assert!(glm.ropes[0].interleaved && glm.ropes[0].rotary_dim == 16 && glm.qkv_bias && !glm.o_bias);
    assert_eq!(glm.tensors().vectors().filter(|vector| vector.name.contains("layernorm")).count(), 2 * 4);
    let olmo =
        json!({"architectures": ["Olmo2ForCausalLM"], "partial_rotary_factor": null, "attention_bias": null});
    let olmo = spec(&with(&base, &olmo));
    let lengths: Vec<usize> = olmo.tensors().layers[0].mixer.vectors().iter().map(|norm| norm.len).collect();
    assert_eq!(lengths, [128, 64]);
    assert_eq!((olmo.names.input_norm, olmo.names.mlp_norm), (None, None));
}

fn experts() -> Value {
    json!({"architectures": ["Qwen3MoeForCausalLM"], "hidden_act": "silu", "hidden_size": 64, "head_dim": 16,
        "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4,
        "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": true,
        "decoder_sparse_step": 1, "mlp_only_layers": []})
}

#[test]
fn qwens_experts_are_on_some_layers() {
    let moe = |value: &Value| spec(value).layers.iter().map(|layer| layer.moe).collect::<Vec<_>>();
    let base = experts();
    assert_eq!(moe(&base), [true; 4]);
    assert_eq!(moe(&with(&base, &json!({"decoder_sparse_step": 2}))), [false, true, false, true]);
    assert_eq!(moe(&with(&base, &json!({"mlp_only_layers": [0, 3]}))), [false, true, true, false]);
    let found = spec(&base).moe.unwrap();
    assert_eq!((found.num_experts, found.num_experts_per_tok, found.intermediate_size), (8, 2, 48));
    assert!(found.norm_topk_prob && found.scoring == Scoring::Softmax && found.shared.is_none());
    let new = with(&base, &json!({"num_experts": null, "num_local_experts": 8}));
    assert_eq!(spec(&new), spec(&base));
    let qwen2 = json!({"architectures": ["Qwen2MoeForCausalLM"], "shared_expert_intermediate_size": 64,
        "norm_topk_prob": null});
    let found = spec(&with(&base, &qwen2));
    let shared = Some(SharedExpert { intermediate_size: 64, gated: true });
    assert!(found.moe.is_some_and(|moe| moe.shared == shared && !moe.norm_topk_prob) && found.qkv_bias);
    refused(&base, json!({"num_local_experts": 9}), "num_local_experts: expected 8");
    refused(&base, json!({"num_experts_per_tok": 9}), "num_experts_per_tok: expected at most");
    spec(&with(&base, &json!({"num_experts": 512, "num_experts_per_tok": 256})));
    let many = json!({"num_experts": 512, "num_experts_per_tok": 257});
    refused(&base, many, "num_experts_per_tok: expected at most 256, found 257");
    refused(&base, json!({"num_experts": 0}), "num_experts: expected a positive integer");
    refused(&base, json!({"num_experts": 65_536, "num_hidden_layers": 4096}), "experts of all layers");
    refused(&base, json!({"decoder_sparse_step": 0}), "decoder_sparse_step");
    refused(&base, json!({"mlp_only_layers": [-1]}), "mlp_only_layers: expected a list of integers");
}

#[test]
fn gpt_oss_is_read_as_published() {
    let base = json!({"architectures": ["GptOssForCausalLM"], "attention_bias": true, "experts_per_token": 4,
        "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096,
        "intermediate_size": 2880, "max_position_embeddings": 131_072, "num_attention_heads": 64,
        "num_experts_per_tok": 4, "num_hidden_layers": 2, "num_key_value_heads": 8, "num_local_experts": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 150_000, "sliding_window": 128, "swiglu_limit": 7.0,
        "layer_types": ["sliding_attention", "full_attention"], "vocab_size": 201_088,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
            "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false},
        "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn"], "quant_method": "mxfp4"}});
    let found = spec(&base);
    let moe = found.moe.unwrap();
    assert_eq!((moe.storage, moe.num_experts), (ExpertStorage::JoinedMxfp4, 32));
    assert!(moe.router_bias && moe.expert_bias && found.attention.sinks && found.o_bias);
    assert_eq!(found.activation, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 });
    assert_eq!(windows(&found), [Some(128), None]);
    let plain = spec(&with(&base, &json!({"quantization_config": null})));
    assert_eq!(plain.moe.unwrap().storage, ExpertStorage::Joined);
    refused(&base, json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config");
    refused(&experts(), json!({"quantization_config": {"quant_method": "mxfp4"}}), "quantization_config");
    refused(&base, json!({"swiglu_limit": 0}), "swiglu_limit");
}

#[test]
fn deepseek_is_read_as_published() {
    let base = json!({"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "first_k_dense_replace": 1,
        "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 160, "kv_lora_rank": 32,
        "max_position_embeddings": 163_840, "moe_intermediate_size": 32, "moe_layer_freq": 1, "n_group": 8,
        "n_routed_experts": 256, "n_shared_experts": 2, "norm_topk_prob": true, "num_attention_heads": 4,
        "num_experts_per_tok": 8, "num_hidden_layers": 3, "num_key_value_heads": 4, "q_lora_rank": 24,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096, "type": "yarn"},
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_group": 4, "topk_method": "noaux_tc",
        "v_head_dim": 16, "vocab_size": 512});
    let found = spec(&base);
    let mla = MlaSpec {
        q_lora_rank: Some(24),
        kv_lora_rank: 32,
        qk_nope_head_dim: 16,
        qk_rope_head_dim: 8,
        v_head_dim: 16,
    };
    assert!(found.layers.iter().all(|layer| layer.mixer == MixerSpec::Mla(mla)));
    assert_eq!((found.head_dim, found.num_key_value_heads), (40, 1));
    // sqrt(24) / (0.1 ln(40) + 1)^2
    assert!((found.attention.divisor - 2.614_387).abs() < 1e-4, "{}", found.attention.divisor);
    assert_eq!(found.ropes[0].attention_scaling, 1.0);
    let moe = found.moe.unwrap();
    assert_eq!(moe.groups, Some(ExpertGroups { n_group: 8, topk_group: 4 }));
    assert_eq!(moe.shared, Some(SharedExpert { intermediate_size: 64, gated: false }));
    assert_eq!(found.layers.iter().map(|layer| layer.moe).collect::<Vec<_>>(), [false, true, true]);
    let one = spec(&with(&base, &json!({"q_lora_rank": null})));
    assert!(one.tensors().matrices().any(|matrix| matrix.name.ends_with("self_attn.q_proj.weight")));
    // DeepSeek-V2-Lite.
    let lite = with(
        &base,
        &json!({"architectures": ["DeepseekV2ForCausalLM"], "n_group": 1, "n_routed_experts": 64,
            "norm_topk_prob": false, "num_experts_per_tok": 6, "q_lora_rank": null, "routed_scaling_factor": 1.0,
            "scoring_func": "softmax", "topk_group": 1, "topk_method": "greedy",
            "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
                "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096, "type": "yarn"}}),
    );
    let found = spec(&lite);
    let moe = found.moe.unwrap();
    assert_eq!((moe.scoring, moe.groups, moe.norm_topk_prob), (Scoring::Softmax, None, false));
    // sqrt(24) / (0.0707 ln(40) + 1)^2
    assert!((found.attention.divisor - 3.081_844).abs() < 1e-4, "{}", found.attention.divisor);
    assert!(found.ropes[0].interleaved && found.ropes[0].attention_scaling == 1.0);
    assert!(found.tensors().vectors().all(|vector| !vector.name.contains("correction")));
    let grouped = json!({"topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3});
    let moe = spec(&with(&lite, &grouped)).moe.unwrap();
    assert_eq!(moe.groups, Some(ExpertGroups { n_group: 8, topk_group: 3 }));
    refused(&lite, json!({"norm_topk_prob": true}), "norm_topk_prob");
    refused(
        &lite,
        json!({"topk_method": "noaux_tc"}),
        "topk_method: expected greedy or group_limited_greedy",
    );
    refused(&lite, json!({"scoring_func": "sigmoid"}), "scoring_func: expected \"softmax\"");
    let without = json!({"topk_method": "group_limited_greedy", "n_group": null, "topk_group": null});
    refused(&lite, without, "n_group: expected a number");
    refused(&base, json!({"scoring_func": "softmax"}), "scoring_func: expected \"sigmoid\"");
    refused(&base, json!({"topk_method": "greedy"}), "topk_method");
    refused(&base, json!({"moe_layer_freq": 2}), "moe_layer_freq");
    refused(&base, json!({"n_group": 3}), "n_group: expected a divisor");
    refused(&base, json!({"topk_group": 9}), "topk_group");
    refused(&base, json!({"topk_group": null}), "topk_group");
    refused(&base, json!({"kv_lora_rank": 1 << 20}), "kv_lora_rank");
    refused(&base, json!({"qk_rope_head_dim": 7}), "dim");
}

/// The name of a layer's mixer.
pub(super) fn kind(layer: &LayerSpec) -> &'static str {
    match layer.mixer {
        MixerSpec::Attention(_) => "attention",
        MixerSpec::Mla(_) => "latent attention",
        MixerSpec::ShortConv(_) => "conv",
        MixerSpec::DeltaNet(_) => "delta net",
        MixerSpec::Mamba(_) => "mamba",
    }
}

#[test]
fn recurrent_layers_are_where_the_configuration_says() {
    let kinds = |value: &Value| spec(value).layers.iter().map(kind).collect::<Vec<_>>();
    let (conv, delta, attention) = ("conv", "delta net", "attention");
    // As in the first checkpoints.
    let lfm2 = json!({"architectures": ["Lfm2ForCausalLM"], "block_auto_adjust_ff_dim": true, "block_dim": 1024,
        "block_ff_dim": 6656, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256, "conv_L_cache": 3,
        "conv_bias": false, "full_attn_idxs": [2], "hidden_size": 1024, "max_position_embeddings": 128_000,
        "norm_eps": 1e-5, "num_attention_heads": 16, "num_hidden_layers": 4, "num_key_value_heads": 8,
        "rope_theta": 1e6, "tie_embedding": true, "use_pos_enc": true, "vocab_size": 65_536});
    assert_eq!(kinds(&lfm2), [conv, conv, attention, conv]);
    let found = spec(&lfm2);
    assert_eq!((found.intermediate_size, found.tie_word_embeddings), (4608, true));
    let new = json!({"full_attn_idxs": null, "layer_types": ["conv", "conv", "full_attention", "conv"],
        "block_ff_dim": null, "intermediate_size": 6656, "tie_embedding": null, "tie_word_embeddings": true});
    assert_eq!(spec(&with(&lfm2, &new)), found);
    assert_eq!(spec(&with(&lfm2, &json!({"block_auto_adjust_ff_dim": false}))).intermediate_size, 6656);
    refused(&lfm2, json!({"conv_L_cache": 0}), "conv_L_cache");
    refused(&lfm2, json!({"block_multiple_of": 0}), "block_multiple_of");
    refused(&lfm2, json!({"block_ffn_dim_multiplier": -1.0}), "block_ffn_dim_multiplier");
    refused(
        &lfm2,
        json!({"layer_types": ["conv", "mamba", "conv", "conv"]}),
        "layer_types: expected only conv",
    );

    let next = with(
        &experts(),
        &json!({"architectures": ["Qwen3NextForCausalLM"], "full_attention_interval": 4, "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_value_head_dim": 16, "partial_rotary_factor": 0.25, "shared_expert_intermediate_size": 32}),
    );
    assert_eq!(kinds(&next), [delta, delta, delta, attention]);
    let found = spec(&next);
    assert!(found.attention.gate && found.ropes[0].rotary_dim == 4);
    let listed = json!({"full_attention_interval": null, "layer_types":
        ["linear_attention", "linear_attention", "linear_attention", "full_attention"]});
    assert_eq!(spec(&with(&next, &listed)), found);
    refused(&next, json!({"linear_num_value_heads": 3}), "linear_num_value_heads: expected a multiple");
    refused(&next, json!({"linear_conv_kernel_dim": 0}), "linear_conv_kernel_dim");
    refused(&next, json!({"full_attention_interval": 0}), "full_attention_interval");
}

/// The configuration of all-MiniLM-L6-v2, as published.
fn minilm() -> Value {
    json!({
        "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": 384, "intermediate_size": 1536,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
        "num_hidden_layers": 6, "pad_token_id": 0, "position_embedding_type": "absolute", "type_vocab_size": 2,
        "vocab_size": 30522
    })
}

#[test]
fn bert_has_norms_after_sums_and_is_bidirectional() {
    let found = spec(&minilm());
    assert!(found.bidirectional && !found.generates() && found.tasks() == ["embed"]);
    assert_eq!(found.norm, NormKind::Layer { bias: true });
    assert_eq!((found.input.token_types, found.max_position_embeddings), (Some(2), 512));
    assert_eq!(found.activation, Activation::Gelu);
    let names = found.tensors();
    assert!(names.final_norm.is_none() && names.lm_head.is_none());
    let matrices: Vec<&str> = names.matrices().take(4).map(|matrix| matrix.name.as_str()).collect();
    assert_eq!(matrices[0], "embeddings.word_embeddings.weight");
    assert_eq!(matrices[3], "encoder.layer.0.attention.self.value.weight");
    let vectors: Vec<&str> = names.vectors().map(|vector| vector.name.as_str()).collect();
    for name in [
        "embeddings.position_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.5.output.LayerNorm.weight",
        "encoder.layer.0.intermediate.dense.bias",
    ] {
        assert!(vectors.contains(&name), "{name} is not among {vectors:?}");
    }
    for (changes, key) in [
        (json!({"position_embedding_type": "relative_key"}), "position_embedding_type"),
        (json!({"is_decoder": true}), "is_decoder"),
        (json!({"hidden_act": "mish"}), "hidden_act"),
    ] {
        refused(&minilm(), changes, key);
    }
}

#[test]
fn roberta_counts_positions_from_after_padding() {
    let changes = json!({"architectures": ["XLMRobertaModel"], "max_position_embeddings": 514, "pad_token_id": 1,
        "type_vocab_size": 1});
    let found = spec(&with(&minilm(), &changes));
    let positions = found.input.positions.unwrap();
    assert_eq!((positions.rows, positions.first, found.max_position_embeddings), (514, 2, 512));
    refused(
        &minilm(),
        json!({"architectures": ["XLMRobertaModel"], "pad_token_id": 600}),
        "max_position_embeddings",
    );
}

#[test]
fn classifiers_with_one_label_score() {
    let one = json!({"0": "LABEL_0"});
    let changes = json!({"architectures": ["BertForSequenceClassification"], "id2label": one});
    let found = spec(&with(&minilm(), &changes));
    assert_eq!((found.scores, found.pooled_size()), (Some(Pooling::Cls), 1));
    assert_eq!(found.tasks(), ["rerank"]);
    let modules: Vec<&str> = found.dense_head.iter().map(|dense| dense.module.as_str()).collect();
    assert_eq!(modules, ["pooler.dense", "classifier"]);
    let none = with(&minilm(), &json!({"architectures": ["BertForSequenceClassification"]}));
    refused(&none, json!({}), "num_labels");
    refused(&none, json!({"id2label": {"0": "a", "1": "b"}}), "id2label");
}

/// The configuration of ModernBERT-base as published, reduced.
#[test]
fn modernbert_has_windows_on_both_sides() {
    let published = json!({
        "architectures": ["ModernBertForMaskedLM"], "global_attn_every_n_layers": 3, "global_rope_theta": 160_000.0,
        "hidden_activation": "gelu", "hidden_size": 768, "intermediate_size": 1152, "local_attention": 128,
        "local_rope_theta": 10_000.0, "max_position_embeddings": 8192, "model_type": "modernbert", "norm_bias": false,
        "norm_eps": 1e-5, "num_attention_heads": 12, "num_hidden_layers": 22, "vocab_size": 50368
    });
    let found = spec(&published);
    let windows: Vec<_> = found.layers.iter().take(4).map(|layer| (layer.window, layer.rope)).collect();
    assert_eq!(windows, [(None, Some(0)), (Some(65), Some(1)), (Some(65), Some(1)), (None, Some(0))]);
    assert_eq!((found.ropes.len(), found.norm), (2, NormKind::Layer { bias: false }));
    let names = found.tensors();
    assert!(names.layers[0].input_norm.is_none() && names.layers[1].input_norm.is_some());
    assert_eq!(names.final_norm.unwrap().gains.name, "final_norm.weight");
    refused(&published, json!({"global_attn_every_n_layers": 0}), "global_attn_every_n_layers");
}

#[test]
fn embedding_gemma_halves_its_windows() {
    let changes = json!({"architectures": ["Gemma3TextModel"], "use_bidirectional_attention": true,
        "sliding_window": 512, "sliding_window_pattern": 6, "layer_types": null, "rope_local_base_freq": 10000.0});
    let found = spec(&with(&gemma("Gemma3TextModel"), &changes));
    assert!(found.bidirectional && found.headless && !found.generates());
    assert_eq!(found.layers[0].window, Some(257));
    let causal = with(&changes, &json!({"use_bidirectional_attention": false}));
    let found = spec(&with(&gemma("Gemma3TextModel"), &causal));
    assert_eq!((found.bidirectional, found.layers[0].window), (false, Some(512)));
    let changes = with(&changes, &json!({"architectures": ["Gemma3ForCausalLM"]}));
    refused(&with(&gemma("Gemma3ForCausalLM"), &changes), json!({}), "use_bidirectional_attention");
}
