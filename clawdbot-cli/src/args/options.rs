//! Options of generation, and adapters.

use std::path::PathBuf;

use clap::Args;
use clawdbot_core::{Error, ErrorKind, GenerateOptions, Model, Result};

use super::flags::Flags;
use super::values::lora;

/// Those of generating.
pub(crate) type OptionArgs = Flags<GenerateOptions>;

/// LoRA adapters to load with the model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Adapters")]
pub(crate) struct LoraArgs {
    /// Directory of a LoRA adapter, as PEFT writes it. The adapter has the name of the directory, unless NAME is given. May be
    /// repeated; --adapter says which one is used
    #[arg(long, value_name = "[NAME=]DIR", value_parser = lora)]
    lora: Vec<(String, PathBuf)>,
}

impl LoraArgs {
    /// Loads them, and lets `options` use the one that there is unless they name one.
    ///
    /// # Errors
    /// As `Model::load_adapter`; `InvalidArgument` where it is not said which is used.
    pub(crate) fn load(&self, model: &Model, mut options: GenerateOptions) -> Result<GenerateOptions> {
        for (name, dir) in &self.lora {
            model.load_adapter(name, dir)?;
        }
        if options.adapter.is_none() {
            options.adapter = match self.lora.as_slice() {
                [] => None,
                [(name, _)] => Some(name.clone()),
                several => {
                    let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                    let message = format!("expected --adapter with one of {}", names.join(", "));
                    return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "adapter"));
                }
            };
        }
        Ok(options)
    }
}
