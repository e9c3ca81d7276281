//! Which sequences take part in the next forward pass, and with how many tokens: pure functions over numbers.
//!
//! *Turns.* A pass has room for a limited number of sequences. When more wait, those that have taken part in [`TURN`]
//! passes give up their places and queue up after those of their group that have waited longer. So a short request gets
//! in soon, however long the others are, and passes stay full. Groups have equal shares of the places (`groups.rs`).
//!
//! *Memory.* A sequence is admitted when the most that all admitted sequences will hold at one time fits, each growing
//! to its end. *Open-ended* sequences, which may generate more than [`HORIZON`] tokens, count as if they generated that
//! many more. An admitted sequence gets pages only while the work that could be lost stays within bounds, should every
//! sequence grow as far as it may (`risk.rs`); without open-ended sequences that is nothing. Otherwise it waits and
//! keeps its pages. If all wait for each other, the latest one loses its pages.
//!
//! [`TURN`]: super::entry::TURN
//! [`HORIZON`]: super::entry::HORIZON

use super::entry::{Entry, Limits, Memory, SCORE_ROWS, SequenceId, Want};
use super::grants::{Grant, grants};
use super::groups::in_turn;
use crate::cache::Pages;

/// A sequence's part of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: SequenceId,
    pub(crate) rows: usize,
    /// Number of rows, counted from the end, that need logits.
    pub(crate) logits: usize,
    /// Most drafts after these rows.
    pub(crate) drafts: usize,
}

/// What the next step does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// Sequences to evict first.
    pub(crate) evicted: Vec<SequenceId>,
    /// Sequences whose tokens do not fit into the memory, not even alone.
    pub(crate) hopeless: Vec<SequenceId>,
    /// Sequences that a later request was admitted before.
    pub(crate) overtaken: Vec<SequenceId>,
}

/// Plans a step for `entries`; `memory` is given where it may be short. Decoding sequences come first, one token each,
/// so that no stream stalls while a long prompt is computed; prompts fill the rest, in chunks.
pub(crate) fn plan_step<P: Pages>(
    mut entries: Vec<Entry>,
    limits: &Limits,
    memory: Option<Memory<'_, P>>,
) -> Plan {
    let mut plan = Plan::default();
    entries.sort_unstable_by_key(|entry| entry.rank);
    let Some(mut memory) = memory else {
        let grants = vec![Grant::ALL; entries.len()];
        plan.parts = share_out(&entries, &grants, limits);
        return plan;
    };
    entries.retain(|entry| {
        let fits = memory.pages.bytes(entry.tokens, entry.rows(limits)) <= memory.capacity;
        if !fits {
            plan.hopeless.push(entry.id);
        }
        fits
    });
    while !entries.is_empty() {
        plan.overtaken.clear();
        let grants = grants(&memory, &entries, limits, &mut plan.overtaken);
        plan.parts = share_out(&entries, &grants, limits);
        if !plan.parts.is_empty() {
            break;
        }
        // All wait for each other: evict the latest.
        let admitted = entries.iter().filter(|entry| entry.turn.admitted).count();
        let last = entries.iter_mut().rfind(|entry| entry.turn.admitted);
        match last.filter(|_| admitted > 1) {
            Some(last) => {
                plan.evicted.push(last.id);
                memory.work.lose(last.computed);
                (last.held, last.computed, last.turn.admitted) = (0, 0, false);
            }
            // The last one left gets all memory there is.
            None => {
                let first = entries.iter().find(|entry| entry.turn.admitted).or(entries.first());
                let first: Vec<Entry> = first.copied().into_iter().collect();
                plan.parts = share_out(&first, &[Grant { drafts: 0, ..Grant::ALL }], limits);
                break;
            }
        }
    }
    plan
}

/// Divides the rows of a pass among those of `entries` whose turn it is, each within its grant.
fn share_out(entries: &[Entry], grants: &[Grant], limits: &Limits) -> Vec<Part> {
    let mut order: Vec<(&Entry, Grant)> = entries.iter().zip(grants.iter().copied()).collect();
    order.retain(|(_, grant)| grant.rows > 0);
    let order = in_turn(order);
    let decodes = |entry: &Entry| entry.left() == 1;
    let mut places = if limits.whole { limits.sequences } else { limits.sequences.min(limits.rows) };
    let decoding = order.iter().filter(|(entry, _)| decodes(entry)).count().min(places);
    // Keep a row for every decoding sequence.
    let mut rows_left = limits.rows.saturating_sub(decoding).min(limits.prompts).max(1);
    // The plan of the model reserves this many rows of logits.
    let mut logits_left = SCORE_ROWS.max(limits.sequences);
    let (mut tokens, mut prompts) = (Vec::new(), Vec::new());
    let mut full = false;
    for (entry, grant) in order {
        if places == 0 {
            break;
        }
        let mut most = grant.rows.min(rows_left).min(entry.most_rows);
        if entry.want == Want::Scores {
            most = most.min(SCORE_ROWS).min(logits_left);
        }
        let rows = match limits.whole {
            _ if decodes(entry) => 1,
            _ if full => 0,
            true if (prompts.is_empty() && tokens.is_empty()) || entry.left() <= most => entry.left(),
            true => 0,
            false => entry.left().min(most),
        };
        let logits = match entry.want {
            Want::States => 0,
            Want::Scores => rows,
            Want::Token => usize::from(rows == entry.left()),
        };
        if rows == 0 || logits > logits_left {
            // Later prompts do not overtake it.
            full = true;
            continue;
        }
        places -= 1;
        logits_left -= logits;
        // Those of the last token that may be generated are never computed.
        let drafts = match entry.want {
            Want::Token if decodes(entry) => grant.drafts.min(entry.last.saturating_sub(entry.tokens)),
            _ => 0,
        };
        let part = Part { id: entry.id, rows, logits, drafts };
        if decodes(entry) {
            tokens.push(part);
        } else {
            rows_left = rows_left.saturating_sub(rows);
            full |= rows_left == 0;
            prompts.push(part);
        }
    }
    tokens.append(&mut prompts);
    tokens
}

#[cfg(test)]
#[path = "tests_scheduler.rs"]
mod tests;
