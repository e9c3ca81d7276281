//! The samplers of a request, one after the other, and the draw from what they keep.

use super::filters::Candidates;
use super::{Random, State, mirostat};
use crate::options::{Resolved, Sampler};

/// Draws an id by inverse transform sampling: a random number in [0, 1) selects among the tokens that the samplers keep, in
/// their order.
pub(super) fn draw(logits: &[f32], options: &Resolved, random: Random, state: &mut State) -> u32 {
    let mut candidates = Candidates::new(logits);
    for sampler in &options.samplers {
        match sampler {
            // They have changed the logits already.
            Sampler::Penalties | Sampler::Dry => {}
            Sampler::Temperature => candidates.heat(options),
            Sampler::TopNSigma if options.top_n_sigma > 0.0 => {
                candidates.keep_top_n_sigma(options.top_n_sigma);
            }
            Sampler::TopK if options.top_k > 0 => candidates.keep_top_k(options.top_k as usize),
            Sampler::TopP if options.top_p < 1.0 => candidates.keep_top_p(options.top_p),
            Sampler::MinP if options.min_p > 0.0 => candidates.keep_min_p(options.min_p),
            Sampler::TypicalP if options.typical_p < 1.0 => candidates.keep_typical(options.typical_p),
            Sampler::Xtc if random.xtc() < f64::from(options.xtc_probability) => {
                candidates.exclude_top_choices(options.xtc_threshold);
            }
            _ => {}
        }
    }
    match options.mirostat_tau {
        None => candidates.draw(random.token()),
        Some(tau) => mirostat::draw(&mut candidates, tau, options.mirostat_eta, random.token(), state),
    }
}
