//! Tokens that must come next, so that they need not be drawn.

use super::guard::guarded;
use super::matcher::Matcher;
use crate::error::Result;
use crate::tokenizer::AddSpecialTokens;

/// Bytes of the text so far that the tokenizer sees before the forced ones.
const CONTEXT: usize = 32;

impl Matcher {
    /// The tokens that must come next, written as the tokenizer writes them; may be empty. What could merge with the
    /// text after it is left out. Nothing changes: each is then [accepted](Matcher::accept).
    ///
    /// # Errors
    /// As [`mask`](Matcher::mask); `InvalidTokenizer` if encoding fails.
    pub fn forced(&mut self) -> Result<Vec<u32>> {
        let (parser, grammar, first) = self.parts();
        let vocabulary = grammar.vocabulary();
        if first && vocabulary.first_differs() {
            return Ok(Vec::new());
        }
        let (before, bytes) = guarded(|| {
            let before = parser.get_bytes().to_vec();
            let bytes = parser.force_bytes().to_vec();
            // Takes the forced bytes back.
            parser.rollback(0).map(|()| (before, bytes))
        })?
        .map_err(|error| crate::error::Error::internal(format!("constraint: {error}")))?;
        let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| !text.is_empty()) else {
            return Ok(Vec::new());
        };
        let context = tail(&before);
        let ids = vocabulary.tokenizer().encode(&format!("{context}{text}"), AddSpecialTokens::No)?;
        let length = |at: usize, id: u32| vocabulary.token(id, at == 0).len();
        let (mut at, mut start) = (0, None);
        for (index, &id) in ids.iter().enumerate() {
            if at == context.len() {
                start = Some(index);
            }
            at += length(index, id);
        }
        // A token that reaches from one to the other: the text before was written otherwise.
        let Some(start) = start.filter(|_| at == context.len() + text.len()) else { return Ok(Vec::new()) };
        let mut tokens = ids.get(start..).unwrap_or_default().to_vec();
        // The last tokens could have been longer ones, with what comes after them.
        let trie = vocabulary.trie();
        let (chopped, _) = guarded(|| {
            parser.force_bytes();
            let chopped = parser.with_recognizer(|recognizer| trie.chop_tokens(recognizer, &tokens));
            parser.rollback(0).map(|()| chopped)
        })?
        .map_err(|error| crate::error::Error::internal(format!("constraint: {error}")))?;
        tokens.truncate(tokens.len().saturating_sub(chopped));
        Ok(tokens)
    }
}

/// The last characters of `bytes`.
fn tail(bytes: &[u8]) -> &str {
    let mut start = bytes.len().saturating_sub(CONTEXT);
    while start < bytes.len() && std::str::from_utf8(&bytes[start..]).is_err() {
        start += 1;
    }
    std::str::from_utf8(&bytes[start..]).unwrap_or_default()
}
