//! `llama`: SentencePiece's BPE, which merges the neighbours whose joint token has the highest score first. It becomes
//! ranked merges: every way to split a token in two, by the score of the token, as the transformers library converts
//! such vocabularies (`convert_slow_tokenizer.py`, `generate_merges`). `gemma4` is the same with its merges in the
//! file.

use serde_json::json;

use super::bpe;
use super::vocab::{AddedTokens, MODEL, SPACE, TOKENS, TokenKind, Vocab, invalid};
use crate::error::Result;
use crate::weights::Metadata;

/// Value of `tokenizer.ggml.model` for files that list the merges.
pub(super) const GEMMA4: &str = "gemma4";

/// Most of the sum of squared token lengths, in bytes: the cost of finding the merges. Large vocabularies have a
/// hundredth of it.
const MAX_WORK: u64 = 1 << 32;

pub(super) fn tokenizer_json(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Vec<u8>> {
    const SQUEEZE: &str = "tokenizer.ggml.remove_extra_whitespaces";
    if metadata.opt_bool(SQUEEZE)? == Some(true) {
        return Err(metadata.unsupported(SQUEEZE, "false"));
    }
    if metadata.opt_str(MODEL)? == Some(GEMMA4) {
        return file(metadata, vocab, bpe::merges(metadata, vocab)?, SpacePrefix::Without);
    }
    let scores = vocab.scores(metadata)?;
    let work: u64 = vocab.tokens.iter().map(|token| (token.len() as u64).pow(2)).sum();
    if work > MAX_WORK {
        return Err(invalid(metadata, TOKENS, "tokens of ordinary lengths"));
    }
    file(metadata, vocab, merges(vocab, &scores), SpacePrefix::With)
}

/// Whether texts are given a space in front.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SpacePrefix {
    With,
    Without,
}

/// `default`: where the file does not say.
fn file(
    metadata: &Metadata,
    vocab: &Vocab<'_>,
    merges: Vec<(&str, &str)>,
    default: SpacePrefix,
) -> Result<Vec<u8>> {
    let unknown = vocab.unknown(metadata)?;
    let prefix = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?;
    let prefix = prefix.unwrap_or(default == SpacePrefix::With);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut normalizers = vec![replace];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let head = json!({
        "added_tokens": vocab.added(Some(unknown)),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": vocab.post_processor(metadata, AddedTokens { bos: true, eos: false })?,
        "decoder": {"type": "Sequence", "decoders": decoders},
    });
    let model = json!({
        "unk_token": vocab.tokens[unknown as usize],
        "fuse_unk": true,
        "byte_fallback": vocab.kinds.contains(&TokenKind::Byte),
        "ignore_merges": false,
    });
    vocab.bpe_json(head, model, &merges)
}

/// The merges by rank.
fn merges<'a>(vocab: &Vocab<'a>, scores: &[f64]) -> Vec<(&'a str, &'a str)> {
    let text = |id: u32| {
        matches!(vocab.kinds[id as usize], TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused)
    };
    let part = |token: &str| vocab.ids.get(token).copied().filter(|&id| text(id));
    let mut merges = Vec::new();
    for (id, token) in vocab.tokens.iter().enumerate() {
        if !text(id as u32) {
            continue;
        }
        let start = merges.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let Some(ids) = part(left).zip(part(right)) {
                let lengths = (left.chars().count(), right.chars().count());
                merges.push((scores[id], lengths, ids, (left, right)));
            }
        }
        merges[start..].sort_by_key(|&(_, _, ids, _)| ids);
    }
    // Stable: equal scores stay in the order of ids.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    merges.into_iter().map(|(.., pair)| pair).collect()
}
