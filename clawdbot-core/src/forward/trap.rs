//! Faults that tests inject into a forward pass.

use crate::error::Result;

/// Called at each place; may return an error or panic.
pub(crate) type Trap = dyn Fn(Place) -> Result<()> + Send + Sync;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A task of the thread pool, by its number. An error is ignored.
    Task(usize),
    /// The middle of a layer: its keys, values and states are written.
    Layer(usize),
}
