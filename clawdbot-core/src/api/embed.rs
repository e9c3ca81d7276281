//! Texts to vectors, and documents to scores.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;

use super::judge::Judge;
use super::model::{Loaded, Model};
use super::session::{Prompt, Session, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::decoder::{Ops, floats};
use crate::forward::pooling::{Pooler, normalize};
use crate::options::{EmbedOptions, Pooling, RerankOptions};
use crate::runtime::Reservation;
use crate::spec::embedding::EmbeddingConfig;
use crate::tokenizer::Encoded;

/// Sequences that are under way, in units of those of a forward pass.
const PASSES_AHEAD: usize = 2;

/// Vectors of texts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Embeddings {
    /// `[texts, dimensions]`, row-major, in the order of the texts.
    pub values: Vec<f32>,
    /// Elements of a vector.
    pub dimensions: usize,
    /// Tokens of all texts, special ones and prompts included.
    pub tokens: usize,
}

impl Embeddings {
    /// The vector of each text.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions)
    }
}

/// What a model's files say about turning texts into vectors.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EmbeddingInfo {
    /// Elements of a vector.
    pub dimensions: usize,
    /// How states of tokens become one; `None`: the option must say.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
    /// Names of the prompts.
    pub prompts: Vec<String>,
    /// The prompt that is used when none is asked for.
    pub default_prompt_name: Option<String>,
    /// Most tokens of a text.
    pub max_tokens: usize,
}

impl EmbeddingInfo {
    pub(crate) fn new(config: &EmbeddingConfig, dimensions: usize, max_context: usize) -> Self {
        EmbeddingInfo {
            dimensions,
            pooling: config.pooling,
            normalize: config.normalize,
            prompts: config.prompts.keys().cloned().collect(),
            default_prompt_name: config.default_prompt_name.clone(),
            max_tokens: config.most_tokens(max_context),
        }
    }
}

/// Tokens whose states become one.
struct Input {
    tokens: Vec<u32>,
    /// Empty: 0 for all.
    types: Vec<u32>,
    pooler: Pooler,
}

/// What went wrong with some of several texts, with their places, ascending.
pub type Faults<E = Error> = Vec<(usize, E)>;

/// Says which of the texts that errors call `name` it is about.
fn at(name: &str, index: usize, error: Error) -> Error {
    error.context(format_args!("{name}[{index}]")).with("text", index)
}

impl Model {
    /// Turns texts into vectors, several in one forward pass. The vector of a text does not depend on the others.
    ///
    /// # Errors
    /// `EmptyPrompt` and `ContextOverflow` for texts without tokens or with too many, unless `truncate` is on;
    /// `InvalidArgument` for a pooling or prompt that neither the options nor the model give, or for a token outside of the
    /// vocabulary; `UnsupportedModel` for a model that gives scores; `NonFinite`, `OutOfBudget`, `Closed`, `ForkedRuntime`.
    /// Which text it is about stands in the message, and in the detail as `text`.
    pub fn embed(&self, texts: Vec<Prompt>, options: &EmbedOptions) -> Result<Embeddings> {
        self.embed_with_progress(texts, options, |_, _| true)
    }

    /// As [`Model::embed`], and calls `progress(texts done, texts in all)` now and then; false cancels.
    ///
    /// # Errors
    /// As [`Model::embed`]; `Cancelled`.
    pub fn embed_with_progress(
        &self,
        texts: Vec<Prompt>,
        options: &EmbedOptions,
        progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Embeddings> {
        let (found, faults) = self.embed_all::<Error>(texts.into_iter().map(Ok), options, progress, true)?;
        faults.into_iter().next().map_or(Ok(found), |(_, error)| Err(error))
    }

    /// As [`Model::embed_with_progress`], but a text that fails, or is an error already, fails alone: its vector is NaN, and
    /// its error comes with its place in `texts`; in their order.
    ///
    /// # Errors
    /// As [`Model::embed_with_progress`], for what is wrong with all of them.
    pub fn embed_each<E: From<Error>>(
        &self,
        texts: impl ExactSizeIterator<Item = Result<Prompt, E>>,
        options: &EmbedOptions,
        progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<(Embeddings, Faults<E>)> {
        self.embed_all(texts, options, progress, false)
    }

    /// `first`: whether the first error ends it.
    fn embed_all<E: From<Error>>(
        &self,
        texts: impl ExactSizeIterator<Item = Result<Prompt, E>>,
        options: &EmbedOptions,
        progress: impl FnMut(u64, u64) -> bool,
        first: bool,
    ) -> Result<(Embeddings, Faults<E>)> {
        options.validate()?;
        let loaded = self.loaded()?;
        let spec = &loaded.decoder.spec;
        if spec.scores.is_some() {
            let message = format!("{} gives scores of pairs, not vectors: use rerank", spec.architecture);
            return Err(Error::unsupported_model(message));
        }
        let plan = EmbedPlan::new(&loaded, options)?;
        let (mut tokens, count, dimensions) = (0, texts.len(), plan.dimensions);
        let inputs = texts.map(|text| {
            let input = plan.input(&loaded, text?);
            tokens += input.as_ref().map_or(0, |input| input.tokens.len());
            Ok(input)
        });
        let _reservation = loaded.reserve_vectors(count)?;
        let mut pass = Pass { loaded: &loaded, name: "texts", first, faults: BTreeMap::new() };
        let states = pass.all(inputs, count, progress)?;
        if pass.is_over() {
            return Ok((Embeddings { values: Vec::new(), dimensions, tokens }, pass.finish()));
        }
        let values = loaded.finish(states, count)?;
        let mut kept = floats(count, dimensions)?;
        let rows = kept.chunks_exact_mut(dimensions).zip(values.chunks_exact(spec.pooled_size()));
        for (index, (out, row)) in rows.enumerate() {
            out.copy_from_slice(&row[..dimensions]);
            if plan.normalize {
                normalize(out);
            }
            pass.check(index, out);
        }
        Ok((Embeddings { values: kept, dimensions, tokens }, pass.finish()))
    }

    /// Scores documents against a query: more is more relevant. One score for each, in their order.
    ///
    /// For models with a head for one score (`...ForSequenceClassification`) and for Qwen3-Reranker, which is asked and whose
    /// score is that of "yes" against "no".
    ///
    /// # Errors
    /// `UnsupportedModel` for a model that cannot; `ContextOverflow` for a query that is too long by itself and for a
    /// document that is too long with the query, unless `truncate` is on; else as [`Model::embed`].
    pub fn rerank(
        &self,
        query: &str,
        documents: &[impl AsRef<str>],
        options: &RerankOptions,
    ) -> Result<Vec<f32>> {
        self.rerank_with_progress(query, documents, options, |_, _| true)
    }

    /// As [`Model::rerank`], and calls `progress(documents done, documents in all)` now and then; false cancels.
    ///
    /// # Errors
    /// As [`Model::rerank`]; `Cancelled`.
    pub fn rerank_with_progress(
        &self,
        query: &str,
        documents: &[impl AsRef<str>],
        options: &RerankOptions,
        progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Vec<f32>> {
        let documents = documents.iter().map(Ok);
        let (scores, faults) = self.rerank_all::<_, Error>(query, documents, options, progress, true)?;
        faults.into_iter().next().map_or(Ok(scores), |(_, error)| Err(error))
    }

    /// As [`Model::rerank_with_progress`], but a document that fails, or is an error already, fails alone: its score is NaN,
    /// and its error comes with its place in `documents`; in their order.
    ///
    /// # Errors
    /// As [`Model::rerank_with_progress`], for what is wrong with all of them.
    pub fn rerank_each<D: AsRef<str>, E: From<Error>>(
        &self,
        query: &str,
        documents: impl ExactSizeIterator<Item = Result<D, E>>,
        options: &RerankOptions,
        progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<(Vec<f32>, Faults<E>)> {
        self.rerank_all(query, documents, options, progress, false)
    }

    /// `first`: whether the first error ends it.
    fn rerank_all<D: AsRef<str>, E: From<Error>>(
        &self,
        query: &str,
        documents: impl ExactSizeIterator<Item = Result<D, E>>,
        options: &RerankOptions,
        progress: impl FnMut(u64, u64) -> bool,
        first: bool,
    ) -> Result<(Vec<f32>, Faults<E>)> {
        options.validate()?;
        let loaded = self.loaded()?;
        let judge = match loaded.decoder.spec.scores {
            Some(_) if options.instruction.is_some() => {
                let message =
                    "option instruction: expected none, as the model is not told what a query asks for";
                return Err(Error::invalid_argument(message).with("option", "instruction"));
            }
            Some(_) => None,
            None => Some(Judge::new(&loaded, query, options)?),
        };
        let kind = loaded.decoder.spec.scores.unwrap_or(Pooling::Last);
        let (most, count) = (loaded.embedding.most_tokens(loaded.max_context), documents.len());
        // A query that is too long by itself is no document's fault.
        let alone = match &judge {
            Some(judge) => judge.query_fits(&loaded, most, options.truncate),
            None if options.truncate => Ok(()),
            None => loaded.pair(query, "", most, false).map(drop),
        };
        alone.map_err(|error| error.context("query"))?;
        let input = |document: &str| {
            let (tokens, types) = match &judge {
                Some(judge) => (judge.tokens(&loaded, document, most, options.truncate)?, Vec::new()),
                None => loaded.pair(query, document, most, options.truncate)?,
            };
            Ok(Input { tokens, types, pooler: Pooler::new(kind, 0) })
        };
        let inputs = documents.map(|document| Ok(input(document?.as_ref())));
        let _reservation = loaded.reserve_vectors(count)?;
        let mut pass = Pass { loaded: &loaded, name: "documents", first, faults: BTreeMap::new() };
        let states = pass.all(inputs, count, progress)?;
        if pass.is_over() {
            return Ok((Vec::new(), pass.finish()));
        }
        let mut scores = match &judge {
            Some(judge) => judge.scores(&states),
            None => loaded.finish(states, count)?,
        };
        for (index, score) in scores.iter_mut().enumerate() {
            pass.check(index, std::slice::from_mut(score));
            if options.sigmoid.or(loaded.embedding.sigmoid).unwrap_or(true) {
                *score = (1.0 / (1.0 + libm::exp(-f64::from(*score)))) as f32;
            }
        }
        Ok((scores, pass.finish()))
    }
}

/// The options of a call with what the model's files add.
struct EmbedPlan {
    pooling: Pooling,
    normalize: bool,
    dimensions: usize,
    prompt: String,
    /// Tokens of the prompt that are not pooled.
    skip: usize,
    most: usize,
    truncate: bool,
    add_special_tokens: bool,
}

impl EmbedPlan {
    fn new(loaded: &Loaded, options: &EmbedOptions) -> Result<Self> {
        let config = &loaded.embedding;
        let option = |name: &str, message: String| {
            Error::invalid_argument(format!("option {name}: {message}")).with("option", name)
        };
        let pooling = options.pooling.or(config.pooling).ok_or_else(|| {
            let names = Pooling::ALL.map(Pooling::name).join(", ");
            option("pooling", format!("expected one of {names}, as the model's files do not say"))
        })?;
        let full = loaded.decoder.spec.pooled_size();
        let dimensions = options.dimensions.map_or(full, |dimensions| dimensions as usize);
        if dimensions > full {
            let message = format!("expected at most the {full} that the model gives, found {dimensions}");
            return Err(option("dimensions", message));
        }
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
            // As in sentence-transformers: what closes a text comes behind the whole of it.
            let closed = tokens.last().is_some_and(|&last| tokenizer.is_special(last));
            plan.skip = tokens.len() - usize::from(closed);
        }
        Ok(plan)
    }

    fn input(&self, loaded: &Loaded, text: Prompt) -> Result<Input> {
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

    fn encode(&self, loaded: &Loaded, text: &str) -> Result<Encoded> {
        let lowered;
        let text = if loaded.embedding.lowercase {
            lowered = text.to_lowercase();
            &lowered
        } else {
            text
        };
        loaded.encode_fitting(text, None, self.add_special_tokens, self.most, self.truncate)
    }
}

pub(crate) fn too_long(found: usize, most: usize) -> Error {
    longer(&found.to_string(), found, most)
}

/// `written`: the length in words.
fn longer(written: &str, found: usize, most: usize) -> Error {
    overflow(
        &format!("expected a text of at most {most} tokens, found {written}; `truncate` cuts it"),
        found,
        most,
    )
}

pub(crate) fn overflow(message: &str, found: usize, most: usize) -> Error {
    Error::new(ErrorKind::ContextOverflow, message).with("tokens", found).with("max_tokens", most)
}

impl Loaded {
    /// The tokens of a text or a pair: at most `most` if `truncate`, else all, but a text that cannot be that short is
    /// refused before it is tokenized.
    pub(crate) fn encode_fitting(
        &self,
        text: &str,
        pair: Option<&str>,
        add_special_tokens: bool,
        most: usize,
        truncate: bool,
    ) -> Result<Encoded> {
        let tokenizer = &self.text()?.tokenizer;
        let pair_text = pair.unwrap_or_default();
        let at_least = tokenizer.at_least(text).saturating_add(tokenizer.at_least(pair_text));
        if !truncate && at_least > most {
            return Err(longer(&format!("at least {at_least}"), at_least, most).with("at_least", true));
        }
        let _memory = self.reserve_encoding(&[text, pair_text])?;
        let limit = if truncate { most } else { usize::MAX };
        tokenizer.encode_within(text, pair, add_special_tokens, limit)
    }

    /// Query and document as one, and the kinds of its tokens.
    fn pair(&self, query: &str, document: &str, most: usize, truncate: bool) -> Result<(Vec<u32>, Vec<u32>)> {
        let Encoded { tokens, types } = self.encode_fitting(query, Some(document), true, most, truncate)?;
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
    fn reserve_vectors(&self, count: usize) -> Result<Reservation> {
        let spec = &self.decoder.spec;
        let width = spec.chain.iter().map(|dense| dense.outputs).fold(spec.hidden_size, usize::max);
        // The states and what is made of them; of a layer its input, output, and that normalized.
        let copies = if spec.chain.is_empty() { 2 } else { 3 };
        let size = width.checked_mul(4 * copies).and_then(|size| size.checked_mul(count));
        let bytes = size.map_or(u64::MAX, |size| size as u64);
        self.runtime.budget().reserve_growing(bytes, "the vectors of texts")
    }

    /// What becomes of pooled states.
    fn finish(&self, states: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
        if self.decoder.chain.is_empty() {
            return Ok(states);
        }
        self.runtime.pool().region(|region| {
            let ops = Ops { kernels: self.runtime.kernel_set(), region, adapters: None };
            self.decoder.finish_pooled(&ops, states, rows)
        })?
    }
}

/// Texts on their way through the model, and what went wrong with some.
struct Pass<'a, E> {
    loaded: &'a Arc<Loaded>,
    /// What errors call the texts.
    name: &'static str,
    /// Whether the first error ends it.
    first: bool,
    faults: BTreeMap<usize, E>,
}

impl<E: From<Error>> Pass<'_, E> {
    /// The pooled state of each input, `[count, hidden_size]`; zeros for those that fail. Some are under way at a time, so
    /// that they share forward passes.
    fn all(
        &mut self,
        mut inputs: impl Iterator<Item = Result<Result<Input>, E>>,
        count: usize,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Vec<f32>> {
        let hidden = self.loaded.decoder.spec.hidden_size;
        let mut states = floats(count, hidden)?;
        let most = PASSES_AHEAD * self.loaded.options.max_batch as usize;
        let mut running: VecDeque<Option<Stream>> = VecDeque::new();
        let mut started = 0;
        for (done, out) in states.chunks_exact_mut(hidden).enumerate() {
            while running.len() < most
                && let Some(input) = inputs.next()
            {
                let begun = input.and_then(|input| self.begin(started, input));
                running.push_back(begun.map_err(|error| self.faults.insert(started, error)).ok());
                started += 1;
                if self.is_over() {
                    return Ok(states);
                }
            }
            let Some(next) = running.pop_front() else { break };
            if let Some(stream) = next {
                match stream.pooled() {
                    Ok(pooled) if pooled.len() == hidden => out.copy_from_slice(&pooled),
                    Ok(pooled) => {
                        return Err(Error::internal(format!(
                            "expected a state of {hidden}, found {}",
                            pooled.len()
                        )));
                    }
                    Err(error) => self.fail(done, error),
                }
            }
            if self.is_over() {
                return Ok(states);
            }
            if !progress(done as u64 + 1, count as u64) {
                return Err(Error::new(ErrorKind::Cancelled, "the work was cancelled"));
            }
        }
        Ok(states)
    }

    fn begin(&self, index: usize, input: Result<Input>) -> Result<Stream, E> {
        let begun = input.and_then(|Input { tokens, types, pooler }| {
            Session::once(Arc::clone(self.loaded))?.pool(tokens, types, pooler, None)
        });
        begun.map_err(|error| E::from(at(self.name, index, error)))
    }

    fn is_over(&self) -> bool {
        self.first && !self.faults.is_empty()
    }

    fn fail(&mut self, index: usize, error: Error) {
        self.faults.insert(index, E::from(at(self.name, index, error)));
    }

    /// What text `index` gives: NaN, if it failed or is not finite.
    fn check(&mut self, index: usize, values: &mut [f32]) {
        if !self.faults.contains_key(&index) && !values.iter().all(|x| x.is_finite()) {
            let message = "the model gave values that are not finite numbers";
            self.fail(index, Error::new(ErrorKind::NonFinite, message));
        }
        if self.faults.contains_key(&index) {
            values.fill(f32::NAN);
        }
    }

    fn finish(self) -> Faults<E> {
        self.faults.into_iter().collect()
    }
}
