//! Gemma 4, text: Gemma 3 with gains stored without offset, norms on values, and larger heads on layers without a
//! window. Small models have per-layer embeddings, and last layers without keys and values of their own; large ones use
//! keys as values there, and one has experts and a parallel dense MLP.
//! Source: transformers 5, `models/gemma4/configuration_gemma4.py` and `modeling_gemma4.py`.

use serde_json::{Value, json};

use super::gemma::{SANDWICH, activation, cap};
use super::llama::Keys;
use super::{Architecture, Family, architecture, share_keys, text_of, windows_by_pattern};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{MoeModules, Names};
use crate::spec::rope_scaling::{Extras, LayerRope, RopeSpec};
use crate::spec::{
    AttentionSpec, DecoderSpec, ExpertStorage, HeadShape, KeySource, LayerSpec, MoeSpec, NormSpec,
    PerLayerSpec,
};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Gemma4ForCausalLM", "gemma4_text", parse),
        text_of("Gemma4ForConditionalGeneration", "gemma4", parse),
        Architecture {
            // Gemma 4 without per-layer inputs, with another vision part.
            text_defaults: Some(r#"{"hidden_size_per_layer_input": 0}"#),
            ..architecture("Gemma4UnifiedForConditionalGeneration", "gemma4_unified", parse)
        },
    ],
    gguf: &[GgufFamily {
        name: "gemma4",
        architecture: "Gemma4ForCausalLM",
        windowed: Some("Gemma4ForCausalLM"),
        uneven: true,
        names: GGUF_NAMES,
        keys: &[
            gguf::EXPERT_SIZE,
            gguf::PATTERN,
            gguf::LOCAL_THETA,
            gguf::SHARED_KEYS,
            "attention.key_length_swa",
            "attention.value_length_swa",
            "rope.dimension_count_swa",
            gguf::LAYER_INPUT,
            "final_logit_softcapping",
        ],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    moe: MoeModules {
        router: "router.proj",
        experts: "experts",
        joined: ["experts.gate_up_proj", "experts.down_proj"],
        ..SANDWICH.moe
    },
    ..SANDWICH
};
const GLOBAL: LayerRope = LayerRope {
    layer_type: "full_attention",
    theta_key: "rope_theta",
    default_theta: 1e6,
    scaled: true,
    extras: Extras { proportional: true, ..Extras::NONE },
};
const LOCAL: LayerRope = LayerRope {
    layer_type: "sliding_attention",
    theta_key: "rope_theta",
    default_theta: 1e4,
    scaled: false,
    extras: Extras { proportional: true, ..Extras::NONE },
};
/// Defaults of sizes, as in transformers.
const DEFAULT_GLOBAL_HEAD_DIM: usize = 512;
const DEFAULT_INPUTS: PerLayerSpec = PerLayerSpec { vocab_size: 262_144, size: 256, partial: false };

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // "vision" only concerns images.
    if config.opt_str("use_bidirectional_attention")?.is_some_and(|kind| kind != "vision") {
        return Err(config.unsupported("use_bidirectional_attention", "null or \"vision\""));
    }
    // transformers' defaults of these differ from other families.
    if config.object("rope_parameters")?.is_none() {
        return Err(config.invalid("rope_parameters", "an object"));
    }
    // The defaults of both differ from other families.
    config.usize("head_dim")?;
    config.usize("sliding_window")?;
    let plain = DecoderSpec::with_keys(config, &Keys { activation: None, tied: true, ..Keys::LLAMA })?;
    let bias = config.bool_or("attention_bias", false)?;
    let layers = layers(config, &plain)?;
    let size = |layer: &LayerSpec| layer.heads.map_or(plain.head_dim, |heads| heads.head_dim);
    let head_dim = |windowed: bool| {
        let found = layers.iter().find(|layer| layer.window.is_some() == windowed);
        found.map_or(plain.head_dim, size)
    };
    if layers.iter().any(|layer| size(layer) != head_dim(layer.window.is_some())) {
        return Err(config.unsupported("per_layer_config", "heads that differ by window alone"));
    }
    let inputs = PerLayerSpec {
        vocab_size: config.opt_usize("vocab_size_per_layer_input")?.unwrap_or(DEFAULT_INPUTS.vocab_size),
        size: config.opt_usize("hidden_size_per_layer_input")?.unwrap_or(DEFAULT_INPUTS.size),
        ..DEFAULT_INPUTS
    };
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        value_norm: true,
        qkv_bias: bias,
        o_bias: bias,
        activation: activation(config)?,
        attention: AttentionSpec { divisor: 1.0, ..plain.attention },
        moe: if config.bool_or("enable_moe_block", false)? { Some(experts(config)?) } else { None },
        ropes: vec![
            RopeSpec::parse_layers(config, head_dim(false), &GLOBAL)?,
            RopeSpec::parse_layers(config, head_dim(true), &LOCAL)?,
        ],
        layers,
        embedding_multiplier: libm::sqrt(plain.hidden_size as f64) as f32,
        final_logit_softcapping: cap(config, "final_logit_softcapping", None)?,
        per_layer_inputs: Some(inputs).filter(|inputs| inputs.size > 0),
        layer_scalars: true,
        names: NAMES,
        ..plain
    })
}

fn layers(config: &ModelConfig, plain: &DecoderSpec) -> Result<Vec<LayerSpec>> {
    let count = plain.num_hidden_layers;
    let mut layers = windows_by_pattern(config, count, 6)?;
    // The last layer always has full attention.
    if let Some(last) = layers.last_mut() {
        last.window = None;
    }
    let keys_as_values = config.bool_or("attention_k_eq_v", false)?;
    let mut global = HeadShape {
        num_key_value_heads: plain.num_key_value_heads,
        head_dim: config.opt_usize("global_head_dim")?.unwrap_or(DEFAULT_GLOBAL_HEAD_DIM),
    };
    if let (true, Some(heads)) = (keys_as_values, config.opt_usize("num_global_key_value_heads")?) {
        global.num_key_value_heads = heads;
    }
    let overrides = config.object("per_layer_config")?;
    let moe = config.bool_or("enable_moe_block", false)?;
    let wide = config.bool_or("use_double_wide_mlp", false)?;
    for (index, layer) in layers.iter_mut().enumerate() {
        let full = layer.window.is_none();
        layer.rope = Some(usize::from(!full));
        layer.moe = moe;
        layer.heads = match &overrides {
            Some(overrides) => head_shape(overrides, index, plain)?,
            None => Some(global).filter(|_| full),
        };
        if full && keys_as_values {
            layer.keys = KeySource::KeysAsValues;
        }
    }
    let own = share_keys(config, &mut layers, 0)?;
    for layer in &mut layers[own..] {
        layer.intermediate_size = wide.then(|| plain.intermediate_size.saturating_mul(2));
    }
    Ok(layers)
}

/// The heads of a layer in `per_layer_config`.
fn head_shape(overrides: &ModelConfig, layer: usize, plain: &DecoderSpec) -> Result<Option<HeadShape>> {
    // transformers pads the number with zeros.
    let Some(key) = overrides.keys().find(|key| key.parse() == Ok(layer)) else { return Ok(None) };
    let Some(found) = overrides.object(key)? else { return Ok(None) };
    found.only_keys(&["head_dim", "num_key_value_heads"])?;
    Ok(Some(HeadShape {
        num_key_value_heads: found.opt_usize("num_key_value_heads")?.unwrap_or(plain.num_key_value_heads),
        head_dim: found.opt_usize("head_dim")?.unwrap_or(plain.head_dim),
    }))
}

fn experts(config: &ModelConfig) -> Result<MoeSpec> {
    Ok(MoeSpec {
        num_experts: config.usize("num_experts")?,
        num_experts_per_tok: config.usize("top_k_experts")?,
        intermediate_size: config.usize("moe_intermediate_size")?,
        parallel_mlp: true,
        storage: ExpertStorage::JoinedRows,
        ..MoeSpec::softmax()
    })
}

/// Names of modules in GGUF files.
const GGUF_NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens_per_layer", "per_layer_token_embd"),
    ("model.per_layer_model_projection", "per_layer_model_proj"),
    ("model.per_layer_projection_norm", "per_layer_proj_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("router.proj", "ffn_gate_inp"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
];

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf::value_length(keys, config)?;
    let layers = keys.u64("block_count")?;
    let Some(windowed) = keys.per_layer(gguf::PATTERN)?.filter(|marks| marks.len() as u64 == layers) else {
        return Err(keys.invalid(gguf::PATTERN, "one bool for each layer"));
    };
    if windowed.last().is_none_or(|&last| last != 0) {
        return Err(keys.unsupported(gguf::PATTERN, "full attention in the last layer"));
    }
    let shared = keys.opt_u64(gguf::SHARED_KEYS)?.unwrap_or(0);
    let own = layers.saturating_sub(shared);
    let kind = |&mark: &u64| if mark == 0 { "full_attention" } else { "sliding_attention" };
    let full = |index: &usize| windowed[*index] == 0 && (*index as u64) < own;
    let as_values =
        (0..windowed.len()).find(full).is_some_and(|i| !keys.has(&format!("blk.{i}.attn_v.weight")));
    let inputs = keys.opt_u64(gguf::LAYER_INPUT)?.unwrap_or(0);
    gguf::extend(
        config,
        json!({
            "layer_types": windowed.iter().map(kind).collect::<Vec<_>>(),
            "per_layer_config": gguf_heads(keys, config, &windowed)?,
            "rope_parameters": gguf_rotations(keys, config)?,
            "use_double_wide_mlp": gguf_double_wide(keys, own)?,
            "num_kv_shared_layers": shared,
            "attention_k_eq_v": as_values,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size_per_layer_input": inputs,
            "vocab_size_per_layer_input": keys.shape("per_layer_token_embd.weight").first(),
            "final_logit_softcapping": keys.opt_f64("final_logit_softcapping")?.filter(|&cap| cap != 0.0),
        }),
    );
    config.remove("hidden_act");
    if let Some(experts) = keys.opt_u64("expert_count")?.filter(|&count| count > 0) {
        gguf::extend(
            config,
            json!({
                "enable_moe_block": true,
                "num_experts": experts,
                "top_k_experts": keys.u64("expert_used_count")?,
                "moe_intermediate_size": keys.u64(gguf::EXPERT_SIZE)?,
            }),
        );
    }
    Ok(())
}

/// Sizes of heads and numbers of key and value heads, layer by layer.
fn gguf_heads(keys: &gguf::Keys<'_>, config: &gguf::Config, windowed: &[u64]) -> Result<Value> {
    let global = config["head_dim"].as_u64().unwrap_or_default();
    let local = keys.opt_u64("attention.key_length_swa")?.unwrap_or(global);
    for key in ["attention.value_length_swa", "rope.dimension_count_swa"] {
        if keys.opt_u64(key)?.is_some_and(|size| size != local) {
            return Err(keys.unsupported(key, &format!("{local}, as keys have")));
        }
    }
    let kv_heads = keys.per_layer("attention.head_count_kv")?.unwrap_or_default();
    let mut layers = json!({});
    for (layer, mark) in windowed.iter().enumerate() {
        layers[layer.to_string()] = json!({
            "head_dim": if *mark == 0 { global } else { local },
            "num_key_value_heads": kv_heads.get(layer).or(kv_heads.first()).map_or(config["num_key_value_heads"].clone(), |&heads| heads.into()),
        });
    }
    Ok(layers)
}

/// Whether the MLPs of layers without keys of their own, from layer `own` on, have twice the size.
fn gguf_double_wide(keys: &gguf::Keys<'_>, own: u64) -> Result<bool> {
    let sizes = keys.per_layer(gguf::FEED_FORWARD)?.unwrap_or_default();
    let Some(&first) = sizes.first() else { return Ok(false) };
    let factor = |size: &u64| if *size == first { 1 } else { 2 };
    let factors: Vec<u64> = sizes.iter().map(factor).collect();
    let wide = factors.contains(&2);
    let fits = (0..).zip(&sizes).all(|(layer, &size)| {
        let factor = if wide && layer >= own { 2 } else { 1 };
        first.checked_mul(factor) == Some(size)
    });
    match fits {
        true => Ok(wide),
        false => Err(keys
            .unsupported(gguf::FEED_FORWARD, "the same in all layers, or twice that in those without keys")),
    }
}

/// The rotations of layers without and with a window. Layers without one rotate the first part of each head: the
/// divisors of the other frequencies are so large that nothing is left of them.
fn gguf_rotations(keys: &gguf::Keys<'_>, config: &gguf::Config) -> Result<Value> {
    const NOTHING: f64 = 1e20;
    let whole = &config["rope_parameters"];
    let mut factors: Vec<f64> = Vec::new();
    match whole["rope_type"].as_str() {
        Some("default") => {}
        Some("factors") => {
            factors.extend(whole["factors"].as_array().into_iter().flatten().flat_map(Value::as_f64));
        }
        _ => return Err(keys.unsupported("rope.scaling.type", "none")),
    }
    let turned = factors.iter().take_while(|&&factor| factor == 1.0).count();
    if factors.iter().skip(turned).any(|&factor| factor < NOTHING) || (turned == 0 && !factors.is_empty()) {
        return Err(keys.unsupported("rope_freqs.weight", "ones, then 1e30"));
    }
    // The product with the frequencies is rounded down: half of one keeps it from falling below.
    let part = if turned == factors.len() { 1.0 } else { (turned as f64 + 0.5) / factors.len() as f64 };
    let global = keys.opt_f64("rope.freq_base")?.unwrap_or(1e6);
    let local = keys.opt_f64("rope.freq_base_swa")?.unwrap_or(1e4);
    Ok(json!({
        "full_attention": {"rope_type": "proportional", "rope_theta": global, "partial_rotary_factor": part},
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }))
}
