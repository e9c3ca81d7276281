//! Options of every kind, declared once: the same names in Rust, Python, C, the command line and JSON.
//!
//! [`options!`] makes a struct whose fields can be set from a JSON object; an unknown name, a wrong type or a value
//! out of range is an error that names the option, what was expected and what was found. [`OPTIONS`] has all of them, for
//! the command line and for what `cargo xtask generate` writes.

mod beams;
mod bytes;
mod constraint;
mod declare;
mod defaults;
mod early_stopping;
mod embed;
mod generate;
mod hub;
mod load;
mod logprobs;
mod processor;
mod resolved;
mod samplers;
mod several;
mod spec;
mod table;
mod unknown;
mod value;

pub use bytes::byte_size;
pub use constraint::JsonSchema;
pub(crate) use defaults::{GenerationDefaults, MAX_BAD_WORDS, MAX_LISTED_IDS};
pub use early_stopping::EarlyStopping;
pub use embed::{EmbedOptions, Pooling, RerankOptions};
pub use generate::GenerateOptions;
pub(crate) use generate::{MAX_STOPS, PromptKind};
pub use hub::HubOptions;
pub use load::{
    Cache, Driver, EvaluateOptions, KvType, ModelOptions, Numa, PackOptions, ReferenceType, RuntimeOptions,
    Speculation, WeightType,
};
pub use logprobs::LogprobsMode;
pub use processor::{LogitsProcessor, SharedProcessor};
pub(crate) use resolved::{ResolveContext, Resolved};
pub use samplers::Sampler;
pub use spec::{NumberRange, OptionGroup, OptionSet, OptionSpec, OptionType};
pub use table::OPTIONS;
pub use unknown::check_option_names;
pub(crate) use unknown::{check_names, unknown};
pub(crate) use value::shown;

use declare::options;
use value::OptionValue;
