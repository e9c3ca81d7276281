//! Gemma 3n: its published configuration, and what is refused.

use serde_json::{Value, json};

use super::tests::{refused, spec};
use super::tests_text_models::with_text;
use crate::spec::{KeySource, PerLayerSpec, StreamsSpec};

/// As published, with fewer layers.
fn gemma3n() -> Value {
    let kinds = |i: usize| if (i + 1).is_multiple_of(5) { "full_attention" } else { "sliding_attention" };
    let sparsity = [[0.95; 10], [0.0; 10]].concat();
    json!({"architectures": ["Gemma3nForConditionalGeneration"], "audio_config": {}, "vision_config": {}, "text_config": {
        "activation_sparsity_pattern": sparsity, "altup_active_idx": 0, "altup_coef_clip": 120.0,
        "altup_correct_scale": true, "altup_num_inputs": 4, "attention_bias": false, "head_dim": 256,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2048,
        "hidden_size_per_layer_input": 256, "intermediate_size": vec![8192; 20], "laurel_rank": 64,
        "layer_types": (0..20).map(kinds).collect::<Vec<_>>(), "max_position_embeddings": 32768,
        "model_type": "gemma3n_text", "num_attention_heads": 8, "num_hidden_layers": 20, "num_key_value_heads": 2,
        "num_kv_shared_layers": 5, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6,
        "rope_local_base_freq": 10000.0, "rope_scaling": null, "rope_theta": 1e6, "sliding_window": 512,
        "vocab_size": 262_400, "vocab_size_per_layer_input": 262_144}})
}

#[test]
fn gemma3n_has_several_streams_and_sparse_gates() {
    let base = gemma3n();
    let found = spec(&base);
    assert_eq!(found.streams, Some(StreamsSpec { count: 4, active: 0, scaled: true }));
    assert_eq!((found.low_rank, found.attention.divisor, found.value_norm), (Some(64), 1.0, true));
    let inputs = PerLayerSpec { vocab_size: 262_144, size: 256, partial: true };
    assert_eq!((found.per_layer_inputs, found.final_logit_softcapping), (Some(inputs), Some(30.0)));
    let cutoffs: Vec<_> = found.layers.iter().map(|layer| layer.cutoff).collect();
    assert_eq!(cutoffs, [[Some(1.644_853_6); 10], [None; 10]].concat());
    let kinds = [3, 4].map(|layer| (found.layers[layer].window, found.layers[layer].rope));
    assert_eq!(kinds, [(Some(512), Some(1)), (None, Some(0))]);
    let keys: Vec<KeySource> = found.layers[14..].iter().map(|layer| layer.keys).collect();
    let shared = [13, 13, 13, 13, 14].map(KeySource::Layer);
    assert_eq!(keys, [&[KeySource::Own][..], &shared].concat());
    let names = found.tensors();
    let has = |name: &str| names.matrices().any(|matrix| matrix.name == name);
    assert!(has("model.altup_unembed_projections.2.weight") && !has("model.altup_projections.3.weight"));
    assert!(
        has("model.layers.0.laurel.linear_right.weight") && !has("model.layers.15.self_attn.k_proj.weight")
    );

    // What is missing is as in transformers.
    let least = json!({"activation_sparsity_pattern": null, "altup_active_idx": null, "altup_correct_scale": null,
        "altup_num_inputs": null, "final_logit_softcapping": null, "hidden_size_per_layer_input": null,
        "intermediate_size": 8192, "laurel_rank": null, "layer_types": null, "num_kv_shared_layers": 5,
        "vocab_size_per_layer_input": null});
    assert_eq!(spec(&with_text(&base, &least)), found);
    let sizes = [vec![64; 19], vec![32]].concat();
    let uneven = spec(&with_text(&base, &json!({"intermediate_size": sizes})));
    assert_eq!((uneven.dense_size(0), uneven.dense_size(19)), (64, 32));
    assert_eq!(spec(&with_text(&base, &json!({"altup_num_inputs": 1}))).tensors().streams.unwrap().merge, []);
    for (changes, part) in [
        (json!({"altup_num_inputs": 0}), "altup_num_inputs: expected an integer from 1 to 16, found 0"),
        (json!({"altup_num_inputs": 17}), "altup_num_inputs"),
        (json!({"altup_num_inputs": 1 << 31}), "altup_num_inputs"),
        (
            json!({"altup_active_idx": 4}),
            "altup_active_idx: expected below altup_num_inputs, which is 4, found 4",
        ),
        (json!({"laurel_rank": 0}), "laurel_rank"),
        (json!({"laurel_rank": 1 << 30}), "laurel_rank"),
        (json!({"hidden_size_per_layer_input": 0}), "hidden_size_per_layer_input"),
        (json!({"vocab_size_per_layer_input": 0}), "vocab_size_per_layer_input: expected at least 1"),
        (json!({"intermediate_size": [64]}), "intermediate_size: expected an integer, or 20"),
        (json!({"intermediate_size": vec![0; 20]}), "intermediate_size"),
        (json!({"intermediate_size": vec![u64::MAX; 20]}), "the sizes of the model"),
        (json!({"activation_sparsity_pattern": [0.5]}), "activation_sparsity_pattern: expected 20 numbers"),
        (json!({"activation_sparsity_pattern": vec![1.0; 20]}), "activation_sparsity_pattern"),
        (json!({"activation_sparsity_pattern": vec![-0.5; 20]}), "activation_sparsity_pattern"),
        (json!({"activation_sparsity_pattern": 0.5}), "activation_sparsity_pattern"),
        (json!({"num_kv_shared_layers": 20}), "num_kv_shared_layers: expected fewer than"),
        (json!({"num_kv_shared_layers": 16}), "num_kv_shared_layers: expected to leave"),
        (json!({"sliding_window": null}), "sliding_window"),
        (json!({"head_dim": null}), "head_dim"),
    ] {
        refused(&with_text(&base, &changes), json!({}), part);
    }
}
