//! Token ids to text, one at a time: each call returns the text that became complete.

use std::slice::SliceIndex;

use crate::error::{Error, Result};

use super::pipeline::work::Allowance;
use super::pipeline::{Decoder, DecoderStep as Step, MAX_STRIP};
use super::{SkipSpecialTokens, Tokenizer};

/// How a tokenizer's decoder can run on a stream so that the pieces add up to the text of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Tokens are bytes: only characters have to be put together.
    Bytes,
    /// A token's text depends on the tokens shortly before it. With `byte_fallback`, tokens `<0xNN>` are decoded as
    /// one run, which is valid UTF-8 or replaced as a whole.
    Window { byte_fallback: bool },
    /// A token's text may depend on later tokens: nothing is certain before the end.
    Whole,
}

impl Decoding {
    pub(super) fn of(decoder: Option<&Decoder>) -> Self {
        let Some(decoder) = decoder else { return Decoding::Window { byte_fallback: false } };
        let steps = decoder.steps();
        if matches!(steps, [Step::ByteLevel]) {
            return Decoding::Bytes;
        }
        let mut fused = false;
        for step in steps {
            let local = match step {
                Step::Fuse => {
                    fused = true;
                    true
                }
                Step::Replace { .. } | Step::ByteFallback | Step::Metaspace { .. } => !fused,
                Step::WordPiece { .. } => steps.len() == 1,
                // Stripping the end of each token is local; stripping the end of the text is not.
                Step::Strip { stop, .. } => fused && *stop == 0,
                Step::Bpe { .. } | Step::ByteLevel | Step::Ctc { .. } => false,
            };
            if !local {
                return Decoding::Whole;
            }
        }
        Decoding::Window { byte_fallback: steps.iter().any(|step| matches!(step, Step::ByteFallback)) }
    }
}

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

/// The byte that `token` stands for, written `<0xNN>`.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// Appends the bytes of a byte-level token: each character stands for one byte; if one does not, the token stands for
/// itself.
pub(super) fn push_token_bytes(out: &mut Vec<u8>, token: &str) {
    let start = out.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// The byte that GPT-2's byte-level alphabet writes as `c`: printable Latin-1 characters stand for themselves, the
/// others are numbered from U+0100 on. See <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The character for `byte` in the byte-level alphabet.
pub(super) fn char_of(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => return byte.into(),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
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
    fn the_byte_alphabet_covers_every_byte_once() {
        let mut bytes: Vec<u8> = (0..0x150).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert!((0..=255).all(|byte| byte_of(char_of(byte)) == Some(byte)));
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

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
