//! Faults that tests put into a forward pass.

use crate::error::Result;

/// What happens at a place: nothing, an error, or a panic.
pub(crate) type Trap = dyn Fn(Place) -> Result<()> + Send + Sync;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A task that threads share, by its number. What it returns is passed over.
    Task(usize),
    /// The middle of a layer: its keys, values and states are written.
    Layer(usize),
}
