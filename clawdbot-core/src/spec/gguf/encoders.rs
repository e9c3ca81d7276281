//! How GGUF files describe embedding models: converted to the files of sentence-transformers directories, so that
//! everything else is the same.
//!
//! GGUF files do not say whether vectors are normalized; they are, as in llama.cpp.

use serde_json::json;

use super::keys::{CLASSIFIER, Keys};
use crate::error::Result;

/// Layers after pooling: tensor, folder, configuration in it.
const DENSE: [(&str, &str, &str); 2] = [
    ("dense_2.weight", "2_Dense", "2_Dense/config.json"),
    ("dense_3.weight", "3_Dense", "3_Dense/config.json"),
];

/// The files that say how texts become vectors; none if that is left to the caller.
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
        // The pooling of a cross-encoder is part of its family.
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
