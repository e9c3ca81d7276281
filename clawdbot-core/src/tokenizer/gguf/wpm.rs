//! `bert`: WordPiece, which splits words into the longest pieces that are tokens. BERT's own vocabularies mark pieces
//! that continue a word, as in `embed`, `##ding`; GGUF files mark those that begin one with a space instead: `▁embed`,
//! `ding`. Names in brackets, such as `[CLS]`, are unmarked.

use serde_json::{Map, Value, json};

use super::vocab::{Marker, Markers, SPACE, TOKENS, TokenKind, Vocab, invalid};
use crate::error::Result;
use crate::weights::{Metadata, quoted};

/// Prefix of pieces that continue a word.
const CONTINUATION: &str = "##";
/// A longer word becomes the unknown token, as in BERT.
const LONGEST_WORD: usize = 100;

pub(super) fn tokenizer_json(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Vec<u8>> {
    let unknown = vocab.unknown(metadata)?;
    let mut pieces = Map::new();
    for (id, (token, kind)) in vocab.tokens.iter().zip(&vocab.kinds).enumerate() {
        let piece = piece(token, *kind);
        if pieces.insert(piece.clone(), id.into()).is_some() {
            let expected = format!("distinct pieces, but two are {}", quoted(&piece));
            return Err(invalid(metadata, TOKENS, &expected));
        }
    }
    // Names in brackets are markers, whatever their type.
    let marker =
        |token: &str| token.starts_with('[') && token.ends_with(']') && !token.starts_with("[unused");
    let special = |id: usize, token: &str| vocab.kinds[id] == TokenKind::Control || marker(token);
    let added: Vec<Value> = vocab
        .tokens
        .iter()
        .enumerate()
        .filter(|&(id, token)| special(id, token) && !token.is_empty())
        .map(|(id, token)| {
            json!({"id": id, "content": piece(token, vocab.kinds[id]), "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let option = |name: &str| metadata.opt_bool(&format!("tokenizer.ggml.normalizer.{name}"));
    let role = |first: &str, second: &str, keys: [&str; 2]| -> Result<Option<u32>> {
        for key in keys {
            if metadata.opt_bool(&format!("tokenizer.ggml.add_{key}_token"))? == Some(false) {
                return Ok(None);
            }
        }
        Ok(vocab.id(metadata, first)?.or(vocab.id(metadata, second)?))
    };
    let marker = |id: u32| Marker { id, token: piece(vocab.tokens[id as usize], vocab.kinds[id as usize]) };
    let before = role("cls", "bos", ["bos", "cls"])?.map(marker);
    let after = role("seperator", "eos", ["sep", "eos"])?.map(marker);
    let lowercase = option("lowercase")?.unwrap_or(true);
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": option("strip_accents")?.unwrap_or(lowercase), "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": Markers { before, second: None, after }.post_processor(),
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": marker(unknown).token, "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": LONGEST_WORD, "vocab": pieces,
        },
    });
    Ok(json.to_string().into_bytes())
}

/// A token as in BERT's vocabularies.
fn piece(token: &str, kind: TokenKind) -> String {
    match token.strip_prefix(SPACE) {
        Some(begins) => begins.to_owned(),
        None if kind == TokenKind::Control || token.starts_with('[') && token.ends_with(']') => {
            token.to_owned()
        }
        None => format!("{CONTINUATION}{token}"),
    }
}
