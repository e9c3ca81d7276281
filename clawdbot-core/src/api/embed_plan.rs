//! What becomes of texts: their tokens, and the options of a call with what the model's files add.

use clawdbot_kernels::memory::AlignedBuf;

use super::embed_pass::Input;
use super::loaded::Loaded;
use super::model::Model;
use super::session::Prompt;
use crate::cancel::CancelHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::forward::cpu::Cpu;
use crate::forward::decoder::zeroed_rows;
use crate::forward::pooling::Pooler;
use crate::options::{EmbedOptions, Pooling};
use crate::runtime::Reservation;
use crate::tokenizer::{AddSpecialTokens, Encoded};

/// The options of a call with what the model's files add.
pub(super) struct EmbedPlan {
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
    pub(super) dimensions: usize,
    pub(super) prompt: String,
    /// Tokens of the prompt that are not pooled.
    pub(super) skip: usize,
    pub(super) most: usize,
    pub(super) truncate: bool,
    pub(super) add_special_tokens: bool,
}

impl EmbedPlan {
    pub(super) fn new(loaded: &Loaded, options: &EmbedOptions) -> Result<Self> {
        let config = &loaded.embedding;
        let pooling = options.pooling.or(config.pooling).ok_or_else(|| {
            let names = Pooling::ALL.map(Pooling::name).join(", ");
            option("pooling", format!("expected one of {names}, as the model's files do not say"))
        })?;
        let dimensions = loaded.dimensions(options)?;
        let name = options.prompt_name.as_ref().or(config.default_prompt_name.as_ref());
        let prompt = match (&options.prompt, name) {
            (Some(prompt), _) => prompt.clone(),
            (None, None) => String::new(),
            (None, Some(name)) => config.prompts.get(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = config.prompts.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                option("prompt_name", format!("expected a prompt of the model ({known}), found {name:?}"))
            })?,
        };
        let mut plan = EmbedPlan {
            pooling,
            normalize: options.normalize.unwrap_or(config.normalize),
            dimensions,
            prompt,
            skip: 0,
            most: config.most_tokens(loaded.max_context),
            truncate: options.truncate,
            add_special_tokens: options.add_special_tokens,
        };
        if !config.include_prompt && !plan.prompt.is_empty() {
            let tokenizer = &loaded.text()?.tokenizer;
            let tokens = plan.encode(loaded, &plan.prompt)?.tokens;
            // As in sentence-transformers: what closes a text comes after the whole of it.
            let closed = tokens.last().is_some_and(|&last| tokenizer.is_special(last));
            plan.skip = tokens.len() - usize::from(closed);
        }
        Ok(plan)
    }

    pub(super) fn input(&self, loaded: &Loaded, text: Prompt) -> Result<Input> {
        let (tokens, skip) = match text {
            Prompt::Tokens(tokens) => (tokens, 0),
            Prompt::Text(text) => (self.encode(loaded, &format!("{}{text}", self.prompt))?.tokens, self.skip),
        };
        if tokens.len() <= skip {
            let message = "expected a text with at least one token, found none";
            return Err(Error::new(ErrorKind::EmptyPrompt, message));
        }
        if tokens.len() > self.most {
            return Err(too_long(tokens.len(), self.most));
        }
        Ok(Input { tokens, types: Vec::new(), pooler: Pooler::new(self.pooling, skip) })
    }

    pub(super) fn encode(&self, loaded: &Loaded, text: &str) -> Result<Encoded> {
        let lowered;
        let text = if loaded.embedding.lowercase {
            lowered = text.to_lowercase();
            &lowered
        } else {
            text
        };
        loaded.encode_fitting(text, None, self.add_special_tokens.into(), self.most, self.truncate.into())
    }
}

fn option(name: &str, message: String) -> Error {
    Error::invalid_argument(format!("option {name}: {message}")).with("option", name)
}

pub(crate) fn too_long(found: usize, most: usize) -> Error {
    longer(&found.to_string(), found, most)
}

/// `written`: the length in words.
pub(super) fn longer(written: &str, found: usize, most: usize) -> Error {
    overflow(
        &format!("expected a text of at most {most} tokens, found {written}; `truncate` cuts it"),
        found,
        most,
    )
}

pub(crate) fn overflow(message: &str, found: usize, most: usize) -> Error {
    Error::new(ErrorKind::ContextOverflow, message).with("tokens", found).with("max_tokens", most)
}

impl Model {
    /// Elements of each vector that [`Model::embed`] gives with these options.
    ///
    /// # Errors
    /// `InvalidArgument` for more than the model gives; `Closed`.
    pub fn embedding_dimensions(&self, options: &EmbedOptions) -> Result<usize> {
        options.validate()?;
        self.loaded()?.dimensions(options)
    }
}

/// What becomes of texts with more tokens than are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Longer {
    Cut,
    Refused,
}

/// From the option `truncate`.
impl From<bool> for Longer {
    fn from(truncate: bool) -> Self {
        if truncate { Longer::Cut } else { Longer::Refused }
    }
}

impl Loaded {
    fn dimensions(&self, options: &EmbedOptions) -> Result<usize> {
        let full = self.decoder.spec.pooled_size();
        let dimensions = options.dimensions.map_or(full, |dimensions| dimensions as usize);
        if dimensions > full {
            let message = format!("expected at most the {full} that the model gives, found {dimensions}");
            return Err(option("dimensions", message));
        }
        Ok(dimensions)
    }

    /// The tokens of a text or a pair: at most `most` if longer texts are cut. Else all, but a text that cannot be that
    /// short is refused before it is tokenized.
    pub(crate) fn encode_fitting(
        &self,
        text: &str,
        pair: Option<&str>,
        add_special_tokens: AddSpecialTokens,
        most: usize,
        longer_texts: Longer,
    ) -> Result<Encoded> {
        let tokenizer = &self.text()?.tokenizer;
        let pair_text = pair.unwrap_or_default();
        let at_least = tokenizer.at_least(text).saturating_add(tokenizer.at_least(pair_text));
        if longer_texts == Longer::Refused && at_least > most {
            return Err(longer(&format!("at least {at_least}"), at_least, most).with("at_least", true));
        }
        let _memory = self.reserve_encoding(&[text, pair_text], &CancelHandle::default())?;
        let limit = if longer_texts == Longer::Cut { most } else { usize::MAX };
        tokenizer.encode_within(text, pair, add_special_tokens, limit)
    }

    /// Query and document as one, and the kinds of its tokens.
    pub(super) fn pair(
        &self,
        query: &str,
        document: &str,
        most: usize,
        longer_texts: Longer,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let Encoded { tokens, types } =
            self.encode_fitting(query, Some(document), AddSpecialTokens::Yes, most, longer_texts)?;
        if tokens.len() > most {
            return Err(too_long(tokens.len(), most));
        }
        let rows = self.decoder.spec.input.token_types.unwrap_or(0);
        // A model that does not tell texts apart ignores what the tokenizer says.
        if rows < 2 {
            return Ok((tokens, Vec::new()));
        }
        match types.iter().find(|&&kind| kind as usize >= rows) {
            None => Ok((tokens, types)),
            Some(kind) => Err(Error::invalid_tokenizer(format!(
                "expected token types below {rows}, as the model has them, found {kind}"
            ))),
        }
    }

    /// Takes out of the budget what the vectors of `count` texts need at most at a time.
    pub(super) fn reserve_vectors(&self, count: usize) -> Result<Reservation> {
        let spec = &self.decoder.spec;
        let width = spec.dense_head.iter().map(|dense| dense.outputs).fold(spec.hidden_size, usize::max);
        // The states and what is made of them; of a layer its input, output, and that normalized.
        let copies = if spec.dense_head.is_empty() { 2 } else { 3 };
        let size = width.checked_mul(4 * copies).and_then(|size| size.checked_mul(count));
        let bytes = size.map_or(u64::MAX, |size| size as u64);
        self.runtime.budget().reserve_growing(bytes, "the vectors of texts")
    }

    /// What becomes of pooled states.
    pub(super) fn finish(&self, states: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
        if self.decoder.dense_head.is_empty() {
            return Ok(states);
        }
        self.runtime.pool().region(|region| {
            let mut pooled = AlignedBuf::default();
            pooled.reserve(states.len())?;
            pooled[..states.len()].copy_from_slice(&states);
            drop(states);
            let ops = &Cpu { kernels: self.runtime.kernel_set(), region, adapters: None, watcher: None };
            let finished = self.decoder.finish_pooled(ops, pooled, rows)?;
            let width = self.decoder.dense_head.last().map_or(0, |dense| dense.linear.weight.n());
            let mut vectors = zeroed_rows(rows, width)?;
            vectors.copy_from_slice(&finished[..rows * width]);
            Ok(vectors)
        })?
    }
}
