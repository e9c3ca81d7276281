//! StableLM 2: LayerNorms with biases, a quarter of each head rotated; the larger models compute attention and MLP in
//! parallel.
//! Source: transformers 5, `models/stablelm/configuration_stablelm.py` and `modeling_stablelm.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, NormKind};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("StableLmForCausalLM", "stablelm", parse)],
    gguf: &[GgufFamily {
        name: "stablelm",
        architecture: "StableLmForCausalLM",
        partial: true,
        eps: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        // The tensors say the same.
        keys: &["use_parallel_residual"],
        fields: |keys, config| {
            let parallel = !keys.has("blk.0.ffn_norm.weight");
            let bias = keys.some(".attn_q.bias");
            gguf::extend(config, json!({"use_parallel_residual": parallel, "use_qkv_bias": bias}));
            gguf::dense(keys, config)
        },
        ..GgufFamily::PLAIN
    }],
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // StableLM 2 12B has a LayerNorm with separate gains for each head.
    only(config, "qk_layernorm", false)?;
    let keys = Keys { eps: "layer_norm_eps", ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let rope = RopeDefaults { partial: Some(0.25), ..RopeDefaults::LLAMA };
    let parallel = config.bool_or("use_parallel_residual", false)?;
    Ok(DecoderSpec {
        norm: NormKind::Layer { bias: true },
        qkv_bias: config.bool_or("use_qkv_bias", false)?,
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        names: Names { mlp_norm: if parallel { None } else { names::LLAMA.mlp_norm }, ..names::LLAMA },
        ..plain
    })
}
