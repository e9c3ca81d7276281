//! Texts that the output never has in it, however they would be spelled with tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::tokenizer::TokenTexts;

/// Texts that are left out of the output. A token is forbidden if one of them would be in the output with it: it has all of the
/// text in its own, or begins with what is left of one that has begun.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadWords {
    words: Vec<Vec<u8>>,
    /// Tokens that have a whole one in their texts, sorted.
    whole: Vec<u32>,
    longest: usize,
    texts: Arc<TokenTexts>,
}

impl BadWords {
    /// `words`, none of them empty, for tokens with `texts`.
    pub(crate) fn new(words: &[String], texts: Arc<TokenTexts>) -> Self {
        let words: BTreeSet<&String> = words.iter().collect();
        let mut whole = Vec::new();
        for word in &words {
            // Merged one by one, so that no more is kept than there are tokens.
            whole.append(&mut texts.containing(word.as_bytes()));
            whole.sort_unstable();
            whole.dedup();
        }
        let longest = words.iter().map(|word| word.len()).max().unwrap_or(0);
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        BadWords { words, whole, longest, texts }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn size(&self) -> usize {
        self.words.iter().map(|word| word.capacity() + 24).sum::<usize>() + 4 * self.whole.capacity()
    }

    /// Calls `forbid` for each token that may not come after `output`.
    pub(super) fn forbid(&self, output: &[u32], mut forbid: impl FnMut(u32)) {
        self.whole.iter().copied().for_each(&mut forbid);
        let tail = self.tail(output);
        for word in &self.words {
            let begun = (1..word.len().min(tail.len() + 1)).filter(|&length| tail.ends_with(&word[..length]));
            for length in begun {
                self.texts.beginning_with(&word[length..]).iter().copied().for_each(&mut forbid);
            }
        }
    }

    /// The end of the output's text, as long as the beginning of a text can be.
    fn tail(&self, output: &[u32]) -> Vec<u8> {
        let most = self.longest.saturating_sub(1);
        let mut length = 0;
        let first = output.iter().rposition(|&id| {
            length += self.texts.of(id).len();
            length >= most
        });
        let tail = &output[first.unwrap_or(0)..];
        let bytes: Vec<u8> = tail.iter().flat_map(|&id| self.texts.of(id)).copied().collect();
        bytes[bytes.len().saturating_sub(most)..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::model::Model;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A token is forbidden if, and only if, a text would be in the output with it that is not in it yet.
        #[test]
        fn just_what_would_complete_one_is_forbidden(
            words in prop::collection::vec("[a-d e]{1,4}", 1..4),
            seeds in prop::collection::vec(any::<u32>(), 0..12),
        ) {
            let tokenizer = Model::builtin().unwrap().tokenizer().unwrap();
            let texts = Arc::new(TokenTexts::new(&tokenizer).unwrap());
            let bad = BadWords::new(&words, Arc::clone(&texts));
            let mut output: Vec<u32> = Vec::new();
            let text = |tokens: &[u32]| tokens.iter().flat_map(|&id| texts.of(id)).copied().collect::<Vec<u8>>();
            let has = |bytes: &[u8]| words.iter().any(|word| bytes.windows(word.len()).any(|part| part == word.as_bytes()));
            let short: Vec<u32> = (0..tokenizer.id_limit()).filter(|&id| (1..3).contains(&texts.of(id).len())).collect();
            for seed in seeds {
                let mut forbidden = vec![false; tokenizer.id_limit() as usize];
                bad.forbid(&output, |id| forbidden[id as usize] = true);
                let before = text(&output);
                for id in 0..tokenizer.id_limit() {
                    let after = [&before[..], texts.of(id)].concat();
                    prop_assert_eq!(forbidden[id as usize], has(&after), "{:?} {:?}", output, id);
                }
                let allowed: Vec<u32> = short.iter().copied().filter(|&id| !forbidden[id as usize]).collect();
                output.push(allowed[seed as usize % allowed.len()]);
            }
        }
    }
}
