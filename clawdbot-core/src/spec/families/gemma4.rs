//! Gemma 4, text: as Gemma 3, but with gains as they are stored, normed values, and heads that are larger on the layers
//! without a window. Small models have per-layer embeddings, and last layers without keys and values of their own; large
//! ones take keys for values there, and one has experts next to its dense MLPs.
//! Source: transformers 5, `models/gemma4/configuration_gemma4.py` and `modeling_gemma4.py`.

use super::gemma::{SANDWICH, activation, cap};
use super::llama::Keys;
use super::{Architecture, Family, architecture, text_of, windows_by_pattern};
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
            // Gemma 4 without per-layer inputs, whose images are embedded otherwise.
            text_defaults: Some(r#"{"hidden_size_per_layer_input": 0}"#),
            ..architecture("Gemma4UnifiedForConditionalGeneration", "gemma4_unified", parse)
        },
    ],
    gguf: &[GgufFamily {
        name: "gemma4",
        architecture: "Gemma4ForCausalLM",
        windowed: Some("Gemma4ForCausalLM"),
        uneven: true,
        names: gguf::GEMMA4_NAMES,
        keys: &[
            gguf::EXPERT_SIZE,
            gguf::PATTERN,
            gguf::LOCAL_THETA,
            "attention.shared_kv_layers",
            "attention.key_length_swa",
            "attention.value_length_swa",
            "rope.dimension_count_swa",
            "embedding_length_per_layer_input",
            "final_logit_softcapping",
        ],
        fields: gguf::gemma4,
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
/// Sizes where the configuration has none, as in transformers.
const DEFAULT_GLOBAL_HEAD_DIM: usize = 512;
const DEFAULT_INPUTS: PerLayerSpec = PerLayerSpec { vocab_size: 262_144, size: 256 };

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // "vision" is about images.
    if config.opt_str("use_bidirectional_attention")?.is_some_and(|kind| kind != "vision") {
        return Err(config.unsupported("use_bidirectional_attention", "null or \"vision\""));
    }
    // Without them transformers assumes others than elsewhere.
    if config.object("rope_parameters")?.is_none() {
        return Err(config.invalid("rope_parameters", "an object"));
    }
    // Neither is as elsewhere where it is missing.
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
    };
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec { eps: plain.rms_norm_eps, whole: false }),
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
    // The last one sees everything whatever the list says.
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
    let shared = config.opt_usize("num_kv_shared_layers")?.unwrap_or(0);
    let Some(own) = count.checked_sub(shared).filter(|&own| own > 0) else {
        let expected = format!("fewer than num_hidden_layers, which is {count}");
        return Err(config.invalid("num_kv_shared_layers", &expected));
    };
    let wide = config.bool_or("use_double_wide_mlp", false)?;
    for index in 0..count {
        let full = layers[index].window.is_none();
        let layer = &mut layers[index];
        layer.rope = Some(usize::from(!full));
        layer.moe = moe;
        layer.heads = match &overrides {
            Some(overrides) => head_shape(overrides, index, plain)?,
            None => Some(global).filter(|_| full),
        };
        if full && keys_as_values {
            layer.keys = KeySource::KeysAsValues;
        }
        if index >= own {
            layer.intermediate_size = wide.then(|| plain.intermediate_size.saturating_mul(2));
            let source = (0..own).rev().find(|&source| layers[source].window.is_none() == full);
            let source = source.ok_or_else(|| {
                config.invalid("num_kv_shared_layers", "to leave layers of each kind with keys of their own")
            })?;
            layers[index].keys = KeySource::Layer(source);
        }
    }
    Ok(layers)
}

/// What `per_layer_config` has for a layer.
fn head_shape(overrides: &ModelConfig, layer: usize, plain: &DecoderSpec) -> Result<Option<HeadShape>> {
    // transformers writes zeros before the number.
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
        ..MoeSpec::softmax(true)
    })
}
