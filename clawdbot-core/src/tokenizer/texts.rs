//! The texts of all tokens in two orders: by id, and sorted, to find the tokens that begin with given bytes or contain them.

use memchr::memmem;

use super::Tokenizer;
use crate::error::{Error, Result};

/// The bytes that each token adds to a text. Tokens without a text, such as special ones, have none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenTexts {
    bytes: Vec<u8>,
    /// Where the text of each token ends in `bytes`.
    ends: Vec<u32>,
    /// The ids of tokens with a text, sorted by their texts.
    sorted: Vec<u32>,
}

impl TokenTexts {
    /// Those of `tokenizer`.
    ///
    /// # Errors
    /// `UnsupportedModel` if the text of a token depends on tokens after it; `InvalidTokenizer` if decoding fails.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let tokens = tokenizer.token_bytes()?.inner;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
        for token in &tokens {
            bytes.extend_from_slice(token.as_deref().unwrap_or_default());
            let end = u32::try_from(bytes.len());
            ends.push(
                end.map_err(|_| Error::invalid_tokenizer("expected less than 4 GiB of tokens, found more"))?,
            );
        }
        let text = |&id: &u32| tokens.get(id as usize).and_then(Option::as_deref).unwrap_or_default();
        let mut sorted: Vec<u32> =
            (0..).zip(&ends).map(|(id, _)| id).filter(|id| !text(id).is_empty()).collect();
        sorted.sort_unstable_by_key(|id| (text(id), *id));
        Ok(TokenTexts { bytes, ends, sorted })
    }

    /// Bytes of memory that it takes.
    pub(crate) fn size(&self) -> u64 {
        (self.bytes.capacity() + 4 * (self.ends.capacity() + self.sorted.capacity())) as u64
    }

    /// What token `id` adds to a text.
    pub(crate) fn of(&self, id: u32) -> &[u8] {
        let end =
            |index: Option<usize>| index.and_then(|index| self.ends.get(index)).map(|end| *end as usize);
        let index = id as usize;
        let (start, end) = (end(index.checked_sub(1)).unwrap_or(0), end(Some(index)).unwrap_or(0));
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The ids of tokens whose texts begin with `bytes`, sorted by text.
    pub(crate) fn beginning_with(&self, bytes: &[u8]) -> &[u32] {
        let from = self.sorted.partition_point(|&id| self.of(id) < bytes);
        let rest = self.sorted.get(from..).unwrap_or_default();
        let count = rest.partition_point(|&id| self.of(id).starts_with(bytes));
        rest.get(..count).unwrap_or_default()
    }

    /// The ids of tokens whose texts have all of `bytes`, at least one, in them, sorted.
    pub(crate) fn containing(&self, bytes: &[u8]) -> Vec<u32> {
        let finder = memmem::Finder::new(bytes);
        let (mut ids, mut from) = (Vec::new(), 0);
        while let Some(at) = self.bytes.get(from..).and_then(|rest| finder.find(rest)) {
            let start = from + at;
            let id = self.ends.partition_point(|&end| end as usize <= start);
            let end = self.ends.get(id).map_or(0, |end| *end as usize);
            if start + bytes.len() <= end {
                ids.push(id as u32);
                from = end;
            } else {
                from = start + 1;
            }
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_their_texts() {
        let model = crate::api::model::Model::builtin().unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let texts = TokenTexts::new(&tokenizer).unwrap();
        let ids = || 0..tokenizer.id_limit();
        for part in ["e", " th", "ere", "aa", "\n", "é", "nothing has this"] {
            let part = part.as_bytes();
            let mut beginning = texts.beginning_with(part).to_vec();
            beginning.sort_unstable();
            let expected: Vec<u32> = ids().filter(|&id| texts.of(id).starts_with(part)).collect();
            assert_eq!(beginning, expected);
            let inside = |id: &u32| texts.of(*id).windows(part.len()).any(|window| window == part);
            assert_eq!(texts.containing(part), ids().filter(inside).collect::<Vec<_>>());
        }
        assert!(texts.containing(b"e").len() > 50);
        assert!(texts.of(u32::MAX).is_empty() && texts.size() > 1000);
    }
}
