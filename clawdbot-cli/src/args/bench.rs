//! `bench`

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clawdbot_core::Source;

use super::values::between;
use super::{CommonArgs, MODEL};
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot bench --shape qwen2.5-0.5b --weights bf16 --repeat 5
  clawdbot bench -m DIR --depth 4096 --batch 8 --json

Every repeat takes fresh sequences of random token ids. Prefill: all prompts, until the last first token. Decode: after
DEPTH tokens of context, tokens per second of all sequences together. Medians are reported, and in JSON every sample.
The memory traffic of decode that is compared with the machine's is that of the weights alone.")]
pub(crate) struct BenchArgs {
    #[arg(short, long, value_name = "MODEL", conflicts_with = "shape", help = MODEL)]
    pub(crate) model: Option<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    pub(crate) shape: Option<String>,
    /// Tokens of a prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = between(1, u32::MAX))]
    pub(crate) prompt: u32,
    /// Tokens to decode
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = between(1, u32::MAX))]
    pub(crate) generate: u32,
    /// Tokens of context before decoding is measured
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = between(0, u32::MAX))]
    pub(crate) depth: u32,
    /// Sequences at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = between(1, 4096))]
    pub(crate) batch: u32,
    /// How often to measure
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = between(1, 1000))]
    pub(crate) repeat: u32,
    /// Do not measure what the machine could do at most
    #[arg(long)]
    pub(crate) no_limits: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}
