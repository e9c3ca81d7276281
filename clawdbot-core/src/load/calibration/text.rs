//! The text that weights are calibrated on, or a model is evaluated on, as sequences of tokens.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::load::source::Opened;
use crate::load::text::no_tokenizer;
use crate::load::weights::Weights;
use crate::tokenizer::AddSpecialTokens;
use crate::weights::read_small_file;

/// Most tokens of a sequence.
const TOKENS: usize = 512;
/// The name of the text that is built in. A file of that name is `./builtin`.
pub(crate) const BUILTIN: &str = "builtin";
/// See `assets/calibration/README.md`.
const BUILTIN_TEXT: &[u8] = include_bytes!("../../../assets/calibration/text.txt");
/// Most bytes of a text.
const MAX_FILE: u64 = 64 << 20;

/// How much is taken of a text.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// The option that names the text
    pub(crate) option: &'static str,
    pub(crate) most: Most,
    /// Fewest tokens of a text
    pub(crate) least: usize,
}

/// How much at most.
#[derive(Clone, Copy)]
pub(crate) enum Most {
    /// Tokens, in sequences of [`TOKENS`] or of the whole context, if that is shorter
    Tokens(usize),
    Sequences(usize),
}

impl Wanted {
    /// For calibration.
    pub(crate) const CALIBRATION: Wanted =
        Wanted { option: "calibrate", most: Most::Tokens(128 * TOKENS), least: 4096 };
}

impl Most {
    /// Tokens without end that are enough.
    fn tokens(self) -> usize {
        match self {
            Most::Tokens(tokens) => tokens,
            Most::Sequences(sequences) => sequences.saturating_mul(TOKENS),
        }
    }

    /// Sequences of `length` tokens.
    fn sequences(self, length: usize) -> usize {
        match self {
            Most::Tokens(tokens) => tokens / length,
            Most::Sequences(sequences) => sequences,
        }
    }
}

/// Sequences of one length, one after another.
pub(crate) struct Text {
    pub(crate) tokens: Vec<u32>,
    /// Tokens of a sequence.
    pub(crate) length: usize,
}

impl Text {
    /// Sequences from all over a text of `tokens`; each begins with `first`, if it fits.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that is too short.
    fn of(opened: &Opened, tokens: &[u32], first: &[u32], wanted: Wanted) -> Result<Self> {
        let Wanted { option, most, least } = wanted;
        if tokens.len() < least {
            let used = match most {
                Most::Tokens(tokens) => format!("; {tokens} tokens are used of longer ones"),
                Most::Sequences(_) => String::new(),
            };
            let found = tokens.len();
            let message =
                format!("option {option}: expected a text of at least {least} tokens, found {found}{used}");
            return Err(Error::invalid_argument(message)
                .with("option", option)
                .with("expected", least)
                .with("found", found));
        }
        let length = TOKENS.min(opened.spec.max_position_embeddings).max(1);
        let first = if first.len() < length { first } else { &[] };
        let own = (length - first.len()).min(tokens.len());
        let length = own + first.len();
        let count = (tokens.len() / own).clamp(1, most.sequences(length).max(1));
        let apart = (tokens.len() - own) / count.max(2).saturating_sub(1).max(1);
        let starts = (0..count).map(|i| i * apart);
        let sequences = starts.flat_map(|start| first.iter().chain(&tokens[start..start + own]).copied());
        Ok(Text { tokens: sequences.collect(), length })
    }
}

/// The text in the file `path`, or [`BUILTIN`], in the model's tokens. For random weights in a known shape, which have no tokenizer, tokens
/// are arbitrary.
///
/// # Errors
/// `Io`, `NotFound`; `InvalidArgument` for a text that is too short, too long or not UTF-8; `InvalidTokenizer` for a model
/// without a tokenizer.
pub(crate) fn read(opened: &Opened, path: &Path, wanted: Wanted) -> Result<Text> {
    let option = wanted.option;
    let bytes = match path == Path::new(BUILTIN) {
        true => BUILTIN_TEXT.into(),
        false => read_small_file(path, MAX_FILE).map_err(|error| {
            let too_long = error.kind() == ErrorKind::InvalidModel;
            let error = if too_long { Error::invalid_argument(error.message()) } else { error };
            error.context(format_args!("option {option}")).with("option", option)
        })?,
    };
    let not_utf8 = |problem: String| {
        let message =
            format!("option {option}: {}: expected a text in UTF-8, found {problem}", path.display());
        Error::invalid_argument(message).with("option", option).with("path", path.display().to_string())
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| not_utf8(error.to_string()))?;
    if text.contains('\0') {
        return Err(not_utf8("zero bytes, as in UTF-16".to_owned()));
    }
    let vocab = opened.spec.vocab_size as u32;
    let Some(own) = &opened.text else {
        if !matches!(opened.weights, Weights::Random) {
            return Err(no_tokenizer());
        }
        let tokens: Vec<u32> =
            (0..wanted.most.tokens() as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect();
        return Text::of(opened, &tokens, &[], wanted);
    };
    let tokens = own.tokenizer.encode(text, AddSpecialTokens::No)?;
    // An encoder's texts end with a token too, but that is one in hundreds.
    let mut first = own.tokenizer.encode("", AddSpecialTokens::Yes)?;
    first.truncate(1);
    if let Some(token) = tokens.iter().chain(&first).find(|&&token| token >= vocab) {
        return Err(Error::invalid_tokenizer(format!("expected tokens below {vocab}, found {token}")));
    }
    Text::of(opened, &tokens, &first, wanted)
}
