//! What is asked for: a prompt, and room for it in the context.

use std::sync::Arc;

use crate::api::loaded::Loaded;
use crate::api::mtp::check_mtp_loaded;
use crate::engine::JobText;
use crate::error::{Error, ErrorKind, Result};
use crate::load::text::no_tokenizer;
use crate::options::{GenerateOptions, ResolveContext, Resolved, Speculation};
use crate::output::{AUTO, NONE, Tools};

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
pub(crate) fn check_vocabulary(loaded: &Loaded, tokens: &[u32]) -> Result<()> {
    let vocab = loaded.decoder.spec.vocab_size;
    let Some(bad) = tokens.iter().find(|&&token| token as usize >= vocab) else { return Ok(()) };
    let message = format!("expected token ids below the vocabulary size {vocab}, found {bad}");
    Err(Error::invalid_argument(message).with("token", *bad))
}

/// The options in force for a request that begins with `length` tokens; `breakers`: those of DRY.
pub(crate) fn resolve(
    loaded: &Loaded,
    options: &GenerateOptions,
    length: usize,
    breakers: Arc<[u32]>,
) -> Result<Resolved> {
    let mut resolved = Resolved::new(
        options,
        &ResolveContext {
            defaults: &loaded.defaults,
            eos: &loaded.eos,
            vocab_size: loaded.decoder.spec.vocab_size,
            prompt: length,
            room: u32::try_from(loaded.max_context.saturating_sub(length)).unwrap_or(u32::MAX),
            speculation: loaded.options.speculation,
        },
    )?;
    resolved.dry_breakers = breakers;
    check_min_tokens(options, &resolved)?;
    check_draft_model(loaded, &resolved)?;
    check_mtp_loaded(resolved.speculation, loaded.mtp.is_some(), loaded.draft.is_some())?;
    Ok(resolved)
}

/// What makes text of the tokens that come after `prompt`; `None` for a model without a tokenizer, where no option needs one.
pub(crate) fn text_after(
    loaded: &Loaded,
    options: &GenerateOptions,
    resolved: &mut Resolved,
    prompt: &[u32],
    tools: Tools,
) -> Result<Option<JobText>> {
    match &loaded.text {
        Some(text) => Ok(Some(JobText::new(&text.tokenizer, resolved, prompt, tools)?)),
        // Stop texts cannot be seen without text.
        None if options.stop.as_ref().is_some_and(|stop| !stop.is_empty()) => Err(no_tokenizer()),
        None if [&options.tool_format, &options.reasoning_format]
            .iter()
            .any(|name| !matches!(name.as_str(), AUTO | NONE)) =>
        {
            Err(no_tokenizer())
        }
        None => {
            resolved.stop.clear();
            Ok(None)
        }
    }
}

/// Refuses a `min_tokens` that the request can never reach, be its `max_tokens` given or the model's. A minimum of the
/// model's own gives way to what is asked for.
fn check_min_tokens(options: &GenerateOptions, resolved: &Resolved) -> Result<()> {
    let Some(min) = options.min_tokens.filter(|&min| min > resolved.max_tokens) else { return Ok(()) };
    let source = if options.max_tokens.is_some() { "" } else { ", the model's default" };
    let expected = format!("at most max_tokens, {}{source}", resolved.max_tokens);
    let message = format!("option min_tokens: expected {expected}, found {min}");
    let error = Error::invalid_argument(message).with("option", "min_tokens");
    Err(error.with("expected", expected).with("found", min.to_string()))
}

/// Refuses drafts of a model that was not loaded.
fn check_draft_model(loaded: &Loaded, resolved: &Resolved) -> Result<()> {
    if resolved.speculation != Speculation::Draft || loaded.draft.is_some() {
        return Ok(());
    }
    let expected = "none or ngram, as the model was loaded without a draft_model";
    let error = Error::invalid_argument(format!("option speculation: expected {expected}, found draft"));
    Err(error.with("option", "speculation").with("expected", expected).with("found", "draft"))
}

/// The tokens that end a repetition for DRY, where it is asked for.
pub(crate) fn dry_breakers(loaded: &Loaded, options: &GenerateOptions) -> Result<Arc<[u32]>> {
    let asked = options.dry_multiplier.is_some_and(|multiplier| multiplier > 0.0);
    match (&loaded.text, &options.dry_sequence_breakers) {
        _ if !asked => Ok(Arc::default()),
        (Some(text), _) => text.containing.of(&text.tokenizer, &options.dry_breaker_texts()),
        (None, Some(texts)) if !texts.is_empty() => Err(no_tokenizer()),
        (None, _) => Ok(Arc::default()),
    }
}

pub(crate) fn no_beginning() -> Error {
    let missing = "the prompt is empty, and the model has no beginning-of-sequence token to start from";
    Error::new(ErrorKind::EmptyPrompt, missing)
}

/// How many tokens are to be generated, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    Tokens(usize),
    /// As many as there is room for, and at least this many.
    AtLeast(usize),
}

impl Wanted {
    pub(crate) fn of(options: &GenerateOptions) -> Self {
        match options.max_tokens {
            Some(tokens) => Wanted::Tokens(tokens as usize),
            None => Wanted::AtLeast(options.min_tokens.unwrap_or(1).max(1) as usize),
        }
    }

    pub(crate) fn at_least(self) -> usize {
        match self {
            Wanted::Nothing => 0,
            Wanted::Tokens(tokens) | Wanted::AtLeast(tokens) => tokens,
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
        Wanted::AtLeast(tokens) => format!("{written} tokens of prompt and at least {tokens} to generate"),
    };
    let message = format!("the context holds {context} tokens, but {asked} are asked for");
    let error = Error::new(ErrorKind::ContextOverflow, message)
        .with("prompt_tokens", length)
        .with("max_context", context);
    match wanted {
        Wanted::Tokens(tokens) => error.with("max_tokens", tokens),
        Wanted::Nothing | Wanted::AtLeast(_) => error,
    }
}
