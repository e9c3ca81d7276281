//! gpt-oss: biases everywhere, a sink for each head, windows on every other layer, and experts with a clamped SwiGLU, as
//! published in MXFP4.
//! Source: transformers 5, `models/gpt_oss/configuration_gpt_oss.py` and `modeling_gpt_oss.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Architecture, Family, Window, architecture, one_of, sliding_window, windows};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MoeModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{Activation, AttentionSpec, DecoderSpec, ExpertStorage, LayerSpec, MoeSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[Architecture {
        quantizations: &["mxfp4"],
        ..architecture("GptOssForCausalLM", "gpt_oss", parse)
    }],
    gguf: &[GgufFamily {
        name: "gpt-oss",
        architecture: "GptOssForCausalLM",
        windowed: Some("GptOssForCausalLM"),
        names: gguf::SANDWICH,
        keys: &[gguf::EXPERT_SIZE],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names { moe: MoeModules { router: "mlp.router", ..names::LLAMA.moe }, ..names::LLAMA };
/// Default of the SwiGLU's alpha, as in transformers.
const DEFAULT_ALPHA: f32 = 1.702;
/// Default of the SwiGLU's limit, as in transformers.
const DEFAULT_LIMIT: f32 = 7.0;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Not derived from hidden_size in this family, so it must be given.
    config.usize("head_dim")?;
    // hidden_act does not say what is computed.
    let keys = Keys { activation: None, ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let positive = |key: &str, default: f32| match config.opt_f32(key)? {
        None => Ok(default),
        Some(value) if value > 0.0 => Ok(value),
        Some(_) => Err(config.invalid(key, "a number > 0")),
    };
    let bias = config.bool_or("attention_bias", true)?;
    // Its default differs from other families.
    if !config.has("sliding_window") {
        return Err(config.invalid("sliding_window", "an integer or null"));
    }
    let window = Window { size: sliding_window(config)?, expected: "an integer, as layer_types has windows" };
    let layers = windows(config, plain.num_hidden_layers, window, |i| i % 2 == 0)?;
    let rope = RopeDefaults { theta: 150_000.0, ..RopeDefaults::LLAMA };
    let mxfp4 = config.get("quantization_config").is_some();
    Ok(DecoderSpec {
        qkv_bias: bias,
        o_bias: bias,
        activation: Activation::ClampedSwiglu {
            alpha: positive("swiglu_alpha", DEFAULT_ALPHA)?,
            limit: positive("swiglu_limit", DEFAULT_LIMIT)?,
        },
        attention: AttentionSpec { sinks: true, ..plain.attention },
        moe: Some(MoeSpec {
            num_experts: one_of(config, &["num_local_experts", "num_experts"])?,
            num_experts_per_tok: one_of(config, &["num_experts_per_tok", "experts_per_token"])?,
            intermediate_size: plain.intermediate_size,
            router_bias: true,
            expert_bias: true,
            storage: if mxfp4 { ExpertStorage::JoinedMxfp4 } else { ExpertStorage::Joined },
            // Softmax over the selected experts.
            ..MoeSpec::softmax()
        }),
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: layers.into_iter().map(|layer| LayerSpec { moe: true, ..layer }).collect(),
        names: NAMES,
        ..plain
    })
}

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    if let Some(size) = keys.opt_u64(gguf::EXPERT_SIZE)? {
        config.insert("intermediate_size".to_owned(), size.into());
    }
    gguf::extend(
        config,
        json!({
            "num_local_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
        }),
    );
    // The released models do not round the ends of the ramp, which files do not say.
    if config["rope_parameters"]["rope_type"] == "yarn" {
        config["rope_parameters"]["truncate"] = false.into();
    }
    gguf::value_length(keys, config)
}
