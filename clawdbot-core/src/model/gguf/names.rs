//! Tensor names: as Hugging Face checkpoints have them, and as GGUF files do.

use crate::error::{Error, Result};

/// Outside of layers.
const GLOBAL: &[(&str, &str)] =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// In layers: `model.layers.N.` and `blk.N.` in front.
const LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The name in a GGUF file of the tensor `name`.
///
/// # Errors
/// `UnsupportedModel` for a tensor that has none.
pub(super) fn stored_name(name: &str) -> Result<String> {
    let stored = || {
        let (module, kind) = name.rsplit_once('.')?;
        let in_table = |table: &[(&str, &'static str)], module: &str| {
            table.iter().find(|(known, _)| *known == module).map(|&(_, stored)| stored)
        };
        match module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, module)) => Some(format!("blk.{layer}.{}.{kind}", in_table(LAYER, module)?)),
            None => Some(format!("{}.{kind}", in_table(GLOBAL, module)?)),
        }
    };
    stored().ok_or_else(|| Error::unsupported_model(format!("tensor {name:?} has no name in GGUF files")))
}
