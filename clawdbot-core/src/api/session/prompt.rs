//! What is asked for: a prompt, and room for it in the context.

use crate::api::model::Loaded;
use crate::error::{Error, ErrorKind, Result};
use crate::options::GenerateOptions;

/// What to continue: text, or token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prompt {
    /// Text, to be tokenized.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Prompt::Text(text)
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl From<&[u32]> for Prompt {
    fn from(tokens: &[u32]) -> Self {
        Prompt::Tokens(tokens.to_vec())
    }
}

/// Refuses tokens that the model has no row for.
pub(super) fn check_vocabulary(loaded: &Loaded, tokens: &[u32]) -> Result<()> {
    let vocab = loaded.decoder.spec.vocab_size;
    let Some(bad) = tokens.iter().find(|&&token| token as usize >= vocab) else { return Ok(()) };
    let message = format!("expected token ids below the vocabulary size {vocab}, found {bad}");
    Err(Error::invalid_argument(message).with("token", *bad))
}

pub(super) fn no_beginning() -> Error {
    let missing = "the prompt is empty, and the model has no beginning-of-sequence token to start from";
    Error::new(ErrorKind::EmptyPrompt, missing)
}

/// How many tokens are to be generated, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    Tokens(usize),
    /// As many as there is room for.
    Open,
}

impl Wanted {
    pub(crate) fn of(options: &GenerateOptions) -> Self {
        options.max_tokens.map_or(Wanted::Open, |tokens| Wanted::Tokens(tokens as usize))
    }

    pub(super) fn at_least(self) -> usize {
        match self {
            Wanted::Nothing => 0,
            Wanted::Tokens(tokens) => tokens,
            Wanted::Open => 1,
        }
    }
}

pub(crate) fn overflow(length: usize, wanted: Wanted, context: usize) -> Error {
    overflow_of(&length.to_string(), length, wanted, context)
}

/// As [`overflow`], for a text that has at least `length` tokens with those before it.
pub(crate) fn overflow_at_least(length: usize, wanted: Wanted, context: usize) -> Error {
    overflow_of(&format!("at least {length}"), length, wanted, context).with("at_least", true)
}

/// `written`: the length in words.
fn overflow_of(written: &str, length: usize, wanted: Wanted, context: usize) -> Error {
    let asked = match wanted {
        Wanted::Nothing => format!("{written} tokens"),
        Wanted::Tokens(tokens) => format!("{written} tokens of prompt and {tokens} to generate"),
        Wanted::Open => format!("{written} tokens of prompt and at least 1 to generate"),
    };
    let message = format!("the context holds {context} tokens, but {asked} are asked for");
    let error = Error::new(ErrorKind::ContextOverflow, message)
        .with("prompt_tokens", length)
        .with("max_context", context);
    match wanted {
        Wanted::Tokens(tokens) => error.with("max_tokens", tokens),
        Wanted::Nothing | Wanted::Open => error,
    }
}
