//! `gpt2`: byte-level BPE. `tokenizer.ggml.pre` names how a text is split before: see `pre.rs`.

use serde_json::json;

use super::pre;
use super::vocab::{AddedTokens, Vocab, invalid};
use crate::error::Result;
use crate::weights::{Array, Metadata, quoted};

const MERGES: &str = "tokenizer.ggml.merges";

pub(super) fn tokenizer_json(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Vec<u8>> {
    let pre = pre::find(metadata)?;
    let pairs = merges(metadata, vocab)?;
    let normalizer = if pre.nfc { json!({"type": "NFC"}) } else { json!(null) };
    let head = json!({
        "added_tokens": vocab.added(None),
        "normalizer": normalizer,
        "pre_tokenizer": pre.json(),
        "post_processor": vocab.post_processor(metadata, AddedTokens { bos: pre.add_bos, eos: false })?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
    });
    let model = json!({"ignore_merges": pre.ignore_merges, "fuse_unk": false, "byte_fallback": false});
    vocab.bpe_json(head, model, &pairs)
}

/// The merges by rank.
pub(super) fn merges<'a>(metadata: &'a Metadata, vocab: &Vocab<'_>) -> Result<Vec<(&'a str, &'a str)>> {
    let merges = metadata.opt_array(MERGES)?.and_then(Array::strings);
    let merges = merges.ok_or_else(|| invalid(metadata, MERGES, "an array of strings"))?;
    let mut pairs = Vec::new();
    for merge in merges {
        // Spaces inside tokens are mapped to other characters, or are a token of their own: the first space after the
        // first character separates the two.
        let at = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(at, _)| at);
        let pair = at.map(|at| (&merge[..at], &merge[at + 1..]));
        let known = |(left, right): &(&str, &str)| {
            vocab.ids.contains_key(left) && vocab.ids.contains_key(right) && !right.is_empty()
        };
        let joined = |(left, right): &(&str, &str)| vocab.ids.contains_key([*left, right].concat().as_str());
        match pair.filter(|pair| known(pair) && joined(pair)) {
            Some(pair) => pairs.push(pair),
            None => {
                let expected = format!(
                    "two tokens with a space between them, which make a third, not {}",
                    quoted(merge)
                );
                return Err(invalid(metadata, MERGES, &expected));
            }
        }
    }
    Ok(pairs)
}
