//! What the pool synchronizes with: the standard library's types, or with `--cfg loom` those of loom, whose models
//! (`models.rs`) run the same code in every order that the memory model allows.

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell as Cell,
    sync::atomic::{AtomicBool, AtomicU64, fence},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle, park},
};
#[cfg(not(loom))]
pub(super) use std::{
    sync::atomic::{AtomicBool, AtomicU64, fence},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle, park},
};

/// `UnsafeCell` with the interface of loom's, which sees every access.
#[cfg(not(loom))]
pub(super) struct Cell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> Cell<T> {
    pub(super) fn new(value: T) -> Self {
        Cell(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// How long a worker or the leader spins before it sleeps. Longer than the serial gaps of a forward pass.
#[cfg(not(loom))]
pub(super) const SPIN: std::time::Duration = std::time::Duration::from_micros(50);

/// The time that a thread spins before it sleeps.
#[cfg(not(loom))]
pub(super) struct Spin {
    rounds: u32,
    start: Option<std::time::Instant>,
}

#[cfg(not(loom))]
impl Spin {
    pub(super) fn new() -> Self {
        Spin { rounds: 0, start: None }
    }

    /// Waits for a moment. False when the time is over.
    pub(super) fn again(&mut self) -> bool {
        std::hint::spin_loop();
        self.rounds = self.rounds.wrapping_add(1);
        // The clock is read now and then only: it costs as much as many spins.
        !self.rounds.is_multiple_of(64)
            || self.start.get_or_insert_with(std::time::Instant::now).elapsed() <= SPIN
    }
}

/// No time at all: a model looks once, then sleeps.
#[cfg(loom)]
pub(super) struct Spin;

#[cfg(loom)]
impl Spin {
    pub(super) fn new() -> Self {
        Spin
    }

    pub(super) fn again(&mut self) -> bool {
        false
    }
}
