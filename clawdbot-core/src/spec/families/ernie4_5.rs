//! ERNIE 4.5, dense: Llama with neighbours rotated in pairs, and one switch for all biases.
//! Source: transformers 5, `models/ernie4_5/configuration_ernie4_5.py` and `modeling_ernie4_5.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Ernie4_5ForCausalLM", "ernie4_5", parse)],
    gguf: &[GgufFamily {
        name: "ernie4_5",
        architecture: "Ernie4_5ForCausalLM",
        fields: |keys, config| {
            gguf::extend(config, json!({"use_bias": keys.some(".attn_q.bias")}));
            gguf::dense(keys, config)
        },
        ..GgufFamily::PLAIN
    }],
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Where it is missing it is not what follows from the other sizes.
    config.usize("head_dim")?;
    let plain = DecoderSpec::with_keys(config, &Keys { tied: true, ..Keys::LLAMA })?;
    let rope = RopeDefaults { theta: 500_000.0, ..RopeDefaults::LLAMA };
    let rope = RopeSpec::parse(config, plain.head_dim, rope)?;
    let bias = config.bool_or("use_bias", false)?;
    Ok(DecoderSpec {
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: bias,
        ropes: vec![RopeSpec { interleaved: true, ..rope }],
        ..plain
    })
}
