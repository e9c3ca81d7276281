//! Gemma, Gemma 2 and Gemma 3: gains stored with an offset of 1, a scaled embedding, GELU. Gemma 2 has norms before and
//! after attention and MLP, windows on every other layer, and soft caps; Gemma 3 has norms on heads and another base
//! for layers with windows.
//! Source: transformers 5, `models/gemma{,2,3}/configuration_*.py` and `modeling_*.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Architecture, Family, architecture, only, windows_by_pattern};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, Names};
use crate::spec::rope_scaling::{Extras, LayerRope, RopeDefaults, RopeSpec};
use crate::spec::{self, Activation, AttentionSpec, DecoderSpec, LayerSpec, NormKind, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("GemmaForCausalLM", "gemma", parse),
        architecture("Gemma2ForCausalLM", "gemma2", parse_gemma2),
        architecture("Gemma3ForCausalLM", "gemma3_text", parse_gemma3),
        Architecture {
            text_defaults: Some(GEMMA3_DEFAULTS),
            ..architecture("Gemma3ForConditionalGeneration", "gemma3", parse_gemma3)
        },
        architecture("Gemma3TextModel", "gemma3_text", parse_gemma3_headless),
    ],
    gguf: &[
        GgufFamily {
            name: "gemma",
            architecture: "GemmaForCausalLM",
            fields: gguf_gemma,
            ..GgufFamily::PLAIN
        },
        GgufFamily {
            name: "gemma2",
            architecture: "Gemma2ForCausalLM",
            windowed: Some("Gemma2ForCausalLM"),
            names: gguf::SANDWICH,
            keys: &["attn_logit_softcapping", "final_logit_softcapping"],
            fields: gguf_gemma2,
            ..GgufFamily::PLAIN
        },
        GgufFamily {
            name: "gemma3",
            architecture: "Gemma3ForCausalLM",
            windowed: Some("Gemma3ForCausalLM"),
            names: gguf::SANDWICH,
            keys: &[gguf::LOCAL_THETA, gguf::PATTERN, "attn_logit_softcapping", "final_logit_softcapping"],
            fields: gguf_gemma3,
            ..GgufFamily::PLAIN
        },
        GgufFamily {
            name: "gemma-embedding",
            architecture: "Gemma3TextModel",
            windowed: Some("Gemma3TextModel"),
            bidirectional: true,
            names: GGUF_NAMES,
            keys: &[
                gguf::LOCAL_THETA,
                gguf::PATTERN,
                "dense_2_feat_in",
                "dense_2_feat_out",
                "dense_3_feat_in",
                "dense_3_feat_out",
            ],
            fields: gguf_embedding_gemma,
            ..GgufFamily::PLAIN
        },
    ],
};

pub(super) const SANDWICH: Names = Names {
    attention_out_norm: Some("post_attention_layernorm"),
    mlp_norm: Some("pre_feedforward_layernorm"),
    mlp_out_norm: Some("post_feedforward_layernorm"),
    ..names::LLAMA
};
/// Default of `query_pre_attn_scalar`, as in transformers.
const DEFAULT_SCALAR: f64 = 256.0;
/// Soft caps of Gemma 2 if the keys are missing (null means none), as in transformers.
const DEFAULT_CAPS: (f32, f32) = (50.0, 30.0);
/// Whether tokens see later tokens.
const BOTH_WAYS: &str = "use_bidirectional_attention";
/// Defaults for keys that the first multimodal checkpoints of Gemma 3 lack, as in transformers.
const GEMMA3_DEFAULTS: &str = r#"{"vocab_size": 262208, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
    "bos_token_id": 2, "eos_token_id": 1}"#;
/// Gemma 3's rotation of layers without a window.
pub(super) const GLOBAL: LayerRope = LayerRope {
    layer_type: "full_attention",
    theta_key: "rope_theta",
    default_theta: 1e6,
    scaled: true,
    extras: Extras::NONE,
};
pub(super) const LOCAL: LayerRope = LayerRope {
    layer_type: "sliding_attention",
    theta_key: "rope_local_base_freq",
    default_theta: 1e4,
    scaled: false,
    extras: Extras::NONE,
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    only(config, BOTH_WAYS, false)?;
    let common = common(config)?;
    Ok(DecoderSpec { ropes: vec![RopeSpec::parse(config, common.head_dim, RopeDefaults::LLAMA)?], ..common })
}

fn parse_gemma2(config: &ModelConfig) -> Result<DecoderSpec> {
    let spec = parse(config)?;
    let (attention, logits) = DEFAULT_CAPS;
    Ok(DecoderSpec {
        attention: attention_of(config, Some(attention))?,
        final_logit_softcapping: cap(config, "final_logit_softcapping", Some(logits))?,
        layers: windows_by_pattern(config, spec.num_hidden_layers, 2)?,
        names: SANDWICH,
        ..spec
    })
}

fn parse_gemma3(config: &ModelConfig) -> Result<DecoderSpec> {
    only(config, BOTH_WAYS, false)?;
    gemma3(config)
}

/// Gemma 3 without an output head: EmbeddingGemma, whose tokens also see later ones.
fn parse_gemma3_headless(config: &ModelConfig) -> Result<DecoderSpec> {
    let spec = gemma3(config)?;
    let bidirectional = config.bool_or(BOTH_WAYS, false)?;
    // Half of the window on each side, inclusive.
    let widened = |layer: LayerSpec| match bidirectional {
        true => LayerSpec { window: layer.window.map(|window| window / 2 + 1), ..layer },
        false => layer,
    };
    Ok(DecoderSpec {
        headless: true,
        bidirectional,
        layers: spec.layers.iter().copied().map(widened).collect(),
        ..spec
    })
}

fn gemma3(config: &ModelConfig) -> Result<DecoderSpec> {
    let common = common(config)?;
    let layers = windows_by_pattern(config, common.num_hidden_layers, 6)?;
    // Rotation 1 is that of layers with a window.
    let rotated = |layer: LayerSpec| LayerSpec { rope: Some(usize::from(layer.window.is_some())), ..layer };
    let head_dim = common.head_dim;
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec::of_heads(common.rms_norm_eps)),
        attention: attention_of(config, None)?,
        final_logit_softcapping: cap(config, "final_logit_softcapping", None)?,
        ropes: vec![
            RopeSpec::parse_layers(config, head_dim, &GLOBAL)?,
            RopeSpec::parse_layers(config, head_dim, &LOCAL)?,
        ],
        layers: layers.into_iter().map(rotated).collect(),
        names: SANDWICH,
        ..common
    })
}

/// What all of them have in common.
fn common(config: &ModelConfig) -> Result<DecoderSpec> {
    // Not derived from hidden_size in this family, so it must be given.
    config.usize("head_dim")?;
    let keys = Keys { activation: None, tied: true, ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        norm: NormKind::Rms { offset: 1.0 },
        qkv_bias: bias,
        o_bias: bias,
        activation: activation(config)?,
        embedding_multiplier: libm::sqrt(plain.hidden_size as f64) as f32,
        ..plain
    })
}

pub(super) fn activation(config: &ModelConfig) -> Result<Activation> {
    if config.opt_str("hidden_activation")?.is_some() {
        return spec::activation(config, "hidden_activation");
    }
    match config.opt_str("hidden_act")? {
        // The first checkpoints have gelu, but were trained with its tanh approximation.
        None | Some("gelu") => Ok(Activation::GeluTanh),
        Some(_) => spec::activation(config, "hidden_act"),
    }
}

fn attention_of(config: &ModelConfig, default_cap: Option<f32>) -> Result<AttentionSpec> {
    const KEY: &str = "query_pre_attn_scalar";
    let scalar = config.opt_f64(KEY)?.unwrap_or(DEFAULT_SCALAR);
    if scalar <= 0.0 {
        return Err(config.invalid(KEY, "a number > 0"));
    }
    let softcap = cap(config, "attn_logit_softcapping", default_cap)?;
    Ok(AttentionSpec { softcap, ..AttentionSpec::of_width(scalar) })
}

/// A soft cap; `default` if the key is missing.
pub(super) fn cap(config: &ModelConfig, key: &str, default: Option<f32>) -> Result<Option<f32>> {
    match config.opt_f32(key)? {
        None if config.has(key) => Ok(None),
        None => Ok(default),
        Some(cap) if cap > 0.0 => Ok(Some(cap)),
        Some(_) => Err(config.invalid(key, "a number > 0 or null")),
    }
}

/// Names of modules in GGUF files of EmbeddingGemma.
const GGUF_NAMES: &[(&str, &str)] = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("2_Dense.linear", "dense_2"),
    ("3_Dense.linear", "dense_3"),
];

fn gguf_gemma(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    config.remove("hidden_act");
    config.insert("hidden_activation".to_owned(), "gelu_pytorch_tanh".into());
    gguf::dense(keys, config)
}

fn gguf_gemma2(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_gemma(keys, config)?;
    // Gemma 2 27B has another divisor of scores, which files do not say.
    gguf_query_scalar(keys, config, 46)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = keys.opt_f64(key)? {
            config.insert(key.to_owned(), cap.into());
        }
    }
    Ok(())
}

fn gguf_gemma3(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_gemma(keys, config)?;
    // So does Gemma 3 27B.
    gguf_query_scalar(keys, config, 62)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        let cap = keys.opt_f64(key)?.filter(|&cap| cap != 0.0);
        config.insert(key.to_owned(), cap.into());
    }
    gguf::two_rotations(keys, config, gguf::DefaultThetas { global: 1e6, local: 1e4 })?;
    gguf::pattern(keys, config, 6)
}

fn gguf_embedding_gemma(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    config.insert("use_bidirectional_attention".to_owned(), true.into());
    gguf_gemma3(keys, config)
}

/// The divisor of scores is the root of the head size or, for the model with `layers` layers, of the hidden size
/// divided by the number of heads.
fn gguf_query_scalar(keys: &gguf::Keys<'_>, config: &mut gguf::Config, layers: u64) -> Result<()> {
    let scalar = match keys.u64("block_count")? == layers {
        true => json!(keys.u64("embedding_length")? as f64 / keys.u64("attention.head_count")? as f64),
        false => config["head_dim"].clone(),
    };
    config.insert("query_pre_attn_scalar".to_owned(), scalar);
    Ok(())
}
