//! How few tokens a text can have: what cannot fit into a context is refused before it is tokenized.

use tokenizers::AddedToken;

use super::pipeline;
use super::read::{Covers, Encoder};

/// For tokenizers that pass over no text, or over no word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// One for so many bytes, of white space or not.
    Bytes { longest: usize, white_space: bool },
    /// One for each of such words between white space.
    Words(pipeline::Words),
}

impl Bound {
    /// `None` where text may be passed over, or any length of it become one token.
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
            // Such tokens may take any white space around them.
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
                // White space may be taken for a part of what is before it and not of ASCII.
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
