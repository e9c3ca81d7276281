//! Cohere Command R7B and A: attention and MLP in parallel after one LayerNorm, rotation only on layers with windows.
//! Source: transformers 5, `models/cohere2/configuration_cohere2.py` and `modeling_cohere2.py`.

use super::llama::Keys;
use super::{Family, architecture, only, windows_by_pattern};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, LayerSpec, NormKind};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Cohere2ForCausalLM", "cohere2", parse)],
    gguf: &[GgufFamily {
        name: "cohere2",
        architecture: "Cohere2ForCausalLM",
        windowed: Some("Cohere2ForCausalLM"),
        eps: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        keys: &["logit_scale", gguf::PATTERN],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

/// Default of `logit_scale`, as in transformers.
const DEFAULT_LOGIT_SCALE: f32 = 0.0625;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Keys in the first checkpoints that transformers does not read.
    only(config, "use_parallel_block", true)?;
    only(config, "use_gated_activation", true)?;
    only(config, "use_qk_norm", false)?;
    let keys = Keys { eps: "layer_norm_eps", tied: true, ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let bias = config.bool_or("attention_bias", false)?;
    let layers = windows_by_pattern(config, plain.num_hidden_layers, 4)?;
    let rotated = |layer: LayerSpec| LayerSpec { rope: layer.window.map(|_| 0), ..layer };
    let rope = RopeSpec::parse(config, plain.head_dim, RopeDefaults::LLAMA)?;
    let logit_scale = config.opt_f32("logit_scale")?.unwrap_or(DEFAULT_LOGIT_SCALE);
    if logit_scale <= 0.0 {
        return Err(config.invalid("logit_scale", "a number > 0"));
    }
    Ok(DecoderSpec {
        norm: NormKind::Layer { bias: false },
        qkv_bias: bias,
        o_bias: bias,
        ropes: vec![RopeSpec { interleaved: true, ..rope }],
        layers: layers.into_iter().map(rotated).collect(),
        logit_scale,
        names: Names { mlp_norm: None, ..names::LLAMA },
        ..plain
    })
}

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    const SCALE: &str = "logit_scale";
    let scale = keys.opt_f64(SCALE)?.ok_or_else(|| keys.invalid(SCALE, "a number"))?;
    config.insert(SCALE.to_owned(), scale.into());
    gguf::dense(keys, config)?;
    gguf::pattern(keys, config, 4)
}
