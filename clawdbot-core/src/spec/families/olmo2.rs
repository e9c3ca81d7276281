//! OLMo 2 and 3: norms after attention and MLP instead of before them, and over all query or key heads at once. OLMo 3
//! has windows on three of four layers; its extended rotation applies to the others only.
//! Source: transformers 5, `models/olmo{2,3}/configuration_*.py` and `modeling_*.py`.

use super::llama::Keys;
use super::{Family, architecture, windows_by_pattern};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, Names};
use crate::spec::rope_scaling::{Extras, LayerRope, RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Olmo2ForCausalLM", "olmo2", parse),
        architecture("Olmo3ForCausalLM", "olmo3", parse_olmo3),
    ],
    gguf: &[GgufFamily {
        name: "olmo2",
        architecture: "Olmo2ForCausalLM",
        windowed: Some("Olmo3ForCausalLM"),
        names: gguf::SANDWICH,
        keys: &[gguf::LOCAL_THETA, gguf::PATTERN],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    input_norm: None,
    attention_out_norm: Some("post_attention_layernorm"),
    mlp_norm: None,
    mlp_out_norm: Some("post_feedforward_layernorm"),
    ..names::LLAMA
};
/// OLMo 3's rotation of layers without a window.
const GLOBAL: LayerRope = LayerRope {
    layer_type: "full_attention",
    theta_key: "rope_theta",
    default_theta: 5e5,
    scaled: true,
    extras: Extras::NONE,
};
const LOCAL: LayerRope = LayerRope {
    layer_type: "sliding_attention",
    theta_key: "rope_theta",
    default_theta: 5e5,
    scaled: false,
    extras: Extras::NONE,
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let common = common(config)?;
    Ok(DecoderSpec { ropes: vec![RopeSpec::parse(config, common.head_dim, RopeDefaults::LLAMA)?], ..common })
}

fn parse_olmo3(config: &ModelConfig) -> Result<DecoderSpec> {
    let common = common(config)?;
    let layers = windows_by_pattern(config, common.num_hidden_layers, 4)?;
    // Rotation 1 is that of layers with a window.
    let rotated = |layer: LayerSpec| LayerSpec { rope: Some(usize::from(layer.window.is_some())), ..layer };
    Ok(DecoderSpec {
        ropes: vec![
            RopeSpec::parse_layers(config, common.head_dim, &GLOBAL)?,
            RopeSpec::parse_layers(config, common.head_dim, &LOCAL)?,
        ],
        layers: layers.into_iter().map(rotated).collect(),
        ..common
    })
}

/// What both have in common.
fn common(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec { whole: true, ..NormSpec::of_heads(plain.rms_norm_eps) }),
        qkv_bias: bias,
        o_bias: bias,
        names: NAMES,
        ..plain
    })
}

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    if keys.opt_u64(gguf::WINDOW)?.is_some_and(|window| window > 0) {
        let theta = keys.opt_f64("rope.freq_base")?.unwrap_or(5e5);
        gguf::two_rotations(keys, config, gguf::DefaultThetas { global: theta, local: theta })?;
        gguf::pattern(keys, config, 4)?;
    }
    gguf::dense(keys, config)
}
