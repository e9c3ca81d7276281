//! The place of a session in the engine.

use std::sync::{Arc, Weak};

use crate::api::loaded::Loaded;
use crate::api::users::User;
use crate::engine::SequenceId;

/// A sequence in the engine, removed with this. It keeps no model in memory.
pub(super) struct Place {
    loaded: Weak<Loaded>,
    id: SequenceId,
}

/// A sequence in the engine, removed with its last owner, and a user of the model.
pub(super) struct Slot {
    // Dropped before the model.
    place: Place,
    pub(super) loaded: Arc<Loaded>,
    pub(super) id: SequenceId,
    _user: User,
}

impl Slot {
    pub(super) fn new(loaded: Arc<Loaded>, id: SequenceId) -> Self {
        let place = Place { loaded: Arc::downgrade(&loaded), id };
        Slot { place, _user: User::new(&loaded.users), loaded, id }
    }

    /// For an owner that has no more work: ends the use of the model, unless there are other owners. What is left is removed later,
    /// as that may wait for the pass that is computed.
    pub(super) fn end_use(self: Arc<Self>) -> Option<Place> {
        Arc::into_inner(self).map(|slot| slot.place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // In a forked child the engine is out of reach, and its memory goes with the process.
        if let Some(loaded) = self.loaded.upgrade()
            && let Ok(mut engine) = loaded.engine()
        {
            engine.close(self.id);
        }
    }
}
