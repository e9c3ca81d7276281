//! Qwen3-VL, text: Qwen3, with rotations in three sections, which have the same positions for text.
//! Source: transformers 5, `models/qwen3_vl/configuration_qwen3_vl.py` and `modeling_qwen3_vl.py`.

use super::llama::Keys;
use super::{Family, text_of};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::rope_scaling::{Extras, RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[text_of("Qwen3VLForConditionalGeneration", "qwen3_vl", parse)],
    gguf: &[GgufFamily {
        name: "qwen3vl",
        // That of its text.
        architecture: "Qwen3ForCausalLM",
        // The second is about images.
        keys: &["rope.dimension_sections", "n_deepstack_layers"],
        ..GgufFamily::PLAIN
    }],
};

/// Base of the rotation if the configuration has none, as in transformers.
const DEFAULT_THETA: f64 = 500_000.0;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Where it is missing it is not what follows from the other sizes.
    config.usize("head_dim")?;
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    let bias = config.bool_or("attention_bias", false)?;
    let extras = Extras { sections: true, ..Extras::NONE };
    let rope = RopeDefaults { theta: DEFAULT_THETA, extras, ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        qkv_bias: bias,
        o_bias: bias,
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        ..plain
    })
}
