//! Texts to vectors, and documents to scores.

use std::ops::ControlFlow;

use super::embed_pass::{Input, OnFault, Pass};
use super::embed_plan::{EmbedPlan, Longer};
use super::items::{Faults, Item};
use super::model::Model;
use super::rerank::DecoderReranker;
use super::session::Prompt;
use crate::cancel::{CancelHandle, Progress};
use crate::error::{Error, Result};
use crate::forward::decoder::zeroed_rows;
use crate::forward::pooling::{Pooler, normalize};
use crate::options::{EmbedOptions, Pooling, RerankOptions};

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

/// The vectors of texts, and the errors of those that failed: see [`Model::embed_each`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EmbedResults<E = Error> {
    /// The vectors; NaN for texts that failed.
    pub embeddings: Embeddings,
    /// The errors of texts that failed.
    pub faults: Faults<E>,
}

/// The scores of documents, and the errors of those that failed: see [`Model::rerank_each`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RerankResults<E = Error> {
    /// A score for each document, in their order; NaN for those that failed.
    pub scores: Vec<f32>,
    /// The errors of documents that failed.
    pub faults: Faults<E>,
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
        self.embed_with_progress(texts, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Model::embed`], and calls `progress` with the texts that are done, and all of them, now and then; a break cancels.
    ///
    /// # Errors
    /// As [`Model::embed`]; `Cancelled`.
    pub fn embed_with_progress(
        &self,
        texts: Vec<Prompt>,
        options: &EmbedOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Embeddings> {
        let (texts, cancel) = (texts.into_iter().map(Ok), CancelHandle::default());
        let found = self.embed_all::<Error>(texts, options, &cancel, progress, OnFault::Stop)?;
        found.faults.into_result().map(|()| found.embeddings)
    }

    /// As [`Model::embed_with_progress`], but a text that fails does not fail the others: its vector is NaN. A text that is an
    /// error already stays that error. `cancel` stops it within a layer of the model.
    ///
    /// # Errors
    /// As [`Model::embed_with_progress`], for what is wrong with all of them.
    pub fn embed_each<E: From<Error>>(
        &self,
        texts: impl ExactSizeIterator<Item = Result<Prompt, E>>,
        options: &EmbedOptions,
        cancel: &CancelHandle,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<EmbedResults<E>> {
        self.embed_all(texts, options, cancel, progress, OnFault::Continue)
    }

    fn embed_all<E: From<Error>>(
        &self,
        texts: impl ExactSizeIterator<Item = Result<Prompt, E>>,
        options: &EmbedOptions,
        cancel: &CancelHandle,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
        on_fault: OnFault,
    ) -> Result<EmbedResults<E>> {
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
        let mut pass =
            Pass { loaded: &loaded, item: Item::Text, on_fault, cancel, faults: Faults::default() };
        let states = pass.all(inputs, count, progress)?;
        if pass.is_over() {
            let embeddings = Embeddings { values: Vec::new(), dimensions, tokens };
            return Ok(EmbedResults { embeddings, faults: pass.faults });
        }
        let values = loaded.finish(states, count)?;
        let mut kept = zeroed_rows(count, dimensions)?;
        let rows = kept.chunks_exact_mut(dimensions).zip(values.chunks_exact(spec.pooled_size()));
        for (index, (out, row)) in rows.enumerate() {
            out.copy_from_slice(&row[..dimensions]);
            if plan.normalize {
                normalize(out);
            }
            pass.check(index, out);
        }
        let embeddings = Embeddings { values: kept, dimensions, tokens };
        Ok(EmbedResults { embeddings, faults: pass.faults })
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
        self.rerank_with_progress(query, documents, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Model::rerank`], and calls `progress` with the documents that are done, and all of them, now and then; a break
    /// cancels.
    ///
    /// # Errors
    /// As [`Model::rerank`]; `Cancelled`.
    pub fn rerank_with_progress(
        &self,
        query: &str,
        documents: &[impl AsRef<str>],
        options: &RerankOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<f32>> {
        let (documents, cancel) = (documents.iter().map(Ok), CancelHandle::default());
        let found =
            self.rerank_all::<_, Error>(query, documents, options, &cancel, progress, OnFault::Stop)?;
        found.faults.into_result().map(|()| found.scores)
    }

    /// As [`Model::rerank_with_progress`], but a document that fails does not fail the others: its score is NaN. A document
    /// that is an error already stays that error. `cancel` stops it within a layer of the model.
    ///
    /// # Errors
    /// As [`Model::rerank_with_progress`], for what is wrong with all of them.
    pub fn rerank_each<D: AsRef<str>, E: From<Error>>(
        &self,
        query: &str,
        documents: impl ExactSizeIterator<Item = Result<D, E>>,
        options: &RerankOptions,
        cancel: &CancelHandle,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<RerankResults<E>> {
        self.rerank_all(query, documents, options, cancel, progress, OnFault::Continue)
    }

    fn rerank_all<D: AsRef<str>, E: From<Error>>(
        &self,
        query: &str,
        documents: impl ExactSizeIterator<Item = Result<D, E>>,
        options: &RerankOptions,
        cancel: &CancelHandle,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
        on_fault: OnFault,
    ) -> Result<RerankResults<E>> {
        options.validate()?;
        let loaded = self.loaded()?;
        let decoder_reranker = match loaded.decoder.spec.scores {
            Some(_) if options.instruction.is_some() => {
                let message =
                    "option instruction: expected none, as the model is not told what a query asks for";
                return Err(Error::invalid_argument(message).with("option", "instruction"));
            }
            Some(_) => None,
            None => Some(DecoderReranker::new(&loaded, query, options)?),
        };
        let kind = loaded.decoder.spec.scores.unwrap_or(Pooling::Last);
        let (most, count) = (loaded.embedding.most_tokens(loaded.max_context), documents.len());
        // A query that is too long by itself is no document's fault.
        let alone = match &decoder_reranker {
            Some(decoder_reranker) => decoder_reranker.query_fits(&loaded, most, options.truncate.into()),
            None if options.truncate => Ok(()),
            None => loaded.pair(query, "", most, Longer::Refused).map(drop),
        };
        alone.map_err(|error| error.context("query"))?;
        let input = |document: &str| {
            let (tokens, types) = match &decoder_reranker {
                Some(decoder_reranker) => {
                    (decoder_reranker.tokens(&loaded, document, most, options.truncate.into())?, Vec::new())
                }
                None => loaded.pair(query, document, most, options.truncate.into())?,
            };
            Ok(Input { tokens, types, pooler: Pooler::new(kind, 0) })
        };
        let inputs = documents.map(|document| Ok(input(document?.as_ref())));
        let _reservation = loaded.reserve_vectors(count)?;
        let mut pass =
            Pass { loaded: &loaded, item: Item::Document, on_fault, cancel, faults: Faults::default() };
        let states = pass.all(inputs, count, progress)?;
        if pass.is_over() {
            return Ok(RerankResults { scores: Vec::new(), faults: pass.faults });
        }
        let mut scores = match &decoder_reranker {
            Some(decoder_reranker) => decoder_reranker.scores(&states),
            None => loaded.finish(states, count)?,
        };
        for (index, score) in scores.iter_mut().enumerate() {
            pass.check(index, std::slice::from_mut(score));
            if options.sigmoid.or(loaded.embedding.sigmoid).unwrap_or(true) {
                *score = (1.0 / (1.0 + libm::exp(-f64::from(*score)))) as f32;
            }
        }
        Ok(RerankResults { scores, faults: pass.faults })
    }
}
