//! The place of a session in the engine.

use std::sync::Arc;

use crate::api::loaded::Loaded;
use crate::api::users::User;
use crate::engine::SequenceId;

/// A sequence in the engine, removed with its last owner.
pub(super) struct Slot {
    pub(super) loaded: Arc<Loaded>,
    pub(super) id: SequenceId,
    _user: User,
}

impl Slot {
    pub(super) fn new(loaded: Arc<Loaded>, id: SequenceId) -> Self {
        Slot { _user: User::new(&loaded.users), loaded, id }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // In a forked child the engine is out of reach, and its memory goes with the process.
        if let Ok(mut engine) = self.loaded.engine() {
            engine.close(self.id);
        }
    }
}
