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
    /// Sequences are not cut: one that is longer than `rows` has a pass of its own.
    pub(crate) whole: bool,
}

/// A sequence's share of a pass: tokens `start .. start + rows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) id: SequenceId,
    pub(crate) start: usize,
    pub(crate) rows: usize,
    /// Number of last rows whose logits are wanted.
    pub(crate) logits: usize,
    /// First position whose state is wanted, and how many are.
    pub(crate) states: (usize, usize),
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
        let rows = match limits.whole && (shares.is_empty() || left(sequence) <= most) {
            true => left(sequence),
            false if limits.whole => 0,
            false => left(sequence).min(most),
        };
        if rows == 0 || logits_left == 0 {
            break;
        }
        let (start, pooler) = (sequence.computed, sequence.job.as_ref().and_then(|job| job.pooler.as_ref()));
        let logits = match (pooler, scores) {
            (Some(_), _) => 0,
            (None, true) => rows,
            (None, false) => usize::from(rows == left(sequence)),
        };
        let wanted = pooler.map_or(start..start, |pooler| pooler.wanted(start, rows, sequence.tokens.len()));
        shares.push(Share { id, start, rows, logits, states: (wanted.start, wanted.len()) });
        rows_left = rows_left.saturating_sub(rows);
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
    use crate::model::pooling::Pooler;
    use crate::options::Pooling;

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
        let limits = Limits { rows: 64, sequences: 8, whole: false };
        let shares = plan_step(&all, &limits);
        let short: Vec<_> = shares.iter().map(|s| (s.id, s.start, s.rows, s.logits)).collect();
        assert_eq!(short, [(2, 5, 1, 1), (1, 10, 1, 1), (0, 0, 62, 0)]);
        let shares = plan_step(&all, &Limits { rows: 1000, sequences: 3, whole: false });
        assert_eq!(shares.len(), 3);
        assert_eq!(shares[2].logits, 1, "the whole prompt fits");
    }

    #[test]
    fn scoring_is_bounded_and_idle_sequences_are_left_alone() {
        let mut all = sequences(&[(200, 0, 1), (10, 10, 2)]);
        all.get_mut(&0).unwrap().job.as_mut().unwrap().scores = Some(Vec::new());
        let limits = Limits { rows: 512, sequences: 8, whole: false };
        let shares = plan_step(&all, &limits);
        let expected = Share { id: 0, start: 0, rows: SCORE_ROWS, logits: SCORE_ROWS, states: (0, 0) };
        assert_eq!(shares, [expected]);
        all.get_mut(&0).unwrap().job = None;
        assert!(plan_step(&all, &limits).is_empty());
    }

    #[test]
    fn what_is_not_cut_waits_or_goes_alone() {
        let all = sequences(&[(30, 0, 1), (30, 0, 2), (10, 0, 3), (100, 0, 4)]);
        let limits = Limits { rows: 64, sequences: 8, whole: true };
        let rows = |all: &_| plan_step(all, &limits).iter().map(|s| (s.id, s.rows)).collect::<Vec<_>>();
        assert_eq!(rows(&all), [(0, 30), (1, 30)]);
        let rest = all.into_iter().skip(2).collect::<BTreeMap<_, _>>();
        assert_eq!(rows(&rest), [(2, 10)]);
        assert_eq!(rows(&rest.into_iter().skip(1).collect()), [(3, 100)]);
    }

    #[test]
    fn pooling_wants_states_instead_of_logits() {
        let mut all = sequences(&[(100, 60, 1)]);
        let limits = Limits { rows: 30, sequences: 8, whole: false };
        for (pooling, states) in
            [(Pooling::Mean, (60, 30)), (Pooling::Last, (90, 0)), (Pooling::Cls, (60, 0))]
        {
            all.get_mut(&0).unwrap().job.as_mut().unwrap().pooler = Some(Pooler::new(pooling, 0));
            let share = plan_step(&all, &limits)[0];
            assert_eq!((share.logits, share.states), (0, states), "{pooling}");
        }
    }
}
