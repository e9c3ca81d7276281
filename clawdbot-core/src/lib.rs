//! clawdbot runs language models inside your program, on the CPU.
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
//! The concepts have the same names in every language. A [`Runtime`] (threads, memory budget, log hook) loads a
//! [`Model`], and can [`Plan`] what it would cost before. A [`Session`] is the state of one conversation. A prompt with
//! [`GenerateOptions`] becomes a [`Stream`] of [`Event`]s, which ends with a [`Completion`]. Everything that can fail
//! returns an [`Error`] with a stable number.
//!
//! The library never prints, aborts, or changes process-wide state of the host.
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
pub mod constraint;
mod engine;
mod error;
mod evaluation;
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
mod metrics;
mod options;
mod output;
mod runtime;
mod sampling;
mod spec;
mod suggest;
mod sync;
pub mod tokenizer;
mod weights;

pub use api::session::{Prompt, Session, Stream};
pub use api::{
    Chat, ContinuationScore, EmbedResults, EmbeddingInfo, Embeddings, Fault, Faults, Item, Model, ModelInfo,
    ModelPool, Plan, PoolModel, PoolState, PoolStatus, Request, RerankResults, StoredMatrices,
};
pub use cancel::{CancelHandle, Progress, Stage};
pub use error::{Error, ErrorKind, Result};
pub use evaluation::{Evaluation, LayerError, Reference};
pub use event::{Completion, Event, FinishReason, Usage};
pub use load::source::Source;
pub use metrics::{BOUNDS as HISTOGRAM_BOUNDS, Histogram, MAX_DRAFTS, Metrics, ModelMetrics, Outcomes};
pub use options::{
    Cache, Driver, EarlyStopping, EmbedOptions, EvaluateOptions, GenerateOptions, HubOptions, JsonSchema,
    KvType, LogitsProcessor, LogprobsMode, ModelOptions, Numa, NumberRange, OPTIONS, OptionGroup, OptionSet,
    OptionSpec, OptionType, PackOptions, Pooling, ReferenceType, RerankOptions, RuntimeOptions, Sampler,
    SharedProcessor, Speculation, WeightType, byte_size, check_option_names,
};
pub use output::{ToolCall, ToolCallDelta};
pub use runtime::{Cpus, Limits, LogLevel, LogRecord, RefusedKernels, Runtime};
pub use sampling::{Logprobs, TokenLogprob};
pub use tokenizer::{AddGenerationPrompt, AddSpecialTokens, SkipSpecialTokens, Tokenizer};
