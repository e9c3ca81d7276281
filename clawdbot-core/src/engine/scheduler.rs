//! Who takes part in the next forward pass, and with how many tokens.

use std::collections::BTreeMap;

use super::{Sequence, SequenceId};

/// Most rows of logits that scoring sequences get in one pass: each is a whole vocabulary of floats.
pub(crate) const SCORE_ROWS: usize = 64;

/// Bounds of a forward pass.
pub(crate) struct Limits {
    /// Most tokens.
    pub(crate) rows: usize,
    /// Most sequences.
    pub(crate) sequences: usize,
}

/// A sequence's share of a pass: tokens `start .. start + rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) id: SequenceId,
    pub(crate) start: usize,
    pub(crate) rows: usize,
    /// Number of last rows whose logits are wanted.
    pub(crate) logits: usize,
}

/// Plans a step: first one token for each sequence that is decoding, so that nobody's stream stalls behind a long
/// prompt; then prompts, first come, first served, in chunks that fill what is left.
pub(crate) fn plan_step(sequences: &BTreeMap<SequenceId, Sequence>, limits: &Limits) -> Vec<Share> {
    let mut waiting: Vec<(&SequenceId, &Sequence)> = sequences.iter().filter(|(_, s)| is_ready(s)).collect();
    waiting.sort_by_key(|(_, sequence)| (left(sequence) > 1, sequence.arrival));
    let mut shares = Vec::new();
    let mut rows_left = limits.rows;
    // What the plan of the model has room for.
    let mut logits_left = SCORE_ROWS.max(limits.sequences);
    for (&id, sequence) in waiting.into_iter().take(limits.sequences) {
        let scores = sequence.job.as_ref().is_some_and(|job| job.scores.is_some());
        let most = if scores { rows_left.min(SCORE_ROWS).min(logits_left) } else { rows_left };
        let rows = left(sequence).min(most);
        if rows == 0 || logits_left == 0 {
            break;
        }
        let logits = match scores {
            true => rows,
            false => usize::from(rows == left(sequence)),
        };
        shares.push(Share { id, start: sequence.computed, rows, logits });
        rows_left -= rows;
        logits_left -= logits;
    }
    shares
}

fn left(sequence: &Sequence) -> usize {
    sequence.tokens.len() - sequence.computed
}

fn is_ready(sequence: &Sequence) -> bool {
    sequence.makes_progress() && left(sequence) > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Job;

    fn sequences(list: &[(usize, usize, u64)]) -> BTreeMap<SequenceId, Sequence> {
        let make = |&(tokens, computed, arrival): &(usize, usize, u64)| Sequence {
            tokens: vec![0; tokens],
            computed,
            arrival,
            job: Some(Job::score(tokens, Vec::new())),
            ..Sequence::default()
        };
        let plain = |mut sequence: Sequence| {
            sequence.job.as_mut().unwrap().scores = None;
            sequence
        };
        list.iter().map(make).map(plain).enumerate().map(|(id, s)| (id as u64, s)).collect()
    }

    #[test]
    fn decoding_goes_first_and_prompts_fill_the_rest() {
        // (tokens, computed, arrival): a prompt, two that decode, a later prompt.
        let all = sequences(&[(100, 0, 1), (11, 10, 3), (6, 5, 2), (50, 0, 4)]);
        let limits = Limits { rows: 64, sequences: 8 };
        let shares = plan_step(&all, &limits);
        let short: Vec<_> = shares.iter().map(|s| (s.id, s.start, s.rows, s.logits)).collect();
        assert_eq!(short, [(2, 5, 1, 1), (1, 10, 1, 1), (0, 0, 62, 0)]);
        let shares = plan_step(&all, &Limits { rows: 1000, sequences: 3 });
        assert_eq!(shares.len(), 3);
        assert_eq!(shares[2].logits, 1, "the whole prompt fits");
    }

    #[test]
    fn scoring_is_bounded_and_idle_sequences_are_left_alone() {
        let mut all = sequences(&[(200, 0, 1), (10, 10, 2)]);
        all.get_mut(&0).unwrap().job.as_mut().unwrap().scores = Some(Vec::new());
        let shares = plan_step(&all, &Limits { rows: 512, sequences: 8 });
        assert_eq!(shares, [Share { id: 0, start: 0, rows: SCORE_ROWS, logits: SCORE_ROWS }]);
        all.get_mut(&0).unwrap().job = None;
        assert!(plan_step(&all, &Limits { rows: 512, sequences: 8 }).is_empty());
    }
}
