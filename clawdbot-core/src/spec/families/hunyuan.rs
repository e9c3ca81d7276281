//! HunYuan, dense: norms of query and key heads after their rotation, whose base grows with a setting `alpha`.
//! Source: transformers 5, `models/hunyuan_v1_dense/configuration_hunyuan_v1_dense.py` and `modeling_hunyuan_v1_dense.py`.

use super::llama::Keys;
use super::{Family, architecture, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::names::{self, Names};
use crate::spec::rope_scaling::{Extras, RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", parse)],
    gguf: &[GgufFamily {
        name: "hunyuan-dense",
        architecture: "HunYuanDenseV1ForCausalLM",
        names: &[("self_attn.query_layernorm", "attn_q_norm"), ("self_attn.key_layernorm", "attn_k_norm")],
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names =
    Names { q_norm: "self_attn.query_layernorm", k_norm: "self_attn.key_layernorm", ..names::LLAMA };

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Of the published code, for other models.
    only(config, "use_qk_norm", true)?;
    only(config, "use_cla", false)?;
    only(config, "mlp_bias", false)?;
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    let bias = config.bool_or("attention_bias", false)?;
    let extras = Extras { alpha: true, ..Extras::NONE };
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec { rotated: true, ..NormSpec::of_heads(plain.rms_norm_eps) }),
        qkv_bias: bias,
        o_bias: bias,
        ropes: vec![RopeSpec::parse(config, plain.head_dim, RopeDefaults { extras, ..RopeDefaults::LLAMA })?],
        names: NAMES,
        ..plain
    })
}
