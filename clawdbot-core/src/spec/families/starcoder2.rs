//! StarCoder2: LayerNorms with biases, an MLP without a gate, and windows on all layers.
//! Source: transformers 5, `models/starcoder2/configuration_starcoder2.py` and `modeling_starcoder2.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, only_str};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, LayerSpec, NormKind};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Starcoder2ForCausalLM", "starcoder2", parse)],
    gguf: &[GgufFamily {
        name: "starcoder2",
        architecture: "Starcoder2ForCausalLM",
        windowed: Some("Starcoder2ForCausalLM"),
        eps: ("attention.layer_norm_epsilon", "norm_epsilon"),
        names: &[("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")],
        fields: |keys, config| {
            let bias = keys.some(".attn_q.bias");
            gguf::extend(config, json!({"hidden_act": "gelu_pytorch_tanh", "use_bias": bias}));
            gguf::dense(keys, config)
        },
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names { mlp: MlpModules { gate_up: &["mlp.c_fc"], down: "mlp.c_proj" }, ..names::LLAMA };
/// Default of the norms' epsilon, as in transformers.
const DEFAULT_EPS: f32 = 1e-5;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // Of the published code, whose other kinds no model has.
    only_str(config, "norm_type", "layer_norm")?;
    only_str(config, "mlp_type", "default")?;
    // Where it is missing it is not what follows from the other sizes.
    config.usize("num_key_value_heads")?;
    let keys = Keys { eps: "norm_epsilon", default_eps: Some(DEFAULT_EPS), tied: true, ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let bias = config.bool_or("use_bias", true)?;
    let window = config.opt_usize("sliding_window")?;
    Ok(DecoderSpec {
        norm: NormKind::Layer { bias: true },
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: bias,
        mlp_gate: false,
        ropes: vec![RopeSpec::parse(config, plain.head_dim, RopeDefaults::LLAMA)?],
        layers: vec![LayerSpec { window, ..LayerSpec::default() }; plain.num_hidden_layers],
        names: NAMES,
        ..plain
    })
}
