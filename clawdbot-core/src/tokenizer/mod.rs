//! Text to token ids and back, chat templates, and text that arrives token by token.

use std::collections::HashSet;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tokenizers::{PostProcessor, TruncationParams, truncate_encodings};

use crate::error::{Error, ErrorKind, Result};
use crate::weights::MAGIC;

mod charsmap;
mod chat;
mod gguf;
mod read;
mod special;
mod stop;
mod stream;

pub use chat::{ChatTemplate, ChatTemplates, LocalTime, render_chat_template};
pub(crate) use gguf::{TokenizerFiles, tokenizer_files};
pub use special::SpecialTokens;
pub use stop::{StopMatcher, StopOutcome};
pub use stream::StreamDecoder;

/// A tokenizer as described by a `tokenizer.json` file. Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// Ids of the special tokens.
    special: HashSet<u32>,
    vocab_size: usize,
    id_limit: u32,
    decoding: stream::Decoding,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.0.vocab_size).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json` file, or the vocabulary in a GGUF file.
    ///
    /// # Errors
    /// `NotFound` or `Io` when the file cannot be read, else as [`from_bytes`](Self::from_bytes); `UnsupportedModel` for a
    /// GGUF vocabulary of a kind or with a pre-tokenizer that is not known.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if starts_with(path, MAGIC)? {
            return Self::from_gguf(path);
        }
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
        Self::from_bytes(&bytes).map_err(|error| error.context(path.display()))
    }

    /// Reads the contents of a `tokenizer.json` file. Truncation and padding that the file asks for are switched off:
    /// a prompt is never shortened or filled up behind the caller's back.
    ///
    /// # Errors
    /// `InvalidTokenizer` when the contents are malformed, with the parser's words.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let malformed =
            |reason: &dyn std::fmt::Display| Error::invalid_tokenizer(format!("tokenizer.json: {reason}"));
        guarded(|| {
            let (mut tokenizer, largest_id) = read::read(bytes).map_err(|error| malformed(&error))?;
            tokenizer.with_truncation(None).map_err(|error| malformed(&error))?;
            tokenizer.with_padding(None);
            let added = tokenizer.get_added_tokens_decoder();
            let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
            let vocab_size = tokenizer.get_vocab_size(true);
            let id_limit = largest_id.map_or(Some(0), |last| last.checked_add(1));
            let id_limit = id_limit.ok_or_else(|| malformed(&"a token has the id 4294967295"))?;
            let decoding = stream::Decoding::of(&tokenizer)?;
            Ok(Tokenizer(Arc::new(Inner { special, vocab_size, id_limit, decoding, tokenizer })))
        })
    }

    /// The token ids of `text`. Special tokens written out in the text become their ids, as in the transformers
    /// library; `add_special_tokens` adds those that the tokenizer's template puts around a text.
    ///
    /// # Errors
    /// `InvalidTokenizer` when the tokenizer cannot process the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        guarded(|| {
            let encoding = self.0.tokenizer.encode_fast(text, add_special_tokens);
            let encoding =
                encoding.map_err(|error| Error::invalid_tokenizer(format!("cannot encode: {error}")))?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    /// The tokens of `text`, or of a pair, cut at the end (of a pair first the longer one) so that they are at most `most`,
    /// special tokens included.
    ///
    /// # Errors
    /// `InvalidTokenizer` when the tokenizer cannot process the text; `ContextOverflow` when not even special tokens fit.
    pub(crate) fn encode_within(
        &self,
        text: &str,
        pair: Option<&str>,
        add_special_tokens: bool,
        most: usize,
    ) -> Result<Encoded> {
        let failed = |error: tokenizers::Error| Error::invalid_tokenizer(format!("cannot encode: {error}"));
        guarded(|| {
            let tokenizer = &self.0.tokenizer;
            let encode = |text: &str, special| tokenizer.encode_fast(text, special).map_err(failed);
            let mut encoding = match pair {
                None => encode(text, add_special_tokens)?,
                Some(pair) => tokenizer.encode_fast((text, pair), add_special_tokens).map_err(failed)?,
            };
            if encoding.len() > most {
                let processor = tokenizer.get_post_processor().filter(|_| add_special_tokens);
                let special = processor.map_or(0, |processor| processor.added_tokens(pair.is_some()));
                let room = most.checked_sub(special).filter(|&room| room > 0).ok_or_else(|| {
                    let message =
                        format!("expected room for more than {special} special tokens, found {most}");
                    Error::new(ErrorKind::ContextOverflow, message).with("max_tokens", most)
                })?;
                let params = TruncationParams { max_length: room, ..TruncationParams::default() };
                let pair = pair.map(|pair| encode(pair, false)).transpose()?;
                let (text, pair) = truncate_encodings(encode(text, false)?, pair, &params).map_err(failed)?;
                encoding = tokenizer.post_process(text, pair, add_special_tokens).map_err(failed)?;
            }
            Ok(Encoded { tokens: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec() })
        })
    }

    /// The text of `ids`, without special tokens if `skip_special_tokens`. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// `InvalidArgument` when an id is outside the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        ids.iter().try_for_each(|id| self.check(*id))?;
        self.decode_checked(ids, skip_special_tokens)
    }

    fn decode_checked(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        // Some decoders of the tokenizers crate cannot take an empty list.
        if !ids.iter().any(|id| self.shows(*id, skip_special_tokens).is_some()) {
            return Ok(String::new());
        }
        guarded(|| {
            let text = self.0.tokenizer.decode(ids, skip_special_tokens);
            text.map_err(|error| Error::invalid_tokenizer(format!("cannot decode: {error}")))
        })
    }

    /// The token that a decoder gets to see for `id`. As in the tokenizers crate, its text says whether it is special.
    fn shows(&self, id: u32, skip_special_tokens: bool) -> Option<String> {
        let token = self.id_to_token(id)?;
        let hidden = skip_special_tokens && self.0.tokenizer.get_added_vocabulary().is_special_token(&token);
        (!hidden).then_some(token)
    }

    /// Refuses an id that no token has. Ids below the limit that the vocabulary leaves out decode to nothing, as in
    /// the transformers library: models pad their embedding, and may sample such a row.
    fn check(&self, id: u32) -> Result<()> {
        if id < self.0.id_limit {
            return Ok(());
        }
        let limit = self.0.id_limit;
        Err(Error::invalid_argument(format!(
            "token id {id} is outside the vocabulary: ids are below {limit}"
        ))
        .with("token_id", id)
        .with("vocab_size", self.0.vocab_size))
    }

    /// Number of tokens, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab_size
    }

    /// The largest token id + 1. Larger than [`vocab_size`](Self::vocab_size) when the vocabulary has gaps.
    pub fn id_limit(&self) -> u32 {
        self.0.id_limit
    }

    /// The id of the token written `token`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(token)
    }

    /// The token with the id `id`, as the vocabulary writes it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.tokenizer.id_to_token(id)
    }

    /// Whether `id` is a special token (a marker that `skip_special_tokens` leaves out).
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }
}

/// What a model is given of a text or a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) tokens: Vec<u32>,
    /// Of each token: which text it belongs to.
    pub(crate) types: Vec<u32>,
}

/// Whether the file at `path` begins with `magic`.
fn starts_with(path: &Path, magic: &[u8]) -> Result<bool> {
    let mut start = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(magic.len() as u64).read_to_end(&mut start));
    read.map_err(|error| Error::io(path, &error))?;
    Ok(start == magic)
}

/// Runs `work`; a panic of the tokenizers crate on a hostile file becomes an error.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::invalid_tokenizer("the tokenizer panicked: its file is inconsistent")))
}

#[cfg(test)]
mod tests;
