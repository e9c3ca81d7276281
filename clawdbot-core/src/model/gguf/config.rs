//! Metadata -> `config.json` and `generation_config.json`.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#llm>. They begin with the architecture's name. A key
//! that is not known is refused: it could change what is computed.

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::tokenizer::TokenizerFiles;
use crate::weights::{GgufSource, Metadata, RowOrder};

/// Divisors of the rotary frequencies.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// What is particular to an architecture.
pub(super) struct Family {
    /// `general.architecture`.
    name: &'static str,
    /// As `config.json` names it.
    architecture: &'static str,
    /// And with a sliding window.
    windowed: Option<&'static str>,
    /// Whether the rows of queries and keys are shuffled into pairs.
    pub(super) pairs: bool,
}

/// Every architecture: the only list.
const FAMILIES: &[Family] = &[
    Family {
        name: "llama",
        architecture: "LlamaForCausalLM",
        windowed: Some("MistralForCausalLM"),
        pairs: true,
    },
    Family { name: "qwen2", architecture: "Qwen2ForCausalLM", windowed: None, pairs: false },
    Family { name: "qwen3", architecture: "Qwen3ForCausalLM", windowed: None, pairs: false },
];

/// Sizes: the key behind the architecture, and the one in `config.json`.
const SIZES: &[(&str, &str)] = &[
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
];

/// Keys that are read further down, or say nothing about what is computed.
const OTHERS: &[&str] = &[
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "expert_count",
    "expert_used_count",
    "vocab_size",
    "tensor_data_layout",
];

/// The configuration of the model in `source`.
///
/// # Errors
/// `UnsupportedModel` for architectures and keys that are not known; `InvalidModel` for values that are missing or
/// malformed.
pub(super) fn config_json(source: &GgufSource) -> Result<(&'static Family, Vec<u8>)> {
    let metadata = source.metadata();
    const ARCHITECTURE: &str = "general.architecture";
    let name = metadata.str(ARCHITECTURE)?;
    let Some(family) = FAMILIES.iter().find(|family| family.name == name) else {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        return Err(metadata.unsupported(ARCHITECTURE, &format!("one of {}", names.join(", "))));
    };
    let keys = Keys { metadata, name };
    let prefix = format!("{name}.");
    for key in metadata.keys().filter(|key| key.starts_with(&prefix)) {
        let rest = &key[prefix.len()..];
        if !SIZES.iter().any(|(known, _)| *known == rest) && !OTHERS.contains(&rest) {
            return Err(metadata.unsupported(key, "no such key"));
        }
    }
    for key in ["expert_count", "expert_used_count"] {
        if keys.opt_u64(key)?.is_some_and(|count| count != 0) {
            return Err(keys.unsupported(key, "no experts"));
        }
    }
    let has = |tensor: &str| source.tensor(tensor).is_some();
    let mut config = Map::new();
    for (key, field) in SIZES {
        config.insert((*field).to_owned(), keys.u64(key)?.into());
    }
    let heads = keys.u64("attention.head_count")?;
    let kv_heads = keys.opt_u64("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = match keys.opt_u64("attention.key_length")? {
        Some(length) => length,
        None if heads > 0 => keys.u64("embedding_length")? / heads,
        None => return Err(keys.invalid("attention.head_count", "a positive integer")),
    };
    if let Some(length) = keys.opt_u64("attention.value_length")?
        && length != head_dim
    {
        return Err(keys.unsupported("attention.value_length", &format!("{head_dim}, as keys have")));
    }
    let window = keys.opt_u64("attention.sliding_window")?.filter(|&window| window > 0);
    let architecture = match (window, family.windowed) {
        (None, _) => family.architecture,
        (Some(_), Some(windowed)) => windowed,
        (Some(_), None) => return Err(keys.unsupported("attention.sliding_window", "none")),
    };
    let vocabulary = source.tensor("token_embd.weight").and_then(|tensor| tensor.shape.first());
    let epsilon = keys.opt_f64("attention.layer_norm_rms_epsilon")?;
    let fields = json!({
        "architectures": [architecture],
        "vocab_size": vocabulary.copied().unwrap_or_default(),
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": epsilon.ok_or_else(|| keys.invalid("attention.layer_norm_rms_epsilon", "a number"))?,
        "hidden_act": "silu",
        "tie_word_embeddings": !has("output.weight"),
        "attention_bias": has("blk.0.attn_q.bias"),
        "mlp_bias": has("blk.0.ffn_gate.bias"),
        "sliding_window": window,
        "rope_parameters": rope(&keys, source, head_dim)?,
    });
    if let Value::Object(fields) = fields {
        config.extend(fields);
    }
    Ok((family, Value::Object(config).to_string().into_bytes()))
}

/// `rope_parameters`.
fn rope(keys: &Keys<'_>, source: &GgufSource, head_dim: u64) -> Result<Value> {
    if let Some(rotated) = keys.opt_u64("rope.dimension_count")?
        && rotated != head_dim
    {
        return Err(keys.unsupported("rope.dimension_count", &format!("{head_dim}, all of a head")));
    }
    let mut rope =
        json!({"rope_type": "default", "rope_theta": keys.opt_f64("rope.freq_base")?.unwrap_or(10_000.0)});
    const TYPE: &str = "rope.scaling.type";
    let older = keys.opt_f64("rope.scale_linear")?.filter(|&factor| factor != 1.0);
    let kind =
        keys.metadata.opt_str(&keys.key(TYPE))?.unwrap_or(if older.is_some() { "linear" } else { "none" });
    let factor = || -> Result<f64> {
        let factor = keys.opt_f64("rope.scaling.factor")?.or(older);
        factor.ok_or_else(|| keys.invalid("rope.scaling.factor", "a number"))
    };
    match kind {
        "none" => {}
        "linear" => {
            rope["rope_type"] = "linear".into();
            rope["factor"] = factor()?.into();
        }
        "yarn" => {
            rope["rope_type"] = "yarn".into();
            rope["factor"] = factor()?.into();
            rope["original_max_position_embeddings"] =
                keys.u64("rope.scaling.original_context_length")?.into();
        }
        _ => return Err(keys.unsupported(TYPE, "none, linear or yarn")),
    }
    if let Some(tensor) = source.tensor(ROPE_FACTORS) {
        if kind != "none" {
            return Err(keys.unsupported(TYPE, "none, as there are factors of frequencies"));
        }
        let count: usize = tensor.shape.iter().product();
        rope["rope_type"] = "factors".into();
        rope["factors"] = source.vector(ROPE_FACTORS, count, RowOrder::Stored)?.into();
    }
    Ok(rope)
}

/// `generation_config.json`.
pub(super) fn generation_json(tokenizer: &TokenizerFiles) -> Vec<u8> {
    let config = json!({
        "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad,
    });
    config.to_string().into_bytes()
}

/// The keys of an architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    name: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn invalid(&self, key: &str, expected: &str) -> crate::error::Error {
        self.metadata.invalid(&self.key(key), expected)
    }

    fn unsupported(&self, key: &str, expected: &str) -> crate::error::Error {
        self.metadata.unsupported(&self.key(key), expected)
    }

    fn opt_u64(&self, key: &str) -> Result<Option<u64>> {
        self.metadata.opt_u64(&self.key(key))
    }

    fn u64(&self, key: &str) -> Result<u64> {
        self.metadata.u64(&self.key(key))
    }

    fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.opt_f64(&self.key(key))
    }
}
