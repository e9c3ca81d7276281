//! Python bindings: every function converts its arguments, makes one call into the core with the interpreter released,
//! and converts the result. What a user imports is `clawdbot`, in `python/clawdbot`, which re-exports this module.

mod awaited;
mod batch;
mod chat;
mod completion;
mod constraint;
mod error;
mod event;
mod floats;
mod generate;
mod hub;
mod interrupt;
mod json;
mod model;
mod notify;
mod objects;
mod options;
mod plain_data;
mod pool;
mod prepared;
mod processor;
mod progress;
mod prompt;
mod runtime;
mod session;
mod stream;
mod tokenizer;
mod vectors;

use clawdbot_core::{
    EmbedOptions, EvaluateOptions, GenerateOptions, ModelOptions, PackOptions, RerankOptions, RuntimeOptions,
    Source,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Language models inside your program, on the CPU it has: the compiled part of `clawdbot`.
#[pymodule(gil_used = false)]
fn _clawdbot(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_class::<model::Model>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<event::Event>()?;
    module.add_class::<completion::Completion>()?;
    module.add_class::<event::ToolCall>()?;
    module.add_class::<event::ToolCallDelta>()?;
    module.add_class::<event::Usage>()?;
    module.add_class::<event::Logprobs>()?;
    module.add_class::<event::TokenLogprob>()?;
    module.add_class::<runtime::Runtime>()?;
    module.add_class::<pool::ModelPool>()?;
    module.add_class::<tokenizer::Tokenizer>()?;
    module.add_class::<constraint::Constraint>()?;
    module.add_function(wrap_pyfunction!(hub::download, module)?)?;
    module.add_function(wrap_pyfunction!(tokenizer::render_chat_template, module)?)?;
    error::add_exceptions(module)?;
    notify::end_at_exit(py)?;
    module.add("SHAPES", PyTuple::new(py, Source::SHAPES)?)?;
    module.add("GENERATE_OPTIONS", PyTuple::new(py, GenerateOptions::NAMES)?)?;
    module.add("EMBED_OPTIONS", PyTuple::new(py, EmbedOptions::NAMES)?)?;
    module.add("RERANK_OPTIONS", PyTuple::new(py, RerankOptions::NAMES)?)?;
    module.add("MODEL_OPTIONS", PyTuple::new(py, ModelOptions::NAMES)?)?;
    module.add("PACK_OPTIONS", PyTuple::new(py, PackOptions::NAMES)?)?;
    module.add("EVALUATE_OPTIONS", PyTuple::new(py, EvaluateOptions::NAMES)?)?;
    module.add("RUNTIME_OPTIONS", PyTuple::new(py, RuntimeOptions::NAMES)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
