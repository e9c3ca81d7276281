//! Post-processors: tokens added around a text.

use serde_json::Value;
use tokenizers::PostProcessorWrapper;
use tokenizers::processors::sequence::Sequence;

use super::steps::steps;

/// Most pieces of a template, and most tokens of one piece.
const MAX_PIECES: usize = 100;

/// The post-processor of a file.
///
/// # Errors
/// With what was expected and found.
pub(in crate::tokenizer) fn post_processor(part: Value) -> Result<Option<PostProcessorWrapper>, String> {
    if part.is_null() {
        return Ok(None);
    }
    let mut parsed = Vec::new();
    let mut adding = 0;
    for step in steps(part, "processors")? {
        let step: PostProcessorWrapper = serde_json::from_value(Value::Object(step))
            .map_err(|error| format!("post_processor: {error}"))?;
        match &step {
            PostProcessorWrapper::ByteLevel(_) => {}
            PostProcessorWrapper::Sequence(_) => {
                return Err("post_processor: expected a type for each step".to_owned());
            }
            PostProcessorWrapper::Template(template) => {
                let template = serde_json::to_value(template).map_err(|error| error.to_string())?;
                check(&template).map_err(|reason| format!("post_processor: TemplateProcessing: {reason}"))?;
                adding += 1;
            }
            PostProcessorWrapper::Bert(_) | PostProcessorWrapper::Roberta(_) => adding += 1,
        }
        parsed.push(step);
    }
    // A template would split what an earlier one made.
    if adding > 1 {
        return Err(format!("post_processor: expected one step that adds tokens, found {adding}"));
    }
    match parsed.len() {
        1 => Ok(parsed.pop()),
        _ => Ok(Some(PostProcessorWrapper::Sequence(Sequence::new(parsed)))),
    }
}

/// Checks that a template has each text at most once, and only tokens that it defines.
fn check(template: &Value) -> Result<(), String> {
    let known = |id: &str| template.get("special_tokens").and_then(|tokens| tokens.get(id));
    for (key, texts) in [("single", ["A"].as_slice()), ("pair", &["A", "B"])] {
        let pieces = template.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if pieces.len() > MAX_PIECES {
            return Err(format!("{key}: expected at most {MAX_PIECES} pieces, found {}", pieces.len()));
        }
        let mut found = Vec::new();
        for piece in pieces {
            let id = |kind: &str| piece.get(kind).and_then(|piece| piece.get("id")).and_then(Value::as_str);
            if let Some(text) = id("Sequence") {
                if found.contains(&text) || !texts.contains(&text) {
                    return Err(format!(
                        "{key}: expected each of the texts {texts:?} once, found {text:.50?}"
                    ));
                }
                found.push(text);
                continue;
            }
            let id = id("SpecialToken").unwrap_or_default();
            let token =
                known(id).ok_or_else(|| format!("{key}: expected {id:.50?} among the special tokens"))?;
            let count = |key: &str| token.get(key).and_then(Value::as_array).map_or(0, Vec::len);
            if count("ids") != count("tokens") || count("ids") > MAX_PIECES {
                return Err(format!(
                    "{id:.50?}: expected as many ids as tokens, at most {MAX_PIECES}, found {} and {}",
                    count("ids"),
                    count("tokens")
                ));
            }
        }
    }
    Ok(())
}
