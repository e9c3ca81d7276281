//! A lower bound on the number of tokens of a text: texts that cannot fit into a context are refused before tokenizing.

use tokenizers::AddedToken;

use super::pipeline;
use super::read::{Covers, Encoder};

/// How the bound is computed, for tokenizers that skip no text, or no word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// At least one token for every `longest` bytes, white space counted or not.
    Bytes { longest: usize, white_space: bool },
    /// At least one token for each of these words between white space.
    Words(pipeline::Words),
}

impl Bound {
    /// `None` if text may be skipped, or a text of any length may become one token.
    pub(super) fn of(encoder: &Encoder) -> Option<Self> {
        let normalizer = encoder.get_normalizer();
        let pre_tokenizer = encoder.get_pre_tokenizer();
        let added = encoder.get_added_vocabulary();
        let mut tokens = added.get_added_tokens_decoder().iter();
        let longest = match encoder.get_model().covers {
            Covers::Unknown => return None,
            Covers::Words => {
                let spaces = |(_, token): (&u32, &AddedToken)| token.content.contains(char::is_whitespace);
                let kept = normalizer.map_or(Some(pipeline::Words::WithOne), |steps| steps.kept_words())?;
                let words = pre_tokenizer.is_some_and(|steps| steps.split_words()) && !tokens.any(spaces);
                return words.then_some(Bound::Words(kept));
            }
            Covers::Text(bytes) => bytes,
            Covers::ByteLevel(bytes) => {
                let early = normalizer.is_some_and(|steps| steps.ends_byte_level());
                let late = pre_tokenizer.is_some_and(|steps| steps.end_byte_level());
                let unsplit = early && pre_tokenizer.is_none_or(|steps| steps.only_split());
                if !late && !unsplit {
                    return None;
                }
                bytes
            }
        };
        if pre_tokenizer.is_some_and(|steps| !steps.keep_text()) {
            return None;
        }
        let removed = normalizer.map_or(Some(1), |steps| steps.most_removed())?;
        let (mut longest, mut white_space) = (longest.max(1), true);
        for (&id, token) in tokens {
            let matched = added.simple_id_to_token(id).map_or(0, |text| text.len());
            longest = longest.max(matched).max(token.content.len());
            // Such tokens may include any white space around them.
            white_space &= !token.lstrip && !token.rstrip;
        }
        Some(Bound::Bytes { longest: longest.checked_mul(removed)?, white_space })
    }

    /// Fewest tokens of `text`.
    pub(super) fn tokens(&self, text: &str) -> usize {
        match *self {
            Bound::Bytes { longest, white_space: true } => text.len().div_ceil(longest),
            Bound::Bytes { longest, white_space: false } => {
                let chars = text.chars().filter(|c| !c.is_whitespace());
                chars.map(char::len_utf8).sum::<usize>().div_ceil(longest)
            }
            Bound::Words(pipeline::Words::WithOne) => {
                let word = |word: &&str| word.bytes().any(|byte| byte.is_ascii_alphanumeric());
                text.split_ascii_whitespace().filter(word).count()
            }
            Bound::Words(pipeline::Words::OfThem) => {
                // ASCII white space only: other white space may be replaced before it is split.
                let mut parted = true;
                let word = |word: &&str| {
                    let parted = std::mem::replace(
                        &mut parted,
                        word.bytes().last().is_some_and(|byte| byte.is_ascii()),
                    );
                    parted && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
                };
                text.split_ascii_whitespace().filter(word).count()
            }
        }
    }
}
