//! clawdbot runs language models inside your program, on the CPU it has.
//!
//! ```
//! use clawdbot_core::{GenerateOptions, Model};
//!
//! let model = Model::builtin()?;
//! let options = GenerateOptions::default().max_tokens(20_u32).temperature(0.0);
//! let completion = model.generate("Once upon a time", &options)?;
//! println!("{}", completion.text);
//! # Ok::<(), clawdbot_core::Error>(())
//! ```
//!
//! The concepts, with the same names in every language: a [`Runtime`] (threads, memory budget, log hook) makes a
//! [`Plan`] of what a model would cost and loads a [`Model`]; a [`Session`] is one conversation's state; a prompt with
//! [`GenerateOptions`] becomes a [`Stream`] of [`Event`]s and in the end a [`Completion`]. Everything that can fail
//! gives an [`Error`] with a stable number.
//!
//! The library prints nothing, does not abort, and does not use process-wide state of the host.
#![deny(unsafe_code)]
#![warn(clippy::multiple_unsafe_ops_per_block)]

mod api;
#[cfg(feature = "bench-support")]
#[doc(hidden)]
pub mod bench_support;
mod cache;
mod cancel;
#[cfg(feature = "candle")]
pub mod candle;
mod engine;
mod error;
mod event;
mod forward;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz_support;
#[cfg(feature = "hub")]
mod hub;
mod json;
mod large_stack;
#[cfg(feature = "bench-support")]
#[doc(hidden)]
pub mod layer_trace;
mod load;
mod options;
mod runtime;
mod sampling;
mod spec;
mod suggest;
pub mod tokenizer;
mod weights;

pub use api::session::{Prompt, Session, Stream};
pub use api::{Chat, EmbeddingInfo, Embeddings, Faults, Model, ModelInfo, Plan, StoredMatrices};
pub use cancel::CancelHandle;
pub use error::{Error, ErrorKind, Result};
pub use event::{Completion, Event, FinishReason, Usage};
pub use load::source::Source;
#[cfg(feature = "hub")]
pub use options::HubOptions;
pub use options::{
    Cache, EmbedOptions, GenerateOptions, KvType, ModelOptions, PackOptions, Pooling, RerankOptions,
    RuntimeOptions, WeightType, check_option_names,
};
pub use runtime::{Cpus, Limits, LogLevel, LogRecord, RefusedKernels, Runtime};
pub use sampling::{Logprobs, TokenLogprob};
pub use tokenizer::Tokenizer;
