//! Makes tables, when a model is packed.

use std::collections::HashMap;

use super::blob::{Blob, BlobWriter, Section};
use super::bpe::TableBpe;
use super::hash;
use super::settings::Settings;
use super::trie;
use super::unigram::TableUnigram;
use super::vocab::TableVocab;
use crate::weights::MAX_TABLES;

/// How many seeds are tried.
const SEEDS: u64 = 8;
/// Most bytes of the texts of all tokens.
const MAX_TEXTS: usize = MAX_TABLES / 4;

/// What tables are made of.
pub(in crate::tokenizer) struct Parts {
    /// Tokens and ids. Of pieces with scores, several may have the same text.
    pub(in crate::tokenizer) tokens: Vec<(String, u32)>,
    /// Of each id (Unigram).
    pub(in crate::tokenizer) scores: Option<Vec<f64>>,
    pub(in crate::tokenizer) merges: Vec<(String, String)>,
    /// What the second token of a merge begins with and loses.
    pub(in crate::tokenizer) prefix: String,
}

impl Parts {
    /// Texts and indices: of tokens with the same text, the last one's.
    fn indices(&self) -> (Vec<(&str, u32)>, HashMap<&str, usize>) {
        let mut tokens: Vec<(&str, u32)> =
            self.tokens.iter().map(|(text, id)| (text.as_str(), *id)).collect();
        tokens.sort_unstable_by_key(|&(_, id)| id);
        let indices = tokens.iter().enumerate().map(|(index, &(text, _))| (text, index)).collect();
        (tokens, indices)
    }

    /// Left, right and merged tokens by their indices, by rank; of merges of the same tokens the last one.
    fn merges(&self, indices: &HashMap<&str, usize>) -> Result<Vec<[u32; 3]>, String> {
        let index = |text: &str| {
            let index = indices.get(text).map(|&index| index as u32);
            index.ok_or_else(|| format!("Token `{text}` out of vocabulary"))
        };
        let mut last = HashMap::new();
        for (rank, (left, right)) in self.merges.iter().enumerate() {
            let rest = right.strip_prefix(&self.prefix).unwrap_or(right);
            let merged = index(&format!("{left}{rest}"))?;
            last.insert((index(left)?, index(right)?), (rank, merged));
        }
        let mut merges: Vec<_> = last.into_iter().collect();
        merges.sort_unstable_by_key(|&(_, (rank, _))| rank);
        Ok(merges.into_iter().map(|((left, right), (_, merged))| [left, right, merged]).collect())
    }
}

/// Why a tokenizer has no tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoTables(pub(crate) String);

/// The bytes of the tables of `parts`, or why there are none. `rest` is what else their file of `json_bytes` has.
///
/// # Errors
/// With what was expected and found.
pub(in crate::tokenizer) fn bytes(
    parts: &Parts,
    rest: Vec<u8>,
    json_bytes: u64,
) -> Result<Result<Vec<u8>, NoTables>, String> {
    let (tokens, indices) = parts.indices();
    let merges = parts.merges(&indices)?;
    let text_bytes: usize = tokens.iter().map(|(text, _)| text.len()).sum();
    for (what, most, found) in [
        ("tokens", hash::MAX_KEYS, tokens.len()),
        ("merges", hash::MAX_KEYS, merges.len()),
        ("bytes of tokens", MAX_TEXTS, text_bytes),
    ] {
        if found > most {
            return Ok(Err(too_many(what, most, found)));
        }
    }
    let slots = (0..SEEDS).find_map(|seed| {
        // In the same order each time.
        let texts = tokens.iter().enumerate().filter(|&(index, (text, _))| indices.get(text) == Some(&index));
        let texts: Vec<_> =
            texts.map(|(index, (text, _))| (hash::of_text(seed, text.as_bytes()), index)).collect();
        let pairs: Vec<_> = merges
            .iter()
            .zip(0..)
            .map(|(&[left, right, _], rank)| (hash::of_pair(seed, left, right), rank))
            .collect();
        Some((seed, hash::build(texts)?, hash::build(pairs)?))
    });
    let Some((seed, token_slots, merge_slots)) = slots else {
        return Ok(Err(NoTables("too many tokens or merges have the same hash".to_owned())));
    };
    let mut out = BlobWriter::new();
    out.set(Section::Rest, rest);
    out.set(Section::Texts, tokens.iter().flat_map(|(text, _)| text.bytes()).collect());
    let ends = tokens.iter().scan(0, |end, (text, _)| {
        *end += text.len();
        Some(*end as u32)
    });
    out.set_numbers(Section::Ends, ends);
    if tokens.iter().zip(0..).any(|(&(_, id), index)| id != index) {
        out.set_numbers(Section::Ids, tokens.iter().map(|&(_, id)| id));
    }
    out.set_numbers(Section::TokenSlots, token_slots);
    out.set_numbers(Section::Merges, merges.into_iter().flatten());
    out.set_numbers(Section::MergeSlots, merge_slots);
    if let Some(scores) = &parts.scores {
        out.set(Section::Scores, scores.iter().flat_map(|score| score.to_le_bytes()).collect());
        let mut pieces: Vec<_> = indices.iter().map(|(text, &index)| (text.as_bytes(), index)).collect();
        pieces.sort_unstable();
        trie::write(&pieces, &mut out);
    }
    let bytes = out.finish(json_bytes, seed);
    Ok(match bytes.len() <= MAX_TABLES {
        true => Ok(bytes),
        false => Err(too_many("bytes of tables", MAX_TABLES, bytes.len())),
    })
}

fn too_many(what: &str, most: usize, found: usize) -> NoTables {
    NoTables(format!("expected at most {most} {what}, found {found}"))
}

/// Checks that tokens, merges, scores and pieces are found in the tables as they are in `parts`.
///
/// # Errors
/// With the first difference.
pub(in crate::tokenizer) fn check(blob: &Blob, parts: &Parts) -> Result<(), String> {
    let vocab = TableVocab::open(blob)?;
    let (tokens, indices) = parts.indices();
    let merges = parts.merges(&indices)?;
    for (index, &(text, id)) in tokens.iter().enumerate() {
        let last = indices.get(text).copied();
        if vocab.text_of(id) != Some(text) || vocab.index(text) != last || vocab.id(index) != Some(id) {
            return Err(format!("token {id}, {text:.50?}, is not in its place"));
        }
    }
    let bpe = TableBpe::open(vocab, Settings::default())?;
    for (rank, &[left, right, merged]) in (0..).zip(&merges) {
        if bpe.rank(left, right) != Some((rank, merged)) {
            return Err(format!("merge {rank} is not in its place"));
        }
    }
    let Some(scores) = &parts.scores else { return Ok(()) };
    let unigram = TableUnigram::open(bpe.vocab, &Settings::default())?;
    for (index, &(text, id)) in tokens.iter().enumerate() {
        let score = scores.get(id as usize).map(|score| score.to_bits());
        // A piece without text is never looked for.
        let piece = indices.get(text).copied().filter(|_| !text.is_empty());
        if score != Some(unigram.score(index).to_bits()) || unigram.piece(text) != piece {
            return Err(format!("piece {id}, {text:.50?}, is not in its place"));
        }
    }
    Ok(())
}
