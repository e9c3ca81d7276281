//! Phi-1, Phi-1.5 and Phi-2: attention and an MLP without a gate in parallel, one LayerNorm for both, biases everywhere
//! (that of the logits included), and half of each head rotated.
//! Source: transformers 5, `models/phi/configuration_phi.py` and `modeling_phi.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, NormKind};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("PhiForCausalLM", "phi", parse)],
    gguf: &[GgufFamily {
        name: "phi2",
        architecture: "PhiForCausalLM",
        partial: true,
        eps: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        names: &[
            ("model.final_layernorm", "output_norm"),
            ("self_attn.dense", "attn_output"),
            ("mlp.fc1", "ffn_up"),
            ("mlp.fc2", "ffn_down"),
        ],
        fields: |keys, config| {
            gguf::extend(config, json!({"hidden_act": "gelu_new"}));
            gguf::dense(keys, config)
        },
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    mlp_norm: None,
    final_norm: Some("model.final_layernorm"),
    o: "self_attn.dense",
    mlp: MlpModules { gate_up: &["mlp.fc1"], down: "mlp.fc2" },
    ..names::LLAMA
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // No published model has these LayerNorms of heads.
    only(config, "qk_layernorm", false)?;
    let keys = Keys { eps: "layer_norm_eps", ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let rope = RopeDefaults { partial: Some(0.5), ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        norm: NormKind::Layer { bias: true },
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        mlp_gate: false,
        lm_head_bias: true,
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        names: NAMES,
        ..plain
    })
}
