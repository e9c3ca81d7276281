//! Metadata to `config.json` and `generation_config.json`: what all families have in common.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#llm>. They begin with the architecture's name.
//! Unknown keys are refused: they could change the result.

use serde_json::{Map, Value, json};

use super::encoders::embedding_files;
use super::family::GgufFamily;
use super::keys::{EXPERT_SIZE, FEED_FORWARD, Keys, PREDICTING_LAYERS, extend};
use crate::error::Result;
use crate::spec::families::FAMILIES;
use crate::tokenizer::TokenizerFiles;
use crate::weights::GgufSource;

/// Divisors of the rotary frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Those of LongRoPE, for short and long sequences.
const LONG_ROPE_FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

fn families() -> impl Iterator<Item = &'static GgufFamily> {
    FAMILIES.iter().flat_map(|family| family.gguf)
}

/// Sizes: the key after the architecture, and the key in `config.json`.
const SIZES: &[(&str, &str)] = &[
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("attention.head_count", "num_attention_heads"),
];

/// Keys that are read below, or do not affect the result.
const OTHERS: &[&str] = &[
    "block_count",
    FEED_FORWARD,
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.sliding_window",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_ext_factor",
    "expert_count",
    "expert_used_count",
    "vocab_size",
    "pooling_type",
    "tensor_data_layout",
];

/// The configuration of the model in `source`, and the files that a sentence-transformers directory would have.
///
/// # Errors
/// `UnsupportedModel` for unknown architectures and keys; `InvalidModel` for missing or malformed values.
pub(crate) fn config_json(source: &GgufSource) -> Result<(&'static GgufFamily, ModelJson)> {
    let metadata = source.metadata();
    const ARCHITECTURE: &str = "general.architecture";
    let name = metadata.str(ARCHITECTURE)?;
    let Some(family) = families().find(|family| family.name == name) else {
        let names: Vec<&str> = families().map(|family| family.name).collect();
        return Err(metadata.unsupported(ARCHITECTURE, &format!("one of {}", names.join(", "))));
    };
    let keys = Keys { metadata, source, name };
    let prefix = format!("{name}.");
    for key in metadata.keys().filter(|key| key.starts_with(&prefix)) {
        let rest = &key[prefix.len()..];
        let known = SIZES.iter().any(|(known, _)| *known == rest) || OTHERS.contains(&rest);
        if !known && rest != family.eps.0 && !family.keys.contains(&rest) {
            return Err(metadata.unsupported(key, "no such key"));
        }
    }
    let mut config = common(&keys, family)?;
    (family.fields)(&keys, &mut config)?;
    let mut files = vec![("config.json", Value::Object(config).to_string().into_bytes())];
    files.extend(embedding_files(&keys)?);
    Ok((family, files))
}

/// Small files of a Hugging Face directory.
type ModelJson = Vec<(&'static str, Vec<u8>)>;

/// The configuration common to all families.
fn common(keys: &Keys<'_>, family: &GgufFamily) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    for (key, field) in SIZES {
        config.insert((*field).to_owned(), keys.u64(key)?.into());
    }
    config.insert("num_hidden_layers".to_owned(), keys.layers(family)?.into());
    config.insert("intermediate_size".to_owned(), keys.feed_forward(family)?.into());
    let heads = keys.u64("attention.head_count")?;
    let kv_heads = keys.per_layer("attention.head_count_kv")?.unwrap_or_default();
    let head_dim = match keys.opt_u64("attention.key_length")? {
        Some(length) => length,
        None if heads > 0 => keys.u64("embedding_length")? / heads,
        None => return Err(keys.invalid("attention.head_count", "a positive integer")),
    };
    if keys.opt_bool("attention.causal")? == Some(family.bidirectional) {
        return Err(keys.unsupported("attention.causal", &(!family.bidirectional).to_string()));
    }
    let window = keys.opt_u64("attention.sliding_window")?.filter(|&window| window > 0);
    let architecture = match (window, family.windowed) {
        (None, _) => family.architecture,
        (Some(_), Some(windowed)) => windowed,
        (Some(_), None) => return Err(keys.unsupported("attention.sliding_window", "none")),
    };
    let vocabulary = keys.source.tensor("token_embd.weight").and_then(|tensor| tensor.shape.first());
    let (key, field) = family.eps;
    let epsilon = keys.opt_f64(key)?.ok_or_else(|| keys.invalid(key, "a number"))?;
    let fields = json!({
        "architectures": [architecture],
        "vocab_size": vocabulary.copied().unwrap_or_default(),
        // Layers without attention have none.
        "num_key_value_heads": kv_heads.iter().copied().max().unwrap_or(heads),
        "head_dim": head_dim,
        field: epsilon,
        "hidden_act": "silu",
        "tie_word_embeddings": !keys.has("output.weight"),
        "attention_bias": keys.some(".attn_q.bias"),
        "mlp_bias": keys.has("blk.0.ffn_gate.bias"),
        "sliding_window": window,
        "rope_parameters": rope(keys, family, head_dim)?,
    });
    extend(&mut config, fields);
    Ok(config)
}

/// `rope_parameters`.
fn rope(keys: &Keys<'_>, family: &GgufFamily, head_dim: u64) -> Result<Value> {
    let rotated = keys.opt_u64("rope.dimension_count")?.unwrap_or(head_dim);
    if rotated != head_dim && !family.partial {
        return Err(keys.unsupported("rope.dimension_count", &format!("{head_dim}, all of a head")));
    }
    let mut rope =
        json!({"rope_type": "default", "rope_theta": keys.opt_f64("rope.freq_base")?.unwrap_or(10_000.0)});
    if family.partial {
        // The product with `head_dim` is rounded down: half an element keeps it from falling below.
        rope["partial_rotary_factor"] = match rotated < head_dim {
            true => ((rotated as f64 + 0.5) / head_dim as f64).into(),
            false => (rotated as f64 / head_dim as f64).into(),
        };
    }
    const TYPE: &str = "rope.scaling.type";
    const MAGNITUDE: &str = "rope.scaling.attn_factor";
    let older = keys.opt_f64("rope.scale_linear")?.filter(|&factor| factor != 1.0);
    let kind = keys.opt_str(TYPE)?.unwrap_or(if older.is_some() { "linear" } else { "none" });
    let factor = || -> Result<f64> {
        let factor = keys.opt_f64("rope.scaling.factor")?.or(older);
        factor.ok_or_else(|| keys.invalid("rope.scaling.factor", "a number"))
    };
    match kind {
        "none" | "longrope" => {}
        "linear" => {
            rope["rope_type"] = "linear".into();
            rope["factor"] = factor()?.into();
        }
        "yarn" => {
            rope["rope_type"] = "yarn".into();
            rope["factor"] = factor()?.into();
            rope["original_max_position_embeddings"] =
                keys.u64("rope.scaling.original_context_length")?.into();
            const EXTRAPOLATED: &str = "rope.scaling.yarn_ext_factor";
            if keys.opt_f64(EXTRAPOLATED)?.is_some_and(|factor| factor != 1.0) {
                return Err(keys.unsupported(EXTRAPOLATED, "1"));
            }
            for (key, field) in [
                ("rope.scaling.yarn_beta_fast", "beta_fast"),
                ("rope.scaling.yarn_beta_slow", "beta_slow"),
                ("rope.scaling.yarn_attn_factor", "attention_factor"),
            ] {
                if let Some(value) = keys.opt_f64(key)? {
                    rope[field] = value.into();
                }
            }
        }
        _ => return Err(keys.unsupported(TYPE, "none, linear, yarn or longrope")),
    }
    let [short, long] = LONG_ROPE_FACTORS;
    if keys.has(ROPE_FACTORS) {
        if kind != "none" {
            return Err(keys.unsupported(TYPE, "none, as there are factors of frequencies"));
        }
        rope["rope_type"] = "factors".into();
        rope["factors"] = keys.elements(ROPE_FACTORS)?;
    } else if keys.has(short) || keys.has(long) || kind == "longrope" {
        if kind != "longrope" && kind != "none" {
            return Err(keys.unsupported(TYPE, "none or longrope, as there are factors for it"));
        }
        rope["rope_type"] = "longrope".into();
        rope["short_factor"] = keys.elements(short)?;
        rope["long_factor"] = keys.elements(long)?;
        rope["original_max_position_embeddings"] = keys.u64("rope.scaling.original_context_length")?.into();
        if let Some(factor) = keys.opt_f64(MAGNITUDE)? {
            rope["attention_factor"] = factor.into();
        }
    }
    // With other types the factor follows from the type.
    if rope["rope_type"] != "longrope" && keys.opt_f64(MAGNITUDE)?.is_some_and(|factor| factor != 1.0) {
        return Err(keys.unsupported(MAGNITUDE, "1, except with longrope"));
    }
    Ok(rope)
}

/// Whether the configuration is made from this tensor.
pub(crate) fn is_read(tensor: &str) -> bool {
    tensor == ROPE_FACTORS || LONG_ROPE_FACTORS.contains(&tensor)
}

/// `generation_config.json`.
pub(crate) fn generation_json(tokenizer: &TokenizerFiles) -> Vec<u8> {
    let config = json!({
        "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad,
    });
    config.to_string().into_bytes()
}

impl Keys<'_> {
    /// Layers of the model itself.
    pub(crate) fn layers(&self, family: &GgufFamily) -> Result<u64> {
        let (all, predicting) = (
            self.u64("block_count")?,
            match family.keys.contains(&PREDICTING_LAYERS) {
                true => self.opt_u64(PREDICTING_LAYERS)?.unwrap_or(0),
                false => 0,
            },
        );
        let fewer = || self.invalid(PREDICTING_LAYERS, &format!("fewer than block_count, which is {all}"));
        all.checked_sub(predicting).ok_or_else(fewer)
    }

    /// Elements between the projections of the first layer's dense MLP. Models with experts in all layers may lack it.
    fn feed_forward(&self, family: &GgufFamily) -> Result<u64> {
        let Some(sizes) = self.per_layer(FEED_FORWARD)? else {
            return match self.opt_u64(EXPERT_SIZE)? {
                Some(size) => Ok(size),
                None => self.u64(FEED_FORWARD),
            };
        };
        match sizes.split_first() {
            None => Err(self.invalid(FEED_FORWARD, "a positive integer")),
            Some((first, rest)) if !family.uneven && rest.iter().any(|size| size != first) => {
                Err(self.unsupported(FEED_FORWARD, "the same in all layers"))
            }
            Some((first, _)) => Ok(*first),
        }
    }
}
