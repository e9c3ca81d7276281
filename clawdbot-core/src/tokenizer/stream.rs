//! Token ids to text, one at a time: each call returns the text that became complete.

use std::slice::SliceIndex;

use crate::error::{Error, Result};

use super::byte_tokens::{byte_token, push_token_bytes};
use super::decoding::Decoding;
use super::pipeline::MAX_STRIP;
use super::pipeline::work::Allowance;
use super::{SkipSpecialTokens, Tokenizer};

/// Decodes a stream of token ids. The pieces add up to [`Tokenizer::decode`] of all ids, and each ends at a character
/// boundary. The work for each token is constant.
///
/// Two kinds of decoders delay text. A run of byte tokens (`<0xNN>`) is valid UTF-8 or replaced as a whole, so its text
/// comes when the run ends. A decoder that changes text across tokens gives everything in `finish`.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    skip_special_tokens: SkipSpecialTokens,
    /// Bytes of an unfinished character (`Decoding::Bytes`).
    pub(super) bytes: Vec<u8>,
    /// Ids whose text is needed as context, then ids that are not decoded yet.
    pub(super) ids: Vec<u32>,
    /// Number of `ids` that are context.
    context: usize,
    /// Steps that the decoder's patterns may still take.
    allowance: Allowance,
}

impl StreamDecoder {
    /// A decoder at the beginning of a text.
    pub fn new(tokenizer: &Tokenizer, skip_special_tokens: SkipSpecialTokens) -> Self {
        let tokenizer = tokenizer.clone();
        StreamDecoder {
            tokenizer,
            skip_special_tokens,
            bytes: Vec::new(),
            ids: Vec::new(),
            context: 0,
            allowance: Allowance::default(),
        }
    }

    /// Whether text has come, after which a token keeps the space that it begins with.
    pub(crate) fn follows(&self) -> bool {
        self.context > 0 || self.tokenizer.inner.decoding == Decoding::Bytes
    }

    /// Adds the next id and returns the text that became complete, which may be empty.
    ///
    /// # Errors
    /// `InvalidArgument` if `id` is outside the vocabulary; the stream can continue.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.tokenizer.check(id)?;
        let Some(token) = self.tokenizer.shows(id, self.skip_special_tokens) else {
            return Ok(String::new());
        };
        match self.tokenizer.inner.decoding {
            Decoding::Bytes => {
                push_token_bytes(&mut self.bytes, &token);
                Ok(take_complete(&mut self.bytes))
            }
            Decoding::Whole => {
                self.ids.push(id);
                Ok(String::new())
            }
            Decoding::Window { byte_fallback } => {
                self.ids.push(id);
                if byte_fallback && byte_token(&token).is_some() {
                    Ok(String::new())
                } else {
                    self.decode_window()
                }
            }
        }
    }

    /// Ends the text. Returns what is left, with U+FFFD for incomplete characters.
    ///
    /// # Errors
    /// `InvalidTokenizer` if the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<String> {
        match self.tokenizer.inner.decoding {
            Decoding::Bytes => Ok(String::from_utf8_lossy(&self.bytes).into_owned()),
            _ => self.decode_window(),
        }
    }

    /// The text of the ids after the context. These ids become the new context.
    fn decode_window(&mut self) -> Result<String> {
        let before = self.decode(..self.context)?;
        let text = self.decode(..)?;
        let piece = text
            .strip_prefix(before.as_str())
            .ok_or_else(|| Error::internal("the decoder changed text that was already returned"))?
            .to_owned();
        // Ids that decode to nothing on their own (a space at the start) are no context.
        let alone = self.decode(self.context..)?;
        if !alone.is_empty() {
            self.ids.drain(..self.context);
        } else if self.context > 0 && piece.is_empty() && self.last_are_silent()? {
            self.ids.truncate(self.context);
        } else if let Some(first) = self.shortest_context()? {
            self.ids.drain(..first);
        }
        self.context = self.ids.len();
        Ok(piece)
    }

    /// The start of the last ids that have text on their own, if there are few: a decoder may strip some of a run of
    /// spaces.
    fn shortest_context(&mut self) -> Result<Option<usize>> {
        for first in (0..self.ids.len()).rev().take(MAX_STRIP + 1) {
            if !self.decode(first..)?.is_empty() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Whether the ids after the context have no text wherever they stand: there are more of them than can be stripped
    /// from the start of a text.
    fn last_are_silent(&mut self) -> Result<bool> {
        let many = self.ids[self.context..].repeat(MAX_STRIP + 1);
        let skip = self.skip_special_tokens;
        Ok(self.tokenizer.decode_checked(&many, skip, None, &mut self.allowance)?.is_empty())
    }

    /// The text of some of the ids.
    fn decode(&mut self, range: impl SliceIndex<[u32], Output = [u32]>) -> Result<String> {
        let ids = &self.ids[range];
        self.tokenizer.decode_checked(ids, self.skip_special_tokens, None, &mut self.allowance)
    }
}

/// Takes all complete characters out of `bytes`; invalid bytes become U+FFFD.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut kept = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        let at_end = kept + chunk.valid().len() + invalid.len() == bytes.len();
        if at_end && is_unfinished(invalid) {
            kept += chunk.valid().len();
            break;
        }
        kept += chunk.valid().len() + invalid.len();
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    bytes.drain(..kept);
    text
}

/// Whether more bytes can complete `bytes` to a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unfinished_character_is_kept() {
        let mut bytes = "aé".as_bytes()[..2].to_vec();
        assert_eq!((take_complete(&mut bytes).as_str(), bytes.len()), ("a", 1));
        bytes.push(0xa9);
        assert_eq!((take_complete(&mut bytes).as_str(), bytes.len()), ("é", 0));
        bytes.extend([0xff, 0xe2, 0x82]);
        assert_eq!((take_complete(&mut bytes).as_str(), bytes.len()), ("\u{fffd}", 2));
        bytes.push(b'x');
        assert_eq!((take_complete(&mut bytes).as_str(), bytes.len()), ("\u{fffd}x", 0));
    }
}
