//! Options of the model, the runtime and the output.

use std::sync::{Mutex, PoisonError};

use clap::Args;
use clawdbot_core::{LogLevel, ModelOptions, Result, Runtime, RuntimeOptions};

use super::flags::Flags;
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

/// Those of loading.
pub(crate) type LoadArgs = Flags<ModelOptions>;
/// Those of the runtime.
pub(crate) type RuntimeArgs = Flags<RuntimeOptions>;

impl RuntimeArgs {
    /// A runtime with these options. Its warnings go to stderr.
    pub(crate) fn runtime(&self, output: &OutputArgs) -> Result<Runtime> {
        let options = self.options()?;
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
