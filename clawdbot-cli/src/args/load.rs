//! Options of the model, the runtime and the output.

use clap::Args;
use clawdbot_core::{HubOptions, ModelOptions, RuntimeOptions};

use super::flags::Flags;

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

/// Those of downloads.
pub(crate) type HubArgs = Flags<HubOptions>;
/// Those of loading.
pub(crate) type LoadArgs = Flags<ModelOptions>;
/// Those of the runtime.
pub(crate) type RuntimeArgs = Flags<RuntimeOptions>;
