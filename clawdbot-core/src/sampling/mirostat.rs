//! Mirostat 2: a threshold of surprisal that follows what was drawn (Basu et al. 2020, <https://arxiv.org/abs/2007.14966>).

use super::State;
use super::filters::Candidates;

/// Draws from the tokens whose surprisal is at most `mu`, or else the most likely one, and adapts `mu` (in `state`), as
/// llama.cpp does:
/// ```text
/// surprisal = -log2(p);  keep p with surprisal <= mu;  observed = -log2(p among those kept)
/// mu = mu - eta (observed - tau), from 2 tau on
/// ```
pub(super) fn draw(candidates: &mut Candidates<'_>, tau: f32, eta: f32, draw: f64, state: &mut State) -> u32 {
    let (tau, eta) = (f64::from(tau), f64::from(eta));
    let mu = state.mirostat_mu.unwrap_or(2.0 * tau);
    let total = candidates.total();
    candidates.keep_first_and(|weight| -libm::log2(weight / total) <= mu);
    let kept = candidates.total();
    let id = candidates.draw(draw);
    let observed = -libm::log2(candidates.weight(id) / kept);
    state.mirostat_mu = Some(mu - eta * (observed - tau));
    id
}
