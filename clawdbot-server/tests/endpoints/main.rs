//! Endpoints over the built-in model, and what they have in common.
#![allow(clippy::unwrap_used, reason = "a test")]

mod anthropic;
#[cfg(feature = "tls")]
mod certificates;
mod chat;
mod completions;
mod connections;
mod faults;
mod generate;
mod keys;
mod responses;
mod shared;
mod support;
mod texts;
#[cfg(feature = "tls")]
mod tls;
