//! `inspect`

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use clawdbot_core::Source;

use super::{LoadArgs, RuntimeArgs};
use crate::hub::HubArgs;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model directory, GGUF or packed file, or OWNER/NAME [default: the built-in story model]
    #[arg(value_name = "PATH", conflicts_with = "shape")]
    pub(crate) model: Option<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    pub(crate) shape: Option<String>,
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
