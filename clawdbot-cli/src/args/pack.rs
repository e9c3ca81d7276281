//! `pack`

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clawdbot_core::{Error, ErrorKind, PackOptions, Result, Source, WeightType};
use serde::Serialize;

use super::values::weight_type;
use super::{OutputArgs, RuntimeArgs, given};
use crate::hub::HubArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot pack DIR model.clawdbot
  clawdbot pack DIR model.clawdbot --weights bf16 --overwrite
  clawdbot pack --shape llama-3.2-1b model.clawdbot
  clawdbot chat model.clawdbot

The file holds everything: weights, tokenizer, chat template, configuration. It is mapped, not read: it loads in
milliseconds, and processes that use it share its memory. It appears when it is complete. clawdbot inspect FILE --verify
compares it with its checksum.")]
pub(crate) struct PackArgs {
    /// Model (a directory, GGUF file, or OWNER/NAME) and the file to write; with --shape, the file alone
    #[arg(value_name = "MODEL FILE", required = true, num_args = 1..=2)]
    paths: Vec<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    shape: Option<String>,
    #[command(flatten)]
    pub(crate) options: PackOptionArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl PackArgs {
    /// What is packed (model, shape), and the file to write.
    ///
    /// # Errors
    /// `InvalidArgument` for a directory and a shape, or neither.
    pub(crate) fn source_and_target(&self) -> Result<(Option<&PathBuf>, Option<&String>, &PathBuf)> {
        match (self.paths.as_slice(), &self.shape) {
            ([model, target], None) => Ok((Some(model), None, target)),
            ([target], Some(shape)) => Ok((None, Some(shape), target)),
            (paths, shape) => {
                let found: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                let found = found.join(" and ");
                let message = match shape {
                    None => format!(
                        "expected a model and the file to write (clawdbot pack MODEL FILE), found {found}"
                    ),
                    Some(shape) => format!(
                        "--shape {shape} is the model: expected only the file to write after it, found {found}"
                    ),
                };
                Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "shape"))
            }
        }
    }
}

/// [`PackOptions`].
#[derive(Debug, Args, Serialize)]
pub(crate) struct PackOptionArgs {
    /// What the weights will be computed with; stored: a quantized model's own codes
    /// [default: stored for quantized models, int8 for others]
    #[arg(long, value_name = "TYPE", value_parser = weight_type())]
    weights: Option<WeightType>,
    /// Directory of a LoRA adapter that is added to the weights before these are quantized; may be repeated
    #[arg(long, value_name = "DIR")]
    merge_adapters: Vec<PathBuf>,
    /// Replace the file if there is one
    #[arg(long)]
    overwrite: bool,
}

impl PackOptionArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<PackOptions> {
        PackOptions::from_json(&given(self)?)
    }
}
