//! Which tokens go through one forward pass.

use crate::cache::PageTables;
use crate::forward::adapter::{Adapter, AdapterRows};

/// A ragged batch: tokens of several sequences, one after the other.
pub(crate) struct Batch<'a> {
    /// Token ids of all rows.
    pub(crate) tokens: Vec<u32>,
    /// Absolute position of each row in its sequence.
    pub(crate) positions: Vec<usize>,
    /// For each row, the number of tokens of its sequence, computed or not.
    pub(crate) lengths: Vec<usize>,
    /// The sequences, in the order of their rows; together they cover all rows.
    pub(crate) sequences: Vec<BatchSequence<'a>>,
    /// Rows whose logits are wanted, ascending.
    pub(crate) logits_rows: Vec<usize>,
    /// Rows whose states after the last norm are wanted, ascending.
    pub(crate) state_rows: Vec<usize>,
    /// Token type of each row, for models that have token types; empty: 0 for all.
    pub(crate) token_types: Vec<u32>,
    /// Rows of sequences with an adapter, ascending.
    pub(crate) adapters: Vec<AdapterRows<'a>>,
    /// `[rows, hidden_size]`, for a head for multi-token prediction: the state of each row; empty: for other models.
    pub(crate) given_states: &'a [f32],
}

/// One sequence's share of a batch: consecutive rows at consecutive positions.
pub(crate) struct BatchSequence<'a> {
    /// Number of rows.
    pub(crate) rows: usize,
    /// Its pages, which cover all its positions.
    pub(crate) tables: &'a PageTables,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        Batch {
            tokens: Vec::new(),
            positions: Vec::new(),
            lengths: Vec::new(),
            sequences: Vec::new(),
            logits_rows: Vec::new(),
            state_rows: Vec::new(),
            token_types: Vec::new(),
            adapters: Vec::new(),
            given_states: &[],
        }
    }

    /// Adds the tokens of a sequence from position `start` to its end, with logits for the last `logits` of them.
    #[cfg(any(test, feature = "bench-support"))]
    pub(crate) fn push(&mut self, tokens: &[u32], start: usize, logits: usize, tables: &'a PageTables) {
        self.push_of(start + tokens.len(), tokens, start, logits, tables);
    }

    /// As [`Batch::push`], for a sequence of `length` tokens, whose end may be later.
    pub(crate) fn push_of(
        &mut self,
        length: usize,
        tokens: &[u32],
        start: usize,
        logits: usize,
        tables: &'a PageTables,
    ) {
        self.lengths.extend(tokens.iter().map(|_| length));
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(start..start + tokens.len());
        let end = self.tokens.len();
        self.logits_rows.extend(end - logits..end);
        self.sequences.push(BatchSequence { rows: tokens.len(), tables });
    }

    /// Sets the token types of the tokens that were added last.
    pub(crate) fn push_types(&mut self, types: &[u32]) {
        self.token_types.resize(self.rows() - types.len(), 0);
        self.token_types.extend_from_slice(types);
    }

    /// Gives the sequence that was added last an adapter. Neighbouring sequences with the same adapter share its products.
    pub(crate) fn adapt(&mut self, adapter: &'a Adapter) {
        let (end, rows) = (self.rows(), self.sequences.last().map_or(0, |sequence| sequence.rows));
        match self.adapters.last_mut() {
            Some(last) if last.rows.end == end - rows && last.adapter.id == adapter.id => last.rows.end = end,
            _ => self.adapters.push(AdapterRows { rows: end - rows..end, adapter }),
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }
}
