//! Drafts of another model, a smaller one with the same tokens, which follows each sequence in pages of its own.
//!
//! What it holds can be computed again at any time, so it gives way before anything else when memory is needed.

use std::collections::BTreeMap;
use std::time::Instant;

use super::entry::{SCORE_ROWS, SequenceId};
use super::served::{Resources, Served};
use crate::cache::{KvCache, PageTables};
use crate::error::Result;
use crate::forward::batch::Batch;
use crate::forward::decoder::Pass;
use crate::forward::scratch::Scratch;
use crate::options::Resolved;
use crate::runtime::Reservation;
use crate::sampling::{Drawable, History, State, sample_id};

/// Weight of the latest time in the mean.
const WEIGHT: f64 = 0.2;

/// A sequence that wants drafts.
pub(super) struct Wish<'a> {
    pub(super) id: SequenceId,
    pub(super) tokens: &'a [u32],
    /// Tokens before this index are the prompt.
    pub(super) prompt_end: usize,
    pub(super) options: &'a Resolved,
    /// What sampling has kept; all drafts are drawn with it.
    pub(super) state: State,
    /// Most drafts.
    pub(super) most: usize,
}

impl Wish<'_> {
    /// A draft after `all`, the tokens and earlier drafts; `None` where none can be drawn.
    ///
    /// The token itself is drawn with the same random number: where both models agree, so do the draws.
    pub(super) fn draw(&self, logits: &mut [f32], drawable: &Drawable, all: &[u32]) -> Option<u32> {
        let (prompt, output) = all.split_at(self.prompt_end);
        let mut state = self.state;
        let drawn = sample_id(logits, drawable, self.options, &History { prompt, output }, &mut state);
        drawn.ok().filter(|id| drawable.has(*id))
    }
}

/// The draft model's part of a sequence.
#[derive(Debug, Default)]
struct Follower {
    tables: PageTables,
    /// How many tokens of the sequence are in the pages.
    computed: usize,
    /// Drafts that are in the pages after them.
    ahead: Vec<u32>,
    /// Whether its keys use the long frequencies of LongRoPE.
    long: bool,
}

impl Follower {
    /// Looks at what has become of the drafts. `tokens` are those of the sequence; the last one is always computed again.
    fn meet(&mut self, tokens: &[u32]) {
        let next = tokens.get(self.computed..tokens.len() - 1).unwrap_or_default().iter();
        self.computed += next.zip(&self.ahead).take_while(|(token, draft)| token == draft).count();
        self.ahead.clear();
    }
}

/// A sequence's part of a round of drafts.
struct Run<'a> {
    wish: &'a Wish<'a>,
    /// Tokens and drafts.
    all: Vec<u32>,
    /// Drafts that it gets: none until all tokens are computed.
    most: usize,
    /// Rows of its next pass.
    rows: usize,
}

impl Run<'_> {
    fn drafts(&self) -> usize {
        self.all.len() - self.wish.tokens.len()
    }

    fn goes_on(&self) -> bool {
        self.drafts() < self.most
    }
}

/// What the draft model keeps.
pub(crate) struct DraftModel {
    cache: KvCache,
    scratch: Scratch,
    followers: BTreeMap<SequenceId, Follower>,
    /// Mean seconds of a pass with a row for each sequence.
    step: Option<f64>,
    /// Of the buffers.
    _reservation: Reservation,
}

impl DraftModel {
    /// `reservation`: of its buffers.
    pub(crate) fn new(cache: KvCache, reservation: Reservation) -> Self {
        let (scratch, followers) = (Scratch::default(), BTreeMap::new());
        DraftModel { cache, scratch, followers, step: None, _reservation: reservation }
    }

    /// Mean seconds of a pass for one draft of each sequence.
    pub(super) fn step(&self) -> Option<f64> {
        self.step
    }

    /// Bytes of its pages.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.allocated_bytes()
    }

    /// A sequence is gone, or its pages are needed.
    pub(super) fn forget(&mut self, id: SequenceId) {
        if let Some(mut follower) = self.followers.remove(&id) {
            self.cache.release_all(&mut follower.tables);
        }
        if self.followers.is_empty() {
            self.cache.trim();
        }
    }

    /// A sequence keeps its first `length` tokens.
    pub(super) fn truncate(&mut self, id: SequenceId, length: usize) {
        if let Some(follower) = self.followers.get_mut(&id).filter(|follower| follower.computed > length) {
            follower.computed = self.cache.truncate(&mut follower.tables, length);
            follower.ahead.clear();
        }
    }

    /// Gives back all pages. Returns whether there were any.
    pub(super) fn release(&mut self) -> bool {
        let had = self.cache.allocated_bytes() > 0;
        for mut follower in std::mem::take(&mut self.followers).into_values() {
            self.cache.release_all(&mut follower.tables);
        }
        self.cache.trim();
        had
    }

    /// The buffers may be half written.
    pub(super) fn reset(&mut self) {
        self.release();
        self.scratch = Scratch::default();
    }

    /// Drafts for each of `wishes`, of tokens that are `drawable`; fewer, or none, where memory is short, or while a sequence's
    /// tokens are not computed yet. Stops when `stop` says so.
    ///
    /// # Errors
    /// As [`Served::forward`].
    pub(super) fn draft(
        &mut self,
        model: &dyn Served,
        wishes: &[Wish<'_>],
        drawable: &Drawable,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<(SequenceId, Vec<u32>)>> {
        let limits = model.limits();
        let mut rows_left = limits.rows;
        let places = limits.sequences.min(SCORE_ROWS.max(limits.sequences));
        let mut runs: Vec<Run<'_>> = Vec::new();
        for wish in wishes {
            let rows = if runs.len() < places { self.prepare(model, wish, rows_left) } else { 0 };
            if rows > 0 {
                rows_left -= rows;
                let computed = self.followers.get(&wish.id).map_or(0, |follower| follower.computed);
                let complete = computed + rows == wish.tokens.len();
                let room = model.max_context().saturating_sub(wish.tokens.len());
                let most = if complete { wish.most.min(room) } else { 0 };
                runs.push(Run { wish, all: wish.tokens.to_vec(), most, rows });
            }
        }
        let mut first = true;
        while runs.iter().any(|run| run.rows > 0) {
            let started = Instant::now();
            if self.pass(model, &runs, stop)? == Pass::Cancelled {
                break;
            }
            self.advance(&mut runs, model.vocab_size(), drawable);
            if !std::mem::take(&mut first) {
                let seconds = started.elapsed().as_secs_f64();
                self.step = Some(self.step.map_or(seconds, |mean| mean + WEIGHT * (seconds - mean)));
            }
        }
        let drafts = |run: Run<'_>| (run.wish.id, run.all[run.wish.tokens.len()..].to_vec());
        Ok(runs.into_iter().map(drafts).collect())
    }

    /// Finds pages for the tokens of `wish` that are not computed, at most `rows` of them, and for its drafts. Returns how many
    /// tokens these are; none without memory.
    fn prepare(&mut self, model: &dyn Served, wish: &Wish<'_>, rows: usize) -> usize {
        let end = wish.tokens.len() + wish.most;
        if wish.tokens.len() >= model.max_context() || wish.tokens.is_empty() {
            return 0;
        }
        let long = model.longrope_from().is_some_and(|from| end > from);
        if self.followers.get(&wish.id).is_some_and(|follower| follower.long != long) {
            self.forget(wish.id);
        }
        // Something has to be computed for the first draft.
        self.truncate(wish.id, wish.tokens.len() - 1);
        let follower = self.followers.entry(wish.id).or_default();
        follower.long = long;
        follower.meet(wish.tokens);
        let rows = rows.min(wish.tokens.len() - follower.computed);
        let length = (follower.computed + rows + wish.most).min(model.max_context());
        match self.cache.grow(&mut follower.tables, length) {
            Ok(()) => rows,
            Err(_) => {
                self.forget(wish.id);
                0
            }
        }
    }

    /// Computes the next rows of `runs`.
    fn pass(
        &mut self,
        model: &dyn Served,
        runs: &[Run<'_>],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Pass> {
        let DraftModel { cache, scratch, followers, .. } = self;
        let mut batch = Batch::new();
        for run in runs.iter().filter(|run| run.rows > 0) {
            let Some(follower) = followers.get(&run.wish.id) else { continue };
            let start = follower.computed + follower.ahead.len();
            let (length, logits) = (run.wish.tokens.len() + run.wish.most, usize::from(run.goes_on()));
            batch.push_of(length, &run.all[start..start + run.rows], start, logits, &follower.tables);
        }
        let resources = Resources {
            cache,
            scratch,
            stop,
            #[cfg(test)]
            trap: None,
        };
        model.forward(resources, &batch)
    }

    /// After a pass: draws drafts.
    fn advance(&mut self, runs: &mut [Run<'_>], vocab: usize, drawable: &Drawable) {
        let mut logits = self.scratch.logits.chunks_exact_mut(vocab);
        for run in runs.iter_mut().filter(|run| run.rows > 0) {
            let Some(follower) = self.followers.get_mut(&run.wish.id) else { continue };
            match run.drafts() {
                0 => {
                    follower.computed += run.rows;
                    self.cache.release_passed(&mut follower.tables, follower.computed);
                }
                _ => follower.ahead.extend(run.all.last()),
            }
            run.rows = 0;
            let Some(logits) = run.goes_on().then(|| logits.next()).flatten() else { continue };
            let token = run.wish.draw(logits, drawable, &run.all);
            run.all.extend(token);
            run.rows = usize::from(token.is_some() && run.goes_on());
        }
    }
}
