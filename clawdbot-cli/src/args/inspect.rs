//! `inspect`

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clawdbot_core::Source;

use super::{HubArgs, LoadArgs, MODEL, RuntimeArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot inspect DIR --weights bf16
  clawdbot inspect DIR --memory-budget 2GiB --check
  clawdbot inspect model.clawdbot --verify --json
  clawdbot inspect --shape llama-3.2-1b

Says nothing about whether a context fits: the KV cache grows with the sequences, up to what is left of the budget.")]
pub(crate) struct InspectArgs {
    #[arg(value_name = "MODEL", conflicts_with_all = ["shape", "model"], help = MODEL)]
    named: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short, long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    pub(crate) shape: Option<String>,
    /// Exit with 1 if loading the model needs more than --memory-budget, or without it more memory than this process can have
    #[arg(long)]
    pub(crate) check: bool,
    /// One JSON object, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

impl InspectArgs {
    /// The model, if one is given.
    pub(crate) fn model(&self) -> Option<&PathBuf> {
        self.named.as_ref().or(self.model.as_ref())
    }
}
