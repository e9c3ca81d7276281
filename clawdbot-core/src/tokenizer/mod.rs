//! Text to token ids and back, chat templates, and streaming of text.

use std::collections::HashSet;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tokenizers::{Encoding, Model, PostProcessor, Token};

use crate::cancel::CancelHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::large_stack::on_large_stack;
use crate::weights::{MAGIC, open_regular, read_small_file};

use bound::Bound;
use decoding::Decoding;
use pipeline::Decoder;
use pipeline::work::Allowance;

mod bound;
mod byte_tokens;
mod chat;
mod containing;
mod decoding;
mod gguf;
mod lengths;
mod merges;
mod pipeline;
mod read;
mod settings;
mod special;
mod stop;
mod stream;
mod switches;
mod tables;
mod texts;
mod token_bytes;
mod words;

pub use chat::{ChatTemplate, ChatTemplates, LocalTime, render_chat_template};
pub(crate) use containing::Containing;
pub(crate) use gguf::{TokenizerFiles, tokenizer_files};
pub(crate) use settings::WITHOUT_EFFECT as SETTINGS_WITHOUT_EFFECT;
pub use special::SpecialTokens;
pub use stop::{StopMatcher, StopOutcome};
pub use stream::StreamDecoder;
pub use switches::{AddGenerationPrompt, AddSpecialTokens, SkipSpecialTokens};
pub(crate) use tables::NoTables;
pub(crate) use texts::TokenTexts;
pub(crate) use token_bytes::TokenBytes;

/// Most bytes of a `tokenizer.json`.
const MAX_FILE: u64 = 256 << 20;
/// Most bytes of memory that tokenizing takes for each byte of text. The most is for one long word of tokens of one byte:
/// 32 for each part and up to 48 for its possible merges, or 48 for each token, next to 18 for the normalized text; then
/// 64 for each token of the encoding next to 48. `tests/hostile.rs` measures it.
const ENCODING_BYTES: u64 = 160;

/// A tokenizer as described by a `tokenizer.json` file. Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    /// Ids below this can be decoded: the larger of the largest token id + 1 and the model's vocabulary size.
    accepted: u32,
}

struct Inner {
    encoder: read::Encoder,
    decoder: Option<Decoder>,
    /// Ids of the special tokens.
    special: HashSet<u32>,
    vocab_size: usize,
    id_limit: u32,
    decoding: Decoding,
    /// A lower bound on the tokens of a text.
    bound: Option<Bound>,
    /// Warnings about the file, for the log.
    notes: Vec<String>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.inner.vocab_size).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json` file, or the vocabulary in a GGUF file.
    ///
    /// # Errors
    /// `NotFound` or `Io` if the file cannot be read or is not a file, `InvalidModel` if it is too long; as
    /// [`from_bytes`](Self::from_bytes); `UnsupportedModel` for a GGUF file with an unknown kind of vocabulary or
    /// pre-tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if starts_with(path, MAGIC)? {
            return Self::from_gguf(path);
        }
        let bytes = read_small_file(path, MAX_FILE)?;
        Self::from_bytes(&bytes).map_err(|error| error.context(path.display()))
    }

    /// Reads the contents of a `tokenizer.json` file. Its truncation and padding are ignored: a prompt is never
    /// shortened or padded without being asked for.
    ///
    /// # Errors
    /// `InvalidTokenizer` if the contents are malformed, take too much memory, or would let text grow without bound;
    /// the message says what was expected.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read("tokenizer.json", || {
            let read = read::read(bytes, None).map_err(|error| error.to_string())?;
            Self::of(read)
        })
    }

    /// The tables of the tokenizer in `json`, the contents of a `tokenizer.json` that was read already: for
    /// [`from_tables`](Self::from_tables); or why there are none: it is too large for them, or made so that they would be
    /// slow. A tokenizer of them was opened to try.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub(crate) fn tables(json: &[u8]) -> Result<std::result::Result<Vec<u8>, NoTables>> {
        Self::read("tokenizer.json", || {
            let made = read::tables(json)?;
            if let Ok(blob) = &made {
                Self::of_tables(blob).map_err(|error| format!("tables: {error}"))?;
            }
            Ok(made.map(tables::Blob::into_bytes))
        })
    }

    /// The tokenizer whose tables are `bytes`. They were made of a `tokenizer.json` of `json_bytes` bytes, and give the
    /// same tokens and texts.
    ///
    /// # Errors
    /// `InvalidTokenizer` if the tables are malformed, or made of a file of another length; as
    /// [`from_bytes`](Self::from_bytes).
    pub(crate) fn from_tables(bytes: Vec<u8>, json_bytes: u64) -> Result<Self> {
        Self::read("tokenizer tables", || {
            let blob = tables::Blob::open(bytes)?;
            if blob.json_bytes != json_bytes {
                let found = blob.json_bytes;
                return Err(format!(
                    "expected those of a tokenizer.json of {json_bytes} bytes, found {found}"
                ));
            }
            Self::of_tables(&blob)
        })
    }

    fn of_tables(blob: &tables::Blob) -> std::result::Result<Self, String> {
        Self::of(read::read(blob.rest(), Some(blob)).map_err(|error| error.to_string())?)
    }

    /// The version of the tables in `bytes`, if this build does not know it.
    pub(crate) fn unknown_tables(bytes: &[u8]) -> Option<u32> {
        tables::version(bytes).filter(|&version| version != tables::VERSION)
    }

    /// What `read` reads of the part called `name`. It may recurse, and panic.
    fn read<T: Send>(name: &str, read: impl FnOnce() -> std::result::Result<T, String> + Send) -> Result<T> {
        let malformed = |reason| Error::invalid_tokenizer(format!("{name}: {reason}"));
        on_large_stack("clawdbot-tokenizer", panicked, || guarded(None, || read().map_err(malformed)))
    }

    /// The tokenizer that was read.
    fn of(read: read::Read) -> std::result::Result<Self, String> {
        let read::Read { encoder, decoder, largest_id, notes } = read;
        let added = encoder.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let vocab_size = encoder.get_vocab_size(true);
        let id_limit = largest_id.map_or(Some(0), |last| last.checked_add(1));
        let id_limit = id_limit.ok_or("expected token ids below 4294967295, found that id")?;
        // The tokens that are added around a text.
        if let Ok(around) = encoder.encode_fast("", true)
            && let Some(id) = around.get_ids().iter().find(|id| **id >= id_limit)
        {
            return Err(format!("post_processor: expected tokens of the vocabulary, found the id {id}"));
        }
        let decoding = Decoding::of(decoder.as_ref());
        let bound = Bound::of(&encoder);
        let inner = Inner { special, vocab_size, id_limit, decoding, bound, encoder, decoder, notes };
        Ok(Tokenizer { inner: Arc::new(inner), accepted: id_limit })
    }

    /// For a model with `rows` token ids: ids without a token, which pad the vocabulary, decode to nothing.
    #[must_use]
    pub(crate) fn padded_to(self, rows: usize) -> Self {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        Tokenizer { accepted: self.accepted.max(rows), ..self }
    }

    /// The token ids of `text`. Special tokens written in the text become their ids, as in the transformers library;
    /// `add_special_tokens` adds those that the tokenizer's template puts around a text.
    ///
    /// # Errors
    /// `InvalidTokenizer` when the tokenizer cannot process the text.
    pub fn encode(&self, text: &str, add_special_tokens: AddSpecialTokens) -> Result<Vec<u32>> {
        self.encode_until(text, add_special_tokens, &CancelHandle::default())
    }

    /// As [`encode`](Self::encode), but stops when `cancel` is cancelled: between steps, and between words.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); `Cancelled`.
    pub fn encode_until(
        &self,
        text: &str,
        add_special_tokens: AddSpecialTokens,
        cancel: &CancelHandle,
    ) -> Result<Vec<u32>> {
        guarded(Some(cancel), || {
            let encoder = &self.inner.encoder;
            let encoding = encoder.encode_fast(text, add_special_tokens.is_yes()).map_err(cannot_encode)?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    /// Warnings about the file.
    pub(crate) fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// A lower bound on the number of tokens of `text`, special tokens around it not counted. It is cheap: often far
    /// below the real number, and 0 for tokenizers that may skip text.
    pub(crate) fn at_least(&self, text: &str) -> usize {
        self.inner.bound.as_ref().map_or(0, |bound| bound.tokens(text))
    }

    /// About the most bytes of memory that tokenizing `text` takes.
    pub(crate) fn encoding_bytes(text: &str) -> u64 {
        (text.len() as u64).saturating_mul(ENCODING_BYTES)
    }

    /// The tokens of `text`, or of a pair of texts, truncated at the end (of a pair, the longer one first) to at most
    /// `most` tokens, special tokens included.
    ///
    /// # Errors
    /// `InvalidTokenizer` if the tokenizer cannot process the text; `ContextOverflow` if there is no room for more than
    /// special tokens.
    pub(crate) fn encode_within(
        &self,
        text: &str,
        pair: Option<&str>,
        add_special_tokens: AddSpecialTokens,
        most: usize,
    ) -> Result<Encoded> {
        let add_special_tokens = add_special_tokens.is_yes();
        guarded(None, || {
            let encoder = &self.inner.encoder;
            let encode = |text: &str| encoder.encode_fast(text, false).map_err(cannot_encode);
            let (mut first, mut second) = (encode(text)?, pair.map(encode).transpose()?);
            if let Some(second) = &mut second {
                second.set_type_ids(vec![1; second.len()]);
            }
            let processor = encoder.get_post_processor().filter(|_| add_special_tokens);
            let special = processor.map_or(0, |processor| processor.added_tokens(pair.is_some()));
            let (a, b) = (first.len(), second.as_ref().map_or(0, Encoding::len));
            if special.saturating_add(a).saturating_add(b) > most {
                let room = most.checked_sub(special).filter(|&room| room > 0).ok_or_else(|| {
                    let message =
                        format!("expected room for more than {special} special tokens, found {most}");
                    Error::new(ErrorKind::ContextOverflow, message).with("max_tokens", most)
                })?;
                let (a, b) = cut(a, b, room);
                first = beginning(&first, a, 0);
                second = second.map(|second| beginning(&second, b, 1));
            }
            let encoding = encoder.post_process(first, second, add_special_tokens).map_err(cannot_encode)?;
            Ok(Encoded { tokens: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec() })
        })
    }

    /// The text of `ids`, without special tokens if `skip_special_tokens`. Bytes that are not UTF-8 become U+FFFD. Ids
    /// without a token decode to nothing if they are below the largest token id or below the model's vocabulary size.
    ///
    /// # Errors
    /// `InvalidArgument` for other ids.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: SkipSpecialTokens) -> Result<String> {
        self.decode_until(ids, skip_special_tokens, &CancelHandle::default())
    }

    /// As [`decode`](Self::decode), but stops when `cancel` is cancelled.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); `Cancelled`.
    pub fn decode_until(
        &self,
        ids: &[u32],
        skip_special_tokens: SkipSpecialTokens,
        cancel: &CancelHandle,
    ) -> Result<String> {
        ids.iter().try_for_each(|id| self.check(*id))?;
        self.decode_checked(ids, skip_special_tokens, Some(cancel), &mut Allowance::default())
    }

    fn decode_checked(
        &self,
        ids: &[u32],
        skip_special_tokens: SkipSpecialTokens,
        cancel: Option<&CancelHandle>,
        allowance: &mut Allowance,
    ) -> Result<String> {
        guarded_within(allowance, cancel, || {
            let mut tokens = Vec::new();
            for ids in ids.chunks(pipeline::AT_ONCE) {
                pipeline::work::check().map_err(cannot_decode)?;
                tokens.extend(ids.iter().filter_map(|id| self.shows(*id, skip_special_tokens)));
            }
            match &self.inner.decoder {
                _ if tokens.is_empty() => Ok(String::new()),
                Some(decoder) => decoder.decode(tokens).map_err(cannot_decode),
                None => Ok(tokens.join(" ")),
            }
        })
    }

    /// The token that a decoder gets to see for `id`. As in the tokenizers crate, its text says whether it is special.
    fn shows(&self, id: u32, skip_special_tokens: SkipSpecialTokens) -> Option<String> {
        let added = self.inner.encoder.get_added_vocabulary();
        let token =
            added.simple_id_to_token(id).or_else(|| self.inner.encoder.get_model().id_to_token(id))?;
        let hidden = skip_special_tokens.is_yes() && added.is_special_token(&token);
        (!hidden).then_some(token)
    }

    /// Refuses an id that neither the tokenizer nor the model has. Other ids without a token decode to nothing, as in
    /// the transformers library: models pad their embedding.
    fn check(&self, id: u32) -> Result<()> {
        let limit = self.accepted;
        if id < limit {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "token id {id} is outside the vocabulary: ids are below {limit}"
        ))
        .with("token_id", id)
        .with("vocab_size", self.inner.vocab_size))
    }

    /// Number of tokens, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The largest token id + 1. Larger than [`vocab_size`](Self::vocab_size) if the vocabulary has gaps.
    pub fn id_limit(&self) -> u32 {
        self.inner.id_limit
    }

    /// The id of the token with the text `token`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.encoder.token_to_id(token)
    }

    /// The text of the token `id`, as in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.encoder.id_to_token(id)
    }

    /// Whether `id` is a special token (which `skip_special_tokens` leaves out).
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.contains(&id)
    }
}

/// The tokens of a text or of a pair of texts, for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) tokens: Vec<u32>,
    /// Token types: 0 for tokens of the first text, 1 for those of the second.
    pub(crate) types: Vec<u32>,
}

fn cannot_encode(error: tokenizers::Error) -> Error {
    Error::invalid_tokenizer(format!("cannot encode: {error}"))
}

fn cannot_decode(error: tokenizers::Error) -> Error {
    Error::invalid_tokenizer(format!("cannot decode: {error}"))
}

/// How many of `a` and `b` tokens to keep so that there are at most `most`. The longer text is cut first; if both are
/// too long, the second keeps one more.
fn cut(a: usize, b: usize, most: usize) -> (usize, usize) {
    let short = a.min(b);
    let (less, more) = match short.saturating_mul(2) <= most {
        true => (short, most - short),
        false => (most / 2, most - most / 2),
    };
    if a <= b { (less, more.min(b)) } else { (more.min(a), less) }
}

/// The first `count` tokens.
fn beginning(encoding: &Encoding, count: usize, kind: u32) -> Encoding {
    let ids = encoding.get_ids().iter().take(count);
    Encoding::from_tokens(ids.map(|&id| Token::new(id, String::new(), (0, 0))).collect(), kind)
}

/// Whether the file at `path` begins with `magic`.
fn starts_with(path: &Path, magic: &[u8]) -> Result<bool> {
    let mut start = Vec::new();
    let read = open_regular(path)?.take(magic.len() as u64).read_to_end(&mut start);
    read.map_err(|error| Error::io(path, error))?;
    Ok(start == magic)
}

/// Runs `work` until it is cancelled. A panic of the tokenizers crate on a hostile file becomes an error.
fn guarded<T>(cancel: Option<&CancelHandle>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    guarded_within(&mut Allowance::default(), cancel, work)
}

fn guarded_within<T>(
    allowance: &mut Allowance,
    cancel: Option<&CancelHandle>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let run = || pipeline::work::run(cancel, allowance, work);
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Error {
    Error::invalid_tokenizer("the tokenizer panicked: its file is inconsistent")
}

#[cfg(test)]
mod tests;
