//! Byte pair encoding with tables: as in the tokenizers crate, to the same tokens.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokenizers::Token;

use super::blob::{Numbers, Section};
use super::hash;
use super::settings::Settings;
use super::vocab::TableVocab;
use crate::tokenizer::words::Splittable;

/// A BPE model.
#[derive(Debug)]
pub(in crate::tokenizer) struct TableBpe {
    pub(super) vocab: TableVocab,
    /// Three numbers for each.
    merges: Numbers,
    slots: Numbers,
    settings: Settings,
}

/// A merge that is possible.
#[derive(Clone, Copy)]
struct Merge {
    rank: u32,
    /// Index of the merged token.
    token: u32,
}

/// A part of a word: a token, by its index.
#[derive(Clone, Copy)]
struct Part {
    token: u32,
    /// Bytes of the word; 0 once it is merged into the part before it.
    len: usize,
    /// Where the part before it is. The first part of a word is always at 0, and nothing is before it.
    before: usize,
    /// Where the part after it is; the number of parts if there is none.
    after: usize,
}

impl TableBpe {
    /// # Errors
    /// With what was expected and found.
    pub(super) fn open(vocab: TableVocab, settings: Settings) -> Result<Self, String> {
        let merges = vocab.indices(Section::Merges)?;
        let slots = vocab.blob().numbers(Section::MergeSlots)?;
        if !merges.len().is_multiple_of(3) {
            return Err(format!("merges: expected three tokens each, found {}", merges.len()));
        }
        hash::check(&slots).map_err(|error| format!("merges: {error}"))?;
        Ok(TableBpe { vocab, merges, slots, settings })
    }

    /// The left, right and merged token of the merge of rank `rank`, by their indices.
    #[inline]
    fn at(&self, rank: usize) -> Option<[u32; 3]> {
        let tokens = self.merges.all().get(3 * rank..)?.first_chunk::<3>()?;
        Some(tokens.map(u32::from_le_bytes))
    }

    /// What becomes of two tokens.
    #[inline]
    fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        let hash = hash::of_pair(self.vocab.blob().seed, left, right);
        let is_it = |rank: usize| self.at(rank).is_some_and(|[a, b, _]| (a, b) == (left, right));
        let rank = hash::find(&self.slots, hash, is_it)?;
        Some(Merge { rank: rank as u32, token: self.at(rank)?[2] })
    }

    /// The rank and merged token of two tokens, by their indices.
    pub(super) fn rank(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        self.merge(left, right).map(|merge| (merge.rank, merge.token))
    }

    fn unknown(&self, token: &str) -> tokenizers::Result<u32> {
        let index = self.vocab.index(token).map(|index| index as u32);
        index.ok_or_else(|| format!("Unk token `{token}` not found in the vocabulary").into())
    }

    /// The tokens of the characters of `word`.
    fn parts(&self, word: &str) -> tokenizers::Result<Vec<Part>> {
        let Settings { prefix, suffix, fuse_unk, byte_fallback, unk_token, .. } = &self.settings;
        let most = if *byte_fallback { word.len() } else { word.chars().count() };
        let mut parts = Vec::with_capacity(most);
        let mut add = |token: u32, len: usize| {
            let at = parts.len();
            parts.push(Part { token, len, before: at.saturating_sub(1), after: at + 1 });
        };
        // Unknown characters that are not added yet: token and bytes.
        let mut unknown: Option<(u32, usize)> = None;
        for (at, c) in word.char_indices() {
            let end = at + c.len_utf8();
            let mut text = Cow::Borrowed(&word[at..end]);
            let len = text.len();
            if at > 0
                && let Some(prefix) = prefix
            {
                text = format!("{prefix}{text}").into();
            }
            if end == word.len()
                && let Some(suffix) = suffix
            {
                text = format!("{text}{suffix}").into();
            }
            if let Some(token) = self.vocab.index(&text) {
                if let Some((token, len)) = unknown.take() {
                    add(token, len);
                }
                add(token as u32, len);
                continue;
            }
            if *byte_fallback {
                let bytes = text.bytes().map(|byte| self.vocab.index(&format!("<0x{byte:02X}>")));
                if let Some(bytes) = bytes.collect::<Option<Vec<usize>>>() {
                    bytes.into_iter().for_each(|token| add(token as u32, 1));
                    continue;
                }
            }
            if let Some(token) = unk_token {
                unknown = match unknown {
                    Some((token, before)) if *fuse_unk => Some((token, before + len)),
                    before => {
                        if let Some((token, len)) = before {
                            add(token, len);
                        }
                        Some((self.unknown(token)?, len))
                    }
                };
            }
        }
        if let Some((token, len)) = unknown {
            add(token, len);
        }
        Ok(parts)
    }

    /// Merges parts, those of the lowest rank first, then the first ones.
    fn merge_all(&self, parts: &mut [Part]) {
        let possible = |parts: &[Part], at: usize, after: usize| {
            let merge = self.merge(parts[at].token, parts[after].token)?;
            Some(Reverse((merge.rank, at, merge.token)))
        };
        let mut queue = BinaryHeap::with_capacity(parts.len());
        queue.extend((1..parts.len()).filter_map(|after| possible(parts, after - 1, after)));
        while let Some(Reverse((_, at, token))) = queue.pop() {
            let Part { len, after, before, .. } = parts[at];
            let Some(&right) = parts.get(after) else { continue };
            // Outdated entries.
            if len == 0 || self.merge(parts[at].token, right.token).is_none_or(|merge| merge.token != token) {
                continue;
            }
            parts[at] = Part { token, len: len + right.len, before, after: right.after };
            parts[after].len = 0;
            if let Some(next) = parts.get_mut(right.after) {
                next.before = at;
                queue.extend(possible(parts, at, right.after));
            }
            if at > 0 {
                queue.extend(possible(parts, before, at));
            }
        }
    }
}

impl Splittable for TableBpe {
    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        if word.is_empty() {
            return Ok(Vec::new());
        }
        if self.settings.ignore_merges
            && let Some(id) = self.vocab.id_of(word)
        {
            return Ok(vec![Token::new(id, String::new(), (0, word.len()))]);
        }
        let mut parts = self.parts(word)?;
        self.merge_all(&mut parts);
        let mut start = 0;
        let token = |part: &Part| {
            let offsets = (start, start + part.len);
            start = offsets.1;
            // Nobody reads the text of a token here.
            Some(Token::new(self.vocab.id(part.token as usize)?, String::new(), offsets))
        };
        // Growing by doubling would take more memory than the parts.
        let parts = || parts.iter().filter(|part| part.len > 0);
        let mut tokens = Vec::with_capacity(parts().count());
        tokens.extend(parts().filter_map(token));
        Ok(tokens)
    }

    fn has(&self, token: &str) -> bool {
        self.vocab.index(token).is_some()
    }

    fn ignores_merges(&self) -> bool {
        self.settings.ignore_merges
    }

    fn marks_words(&self) -> bool {
        let some = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        some(&self.settings.suffix) || some(&self.settings.prefix)
    }

    fn each_token(&self, each: &mut dyn FnMut(&str)) {
        self.vocab.each(each);
    }
}
