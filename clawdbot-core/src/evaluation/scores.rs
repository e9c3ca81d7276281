//! Logits, some rows at a time, and what they say about the tokens that follow.

use std::ops::Range;
use std::time::Instant;

use super::stream::{Reporter, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::cpu::Cpu;
use crate::forward::head::Head;
use crate::forward::ops::Ops;
use crate::forward::scratch::{PassSize, Scratch};
use crate::load::build::OwnHead;
use crate::load::calibration::Text;

/// Logits of a model that are in memory at a time, if that is no less than [`LEAST_ROWS`].
const LOGITS: usize = 1 << 24;
const LEAST_ROWS: usize = 16;
const MOST_ROWS: usize = 512;
/// Rows of a task.
const TASK_ROWS: usize = 2;

/// Rows of logits that are in memory at a time.
pub(super) fn rows_at_once(vocab: usize, tokens: usize) -> usize {
    (LOGITS / vocab.max(1)).clamp(LEAST_ROWS, MOST_ROWS).min(tokens)
}

/// What all rows say.
pub(super) struct Scored {
    pub(super) predicted: usize,
    pub(super) perplexity: f64,
    /// Without a reference, the model's own
    pub(super) reference_perplexity: f64,
    /// None without a reference
    pub(super) agreement: Option<Agreement>,
}

/// How much the predictions of two models agree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreement {
    /// Mean of KL(reference || model), in nats
    pub(super) divergence: f64,
    pub(super) standard_error: f64,
    /// What 99 % of the divergences are at most
    pub(super) p99: f64,
    /// Share of tokens with the same most likely one
    pub(super) top1: f64,
}

/// What a row of logits says.
#[derive(Debug, Clone, Copy, Default)]
struct RowScore {
    /// `-ln p` of the token that follows
    surprise: f64,
    /// The same in the reference
    reference: f64,
    divergence: f64,
    same: bool,
}

/// Computes and compares the logits of all tokens that another one follows.
///
/// # Errors
/// As the weight files give them; `OutOfBudget`, `Cancelled`; `NonFinite` for logits that are not finite.
pub(super) fn scores(
    text: &Text,
    model: &mut Stream<'_>,
    reference: Option<&Stream<'_>>,
    reporter: &mut Reporter<'_>,
) -> Result<Scored> {
    let mut own = Output::new(model, reporter)?;
    let mut other = reference.map(|stream| Output::new(stream, reporter)).transpose()?;
    let (tokens, vocab, runtime) = (text.tokens.len(), model.spec().vocab_size, model.runtime);
    let left = reporter.now.total - reporter.now.done;
    let at_once = rows_at_once(vocab, tokens);
    let mut rows = vec![RowScore::default(); at_once];
    let mut sums = Sums::default();
    for start in (0..tokens).step_by(at_once) {
        let range = start..(start + at_once).min(tokens);
        let rows = &mut rows[..range.len()];
        let seconds = runtime.pool().region(|region| {
            let ops = &Cpu { kernels: runtime.kernel_set(), region, adapters: None, watcher: None };
            if let (Some(other), Some(reference)) = (&mut other, reference) {
                other.logits(ops, reference, range.clone())?;
            }
            let start = Instant::now();
            own.logits(ops, model, range.clone())?;
            let seconds = start.elapsed().as_secs_f64();
            region.parallel_chunks_mut(rows, TASK_ROWS, |index, rows| {
                for (row, out) in (index * TASK_ROWS..).zip(rows) {
                    let of_row = row * vocab..(row + 1) * vocab;
                    let Some(&next) = text.tokens.get(range.start + row + 1) else { continue };
                    let other = other.as_ref().map(|other| &other.scratch.logits[of_row.clone()]);
                    *out = score(&own.scratch.logits[of_row], other, next as usize);
                }
            });
            Ok::<_, Error>(seconds)
        })??;
        model.seconds += seconds;
        for (row, score) in range.clone().zip(rows) {
            if (row + 1) % text.length != 0 {
                sums.add(*score);
            }
        }
        reporter.report((u128::from(left) * range.end as u128 / tokens as u128) as u64)?;
    }
    sums.finish(&model.opened.name, other.is_some())
}

/// What makes the logits of a model.
struct Output {
    head: OwnHead,
    scratch: Scratch,
}

impl Output {
    fn new(stream: &Stream<'_>, reporter: &mut Reporter<'_>) -> Result<Self> {
        Ok(Output { head: stream.head(reporter)?, scratch: Scratch::default() })
    }

    /// Leaves the logits of the tokens `tokens` in `scratch.logits`.
    fn logits(&mut self, ops: &Cpu<'_>, stream: &Stream<'_>, tokens: Range<usize>) -> Result<()> {
        let (spec, width, rows) = (stream.spec(), stream.width(), tokens.len());
        let size = PassSize { rows, logits: rows, states: 0 };
        self.scratch.reserve(spec, size, ops.threads())?;
        self.scratch.hidden[..rows * width]
            .copy_from_slice(&stream.hidden()[tokens.start * width..tokens.end * width]);
        let taken: Vec<usize> = (0..rows).collect();
        let OwnHead { norm, weight, bias } = &self.head;
        let head = Head { spec, norm: norm.as_deref(), weight, bias: bias.as_deref() };
        head.forward(ops, &taken, &mut self.scratch)
    }
}

/// The largest logit, and the first place where it is.
fn largest(logits: &[f32]) -> (f64, usize) {
    let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
    (f64::from(logits[best]), best)
}

/// What the logits of the model and of the reference say about the token `next`.
fn score(model: &[f32], reference: Option<&[f32]>, next: usize) -> RowScore {
    let (most, best) = largest(model);
    let sum: f64 = model.iter().map(|&x| libm::exp(f64::from(x) - most)).sum();
    let log = most + libm::log(sum);
    let surprise = log - f64::from(model[next]);
    let Some(reference) = reference else {
        return RowScore { surprise, reference: surprise, ..RowScore::default() };
    };
    // With p = exp(x) / sum exp(x) of the reference: sum of p (ln p - ln q) = sum of p (x - y) + ln sum exp(y) - ln sum exp(x)
    let (other_most, other_best) = largest(reference);
    let (mut sum, mut apart) = (0.0, 0.0);
    for (&x, &y) in reference.iter().zip(model) {
        let weight = libm::exp(f64::from(x) - other_most);
        sum += weight;
        apart += weight * (f64::from(x) - f64::from(y));
    }
    let other_log = other_most + libm::log(sum);
    RowScore {
        surprise,
        reference: other_log - f64::from(reference[next]),
        divergence: apart / sum + (log - other_log),
        same: best == other_best,
    }
}

/// Sums over rows, in their order.
#[derive(Default)]
struct Sums {
    surprise: f64,
    reference: f64,
    same: usize,
    divergences: Vec<f64>,
}

impl Sums {
    fn add(&mut self, row: RowScore) {
        self.surprise += row.surprise;
        self.reference += row.reference;
        self.same += usize::from(row.same);
        self.divergences.push(row.divergence);
    }

    /// # Errors
    /// `NonFinite`.
    fn finish(mut self, name: &str, compared: bool) -> Result<Scored> {
        let predicted = self.divergences.len();
        let count = predicted as f64;
        let divergence = self.divergences.iter().sum::<f64>() / count;
        if ![self.surprise, self.reference, divergence].iter().all(|sum| sum.is_finite()) {
            let message = format!("{name}: expected finite logits, found others");
            return Err(Error::new(ErrorKind::NonFinite, message));
        }
        let squares: f64 = self.divergences.iter().map(|x| (x - divergence) * (x - divergence)).sum();
        self.divergences.sort_unstable_by(f64::total_cmp);
        let place = (predicted * 99).div_ceil(100).saturating_sub(1);
        // What rounding leaves of equal distributions may be negative.
        let agreement = Agreement {
            divergence: divergence.max(0.0),
            standard_error: (squares / (count - 1.0).max(1.0) / count).sqrt(),
            p99: self.divergences.get(place).copied().unwrap_or_default().max(0.0),
            top1: self.same as f64 / count,
        };
        Ok(Scored {
            predicted,
            perplexity: libm::exp(self.surprise / count),
            reference_perplexity: libm::exp(self.reference / count),
            agreement: compared.then_some(agreement),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_scored() {
        let uniform = score(&[1.0; 4], None, 2);
        assert!((uniform.surprise - 4.0_f64.ln()).abs() < 1e-15);
        // p = (1/2, 1/2), q = (1/4, 3/4)
        let (p, q) = ([0.0, 0.0], [0.0, 3.0_f32.ln()]);
        let row = score(&q, Some(&p), 0);
        let expected = 0.5 * 2.0_f64.ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((row.divergence - expected).abs() < 1e-7, "{row:?}");
        assert!((row.surprise - 4.0_f64.ln()).abs() < 1e-7 && (row.reference - 2.0_f64.ln()).abs() < 1e-15);
        assert!(!row.same);
        let same = score(&q, Some(&q), 0);
        assert!(same.divergence == 0.0 && same.same);
    }

    #[test]
    fn sums_are_means() {
        let mut sums = Sums::default();
        for (divergence, same) in [(1.0, true), (3.0, false)] {
            sums.add(RowScore { surprise: divergence, reference: 2.0, divergence, same });
        }
        let scored = sums.finish("x", true).unwrap();
        let Agreement { divergence, standard_error, p99, top1 } = scored.agreement.unwrap();
        assert_eq!((divergence, standard_error, p99, top1), (2.0, 1.0, 3.0, 0.5));
        assert_eq!((scored.predicted, scored.perplexity), (2, libm::exp(2.0)));
        let mut sums = Sums::default();
        sums.add(RowScore { surprise: f64::NAN, ..RowScore::default() });
        assert_eq!(sums.finish("x", false).err().unwrap().kind(), ErrorKind::NonFinite);
    }

    #[test]
    fn few_rows_of_large_vocabularies() {
        assert_eq!(rows_at_once(1024, 9999), MOST_ROWS);
        assert_eq!(rows_at_once(1 << 18, 9999), 64);
        assert_eq!(rows_at_once(1 << 25, 9999), LEAST_ROWS);
        assert_eq!(rows_at_once(1024, 5), 5);
    }
}
