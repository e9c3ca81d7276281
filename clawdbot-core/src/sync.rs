//! What events are handed over with, between the threads that compute, read and cancel: the standard library's types, or with
//! `--cfg loom` those of loom, whose models (`engine/models.rs`) run the same code in every order that the memory model allows.

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle, Thread, current, park},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle, Thread, current, park, park_timeout},
};

/// Time does not pass in a model.
#[cfg(loom)]
pub(crate) fn park_timeout(_: std::time::Duration) {
    park();
}
