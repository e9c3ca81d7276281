//! What drafts the tokens of a model: another model, the model's own head, both, or neither.

use super::controller::Drafter;
use super::draft_model::{DraftModel, Wish};
use super::entry::SequenceId;
use super::mtp::Mtp;
use super::served::Served;
use crate::error::Result;
use crate::options::Speculation;
use crate::sampling::Drawable;

/// What drafters keep. It can be given up at any time.
#[derive(Default)]
pub(super) struct Drafters {
    pub(super) model: Option<DraftModel>,
    pub(super) mtp: Option<Mtp>,
}

impl Drafters {
    /// The drafter that a request asks for, if it is there.
    pub(super) fn of(&self, speculation: Speculation) -> Option<Drafter> {
        match speculation {
            Speculation::Draft if self.model.is_some() => Some(Drafter::Model),
            Speculation::Mtp if self.mtp.is_some() => Some(Drafter::Mtp),
            _ => None,
        }
    }

    /// Whether `drafter` can draft what follows the `length` tokens of a sequence.
    pub(super) fn can_draft(&self, drafter: Drafter, id: SequenceId, length: usize) -> bool {
        match drafter {
            Drafter::Model => true,
            Drafter::Mtp => self.mtp.as_ref().is_some_and(|mtp| mtp.can_draft(id, length)),
        }
    }

    /// Mean seconds of a pass of each drafter.
    pub(super) fn steps(&self) -> [Option<f64>; Drafter::COUNT] {
        [self.model.as_ref().and_then(DraftModel::step), self.mtp.as_ref().and_then(Mtp::step)]
    }

    /// Drafts of `drafter`; none if it fails.
    pub(super) fn draft(
        &mut self,
        drafter: Drafter,
        model: &impl Served,
        wishes: &[Wish<'_>],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Vec<(SequenceId, Vec<u32>)> {
        let drawable: &Drawable = model.drawable();
        let found: Option<Result<_>> = match drafter {
            Drafter::Model => {
                let parts = self.model.as_mut().zip(model.draft_model());
                parts.map(|(own, draft_model)| own.draft(draft_model, wishes, drawable, stop))
            }
            Drafter::Mtp => {
                let parts = self.mtp.as_mut().zip(model.mtp_head());
                parts.map(|(own, head)| own.draft(head, wishes, drawable, stop))
            }
        };
        let Some(Ok(drafts)) = found else {
            // It has no memory, or is broken.
            match drafter {
                Drafter::Model => self.model.as_mut().map(DraftModel::release),
                Drafter::Mtp => self.mtp.as_mut().map(Mtp::release),
            };
            return Vec::new();
        };
        drafts
    }

    /// Bytes that they hold.
    pub(super) fn bytes(&self) -> u64 {
        let model = self.model.as_ref().map_or(0, DraftModel::bytes);
        model.saturating_add(self.mtp.as_ref().map_or(0, Mtp::bytes))
    }

    /// A sequence is gone.
    pub(super) fn forget(&mut self, id: SequenceId) {
        self.model.iter_mut().for_each(|model| model.forget(id));
        self.mtp.iter_mut().for_each(|mtp| mtp.forget(id));
    }

    /// A sequence keeps its first `length` tokens.
    pub(super) fn truncate(&mut self, id: SequenceId, length: usize) {
        self.model.iter_mut().for_each(|model| model.truncate(id, length));
        self.mtp.iter_mut().for_each(|mtp| mtp.truncate(id, length));
    }

    /// Gives back what they hold. Returns whether there was anything.
    pub(super) fn release(&mut self) -> bool {
        let model = self.model.as_mut().is_some_and(DraftModel::release);
        self.mtp.as_mut().is_some_and(Mtp::release) || model
    }

    /// Their buffers may be half written.
    pub(super) fn reset(&mut self) {
        self.model.iter_mut().for_each(DraftModel::reset);
        self.mtp.iter_mut().for_each(Mtp::reset);
    }
}
