//! `pack`

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clawdbot_core::{Error, ErrorKind, PackOptions, Result, Source};

use super::flags::Flags;
use super::{HubArgs, OutputArgs, RuntimeArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot pack DIR model.clawdbot
  clawdbot pack DIR model.clawdbot --weights bf16 --overwrite
  clawdbot pack DIR int4.clawdbot --weights int4 --calibrate builtin
  clawdbot pack DIR mine.clawdbot --weights int4 --calibrate text.txt
  clawdbot pack builtin story.clawdbot
  clawdbot pack --shape llama-3.2-1b model.clawdbot
  clawdbot chat model.clawdbot

The file holds everything: weights, tokenizer, chat template, configuration. It is mapped, not read: it loads in
milliseconds, and processes that use it share its memory. It appears when it is complete. clawdbot inspect FILE --verify
compares it with its checksum.")]
pub(crate) struct PackArgs {
    /// Model (a directory, GGUF file, OWNER/NAME, or builtin) and the file to write; with --shape, the file alone
    #[arg(value_name = "MODEL FILE", required = true, num_args = 1..=2)]
    paths: Vec<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    shape: Option<String>,
    #[command(flatten)]
    pub(crate) options: Flags<PackOptions>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A model or a shape, and the file to write.
pub(crate) struct Packing<'a> {
    pub(crate) model: Option<&'a PathBuf>,
    pub(crate) shape: Option<&'a String>,
    pub(crate) target: &'a PathBuf,
}

impl PackArgs {
    /// What is packed, and where.
    ///
    /// # Errors
    /// `InvalidArgument` for a model and a shape, or neither.
    pub(crate) fn packing(&self) -> Result<Packing<'_>> {
        match (self.paths.as_slice(), &self.shape) {
            ([model, target], None) => Ok(Packing { model: Some(model), shape: None, target }),
            ([target], Some(shape)) => Ok(Packing { model: None, shape: Some(shape), target }),
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
