//! The text of each token as bytes, for constraints: what a token adds to a text.

use super::Tokenizer;
use super::byte_tokens::{byte_token, push_token_bytes};
use super::decoding::Decoding;
use super::pipeline::DecoderStep as Step;
use super::pipeline::work::Allowance;
use super::{cannot_decode, guarded_within};
use crate::error::{Error, ErrorKind, Result};

/// A token before the token that is asked about, so that this one is not the first of a text.
const BEFORE: &str = "a";

/// What tokens add to a text, by token id; `None` for tokens that no text has: special tokens and ids without a token.
pub(crate) struct TokenBytes {
    /// Bytes of a token that follows another.
    pub(crate) inner: Vec<Option<Vec<u8>>>,
    /// Bytes of a token at the beginning of a text, where decoders may drop a space; `None`: as `inner`.
    pub(crate) first: Option<Vec<Option<Vec<u8>>>>,
}

impl Tokenizer {
    /// The bytes of every token below the vocabulary's size.
    ///
    /// # Errors
    /// `UnsupportedModel` if the text of a token depends on tokens after it; `InvalidTokenizer` if decoding fails.
    pub(crate) fn token_bytes(&self) -> Result<TokenBytes> {
        if self.inner.decoding == Decoding::Whole {
            let message = "constraints and bad_words: expected a tokenizer whose tokens have a text of their own, found one whose \
                           decoder changes text across tokens";
            return Err(Error::new(ErrorKind::UnsupportedModel, message));
        }
        guarded_within(&mut Allowance::default(), None, || {
            let shown = |id| if self.is_special(id) { None } else { self.inner.encoder.id_to_token(id) };
            let tokens: Vec<Option<String>> = (0..self.accepted).map(shown).collect();
            let each = |first: bool| -> Result<Vec<Option<Vec<u8>>>> {
                let bytes =
                    |token: &Option<String>| token.as_deref().map(|token| self.bytes_of(token, first));
                tokens.iter().map(|token| bytes(token).transpose()).collect()
            };
            let inner = each(false)?;
            let first = match self.inner.decoding {
                Decoding::Bytes => None,
                _ => Some(each(true)?).filter(|first| *first != inner),
            };
            Ok(TokenBytes { inner, first })
        })
    }

    /// The bytes of `token`, as the `first` token of a text or as a later one.
    fn bytes_of(&self, token: &str, first: bool) -> Result<Vec<u8>> {
        if self.inner.decoding == Decoding::Bytes {
            let mut bytes = Vec::new();
            push_token_bytes(&mut bytes, token);
            return Ok(bytes);
        }
        let steps = self.inner.decoder.as_ref().map_or(&[][..], |decoder| decoder.steps());
        if steps.iter().any(|step| matches!(step, Step::ByteFallback))
            && let Some(byte) = byte_token(token)
        {
            let stripped = first && steps.iter().any(|step| strips(step, byte));
            return Ok(if stripped { Vec::new() } else { vec![byte] });
        }
        let decode = |tokens: Vec<String>| match &self.inner.decoder {
            Some(decoder) => decoder.decode(tokens).map_err(cannot_decode),
            None => Ok(tokens.join(" ")),
        };
        if first {
            return decode(vec![token.to_owned()]).map(String::into_bytes);
        }
        let text = decode(vec![BEFORE.to_owned(), token.to_owned()])?;
        let before = decode(vec![BEFORE.to_owned()])?;
        let rest = text.strip_prefix(before.as_str());
        rest.map(|rest| rest.as_bytes().to_vec())
            .ok_or_else(|| Error::invalid_tokenizer("the decoder changes a token by the one after it"))
    }
}

/// Whether the step drops the character `byte` at the start of a text.
fn strips(step: &Step, byte: u8) -> bool {
    matches!(step, Step::Strip { content, start, .. } if *start > 0 && u32::from(*content) == u32::from(byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tokenizer::AddSpecialTokens;

    /// A tokenizer of `vocab`, with `decoder`, whose `<s>` is special.
    fn tokenizer(vocab: &[&str], decoder: serde_json::Value) -> Tokenizer {
        let ids: serde_json::Map<String, serde_json::Value> =
            vocab.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        let special = json!({
            "id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true
        });
        let json = json!({
            "version": "1.0", "added_tokens": [special], "decoder": decoder,
            "model": {"type": "WordLevel", "vocab": ids, "unk_token": vocab[1]}
        });
        Tokenizer::from_bytes(json.to_string().as_bytes()).expect("well formed")
    }

    fn text(bytes: &Option<Vec<u8>>) -> Option<&str> {
        bytes.as_ref().map(|bytes| std::str::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn byte_level_tokens_are_their_bytes() {
        let tokenizer = tokenizer(
            &["<s>", "Ġa", "Ã", "日"],
            json!({"type": "ByteLevel", "add_prefix_space": false,
            "trim_offsets": true, "use_regex": true}),
        );
        let found = tokenizer.token_bytes().expect("supported");
        assert_eq!(found.inner[0], None);
        assert_eq!(found.inner[1].as_deref(), Some(&b" a"[..]));
        assert_eq!(found.inner[2].as_deref(), Some(&[0xc3][..]));
        // Not of the alphabet: as the decoder shows it.
        assert_eq!(text(&found.inner[3]), Some("日"));
        assert!(found.first.is_none());
    }

    #[test]
    fn the_first_token_of_sentencepiece_has_no_space() {
        let tokenizer = tokenizer(
            &["<s>", "▁a", "b", "<0xE3>", "▁▁"],
            json!({"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
        );
        let found = tokenizer.token_bytes().expect("supported");
        let inner: Vec<_> = found.inner.iter().map(|bytes| bytes.as_deref()).collect();
        assert_eq!(inner, [None, Some(&b" a"[..]), Some(b"b"), Some(&[0xe3]), Some(b"  ")]);
        let first = found.first.expect("differs");
        assert_eq!(
            first.iter().map(|bytes| bytes.as_deref()).collect::<Vec<_>>(),
            [None, Some(&b"a"[..]), Some(b"b"), Some(&[0xe3]), Some(b" ")]
        );
    }

    #[test]
    fn word_pieces_have_a_space_before_them() {
        let tokenizer =
            tokenizer(&["<s>", "a", "##b"], json!({"type": "WordPiece", "prefix": "##", "cleanup": false}));
        let found = tokenizer.token_bytes().expect("supported");
        assert_eq!((text(&found.inner[1]), text(&found.inner[2])), (Some(" a"), Some("b")));
        let first = found.first.expect("differs");
        assert_eq!((text(&first[1]), text(&first[2])), (Some("a"), Some("##b")));
    }

    #[test]
    fn text_that_later_tokens_change_is_refused() {
        let ctc = json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true});
        let error = tokenizer(&["<s>", "a"], ctc).token_bytes().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::UnsupportedModel);
    }

    #[test]
    fn bytes_of_an_encoding_are_the_text() {
        let Some(shared) = std::env::var_os("CLAWDBOT_SHARED") else { return };
        let folder = std::path::Path::new(&shared).join("conformance/tokenizers");
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let texts = [
            "{\"a\": [1, 2.5], \"日本\": \"Zoë 🦀\\n\"}",
            "two  spaces\n\n\tand a tab",
            "e\u{301}",
            "#x = 'y';",
        ];
        for entry in entries {
            let path = entry.expect("an entry").path().join("vocab.gguf");
            let tokenizer = Tokenizer::from_file(&path).expect("a tokenizer");
            let bytes = tokenizer.token_bytes().expect("supported");
            for text in texts {
                let ids = tokenizer.encode(text, AddSpecialTokens::No).expect("encodes");
                let mut found = Vec::new();
                for (at, &id) in ids.iter().enumerate() {
                    let table = bytes.first.as_ref().filter(|_| at == 0).unwrap_or(&bytes.inner);
                    found.extend_from_slice(table[id as usize].as_deref().expect("text"));
                }
                assert_eq!(String::from_utf8_lossy(&found), text, "{}", path.display());
            }
        }
    }
}
