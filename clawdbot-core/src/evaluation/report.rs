//! What an evaluation found.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Runtime;

/// How good a model is with a weight type.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// What the model is called.
    pub model: String,
    /// The type of the weights that were evaluated.
    pub weights: &'static str,
    /// The type of the KV cache that was evaluated.
    pub kv: &'static str,
    /// The path of the text; `builtin`; or, of random weights, `arbitrary tokens`.
    pub text: String,
    /// Sequences of the text.
    pub sequences: usize,
    /// Tokens of all sequences.
    pub tokens: usize,
    /// Tokens that were predicted: all but the first of each sequence. Perplexity, divergence and agreement are of these.
    pub predicted: usize,
    /// `exp` of the mean of `-ln p(token | those before it)`.
    pub perplexity: f64,
    /// What the model was compared with; all that follows is about it.
    pub reference: Option<Reference>,
    /// Mean Kullback-Leibler divergence of the next-token distributions, KL(reference || model), in nats.
    pub kl_divergence: Option<f64>,
    /// The standard error of this mean, if the divergences were independent.
    pub kl_standard_error: Option<f64>,
    /// What 99 % of the divergences are at most, in nats.
    pub kl_p99: Option<f64>,
    /// The share of tokens for which both models have the same most likely one, 0 to 1.
    pub top1_agreement: Option<f64>,
    /// How far the residual streams are apart, after the embedding and after each layer.
    pub layers: Vec<LayerError>,
    /// Tokens per second through the model that was evaluated. Reading and packing its weights does not count.
    pub tokens_per_s: f64,
    /// Seconds that everything took.
    pub seconds: f64,
    /// Instruction-set tier that computed.
    pub kernels: &'static str,
    /// Threads that computed.
    pub threads: usize,
}

/// What a model was compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reference {
    /// What it is called.
    pub model: String,
    /// The type that its weights were computed as.
    pub weights: &'static str,
    /// The type of its KV cache.
    pub kv: &'static str,
    /// Whether it has the weights of a quantized model, dequantized: what quantizing that model lost is not measured.
    pub dequantized: bool,
    /// All this as a sentence without its end.
    pub description: String,
    /// Its perplexity on the text.
    pub perplexity: f64,
}

/// How far the residual stream of the model is from that of the reference, each computed by its own layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerError {
    /// The layer after which the streams are compared, from 1; 0 is the embedding.
    pub layer: usize,
    /// Norm of the difference over norm of the reference, over all tokens. Tokens with large values count most: in many models
    /// the first one.
    pub relative_error: f64,
    /// The same of every token, and the mean over the tokens.
    pub mean_token_error: f64,
}

impl LayerError {
    /// Of the streams `reference` and `model`, `[tokens, width]`.
    ///
    /// # Errors
    /// `NonFinite` where values are not finite.
    pub(super) fn between(
        runtime: &Runtime,
        layer: usize,
        reference: &[f32],
        model: &[f32],
        width: usize,
    ) -> Result<Self> {
        const AT_ONCE: usize = 32;
        let mut squares = vec![[0.0_f64; 2]; reference.len() / width];
        runtime.pool().region(|region| {
            region.parallel_chunks_mut(&mut squares, AT_ONCE, |index, squares| {
                for (row, out) in (index * AT_ONCE..).zip(squares) {
                    let row = row * width..(row + 1) * width;
                    *out = squares_of(&reference[row.clone()], &model[row]);
                }
            });
        })?;
        let sums = squares.iter().fold([0.0; 2], |[a, b], [x, y]| [a + x, b + y]);
        let of_tokens: f64 = squares.iter().map(|&squares| ratio(squares)).sum();
        let error = LayerError {
            layer,
            relative_error: ratio(sums),
            mean_token_error: of_tokens / squares.len() as f64,
        };
        match error.relative_error.is_finite() && error.mean_token_error.is_finite() {
            true => Ok(error),
            false => Err(Error::new(
                ErrorKind::NonFinite,
                format!("expected finite numbers after layer {layer}, found others"),
            )),
        }
    }
}

/// Squares of the difference, and of the reference.
fn squares_of(reference: &[f32], model: &[f32]) -> [f64; 2] {
    reference.iter().zip(model).fold([0.0; 2], |[difference, own], (&x, &y)| {
        let (x, y) = (f64::from(x), f64::from(y));
        [difference + (x - y) * (x - y), own + x * x]
    })
}

/// A norm over another.
fn ratio([difference, own]: [f64; 2]) -> f64 {
    if difference == 0.0 { 0.0 } else { (difference / own).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_streams() {
        let runtime = Runtime::new(&Default::default()).unwrap();
        let between = |model: &[f32]| LayerError::between(&runtime, 1, &[3.0, 4.0, 0.0, 1.0], model, 2);
        let same = between(&[3.0, 4.0, 0.0, 1.0]).unwrap();
        assert_eq!((same.relative_error, same.mean_token_error), (0.0, 0.0));
        let apart = between(&[3.0, 9.0, 0.0, 1.0]).unwrap();
        assert_eq!(apart.relative_error, (25.0_f64 / 26.0).sqrt());
        assert_eq!(apart.mean_token_error, 0.5);
        assert_eq!(between(&[f32::NAN, 4.0, 0.0, 1.0]).unwrap_err().kind(), ErrorKind::NonFinite);
    }
}
