//! How good a model is with a weight type: perplexity on a text, and how far it is from a reference.
//!
//! The text goes through both models layer by layer, so that one layer of one of them is in memory at a time
//! ([`Stream`]). After each layer, the residual streams are compared; in the end the logits, some rows at a time
//! ([`scores`](scores::scores)). Every sum has one order: results are the same bits for any number of threads.

mod reference;
mod report;
mod room;
mod scores;
mod stored;
mod stream;
mod unpacked;

pub use report::{Evaluation, LayerError, Reference};

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use self::reference::Other;
use self::scores::Scored;
use self::stream::{Reporter, Stream, Wished};
use crate::cancel::{Progress, Stage};
use crate::error::{Error, Result};
use crate::forward::scratch::Scratch;
use crate::load::calibration::{self, BUILTIN, Most, Text, Wanted};
use crate::load::source::{Opened, Source};
use crate::load::weights::Weights;
use crate::options::{EvaluateOptions, ModelOptions};
use crate::runtime::Runtime;

impl Runtime {
    /// How good the model `source` is with a weight type: its perplexity on a text, and how far it is from a reference, which is
    /// the same model in f32 if `options` do not say otherwise. [`Evaluation::reference`] says what it was.
    ///
    /// One layer of each model is in memory at a time, and the residual streams of the whole text.
    ///
    /// # Errors
    /// As [`Runtime::load`] for both models; `InvalidArgument` for a text that is too short, too long or not UTF-8, and for a
    /// reference model with other tokens or sizes; `UnsupportedModel` for models without an output layer, and for those whose
    /// layers read more than the layer before them; `OutOfBudget` before weights are read; `NonFinite`.
    pub fn evaluate(&self, source: &Source, options: &EvaluateOptions) -> Result<Evaluation> {
        self.evaluate_with_progress(source, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Runtime::evaluate`], and calls `progress` with the weights that are done, of both models, all of them, and the stage,
    /// now and then; a break cancels.
    ///
    /// # Errors
    /// As [`Runtime::evaluate`]; `Cancelled`. An error of storing the report has it in its detail, as `report`.
    pub fn evaluate_with_progress(
        &self,
        source: &Source,
        options: &EvaluateOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Evaluation> {
        let mut found = None;
        let stored =
            self.evaluate_with_report(source, options, progress, |report| found = Some(report.clone()));
        match (stored, found) {
            (Ok(()), Some(found)) => Ok(found),
            (Ok(()), None) => Err(Error::internal("an evaluation without a report")),
            (Err(error), Some(found)) => Err(error.with("report", json!(found))),
            (Err(error), None) => Err(error),
        }
    }

    /// As [`Runtime::evaluate_with_progress`], and gives the report to `report` before it is stored, so that it is not lost should
    /// that fail.
    ///
    /// # Errors
    /// As [`Runtime::evaluate`]; `Cancelled`.
    pub fn evaluate_with_report(
        &self,
        source: &Source,
        options: &EvaluateOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
        report: impl FnOnce(&Evaluation),
    ) -> Result<()> {
        let start = Instant::now();
        self.pool().check_fork()?;
        options.validate()?;
        reference::check(options)?;
        let mut opened = Opened::open(source)?.merged(&options.merge_adapters)?;
        stored::check(&opened, source, options)?;
        reference::check_generates(&opened)?;
        let decided = opened.resolve(&ModelOptions::default().weights(options.weights).kv(options.kv))?;
        let path = options.text.as_deref().unwrap_or(Path::new(BUILTIN));
        let text = read(&opened, path, options)?;
        let other = Other::open(&opened, &text, options)?;
        let compared = other.as_ref().map(|other| (other.opened(&opened), other.wished()));

        let names = opened.spec.tensors();
        let other_names = compared.as_ref().map(|(opened, _)| opened.spec.tensors());
        let wished = Wished { weights: decided.weight_type(), kv: decided.kv_type() };
        let model = Stream::new(self, &opened, &names, &text, wished)?;
        let reference = match (&compared, &other_names) {
            (Some((opened, wished)), Some(names)) => Some(Stream::new(self, opened, names, &text, *wished)?),
            _ => None,
        };
        let mut progress = progress;
        let mut pair = Pair { runtime: self, model, reference };
        let (layers, scored) = pair.evaluate(&text, &mut |now| progress(now).is_continue())?;
        let found = Evaluation {
            model: opened.name.clone(),
            weights: wished.weights.name(),
            kv: wished.kv.name(),
            text: match opened.weights.base() {
                Weights::Random => "arbitrary tokens".to_owned(),
                _ => path.display().to_string(),
            },
            sequences: text.tokens.len() / text.length,
            tokens: text.tokens.len(),
            predicted: scored.predicted,
            perplexity: scored.perplexity,
            reference: other.as_ref().map(|other| other.report(&opened, scored.reference_perplexity)),
            kl_divergence: scored.agreement.map(|agreement| agreement.divergence),
            kl_standard_error: scored.agreement.map(|agreement| agreement.standard_error),
            kl_p99: scored.agreement.map(|agreement| agreement.p99),
            top1_agreement: scored.agreement.map(|agreement| agreement.top1),
            layers,
            tokens_per_s: text.tokens.len() as f64 / pair.model.seconds.max(f64::MIN_POSITIVE),
            seconds: start.elapsed().as_secs_f64(),
            kernels: self.kernels(),
            threads: self.threads(),
        };
        report(&found);
        match stored::check(&opened, source, options)? {
            Some(stored) => stored.store(&found, &mut |now| progress(now).is_continue()),
            None => Ok(()),
        }
    }
}

/// The text's sequences.
///
/// # Errors
/// As [`calibration::read`]; `InvalidArgument` for a context in which nothing follows a token.
fn read(opened: &Opened, path: &Path, options: &EvaluateOptions) -> Result<Text> {
    let wanted = Wanted { option: "text", most: Most::Sequences(options.sequences as usize), least: 2 };
    let text = calibration::read(opened, path, wanted)?;
    match text.length {
        0 | 1 => Err(Error::invalid_argument(format!(
            "{}: expected a context of at least 2 tokens, found {}",
            opened.name, opened.spec.max_position_embeddings
        ))),
        _ => Ok(text),
    }
}

/// A model and what it is compared with.
struct Pair<'a> {
    runtime: &'a Runtime,
    model: Stream<'a>,
    reference: Option<Stream<'a>>,
}

impl Pair<'_> {
    /// Takes the text through both.
    ///
    /// # Errors
    /// As [`Runtime::evaluate_with_progress`].
    fn evaluate(
        &mut self,
        text: &Text,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Vec<LayerError>, Scored)> {
        let _reservation = room::reserve(self.runtime, &self.model, self.reference.as_ref())?;
        self.runtime.prove_kernels();
        let layers = self.model.layers();
        let total = self.streams().map(Stream::weights).sum();
        let stage = Some(Stage::EvaluatingLayer { layer: 1, layers });
        let mut reporter = Reporter { progress, now: Progress { done: 0, total, stage } };
        reporter.report(0)?;
        let mut scratch = Scratch::default();
        let mut errors = Vec::new();
        for stream in self.reference.iter_mut().chain([&mut self.model]) {
            stream.embed(&mut scratch, &mut reporter)?;
        }
        errors.extend(self.compare(0)?);
        for layer in 0..layers {
            reporter.now.stage = Some(Stage::EvaluatingLayer { layer: layer + 1, layers });
            for stream in self.reference.iter_mut().chain([&mut self.model]) {
                stream.layer(layer, &mut scratch, &mut reporter)?;
            }
            errors.extend(self.compare(layer + 1)?);
        }
        drop(scratch);
        reporter.now.stage = Some(Stage::EvaluatingOutput);
        let scored = scores::scores(text, &mut self.model, self.reference.as_ref(), &mut reporter)?;
        Ok((errors, scored))
    }

    fn streams(&self) -> impl Iterator<Item = &Stream<'_>> {
        self.reference.iter().chain([&self.model])
    }

    /// How far the residual streams are apart; none without a reference.
    fn compare(&self, layer: usize) -> Result<Option<LayerError>> {
        let Some(reference) = &self.reference else { return Ok(None) };
        let width = self.model.width();
        LayerError::between(self.runtime, layer, reference.hidden(), self.model.hidden(), width).map(Some)
    }
}
