//! `t5`: SentencePiece's unigram model, which takes the split into tokens with the largest sum of scores.

use serde_json::{Value, json};

use super::vocab::{AddedTokens, SPACE, TokenKind, Vocab, invalid};
use crate::error::Result;
use crate::weights::{Array, Metadata, Value as MetadataValue};

/// Replacement rules for characters, as SentencePiece compiles them.
const CHARACTERS: &str = "tokenizer.ggml.precompiled_charsmap";

pub(super) fn tokenizer_json(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Vec<u8>> {
    let unknown = vocab.unknown(metadata)?;
    let scores = vocab.scores(metadata)?;
    let scored = |(id, token): (usize, &&str)| {
        // User-defined tokens are found first, so they must score higher than all others.
        let score = if vocab.kinds[id] == TokenKind::UserDefined { 0.0 } else { scores[id] };
        json!([token, score])
    };
    let pieces: Vec<Value> = vocab.tokens.iter().enumerate().map(scored).collect();
    let flag = |name: &str, default: bool| -> Result<bool> {
        Ok(metadata.opt_bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
    };
    let mut normalizers = Vec::new();
    if let Some(rules) = metadata.opt_array(CHARACTERS)? {
        let rules = bytes(rules).ok_or_else(|| invalid(metadata, CHARACTERS, "an array of bytes"))?;
        if !rules.is_empty() {
            normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": base64(&rules)}));
        }
    }
    if flag("remove_extra_whitespaces", false)? {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    let scheme = if flag("add_space_prefix", true)? { "always" } else { "never" };
    let spaces = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false});
    let json = json!({
        "version": "1.0",
        "added_tokens": vocab.added(Some(unknown)),
        "normalizer": if normalizers.is_empty() { Value::Null } else {
            json!({"type": "Sequence", "normalizers": normalizers})
        },
        "pre_tokenizer": spaces,
        "post_processor": vocab.post_processor(metadata, AddedTokens { bos: false, eos: true })?,
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": false},
    });
    Ok(json.to_string().into_bytes())
}

/// The elements of an array of `u8` or `i8`.
fn bytes(array: &Array) -> Option<Vec<u8>> {
    let byte = |value| match value {
        MetadataValue::Unsigned(byte) => u8::try_from(byte).ok(),
        MetadataValue::Signed(byte) => i8::try_from(byte).ok().map(i8::cast_unsigned),
        _ => None,
    };
    array.scalars()?.map(byte).collect()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = (0..3).fold(0_u32, |group, i| group << 8 | three.get(i).copied().map_or(0, u32::from));
        for digit in 0..4 {
            let at = (group >> (18 - 6 * digit)) as usize & 63;
            out.push(if digit <= three.len() { char::from(DIGITS[at]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_agrees_with_the_rfc() {
        // Section 10 of the RFC, and all digits.
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (text, expected) in texts.iter().zip(expected) {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe, 0, 16, 131]), "+//+ABCD");
    }
}
