//! `bert`: WordPiece. Words are cut into the longest pieces that are tokens. Files have pieces that begin a word with a
//! mark for a space in front, and those that go on without the two signs that BERT's own vocabularies have there:
//! `▁embed`, `ding` for `embed`, `##ding`. Names in brackets, such as `[CLS]`, are as they are.

use serde_json::{Map, Value, json};

use super::vocab::{SPACE, TOKENS, TokenKind, Vocab, invalid};
use crate::error::Result;
use crate::weights::{Metadata, quoted};

/// In front of pieces that go on.
const GOES_ON: &str = "##";
/// A longer word is unknown as a whole, as in BERT.
const LONGEST_WORD: usize = 100;

pub(super) fn tokenizer_json(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Vec<u8>> {
    let unknown = vocab.unknown(metadata)?;
    let mut pieces = Map::new();
    for (id, (token, kind)) in vocab.tokens.iter().zip(&vocab.kinds).enumerate() {
        let piece = piece(token, *kind);
        if pieces.insert(piece.clone(), id.into()).is_some() {
            let expected = format!("pieces that differ, but two are {}", quoted(&piece));
            return Err(invalid(metadata, TOKENS, &expected));
        }
    }
    // What is in brackets is a marker, whatever its type says.
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
    let marked = |id: u32| (id, piece(vocab.tokens[id as usize], vocab.kinds[id as usize]));
    let before = role("cls", "bos", ["bos", "cls"])?.map(marked);
    let behind = role("seperator", "eos", ["sep", "eos"])?.map(marked);
    let lowercase = option("lowercase")?.unwrap_or(true);
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": option("strip_accents")?.unwrap_or(lowercase), "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": Vocab::around(before, behind),
        "decoder": {"type": "WordPiece", "prefix": GOES_ON, "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": marked(unknown).1, "continuing_subword_prefix": GOES_ON,
            "max_input_chars_per_word": LONGEST_WORD, "vocab": pieces,
        },
    });
    Ok(json.to_string().into_bytes())
}

/// A token as BERT's vocabularies have it.
fn piece(token: &str, kind: TokenKind) -> String {
    match token.strip_prefix(SPACE) {
        Some(begins) => begins.to_owned(),
        None if kind == TokenKind::Control || token.starts_with('[') && token.ends_with(']') => {
            token.to_owned()
        }
        None => format!("{GOES_ON}{token}"),
    }
}
