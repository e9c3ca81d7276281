//! Options of downloads.

use super::declare::options;
use super::spec::OptionType;

options! {
    /// Which of a repository's models to use, and whether to download it.
    pub struct HubOptions for "downloading a model" {
        /// Branch, tag or commit of the repository.
        revision: Option<String> [OptionType::Name] = None, "the main branch";
        /// GGUF file of the repository (any part of a split one), or packed file.
        file: Option<String> [OptionType::Name] = None, "safetensors, or the only GGUF file";
        /// Use only what was downloaded before, without the network.
        offline: Option<bool> = None, "what `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` says";
    }
}
