//! The C interface of clawdbot: opaque handles around the types of `clawdbot_core`, one function for each method.
//!
//! Each function converts its arguments, makes one call to the core, and converts the result; there is no behaviour
//! here. What a caller has to know (ownership, threads, errors) stands at the head of the header, `clawdbot.h`, which
//! is generated from these files; the documentation of each function is written for its readers.
//!
//! Handles come in as `Option<&T>` (null is `None`) and are only ever borrowed shared; a lock guards what changes.
//! Raw pointers are read and written by the helpers in [`handle`] alone.
#![allow(non_camel_case_types, reason = "the names are those of C")]
#![warn(clippy::multiple_unsafe_ops_per_block)]

mod guard;
mod handle;

// In the order of the header.

/// The number of the binary interface; the build script includes this file too.
pub mod abi;

pub mod version;

pub mod error;

pub mod string;

pub mod options;

pub mod processor;

pub mod callback;

pub mod runtime;

#[cfg(feature = "hub")]
pub mod hub;

pub mod cancel;

pub mod model;

pub mod pool;

pub mod batch;

pub mod embed;

pub mod tokenizer;

pub mod constraint;

pub mod session;

pub mod chat;

pub mod stream;

pub mod event;

pub mod completion;
