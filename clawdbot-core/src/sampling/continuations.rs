//! The tokens that may follow a sequence, with what beam search compares them by.

use std::sync::Arc;

use super::{Drawable, History, Rules, TokenLogprob, check_finite, log_sum_exp, mask_as, possible, process};
use crate::error::Result;
use crate::options::{LogprobsMode, Resolved};

/// A token that may come next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Continuation {
    pub(crate) id: u32,
    /// Its log-probability, with penalties and without normalisation after them.
    pub(crate) score: f32,
    /// The log-probability that is reported; 0 unless the request asks for it.
    pub(crate) logprob: f32,
}

/// The best tokens that may come next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Continuations {
    /// Best first, ties by lower id.
    pub(crate) best: Vec<Continuation>,
    /// The most likely tokens that are reported with each.
    pub(crate) top: Arc<[TokenLogprob]>,
}

/// The `most` best tokens that may come next; fewer where masks leave fewer. Penalties and masks apply to log-probabilities, as in
/// transformers' beam search. Overwrites `logits`.
///
/// # Errors
/// `NonFinite` when a logit is NaN or infinite; those of the processor.
pub(crate) fn continuations(
    logits: &mut [f32],
    drawable: &Drawable,
    options: &Resolved,
    history: &History<'_>,
    rules: Rules<'_>,
    most: usize,
) -> Result<Continuations> {
    check_finite(logits)?;
    let raw = options.logprobs.map(|n| (logits.to_vec(), n as usize));
    let normaliser = log_sum_exp(logits);
    logits.iter_mut().for_each(|x| *x = (f64::from(*x) - normaliser) as f32);
    let scores = drawable.of_tokens(logits);
    process(scores, drawable, options, history, rules)?;
    let (raw, top) = match raw {
        None => (None, Arc::default()),
        Some((mut raw, n)) => {
            if options.logprobs_mode == LogprobsMode::Masked {
                mask_as(&mut raw, scores);
            }
            // Of no tokens, there are no log-probabilities.
            let normaliser =
                if scores.iter().all(|&x| x == f32::NEG_INFINITY) { 0.0 } else { log_sum_exp(&raw) };
            let logprob = |id: u32| (f64::from(raw[id as usize]) - normaliser) as f32;
            let top =
                possible(&raw, drawable, n).map(|id| TokenLogprob { id, logprob: logprob(id) }).collect();
            (Some((raw, normaliser)), top)
        }
    };
    let logprob = |id: u32| match &raw {
        None => 0.0,
        Some((raw, normaliser)) => (f64::from(raw[id as usize]) - normaliser) as f32,
    };
    let best = possible(scores, drawable, most);
    let best = best.map(|id| Continuation { id, score: scores[id as usize], logprob: logprob(id) }).collect();
    Ok(Continuations { best, top })
}

#[cfg(test)]
mod tests {
    use super::super::{State, sample};
    use super::*;
    use crate::error::ErrorKind;

    const LOGITS: [f32; 6] = [0.5, 2.0, -1.0, 2.0, 1.0, 9.0];

    /// Of the first five tokens; the last one is padding.
    fn of(options: &Resolved, output: &[u32], most: usize) -> Continuations {
        let history = History { prompt: &[1], output };
        let drawable = Drawable::all(5);
        continuations(&mut LOGITS.to_vec(), &drawable, options, &history, Rules::default(), most).unwrap()
    }

    fn ids(found: &Continuations) -> Vec<u32> {
        found.best.iter().map(|one| one.id).collect()
    }

    #[test]
    fn they_are_log_probabilities_best_first() {
        let found = of(&Resolved::greedy(), &[], 3);
        assert_eq!(ids(&found), [1, 3, 4]);
        let sum: f64 = LOGITS.iter().map(|&x| f64::from(x).exp()).sum();
        for one in &found.best {
            let expected = f64::from(LOGITS[one.id as usize]) - sum.ln();
            assert!((f64::from(one.score) - expected).abs() < 1e-6, "{one:?}");
        }
        assert_eq!(ids(&of(&Resolved::greedy(), &[], 99)), [1, 3, 4, 0, 2]);
    }

    #[test]
    fn penalties_multiply_log_probabilities_and_masks_leave_tokens_out() {
        let plain = of(&Resolved::greedy(), &[], 5);
        let options = Resolved { repetition_penalty: 2.0, suppress_tokens: vec![4], ..Resolved::greedy() };
        let found = of(&options, &[0], 5);
        // 1 is in the prompt, 0 in the output.
        assert_eq!(ids(&found).first(), Some(&3));
        assert_eq!(found.best.len(), 4);
        let score = |found: &Continuations, id| found.best.iter().find(|one| one.id == id).unwrap().score;
        assert_eq!(score(&found, 1), 2.0 * score(&plain, 1));
        assert_eq!(score(&found, 3), score(&plain, 3));
        let none =
            Resolved { allowed_token_ids: Some(vec![4]), suppress_tokens: vec![4], ..Resolved::greedy() };
        assert_eq!(ids(&of(&none, &[], 5)), [0; 0]);
        let mut bad = [0.0, f32::NAN];
        let history = History { prompt: &[], output: &[] };
        let error = continuations(&mut bad, &Drawable::all(2), &none, &history, Rules::default(), 1);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NonFinite);
    }

    #[test]
    fn reported_log_probabilities_are_those_of_sampling() {
        for logprobs_mode in LogprobsMode::ALL {
            let options = Resolved {
                logprobs: Some(2),
                logprobs_mode,
                repetition_penalty: 1.5,
                suppress_tokens: vec![3],
                ..Resolved::greedy()
            };
            let history = History { prompt: &[1], output: &[4] };
            let drawable = Drawable::all(5);
            for Continuation { id, logprob, .. } in of(&options, &[4], 5).best {
                let only = Resolved { logit_bias: [(id, 1e3)].into(), ..options.clone() };
                let mut logits = LOGITS.to_vec();
                let state = &mut State::default();
                let sampled = sample(&mut logits, &drawable, &only, &history, state, Rules::default());
                let expected = sampled.unwrap().logprobs.unwrap();
                assert_eq!(expected.chosen, TokenLogprob { id, logprob });
                assert_eq!(expected.top[..], of(&options, &[4], 5).top[..]);
            }
        }
    }
}
