//! The results of a pass: hidden states, logits, sampled tokens, and the events made of them.

use std::collections::BTreeMap;
use std::time::Instant;
use std::vec::IntoIter;

use super::Engine;
use super::constrained::Constrained;
use super::entry::SequenceId;
use super::scores::{Found, Next, Scores, TokenScore};
use super::sequence::Sequence;
use super::served::Served;
use super::share::{Share, StatePositions};
use crate::error::{Error, Result};
use crate::event::{Event, FinishReason};
use crate::options::Resolved;
use crate::sampling::{Drawable, History, Logprobs, Rules, State, continuations, logprob_of, sample};

impl Engine {
    /// Samples, and turns the results of a pass into events.
    pub(super) fn deliver(&mut self, model: &impl Served, shares: &[Share], started: Instant) {
        let (mut marks, mut marked) = (Vec::new(), Vec::new());
        let mut drawn: Vec<(&Share, IntoIter<&mut [f32]>)> = Vec::with_capacity(shares.len());
        let vocab = model.vocab_size();
        let mut logits = self.scratch.logits.chunks_exact_mut(vocab);
        let mut states = self.scratch.states.chunks_exact(model.hidden_size());
        for share in shares {
            let Some(sequence) = self.sequences.get_mut(&share.id) else { continue };
            sequence.computed = share.start + share.certain();
            if share.drafts == 0 {
                sequence.settle(&mut self.cache, share.start);
            }
            let mut rows: Vec<&mut [f32]> = logits.by_ref().take(share.logits).collect();
            let states: Vec<&[f32]> = states.by_ref().take(share.states.count).collect();
            let complete = sequence.computed == sequence.tokens.len();
            let total = sequence.tokens.len();
            let Some(job) = sequence.job.as_mut() else { continue };
            job.prefill_started.get_or_insert(started);
            if let Some(scores) = &job.prompt_scores {
                let wanted = scores.wanted();
                let first = share.start + share.rows - share.logits;
                let mut rest = Vec::new();
                for (position, row) in (first..).zip(rows) {
                    // The logits of the last token, and of drafts, say what comes next.
                    if position + 1 >= total && !job.fills {
                        rest.push(row);
                    } else if wanted.contains(&position) {
                        let token = scores.targets[position];
                        marks.push(Mark { top: Some(scores.top), ..Mark::new(share.id, row, token) });
                    }
                }
                rows = rest;
            }
            if job.fills {
                if complete {
                    marked.push(share.id);
                }
                continue;
            }
            if let Some(pooler) = &mut job.pooler {
                let StatePositions { first, count } = share.states;
                let positions = first..first + count;
                positions.zip(states).for_each(|(position, state)| pooler.add(position, state));
                if complete {
                    sequence.finish(FinishReason::Length);
                }
                continue;
            }
            match &mut job.scores {
                None => {}
                Some(Scores::Next(next)) => {
                    let first = share.start + share.rows - share.logits;
                    let wanted = (first..).zip(rows).filter_map(|(position, logits)| {
                        Some(Mark::new(share.id, logits, next.target(position)?))
                    });
                    marks.extend(wanted);
                    if complete {
                        marked.push(share.id);
                    }
                    continue;
                }
                Some(Scores::Logits(scores)) => {
                    rows.iter().for_each(|row| scores.extend_from_slice(row));
                    if complete {
                        sequence.finish(FinishReason::Length);
                    }
                    continue;
                }
            }
            if !complete {
                job.push(Event::Progress { done: share.start + share.rows, total });
                continue;
            }
            job.add_drafts(share.drafts);
            drawn.push((share, rows.into_iter()));
        }
        for Mark { id, outcome, top, .. } in mark_all(model, marks) {
            let job = self.sequences.get_mut(&id).and_then(|sequence| sequence.job.as_mut());
            let Some(job) = job.filter(|job| !job.is_finished()) else { continue };
            match outcome {
                Some(Ok((score, greedy))) => match (&mut job.scores, &mut job.prompt_scores) {
                    (_, Some(scores)) if top.is_some() => scores.found.push(score),
                    (Some(Scores::Next(next)), _) => {
                        next.found.push(TokenScore { logprob: score.chosen.logprob, greedy });
                    }
                    _ => {}
                },
                Some(Err(error)) => job.fail(error),
                None => {}
            }
        }
        for id in marked {
            if let Some(sequence) = self.sequences.get_mut(&id).filter(|sequence| sequence.is_running()) {
                sequence.finish(FinishReason::Length);
            }
        }
        // A token for each sequence, then the next one for those whose next row is a draft that was right.
        let mut number = 0;
        while !drawn.is_empty() {
            let mut constrained =
                take_constraints(&mut self.sequences, drawn.iter().map(|(share, _)| share.id));
            let sequences = &self.sequences;
            let draws = drawn.iter_mut().filter_map(|(share, rows)| {
                let sequence = sequences.get(&share.id)?;
                let job = sequence.job.as_ref()?;
                let (prompt, output) = sequence.tokens.split_at(job.prompt_end);
                let history = History { prompt, output };
                Some(Draw {
                    share: **share,
                    logits: rows.next()?,
                    options: &job.options,
                    history,
                    rules: job.rules(),
                    state: job.sampling,
                    constrained: constrained.remove(&share.id),
                    left: job.left(sequence.tokens.len(), model.max_context()),
                    next: job.next.as_ref(),
                    outcome: None,
                })
            });
            let mut going: Vec<SequenceId> = Vec::new();
            for Drawn { share, state, constrained, outcome } in sample_all(model, draws.collect()) {
                let Some(sequence) = self.sequences.get_mut(&share.id) else { continue };
                let Some(job) = sequence.job.as_mut() else { continue };
                job.constrained = constrained;
                match outcome {
                    Ok(found) => {
                        job.sampling = state;
                        let goes_on = match &found {
                            Found::Token(sampled) => {
                                job.check_guess(&mut self.controller, number, sampled.id, share.drafts)
                            }
                            Found::Next(_) => false,
                        };
                        sequence.take(found, model.max_context());
                        if goes_on && sequence.is_running() {
                            sequence.computed += 1;
                            going.push(share.id);
                        }
                    }
                    Err(error) => job.fail(error),
                }
            }
            let mut going = going.into_iter().peekable();
            drawn.retain(|(share, _)| going.next_if_eq(&share.id).is_some());
            number += 1;
        }
        for share in shares.iter().filter(|share| share.drafts > 0) {
            self.end_drafts(share);
        }
        for share in shares {
            if let Some(Sequence { job: Some(job), computed, .. }) = self.sequences.get_mut(&share.id) {
                job.reached = job.reached.max(*computed);
            }
            if let Err(error) = self.charge(share.id)
                && self.sequences.get(&share.id).is_some_and(Sequence::is_running)
            {
                self.fail(share.id, error);
            }
        }
    }
}

/// The constraints of sequences, which are given back with their next tokens.
fn take_constraints(
    sequences: &mut BTreeMap<SequenceId, Sequence>,
    ids: impl Iterator<Item = SequenceId>,
) -> BTreeMap<SequenceId, Box<Constrained>> {
    let take = |id| Some((id, sequences.get_mut(&id)?.job.as_mut()?.constrained.take()?));
    ids.filter_map(take).collect()
}

/// A token to be sampled.
struct Draw<'a> {
    share: Share,
    logits: &'a mut [f32],
    options: &'a Resolved,
    history: History<'a>,
    rules: Rules<'a>,
    state: State,
    constrained: Option<Box<Constrained>>,
    /// Most tokens that may come, this one included.
    left: usize,
    /// Set if continuations are wanted, and no token.
    next: Option<&'a Next>,
    outcome: Option<Result<Found>>,
}

impl Draw<'_> {
    fn run(&mut self, drawable: &Drawable) {
        let Draw { logits, options, history, rules, state, constrained, left, next, outcome, .. } = self;
        if let Some(Next { most, .. }) = next {
            let found = continuations(logits, drawable, options, history, *rules, *most);
            *outcome = Some(found.map(Found::Next));
            return;
        }
        let sampled = match constrained {
            None => sample(logits, drawable, options, history, state, *rules),
            Some(constrained) => constrained.draw(logits, state, *left, |logits, state, allowed| {
                sample(logits, drawable, options, history, state, Rules { allowed, ..*rules })
            }),
        };
        *outcome = Some(sampled.map(Found::Token));
    }
}

/// A token that was sampled.
struct Drawn {
    share: Share,
    /// What the sampler keeps for the next one.
    state: State,
    constrained: Option<Box<Constrained>>,
    outcome: Result<Found>,
}

/// A token whose score is wanted.
struct Mark<'a> {
    id: SequenceId,
    logits: &'a [f32],
    token: u32,
    /// How many of the most likely tokens are wanted with it, of a prompt.
    top: Option<usize>,
    /// Its log-probability, and whether it is the most likely one.
    outcome: Option<Result<(Logprobs, bool)>>,
}

impl<'a> Mark<'a> {
    fn new(id: SequenceId, logits: &'a [f32], token: u32) -> Self {
        Mark { id, logits, token, top: None, outcome: None }
    }
}

/// Scores tokens in parallel.
fn mark_all<'a>(model: &impl Served, mut marks: Vec<Mark<'a>>) -> Vec<Mark<'a>> {
    let drawable = model.drawable();
    let run = |mark: &mut Mark<'_>| {
        mark.outcome = Some(logprob_of(mark.logits, drawable, mark.token, mark.top.unwrap_or(0)));
    };
    let done = if marks.len() < 2 {
        marks.iter_mut().for_each(run);
        Ok(())
    } else {
        model.pool().region(|region| {
            region.parallel_chunks_mut(&mut marks, 1, |_, marks| marks.iter_mut().for_each(run));
        })
    };
    if let Err(error) = done.map_err(Error::from) {
        marks.iter_mut().for_each(|mark| mark.outcome = Some(Err(error.clone())));
    }
    marks
}

/// Samples for several sequences in parallel.
fn sample_all(model: &impl Served, mut draws: Vec<Draw<'_>>) -> Vec<Drawn> {
    let drawable = model.drawable();
    let run = |draw: &mut Draw<'_>| draw.run(drawable);
    let done = match &mut draws[..] {
        [] => Ok(()),
        [draw] => {
            run(draw);
            Ok(())
        }
        draws => model.pool().region(|region| {
            region.parallel_chunks_mut(draws, 1, |_, draws| draws.iter_mut().for_each(run));
        }),
    };
    let done = done.map_err(Error::from);
    let drawn = |draw: Draw<'_>| {
        let outcome = match &done {
            Ok(()) => draw.outcome?,
            Err(error) => Err(error.clone()),
        };
        Some(Drawn { share: draw.share, state: draw.state, constrained: draw.constrained, outcome })
    };
    draws.into_iter().filter_map(drawn).collect()
}
