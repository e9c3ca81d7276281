//! The model as the engine sees it.

use clawdbot_kernels::threads::ThreadPool;

use super::entry::Limits;
use crate::cache::KvCache;
use crate::error::Result;
use crate::forward::batch::Batch;
use crate::forward::decoder::Pass;
use crate::forward::scratch::Scratch;
use crate::sampling::Drawable;

/// What a forward pass writes to, and what stops it.
pub(crate) struct Resources<'a> {
    pub(crate) cache: &'a mut KvCache,
    pub(crate) scratch: &'a mut Scratch,
    /// Whether to abandon the pass; called before every task.
    pub(crate) stop: &'a (dyn Fn() -> bool + Sync),
    #[cfg(test)]
    pub(crate) trap: Option<&'a crate::forward::trap::Trap>,
}

/// A model, as the engine sees it: sizes, bounds, and forward passes.
pub(crate) trait Served {
    /// Bounds of a pass.
    fn limits(&self) -> Limits;
    /// Most tokens of a sequence.
    fn max_context(&self) -> usize;
    /// Number of logits of a row.
    fn vocab_size(&self) -> usize;
    /// Number of elements of a hidden state.
    fn hidden_size(&self) -> usize;
    /// The length in tokens above which a sequence uses the long frequencies of LongRoPE.
    fn longrope_from(&self) -> Option<usize>;
    /// The token ids that may be generated.
    fn drawable(&self) -> &Drawable;
    /// The threads that compute.
    fn pool(&self) -> &ThreadPool;
    /// The model that drafts its tokens, if there is one.
    fn draft_model(&self) -> Option<&dyn Served> {
        None
    }
    /// The model's head for multi-token prediction, if it has one: as a model whose batches have states of this one.
    fn mtp_head(&self) -> Option<&dyn Served> {
        None
    }
    /// Runs `batch` through the model. Leaves the logits in `scratch.logits`, `[logits_rows, vocab_size]`, and the
    /// hidden states after the final norm in `scratch.states`, `[state_rows, hidden_size]`.
    ///
    /// # Errors
    /// `OutOfBudget` if memory runs out; `ForkedRuntime`.
    fn forward(&self, resources: Resources<'_>, batch: &Batch<'_>) -> Result<Pass>;
}
