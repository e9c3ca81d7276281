//! Masks: tokens that may not be sampled next.

use crate::options::Resolved;
use crate::tokenizer::Tokenizer;

/// The ids that have a token. Models pad their embedding, and rows of padding have no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drawable {
    /// Ids from here on are padding.
    end: usize,
    /// Ids below `end` without a token; few.
    holes: Vec<u32>,
}

impl Drawable {
    /// All ids of a model without a tokenizer.
    pub(crate) fn all(vocab_size: usize) -> Self {
        Drawable { end: vocab_size, holes: Vec::new() }
    }

    /// The ids among `vocab_size` that `tokenizer` has.
    pub(crate) fn of(tokenizer: &Tokenizer, vocab_size: usize) -> Self {
        let has = |id: usize| u32::try_from(id).is_ok_and(|id| tokenizer.id_to_token(id).is_some());
        let limit = vocab_size.min(tokenizer.id_limit() as usize);
        let end = (0..limit).rev().find(|&id| has(id)).map_or(0, |last| last + 1);
        if end == 0 {
            // A tokenizer without tokens says nothing about the model.
            return Self::all(vocab_size);
        }
        let full = tokenizer.vocab_size() == tokenizer.id_limit() as usize;
        let holes =
            if full { Vec::new() } else { (0..end).filter(|&id| !has(id)).map(|id| id as u32).collect() };
        Drawable { end, holes }
    }

    /// The logits of ids that may have a token.
    pub(super) fn of_tokens<'a>(&self, logits: &'a mut [f32]) -> &'a mut [f32] {
        let end = self.end.min(logits.len());
        &mut logits[..end]
    }

    /// Whether `id` has a token.
    pub(crate) fn has(&self, id: u32) -> bool {
        (id as usize) < self.end && self.holes.binary_search(&id).is_err()
    }
}

/// Sets the logits of masked tokens to minus infinity, as the logits processors of transformers do. `allowed`: what a constraint
/// allows, as bits; where that is nothing but the end, a minimum of tokens gives way.
pub(super) fn mask(
    logits: &mut [f32],
    drawable: &Drawable,
    options: &Resolved,
    history: &History<'_>,
    allowed: Option<&[u32]>,
) {
    let mut forbid = |id: u32| {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    };
    drawable.holes.iter().copied().for_each(&mut forbid);
    if let Some(allowed) = &options.allowed_token_ids {
        forbid_others(logits, allowed);
    }
    let mut forbid = |id: u32| {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    };
    options.suppress_tokens.iter().copied().for_each(&mut forbid);
    if history.output.is_empty() {
        options.begin_suppress_tokens.iter().copied().for_each(&mut forbid);
    }
    let must_end = || allowed.is_some_and(|bits| only_of(bits, &options.stop_token_ids));
    if history.output.len() < options.min_tokens as usize && !must_end() {
        options.stop_token_ids.iter().copied().for_each(&mut forbid);
    }
    for sequence in &options.bad_words_ids {
        if let Some((last, before)) = sequence.split_last()
            && history.ends_with(before)
        {
            forbid(*last);
        }
    }
    if let Some(before) = (options.no_repeat_ngram_size as usize).checked_sub(1) {
        history.after_each_end(before).for_each(forbid);
    }
}

/// Whether all bits are those of `ids`.
fn only_of(bits: &[u32], ids: &[u32]) -> bool {
    let has = |&&id: &&u32| bits.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
    let mut found: Vec<&u32> = ids.iter().filter(has).collect();
    found.dedup();
    bits.iter().map(|word| word.count_ones() as usize).sum::<usize>() == found.len()
}

/// Masks all tokens but those whose bit is set: `id % 32` of word `id / 32`.
pub(super) fn keep(logits: &mut [f32], bits: &[u32]) {
    for (at, logits) in logits.chunks_mut(32).enumerate() {
        match bits.get(at).copied().unwrap_or(0) {
            u32::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            word => {
                let forbidden = |(bit, _): &(usize, &mut f32)| word >> bit & 1 == 0;
                logits
                    .iter_mut()
                    .enumerate()
                    .filter(forbidden)
                    .for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
    }
}

/// Masks all tokens but those of `allowed`, which is sorted.
fn forbid_others(logits: &mut [f32], allowed: &[u32]) {
    let mut rest = 0;
    for &id in allowed {
        let end = (id as usize).min(logits.len());
        logits[rest..end].fill(f32::NEG_INFINITY);
        rest = (end + 1).min(logits.len());
    }
    logits[rest..].fill(f32::NEG_INFINITY);
}

/// The tokens so far, which penalties and masks look at.
pub(crate) struct History<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) output: &'a [u32],
}

impl History<'_> {
    pub(super) fn len(&self) -> usize {
        self.prompt.len() + self.output.len()
    }

    /// The token at `index` of prompt and output.
    pub(super) fn at(&self, index: usize) -> u32 {
        match index.checked_sub(self.prompt.len()) {
            None => self.prompt[index],
            Some(index) => self.output[index],
        }
    }

    fn ends_with(&self, tokens: &[u32]) -> bool {
        self.len().checked_sub(tokens.len()).is_some_and(|start| {
            tokens.iter().enumerate().all(|(offset, &token)| self.at(start + offset) == token)
        })
    }

    /// The tokens that followed earlier occurrences of the last `count` tokens; with 0, all tokens.
    fn after_each_end(&self, count: usize) -> impl Iterator<Item = u32> {
        let end = self.len().saturating_sub(count);
        let matches =
            move |start: &usize| (0..count).all(|offset| self.at(start + offset) == self.at(end + offset));
        // With fewer than `count` tokens, `end` is 0.
        (0..end).filter(matches).map(move |start| self.at(start + count))
    }
}
