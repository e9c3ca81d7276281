//! `evaluate`

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clawdbot_core::{EvaluateOptions, Source};

use super::flags::Flags;
use super::{HubArgs, MODEL, OutputArgs, RuntimeArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot evaluate DIR --weights int4
  clawdbot evaluate DIR --weights int8 --kv int8 --text text.txt --sequences 32
  clawdbot evaluate int4.clawdbot --reference-model DIR --json
  clawdbot evaluate DIR --reference none
  clawdbot evaluate --shape llama-3.2-1b --weights int4

Perplexity; divergence (KL) of the next-token distributions from the reference, and how often the most likely token is the
same; and how far the residual streams are apart after each layer. One layer of each model is in memory at a time.
A packed or quantized model has no other reference than its own weights, unless --reference-model names one: then what
rounding the weights costs is not in the figures, and the output says so.")]
pub(crate) struct EvaluateArgs {
    #[arg(value_name = "MODEL", conflicts_with_all = ["shape", "model"], help = MODEL)]
    named: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short, long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    pub(crate) shape: Option<String>,
    #[command(flatten)]
    pub(crate) options: Flags<EvaluateOptions>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl EvaluateArgs {
    /// The model, if one is given.
    pub(crate) fn model(&self) -> Option<&PathBuf> {
        self.named.as_ref().or(self.model.as_ref())
    }
}
