//! Drafts of the model's own head for multi-token prediction (MTP), which reads the model's hidden states.
//!
//! Row p of the head has the state of position p and the token after it, and gives the token after that. The head keeps keys and
//! values of its rows in pages of its own. States come with the passes of the model, and are kept until they are enough for a
//! pass of the head, or drafts are wanted. The last one is always kept: drafts begin with its row.
//!
//! What it holds can be lost at any time. Then it follows the sequence from the next states on, as if that began there.

use std::collections::BTreeMap;
use std::time::Instant;

use super::draft_model::Wish;
use super::entry::SequenceId;
use super::served::{Resources, Served};
use crate::cache::{KvCache, PageTables};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::batch::Batch;
use crate::forward::decoder::Pass;
use crate::forward::scratch::Scratch;
use crate::runtime::{Budget, Reservation};
use crate::sampling::Drawable;

/// Rows that are enough for a pass.
const ENOUGH: usize = 64;
/// Weight of the latest time in the mean.
const WEIGHT: f64 = 0.2;

/// Most rows of a pass of the head for a model whose passes have `sequences` sequences.
pub(crate) fn mtp_rows(sequences: usize) -> usize {
    ENOUGH + sequences
}

/// The head's part of a sequence.
struct Follower {
    tables: PageTables,
    /// Position of its first row.
    origin: usize,
    /// Rows in the pages.
    computed: usize,
    /// `[rows, hidden_size]`: states of the rows after them.
    states: Vec<f32>,
    /// Of the states.
    reservation: Reservation,
}

impl Follower {
    /// Keeps more states.
    ///
    /// # Errors
    /// `OutOfBudget`.
    fn keep(&mut self, states: &[f32]) -> Result<()> {
        let what = "hidden states for multi-token prediction";
        self.reservation.resize(4 * (self.states.len() + states.len()) as u64, what)?;
        let no_memory = |_| Error::new(ErrorKind::OutOfBudget, format!("there is no memory for {what}"));
        self.states.try_reserve_exact(states.len()).map_err(no_memory)?;
        self.states.extend_from_slice(states);
        Ok(())
    }

    /// Its first `values` values of states are not needed any more.
    fn lose(&mut self, values: usize) {
        self.states.drain(..values.min(self.states.len()));
        self.states.shrink_to_fit();
        // Cannot fail: it shrinks.
        let _ = self.reservation.resize(4 * self.states.len() as u64, "");
    }
}

/// A sequence's part of a pass.
struct Part {
    id: SequenceId,
    /// Of its rows.
    tokens: Vec<u32>,
    /// Of a draft: how many come before it, and the state that the head itself gave.
    draft: Option<(usize, Vec<f32>)>,
    /// Whether the logits and the state of the last row are wanted.
    wanted: bool,
}

/// A sequence that gets drafts.
struct Run<'a> {
    wish: &'a Wish<'a>,
    /// Tokens and drafts.
    all: Vec<u32>,
    most: usize,
}

/// What the head keeps.
pub(crate) struct Mtp {
    cache: KvCache,
    scratch: Scratch,
    /// `[rows, hidden_size]`: states of the rows of a pass.
    given: Vec<f32>,
    followers: BTreeMap<SequenceId, Follower>,
    /// Elements of a state.
    width: usize,
    /// Mean seconds of a pass with a row for each sequence.
    step: Option<f64>,
    budget: Budget,
    /// Of the buffers.
    _reservation: Reservation,
}

impl Mtp {
    /// For states of `width` elements. `reservation`: of its buffers.
    pub(crate) fn new(cache: KvCache, width: usize, budget: &Budget, reservation: Reservation) -> Self {
        Mtp {
            cache,
            scratch: Scratch::default(),
            given: Vec::new(),
            followers: BTreeMap::new(),
            width,
            step: None,
            budget: budget.clone(),
            _reservation: reservation,
        }
    }

    /// Mean seconds of a pass for one draft of each sequence.
    pub(super) fn step(&self) -> Option<f64> {
        self.step
    }

    /// Bytes of its pages and of the states that it keeps.
    pub(super) fn bytes(&self) -> u64 {
        let states = self.followers.values().map(|follower| follower.reservation.bytes());
        states.fold(self.cache.allocated_bytes(), u64::saturating_add)
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
        let Some(follower) = self.followers.get_mut(&id) else { return };
        // A row has the token after its position.
        let keep = length.saturating_sub(1).saturating_sub(follower.origin);
        if keep == 0 {
            return self.forget(id);
        }
        match keep.checked_sub(follower.computed) {
            Some(states) => {
                let most = follower.states.len().min(states * self.width);
                follower.states.truncate(most);
            }
            None => {
                follower.states.clear();
                follower.computed = self.cache.truncate(&mut follower.tables, keep);
            }
        }
        follower.lose(0);
    }

    /// Gives back all memory. Returns whether there was any.
    pub(super) fn release(&mut self) -> bool {
        let had = self.bytes() > 0;
        for mut follower in std::mem::take(&mut self.followers).into_values() {
            self.cache.release_all(&mut follower.tables);
        }
        self.cache.trim();
        had
    }

    /// The buffers may be half written.
    pub(super) fn reset(&mut self) {
        self.release();
        (self.scratch, self.given) = (Scratch::default(), Vec::new());
    }

    /// Rows of `follower` that wait.
    fn rows(&self, follower: &Follower) -> usize {
        follower.states.len() / self.width
    }

    /// Whether it can draft what follows the `length` tokens of a sequence.
    pub(super) fn can_draft(&self, id: SequenceId, length: usize) -> bool {
        self.followers.get(&id).is_some_and(|follower| {
            let rows = self.rows(follower);
            rows > 0 && follower.origin + follower.computed + rows + 1 == length
        })
    }

    /// A pass of the model gave `states`, `[rows, hidden_size]`, of positions from `first` on of a sequence. Keeps those that it does
    /// not know.
    pub(super) fn follow(&mut self, id: SequenceId, first: usize, states: &[f32]) {
        let next = |follower: &Follower| follower.origin + follower.computed + self.rows(follower);
        let mut known = 0;
        match self.followers.get(&id).map(next) {
            Some(next) if next >= first => known = next - first,
            // States are missing in between.
            Some(_) => self.forget(id),
            None => {}
        }
        let Some(new) = states.get(known * self.width..).filter(|new| !new.is_empty()) else { return };
        if !self.followers.contains_key(&id) {
            let Ok(reservation) = self.budget.reserve_growing(0, "") else { return };
            let (tables, states) = (PageTables::default(), Vec::new());
            let follower = Follower { tables, origin: first, computed: 0, states, reservation };
            self.followers.insert(id, follower);
        }
        if self.followers.get_mut(&id).is_some_and(|follower| follower.keep(new).is_err()) {
            self.forget(id);
        }
    }

    /// Sequences with rows that may be computed, all but the last one, and how many these are.
    fn waiting(&self) -> Vec<(SequenceId, usize)> {
        let rows = self.followers.iter().map(|(&id, follower)| (id, self.rows(follower).saturating_sub(1)));
        rows.filter(|(_, rows)| *rows > 0).collect()
    }

    /// Computes rows if there are enough: all but the last one of each sequence, whose tokens are `tokens(id)`.
    ///
    /// # Errors
    /// As [`Served::forward`].
    pub(super) fn catch_up<'a>(
        &mut self,
        head: &dyn Served,
        tokens: impl Fn(SequenceId) -> Option<&'a [u32]>,
    ) -> Result<()> {
        if self.waiting().iter().map(|(_, rows)| rows).sum::<usize>() < ENOUGH {
            return Ok(());
        }
        loop {
            let mut left = head.limits().rows;
            let mut parts = Vec::new();
            for (id, rows) in self.waiting().into_iter().take(head.limits().sequences) {
                let rows = rows.min(left);
                if let Some(tokens) = self.prepare(id, tokens(id).unwrap_or_default(), rows, 0) {
                    left -= rows;
                    parts.push(Part { id, tokens, draft: None, wanted: false });
                }
            }
            if parts.is_empty() {
                return Ok(());
            }
            self.pass(head, &parts, &|| false)?;
            parts.iter().for_each(|part| self.advance(part));
        }
    }

    /// Finds pages for the next `rows` rows of a sequence with these `tokens`, and for `drafts` after them. Returns the tokens of the
    /// rows. Forgets the sequence if there is no memory.
    fn prepare(&mut self, id: SequenceId, tokens: &[u32], rows: usize, drafts: usize) -> Option<Vec<u32>> {
        let follower = self.followers.get_mut(&id)?;
        let first = follower.origin + follower.computed + 1;
        let found = tokens.get(first..first + rows).filter(|found| !found.is_empty()).map(<[u32]>::to_vec);
        let grown = self.cache.grow(&mut follower.tables, follower.computed + rows + drafts);
        let found = found.filter(|_| grown.is_ok());
        if found.is_none() && rows > 0 {
            self.forget(id);
        }
        found
    }

    /// The rows of `part` are computed.
    fn advance(&mut self, part: &Part) {
        let Some(follower) = self.followers.get_mut(&part.id) else { return };
        follower.computed += part.tokens.len();
        follower.lose(part.tokens.len() * self.width);
        self.cache.release_passed(&mut follower.tables, follower.computed);
    }

    /// Drafts for each of `wishes`, of tokens that are `drawable`; none of sequences that it does not follow, and fewer where memory is
    /// short. Stops when `stop` says so.
    ///
    /// # Errors
    /// As [`Served::forward`].
    pub(super) fn draft(
        &mut self,
        head: &dyn Served,
        wishes: &[Wish<'_>],
        drawable: &Drawable,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<(SequenceId, Vec<u32>)>> {
        let limits = head.limits();
        let mut left = limits.rows;
        let (mut runs, mut parts): (Vec<Run<'_>>, Vec<Part>) = (Vec::new(), Vec::new());
        for wish in wishes {
            let most = wish.most.min(head.max_context().saturating_sub(wish.tokens.len()));
            let rows = self.followers.get(&wish.id).map_or(0, |follower| self.rows(follower));
            if runs.len() == limits.sequences || rows > left || most == 0 {
                continue;
            }
            if self.can_draft(wish.id, wish.tokens.len())
                && let Some(tokens) = self.prepare(wish.id, wish.tokens, rows, most - 1)
            {
                left -= rows;
                parts.push(Part { id: wish.id, tokens, draft: None, wanted: true });
                runs.push(Run { wish, all: wish.tokens.to_vec(), most });
            }
        }
        while !parts.is_empty() {
            let (started, few) = (Instant::now(), parts.iter().all(|part| part.tokens.len() < 8));
            if self.pass(head, &parts, stop)? == Pass::Cancelled {
                break;
            }
            let next = self.draw(&mut runs, &parts, head.vocab_size(), drawable);
            parts.iter().filter(|part| part.draft.is_none()).for_each(|part| self.advance(part));
            parts = next;
            if few {
                let seconds = started.elapsed().as_secs_f64();
                self.step = Some(self.step.map_or(seconds, |mean| mean + WEIGHT * (seconds - mean)));
            }
        }
        let drafts = |run: Run<'_>| (run.wish.id, run.all[run.wish.tokens.len()..].to_vec());
        Ok(runs.into_iter().map(drafts).collect())
    }

    /// Draws a draft from the logits of each of `parts`, and returns the parts of the next pass.
    fn draw(&mut self, runs: &mut [Run<'_>], parts: &[Part], vocab: usize, drawable: &Drawable) -> Vec<Part> {
        let logits = self.scratch.logits.chunks_exact_mut(vocab);
        let results = logits.zip(self.scratch.states.chunks_exact(self.width));
        let mut next = Vec::new();
        for (part, (logits, state)) in parts.iter().zip(results) {
            let Some(run) = runs.iter_mut().find(|run| run.wish.id == part.id) else { continue };
            let Some(token) = run.wish.draw(logits, drawable, &run.all) else { continue };
            run.all.push(token);
            let drafts = run.all.len() - run.wish.tokens.len();
            if drafts < run.most {
                let draft = Some((drafts - 1, state.to_vec()));
                next.push(Part { id: part.id, tokens: vec![token], draft, wanted: true });
            }
        }
        next
    }

    /// Computes the rows of `parts`.
    fn pass(&mut self, head: &dyn Served, parts: &[Part], stop: &(dyn Fn() -> bool + Sync)) -> Result<Pass> {
        let Mtp { cache, scratch, given, followers, width, .. } = self;
        given.clear();
        for Part { id, tokens, draft, .. } in parts {
            let states = match (draft, followers.get(id)) {
                (Some((_, state)), _) => state.as_slice(),
                (None, Some(follower)) => &follower.states[..tokens.len() * *width],
                (None, None) => {
                    return Err(Error::internal("a head computes rows of a sequence that it lost"));
                }
            };
            given.try_reserve(states.len()).map_err(|_| {
                Error::new(ErrorKind::OutOfBudget, "there is no memory for the states of a pass")
            })?;
            given.extend_from_slice(states);
        }
        let mut batch = Batch::new();
        for Part { id, tokens, draft, wanted } in parts {
            let Some(follower) = followers.get(id) else { continue };
            let start = follower.computed + draft.as_ref().map_or(0, |(before, _)| *before);
            let wanted = usize::from(*wanted);
            batch.push_of(start + tokens.len(), tokens, start, wanted, &follower.tables);
            batch.state_rows.extend(batch.rows() - wanted..batch.rows());
        }
        batch.given_states = given;
        let resources = Resources {
            cache,
            scratch,
            stop,
            #[cfg(test)]
            trap: None,
        };
        head.forward(resources, &batch)
    }
}
