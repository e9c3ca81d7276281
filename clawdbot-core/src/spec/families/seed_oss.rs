//! Seed-OSS: Llama with biases on queries, keys and values.
//! Source: transformers 5, `models/seed_oss/configuration_seed_oss.py` and `modeling_seed_oss.py`.

use super::{Family, architecture};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("SeedOssForCausalLM", "seed_oss", parse)],
    gguf: &[GgufFamily {
        name: "seed_oss",
        architecture: "SeedOssForCausalLM",
        names: gguf::SANDWICH,
        ..GgufFamily::PLAIN
    }],
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Its default is not derived from the other sizes.
    config.usize("head_dim")?;
    Ok(DecoderSpec {
        qkv_bias: config.bool_or("attention_bias", true)?,
        o_bias: config.bool_or("attention_out_bias", false)?,
        mlp_bias: config.bool_or("mlp_bias", false)?,
        ..DecoderSpec::plain(config)?
    })
}
