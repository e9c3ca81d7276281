//! How few tokens a text can have: what cannot fit into a context is refused before it is tokenized.

use super::read::{Covers, Encoder};

/// For tokenizers that pass over no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    /// Most bytes of a text that become one token.
    longest: usize,
    /// Whether added tokens may take white space around them.
    strips: bool,
}

impl Bound {
    /// `None` where text may be passed over, or any length of it become one token.
    pub(super) fn of(encoder: &Encoder) -> Option<Self> {
        let normalizer = encoder.get_normalizer();
        let pre_tokenizer = encoder.get_pre_tokenizer();
        let removed = normalizer.map_or(Some(1), |normalizer| normalizer.most_removed())?;
        if pre_tokenizer.is_some_and(|steps| !steps.keep_text()) {
            return None;
        }
        let longest = match encoder.get_model().covers {
            Covers::Unknown => return None,
            Covers::Text(bytes) => bytes,
            Covers::ByteLevel(bytes) => {
                let early = normalizer.is_some_and(|steps| steps.ends_byte_level());
                let late = pre_tokenizer.is_some_and(|steps| steps.end_byte_level());
                if !late && !(early && pre_tokenizer.is_none_or(|steps| steps.only_split())) {
                    return None;
                }
                bytes
            }
        };
        let added = encoder.get_added_vocabulary();
        let (mut longest, mut strips) = (longest, false);
        for (&id, token) in added.get_added_tokens_decoder() {
            let matched = added.simple_id_to_token(id).map_or(0, |text| text.len());
            longest = longest.max(matched).max(token.content.len());
            strips |= token.lstrip || token.rstrip;
        }
        Some(Bound { longest: longest.max(1).checked_mul(removed)?, strips })
    }

    /// Fewest tokens of `text`.
    pub(super) fn tokens(&self, text: &str) -> usize {
        // A short text is not worth counting.
        let len = match self.strips && text.len() > self.longest {
            true => text.chars().filter(|c| !c.is_whitespace()).map(char::len_utf8).sum(),
            false => text.len(),
        };
        len.div_ceil(self.longest)
    }
}
