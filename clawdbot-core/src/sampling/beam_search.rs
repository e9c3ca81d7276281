//! Beam search, without a model: which texts are continued, which are finished, and when the search ends.
//!
//! The rules are those of transformers' `generate` with `num_beams` for one prompt. After each step there are at most `num_beams`
//! running texts, and at most `num_beams` finished ones. A step:
//!
//! 1. Each running text is extended by each token. The score of a candidate is the sum of the log-probabilities of its tokens, as
//!    f32. The best `num_beams * max(2, 1 + number of stop tokens)` stay, so that enough of them go on.
//! 2. Candidates that end (a stop token, or `max_tokens`) and are among the best `num_beams` are finished. Their scores are divided
//!    by `length^length_penalty`, the stop token counted. The best `num_beams` finished texts stay.
//! 3. The best `num_beams` of the candidates that do not end run on.
//! 4. The search ends when no text runs, or when `num_beams` are finished and `early_stopping` says so.
//!
//! Of equal candidates, that of the better text comes first, then that of the lower token.

use std::sync::Arc;

use super::continuations::Continuations;
use super::{Logprobs, TokenLogprob, no_token};
use crate::error::Result;
use crate::options::{EarlyStopping, Resolved};

/// What is reported of a token, where that is asked for.
#[derive(Debug, Clone)]
struct Report {
    chosen: TokenLogprob,
    top: Arc<[TokenLogprob]>,
}

/// A text that is generated.
#[derive(Debug, Clone, Default)]
struct Beam {
    tokens: Vec<u32>,
    /// Sum of the log-probabilities.
    score: f32,
    /// One for each token, or none.
    reports: Vec<Report>,
}

/// A text of a search that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) tokens: Vec<u32>,
    /// Sum of the log-probabilities, divided by the power of the length.
    pub(crate) score: f32,
    /// Whether its last token is a stop token.
    pub(crate) stopped: bool,
    reports: Vec<Report>,
}

impl Ended {
    /// What is reported of its tokens, where that is asked for.
    pub(crate) fn logprobs(&self) -> Vec<Logprobs> {
        let reports = self.reports.iter();
        reports.map(|report| Logprobs { chosen: report.chosen, top: report.top.to_vec() }).collect()
    }
}

/// A search on its way.
#[derive(Debug)]
pub(crate) struct BeamSearch {
    num_beams: usize,
    length_penalty: f32,
    early_stopping: EarlyStopping,
    /// Sorted.
    stop_token_ids: Vec<u32>,
    max_tokens: usize,
    reports: bool,
    /// Best first.
    running: Vec<Beam>,
    /// Best first.
    ended: Vec<Ended>,
    /// Tokens of each running text.
    length: usize,
}

impl BeamSearch {
    /// A search with one text, which is empty.
    pub(crate) fn new(options: &Resolved) -> Self {
        BeamSearch {
            num_beams: options.num_beams as usize,
            length_penalty: options.length_penalty,
            early_stopping: options.early_stopping,
            stop_token_ids: options.stop_token_ids.clone(),
            max_tokens: options.max_tokens as usize,
            reports: options.logprobs.is_some(),
            running: vec![Beam::default()],
            ended: Vec::new(),
            length: 0,
        }
    }

    /// How many continuations of each text a step needs, where there are as many.
    pub(crate) fn candidates(&self) -> usize {
        self.num_beams.saturating_mul(self.stop_token_ids.len().saturating_add(1).max(2))
    }

    /// The last tokens of the running texts, after a step.
    pub(crate) fn last_tokens(&self) -> impl Iterator<Item = u32> {
        self.running.iter().filter_map(|beam| beam.tokens.last().copied())
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> u64 {
        let of = |tokens: &Vec<u32>, reports: &Vec<Report>| {
            let top: usize = reports.iter().map(|report| size_of_val(&report.top[..])).sum();
            size_of::<Ended>() + 4 * tokens.capacity() + size_of::<Report>() * reports.capacity() + top
        };
        let running = self.running.iter().map(|beam| of(&beam.tokens, &beam.reports));
        let ended = self.ended.iter().map(|ended| of(&ended.tokens, &ended.reports));
        running.chain(ended).map(|bytes| bytes as u64).sum()
    }

    /// Takes a step. `found`: for each running text, in their order, the best tokens that may follow it. Returns for each text that
    /// runs from now on which of those before it extends; none when the search has ended.
    ///
    /// # Errors
    /// `InvalidArgument` where no text can go on and none is finished.
    pub(crate) fn step(&mut self, found: &[Continuations]) -> Result<Vec<usize>> {
        let mut candidates: Vec<(f32, usize, usize)> = Vec::new();
        for (index, (beam, found)) in self.running.iter().zip(found).enumerate() {
            let scores = found.best.iter().map(|next| beam.score + next.score);
            candidates.extend(scores.enumerate().map(|(place, score)| (score, index, place)));
        }
        let id = |&(_, index, place): &(f32, usize, usize)| found[index].best[place].id;
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(id(a).cmp(&id(b))));
        candidates.truncate(self.candidates());
        self.length += 1;
        let last = self.length >= self.max_tokens;
        let (mut running, mut parents) = (Vec::new(), Vec::new());
        for (rank, candidate) in candidates.iter().enumerate() {
            let (score, index, place) = *candidate;
            let stopped = self.stop_token_ids.binary_search(&id(candidate)).is_ok();
            let ends = stopped || last;
            if !ends && running.len() < self.num_beams {
                running.push(self.extended(index, score, &found[index], place));
                parents.push(index);
            } else if ends && rank < self.num_beams {
                let Beam { tokens, score, reports } = self.extended(index, score, &found[index], place);
                let score = self.normalised(score, self.length);
                self.ended.push(Ended { tokens, score, stopped, reports });
            }
        }
        self.running = running;
        self.sort_ended();
        if self.running.is_empty() && self.ended.is_empty() {
            return Err(no_token());
        }
        Ok(if self.is_over() { Vec::new() } else { parents })
    }

    /// The text `index` with a token of those `found`.
    fn extended(&self, index: usize, score: f32, found: &Continuations, place: usize) -> Beam {
        let beam = &self.running[index];
        let next = found.best[place];
        let mut tokens = Vec::with_capacity(beam.tokens.len() + 1);
        tokens.extend_from_slice(&beam.tokens);
        tokens.push(next.id);
        let chosen = TokenLogprob { id: next.id, logprob: next.logprob };
        let report = self.reports.then(|| Report { chosen, top: Arc::clone(&found.top) });
        let reports = beam.reports.iter().cloned().chain(report).collect();
        Beam { tokens, score, reports }
    }

    /// A sum of log-probabilities, for texts of `length` tokens.
    fn normalised(&self, score: f32, length: usize) -> f32 {
        let by = libm::pow(length as f64, f64::from(self.length_penalty)) as f32;
        // A certain text stays the best, whatever its length.
        if score == 0.0 { 0.0 } else { score / by }
    }

    /// The best `num_beams` first; of equal ones, the earlier.
    fn sort_ended(&mut self) {
        self.ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.ended.truncate(self.num_beams);
    }

    /// Whether no text runs on.
    fn is_over(&self) -> bool {
        let Some(best) = self.running.first() else { return true };
        let Some(worst) = self.ended.get(self.num_beams - 1) else { return false };
        let length = match self.early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if self.length_penalty > 0.0 => self.max_tokens,
            EarlyStopping::False | EarlyStopping::Never => self.length,
        };
        self.normalised(best.score, length) <= worst.score
    }

    /// The texts of a search that has ended, best first. Nothing is left of it then.
    pub(crate) fn finish(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// The texts of a search that is stopped before its end, best first: those that run, too.
    pub(crate) fn stop(&mut self) -> Vec<Ended> {
        for Beam { tokens, score, reports } in std::mem::take(&mut self.running) {
            let score = self.normalised(score, self.length);
            self.ended.push(Ended { tokens, score, stopped: false, reports });
        }
        self.sort_ended();
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::continuations::Continuation;
    use super::super::rng;
    use super::*;

    /// What says how likely tokens are after others: a table of random numbers.
    #[derive(Debug, Clone, Copy)]
    struct Table {
        seed: u64,
        vocab: u32,
    }

    impl Table {
        /// Log-probabilities after `tokens`.
        fn of(self, tokens: &[u32]) -> Vec<f32> {
            let place =
                tokens.iter().fold(7_u64, |sum, &id| sum.wrapping_mul(31).wrapping_add(u64::from(id) + 1));
            let weights: Vec<f64> = (0..self.vocab)
                .map(|id| {
                    (4.0 * rng::uniform(self.seed, place.wrapping_mul(64).wrapping_add(u64::from(id)))).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            weights.iter().map(|weight| (weight / sum).ln() as f32).collect()
        }

        /// The `most` best of them.
        fn best(self, tokens: &[u32], most: usize) -> Continuations {
            let scores = self.of(tokens);
            let mut best: Vec<Continuation> =
                (0..).zip(&scores).map(|(id, &score)| Continuation { id, score, logprob: score }).collect();
            best.sort_by(|a, b| b.score.total_cmp(&a.score));
            best.truncate(most);
            Continuations { best, top: Arc::default() }
        }
    }

    /// The texts and scores that a search finds.
    fn found(table: Table, options: &Resolved) -> Vec<(Vec<u32>, f32)> {
        let mut search = BeamSearch::new(options);
        loop {
            let most = search.candidates();
            let next: Vec<Continuations> =
                search.running.iter().map(|beam| table.best(&beam.tokens, most)).collect();
            let before: Vec<Vec<u32>> = search.running.iter().map(|beam| beam.tokens.clone()).collect();
            let parents = search.step(&next).unwrap();
            if parents.is_empty() {
                return search.finish().into_iter().map(|ended| (ended.tokens, ended.score)).collect();
            }
            for (beam, parent) in search.running.iter().zip(parents) {
                assert_eq!(beam.tokens[..beam.tokens.len() - 1], before[parent]);
            }
            assert!(search.last_tokens().eq(search.running.iter().map(|beam| *beam.tokens.last().unwrap())));
        }
    }

    /// No text: what places without one have as a score.
    const NONE: f32 = -1e9;

    /// The same, written down as it is defined: arrays of `num_beams` places, in which every extension of every text is compared.
    fn defined(table: Table, options: &Resolved) -> Vec<(Vec<u32>, f32)> {
        let beams = options.num_beams as usize;
        let stops = &options.stop_token_ids;
        let penalty = f64::from(options.length_penalty);
        let by_score = |list: &mut Vec<(Vec<u32>, f32)>| list.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
        let mut running = vec![(Vec::new(), NONE); beams];
        running[0].1 = 0.0;
        let mut done: Vec<(Vec<u32>, f32)> = vec![(Vec::new(), NONE); beams];
        for length in 1..=options.max_tokens as usize {
            let mut all: Vec<(Vec<u32>, f32)> = Vec::new();
            for (text, score) in &running {
                let next = (0..).zip(table.of(text));
                all.extend(next.map(|(id, logprob)| ([&text[..], &[id]].concat(), score + logprob)));
            }
            by_score(&mut all);
            all.truncate(beams * (1 + stops.len()).max(2));
            let ends = |text: &[u32]| {
                length == options.max_tokens as usize || text.last().is_some_and(|last| stops.contains(last))
            };
            for (text, score) in all.iter().take(beams).filter(|(text, _)| ends(text)) {
                done.push((text.clone(), score / (length as f64).powf(penalty) as f32));
            }
            by_score(&mut done);
            done.truncate(beams);
            let go_on = !all.iter().all(|(text, _)| ends(text));
            all.iter_mut().filter(|(text, _)| ends(text)).for_each(|(_, score)| *score += NONE);
            by_score(&mut all);
            all.truncate(beams);
            running = all;
            let full = done.iter().all(|(_, score)| *score > NONE);
            let best_length = match options.early_stopping {
                EarlyStopping::Never if penalty > 0.0 => options.max_tokens as usize,
                _ => length,
            };
            let best = running[0].1 / (best_length as f64).powf(penalty) as f32;
            let better = !full || best > done[beams - 1].1;
            if !go_on || !better || full && options.early_stopping == EarlyStopping::True {
                break;
            }
        }
        done
    }

    fn options(num_beams: u32, max_tokens: u32, stops: u32) -> Resolved {
        Resolved { num_beams, max_tokens, stop_token_ids: (0..stops).collect(), ..Resolved::greedy() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_finds_what_its_definition_says(
            seed in any::<u64>(),
            vocab in 8_u32..20,
            num_beams in 2_u32..5,
            max_tokens in 1_u32..9,
            stops in 0_u32..4,
            length_penalty in prop::sample::select(vec![-1.0_f32, 0.0, 0.5, 1.0, 2.0]),
            early_stopping in prop::sample::select(EarlyStopping::ALL.to_vec()),
        ) {
            // Where the first text alone has all candidates, no place stays without a text.
            let vocab = vocab.max(num_beams * (1 + stops).max(2));
            let table = Table { seed, vocab };
            let options = Resolved { length_penalty, early_stopping, ..options(num_beams, max_tokens, stops) };
            prop_assert_eq!(found(table, &options), defined(table, &options));
        }

        /// With as many beams as there are texts, nothing is left out: the best of all texts are found.
        #[test]
        fn with_enough_beams_the_best_of_all_are_found(
            seed in any::<u64>(),
            length_penalty in prop::sample::select(vec![0.0_f32, 0.5, 1.0, 2.0]),
        ) {
            let table = Table { seed, vocab: 3 };
            let options = Resolved { length_penalty, early_stopping: EarlyStopping::Never, ..options(32, 4, 1) };
            let mut all: Vec<(Vec<u32>, f32)> = Vec::new();
            let mut open = vec![(Vec::new(), 0.0_f32)];
            for length in 1..=4 {
                let by = (length as f64).powf(f64::from(length_penalty)) as f32;
                for (text, score) in std::mem::take(&mut open) {
                    for (id, logprob) in (0..).zip(table.of(&text)) {
                        let one = ([&text[..], &[id]].concat(), score + logprob);
                        if id == 0 || length == 4 { all.push((one.0, one.1 / by)) } else { open.push(one) }
                    }
                }
            }
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let found = found(table, &options);
            prop_assert_eq!(all.len(), 31);
            prop_assert_eq!(found, all);
        }
    }

    /// Continuations of scores that are whole numbers.
    fn next(best: &[(u32, i32)]) -> Continuations {
        let best = best.iter().map(|&(id, score)| Continuation { id, score: score as f32, logprob: 0.0 });
        Continuations { best: best.collect(), top: Arc::default() }
    }

    #[test]
    fn ties_are_of_the_better_text_then_of_the_lower_token() {
        let mut search = BeamSearch::new(&options(2, 9, 0));
        assert_eq!(search.step(&[next(&[(5, -1), (3, -1), (4, -1)])]).unwrap(), [0, 0]);
        assert_eq!(search.last_tokens().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(search.step(&[next(&[(9, -2)]), next(&[(7, -2), (8, -2)])]).unwrap(), [0, 1]);
        assert_eq!(search.last_tokens().collect::<Vec<_>>(), [9, 7]);
    }

    #[test]
    fn where_masks_leave_fewer_tokens_fewer_texts_run() {
        let mut search = BeamSearch::new(&options(3, 9, 1));
        assert_eq!(search.step(&[next(&[(1, -1)])]).unwrap(), [0]);
        assert_eq!(search.step(&[next(&[(0, -1), (1, -2)])]).unwrap(), [0]);
        assert!(search.step(&[next(&[(0, -1)])]).unwrap().is_empty());
        let ended = search.finish();
        assert_eq!(ended.iter().map(|ended| ended.tokens.len()).collect::<Vec<_>>(), [2, 3]);
        assert!(BeamSearch::new(&options(3, 9, 1)).step(&[next(&[])]).is_err());
    }

    #[test]
    fn one_that_is_stopped_gives_what_runs_too() {
        let mut search = BeamSearch::new(&options(2, 9, 1));
        search.step(&[next(&[(1, -1), (0, -2), (2, -3)])]).unwrap();
        let texts: Vec<(Vec<u32>, bool)> =
            search.stop().into_iter().map(|ended| (ended.tokens, ended.stopped)).collect();
        assert_eq!(texts, [(vec![1], false), (vec![0], true)]);
        assert_eq!(BeamSearch::new(&options(2, 9, 1)).stop()[0].tokens, [0; 0]);
    }
}
