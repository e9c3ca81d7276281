//! Options of the model, the runtime and the output.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use clap::builder::PossibleValuesParser;
use clawdbot_core::{Cache, KvType, LogLevel, ModelOptions, Result, Runtime, RuntimeOptions, WeightType};
use serde::Serialize;

use super::given;
use super::values::{byte_size, cache, named, weight_type, whole};
use crate::hub::HubArgs;
use crate::output::{in_own_terms, warn};

/// What every command takes that loads a model.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What to print.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// The result alone, nothing on stderr but errors
    #[arg(long)]
    pub(crate) quiet: bool,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// [`ModelOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Model")]
pub(crate) struct LoadArgs {
    /// What the weights are computed with; stored: a quantized model's own codes
    /// [default: as packed, stored for quantized models, int8 for others]
    #[arg(long, value_name = "TYPE", value_parser = weight_type())]
    weights: Option<WeightType>,
    /// What the KV cache is kept as; auto: f32 with f32 weights, else bf16 [default: auto]
    #[arg(long, value_name = "TYPE", value_parser = named::<KvType>(KvType::ALL.map(KvType::name)))]
    kv: Option<KvType>,
    /// Maximum number of tokens in a sequence [default: what the model was trained for]
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    max_context: Option<u32>,
    /// Maximum number of tokens in a forward pass; longer prompts take several. Changes speed and memory, not results [default: 512]
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    prefill_chunk: Option<u32>,
    /// Maximum number of sequences in a forward pass; others wait their turn. Changes speed and memory, not results [default: 64]
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    max_batch: Option<u32>,
    /// Directory of a LoRA adapter that is added to the weights before these are quantized; may be repeated
    #[arg(long, value_name = "DIR")]
    merge_adapters: Vec<PathBuf>,
    /// Whether a packed file is mapped; otherwise it is read into memory, and may change on disk afterwards [default: true]
    #[arg(long, value_name = "true|false")]
    mmap: Option<bool>,
    /// Read all of a packed file first and compare it with its checksum
    #[arg(long)]
    verify: bool,
    /// Whether loading a directory writes a packed file and uses it the next time: in the user's directory for
    /// caches, or in DIR [default: false]
    #[arg(long, value_name = "true|false|DIR", value_parser = cache)]
    cache: Option<Cache>,
}

impl LoadArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<ModelOptions> {
        ModelOptions::from_json(&given(self)?)
    }
}

/// [`RuntimeOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Runtime")]
pub(crate) struct RuntimeArgs {
    /// Threads to compute on [default: the least of CPU quota, affinity and physical cores]
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    threads: Option<u32>,
    /// Memory limit for weights, KV cache and buffers, such as 500M or 1.5GiB (K, M, G, T: powers of 1000; KiB, MiB, GiB,
    /// TiB: of 1024) [default: no limit for weights, a share of the machine's memory for what grows with requests]
    #[arg(long, value_name = "BYTES", value_parser = byte_size, allow_negative_numbers = true)]
    memory_budget: Option<u64>,
    /// Instruction-set tier; those with bf16 in their name round activations to bf16 where weights are bf16 [default: what CLAWDBOT_ISA says, or else the best of this CPU]
    #[arg(long, value_name = "TIER", value_parser = PossibleValuesParser::new(tiers()))]
    kernels: Option<String>,
}

/// The names of tiers; those that failed their self-test too, for the runtime says why.
fn tiers() -> Vec<&'static str> {
    let refused = Runtime::refused_kernels().into_iter().map(|refused| refused.name);
    Runtime::available_kernels().into_iter().chain(Runtime::named_kernels()).chain(refused).collect()
}

impl RuntimeArgs {
    /// A runtime with these options. Its warnings go to stderr.
    pub(crate) fn runtime(&self, output: &OutputArgs) -> Result<Runtime> {
        let options = RuntimeOptions::from_json(&given(self)?)?;
        if output.quiet {
            return Runtime::new(&options);
        }
        // What every message of a chat would say again is said once.
        let last = Mutex::new(String::new());
        Runtime::with_log(&options, move |record| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if record.level == LogLevel::Warning && *last != record.message {
                last.clone_from(&record.message);
                warn(&in_own_terms(&record.message));
            }
        })
    }
}
