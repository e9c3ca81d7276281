//! GPT-2: learned positions, LayerNorms with biases, an MLP without a gate, and projections stored as `[inputs, outputs]`.
//! Source: transformers 5, `models/gpt2/configuration_gpt2.py` and `modeling_gpt2.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::{DecoderSpec, InputSpec, LayerSpec, NormKind, PositionSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("GPT2LMHeadModel", "gpt2", parse)],
    gguf: &[GgufFamily {
        name: "gpt2",
        architecture: "GPT2LMHeadModel",
        eps: ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        names: &[
            ("wte", "token_embd"),
            ("wpe", "position_embd"),
            ("ln_f", "output_norm"),
            ("ln_1", "attn_norm"),
            ("attn.c_attn", "attn_qkv"),
            ("attn.c_proj", "attn_output"),
            ("ln_2", "ffn_norm"),
            ("mlp.c_fc", "ffn_up"),
            ("mlp.c_proj", "ffn_down"),
        ],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    layers: "h",
    embedding: "wte",
    positions: "wpe",
    input_norm: Some("ln_1"),
    mlp_norm: Some("ln_2"),
    final_norm: Some("ln_f"),
    qkv: &["attn.c_attn"],
    o: "attn.c_proj",
    mlp: MlpModules { gate_up: &["mlp.c_fc"], down: "mlp.c_proj" },
    ..names::LLAMA
};
const KEYS: Keys = Keys {
    hidden_size: "n_embd",
    num_hidden_layers: "n_layer",
    num_attention_heads: "n_head",
    max_position_embeddings: "n_positions",
    eps: "layer_norm_epsilon",
    intermediate_size: &["n_inner"],
    intermediate_multiple: Some(4),
    activation: Some("activation_function"),
    tied: true,
    ..Keys::LLAMA
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    only(config, "scale_attn_weights", true)?;
    only(config, "scale_attn_by_inverse_layer_idx", false)?;
    only(config, "add_cross_attention", false)?;
    let plain = DecoderSpec::with_keys(config, &KEYS)?;
    let positions = PositionSpec { rows: plain.max_position_embeddings, first: 0 };
    Ok(DecoderSpec {
        norm: NormKind::Layer { bias: true },
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        mlp_gate: false,
        transposed: true,
        input: InputSpec { positions: Some(positions), ..InputSpec::default() },
        layers: vec![LayerSpec { rope: None, ..LayerSpec::default() }; plain.num_hidden_layers],
        names: NAMES,
        ..plain
    })
}

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    let same = [
        ("n_embd", "hidden_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_head", "num_attention_heads"),
        ("n_positions", "max_position_embeddings"),
        ("n_inner", "intermediate_size"),
    ];
    for (own, common) in same {
        config.insert(own.to_owned(), config[common].clone());
    }
    gguf::extend(config, json!({"activation_function": "gelu_new"}));
    gguf::dense(keys, config)
}
