//! Encoders, and what files say of turning texts into vectors: as sentence-transformers directories have it, so that
//! everything else is as for those.
//!
//! Whether vectors get length 1, files do not say; they do, as in llama.cpp.

use serde_json::json;

use super::fields::{dense, gemma3, two_rotations};
use super::metadata::{Keys, extend};
use super::{Config, PATTERN, WINDOW};
use crate::error::{Error, Result};

pub(crate) const BERT_NAMES: &[(&str, &str)] = &[
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
    ("pooler.dense", "cls"),
    ("classifier", CLASSIFIER),
];
pub(crate) const MODERNBERT_NAMES: &[(&str, &str)] = &[
    ("embeddings.tok_embeddings", "token_embd"),
    ("embeddings.norm", "token_embd_norm"),
    ("final_norm", "output_norm"),
    ("attn_norm", "attn_norm"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.Wo", "attn_output"),
    ("mlp_norm", "ffn_norm"),
    ("mlp.Wi", "ffn_up"),
    ("mlp.Wo", "ffn_down"),
];
pub(crate) const EMBEDDING_GEMMA_NAMES: &[(&str, &str)] = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("2_Dense.linear", "dense_2"),
    ("3_Dense.linear", "dense_3"),
];
/// A cross-encoder's last layer.
const CLASSIFIER: &str = "cls.output";
/// Layers after pooling: tensor, folder, configuration in it.
const DENSE: [(&str, &str, &str); 2] = [
    ("dense_2.weight", "2_Dense", "2_Dense/config.json"),
    ("dense_3.weight", "3_Dense", "3_Dense/config.json"),
];

/// BERT and its relatives. Their positions begin with that of the first token, also RoBERTa's.
pub(crate) fn bert(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    extend(
        config,
        json!({
            "hidden_act": "gelu",
            "type_vocab_size": keys.shape("token_types.weight").first().copied().unwrap_or(0),
        }),
    );
    if let Some(&labels) = keys.shape(&format!("{CLASSIFIER}.weight")).first() {
        extend(config, json!({"architectures": ["BertForSequenceClassification"], "num_labels": labels}));
    }
    dense(keys, config)
}

pub(crate) fn modernbert(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    if keys.has(&format!("{CLASSIFIER}.weight")) {
        // Whether they pool the first token or the mean, files do not say.
        let message =
            format!("tensor {CLASSIFIER}.weight: expected none in a modern-bert model, found a classifier");
        return Err(Error::unsupported_model(message));
    }
    two_rotations(keys, config, (160_000.0, 10_000.0))?;
    let window = keys.opt_u64(WINDOW)?.filter(|&window| window > 0);
    let mut every = 3;
    match keys.per_layer(PATTERN)?.as_deref() {
        _ if window.is_none() => every = 1,
        None => {}
        Some([number]) => every = *number,
        Some(marks) => {
            let kind = |&mark: &u64| if mark == 0 { "full_attention" } else { "sliding_attention" };
            config.insert("layer_types".to_owned(), marks.iter().map(kind).collect());
        }
    }
    config.remove("hidden_act");
    extend(
        config,
        json!({
            "hidden_activation": keys.opt_str("hidden_activation")?.unwrap_or("gelu"),
            "local_attention": window,
            "global_attn_every_n_layers": every,
            "norm_bias": keys.has("output_norm.bias"),
            "attention_bias": keys.some(".attn_qkv.bias"),
            "mlp_bias": keys.some(".ffn_up.bias"),
        }),
    );
    dense(keys, config)
}

pub(crate) fn embedding_gemma(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    config.insert("use_bidirectional_attention".to_owned(), true.into());
    gemma3(keys, config)
}

/// The files that tell how texts become vectors: none where that is left to the caller.
///
/// # Errors
/// `UnsupportedModel` for other kinds of pooling.
pub(crate) fn embedding_files(keys: &Keys<'_>) -> Result<Vec<(&'static str, Vec<u8>)>> {
    const POOLING: &str = "pooling_type";
    let dense: Vec<_> = DENSE.into_iter().filter(|(tensor, ..)| keys.has(tensor)).collect();
    let mode = match keys.opt_u64(POOLING)? {
        None | Some(0) if dense.is_empty() => return Ok(Vec::new()),
        Some(1) => "mean",
        Some(2) => "cls",
        Some(3) => "lasttoken",
        // What a cross-encoder pools is part of the family.
        Some(4) if keys.is("bert") && keys.has(&format!("{CLASSIFIER}.weight")) => return Ok(Vec::new()),
        _ => return Err(keys.unsupported(POOLING, "1 (mean), 2 (cls) or 3 (last)")),
    };
    let module = |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    let mut modules = vec![module("Transformer", ""), module("Pooling", "1_Pooling")];
    let mut files = vec![("1_Pooling/config.json", json!({"pooling_mode": mode}))];
    for (tensor, folder, file) in dense {
        let shape = keys.shape(tensor);
        modules.push(module("Dense", folder));
        let config = json!({
            "in_features": shape.last(), "out_features": shape.first(), "bias": false,
            "activation_function": "torch.nn.modules.linear.Identity",
        });
        files.push((file, config));
    }
    modules.push(module("Normalize", "4_Normalize"));
    files.push(("modules.json", modules.into()));
    Ok(files.into_iter().map(|(name, json)| (name, json.to_string().into_bytes())).collect())
}
