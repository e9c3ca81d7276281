//! One file per architecture: `config.json` -> `DecoderSpec`.

pub(super) mod llama;
pub(super) mod mistral;
pub(super) mod qwen2;
pub(super) mod qwen3;

use super::config::ModelConfig;
use crate::error::Result;

/// `sliding_window` where the configuration does not have the key (null means none), as in transformers.
const DEFAULT_SLIDING_WINDOW: usize = 4096;

/// The window of the layers that have one, in tokens.
fn sliding_window(config: &ModelConfig) -> Result<Option<usize>> {
    const KEY: &str = "sliding_window";
    if config.has(KEY) { config.opt_usize(KEY) } else { Ok(Some(DEFAULT_SLIDING_WINDOW)) }
}
