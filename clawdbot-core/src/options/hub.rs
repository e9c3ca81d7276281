//! Options of downloads.

use super::options;
use crate::error::Result;

options! {
    /// Which of a repository's models is taken, and whether it may be downloaded.
    pub struct HubOptions {
        /// Branch, tag or commit of the repository; `None`: its main branch.
        revision: Option<String> = None,
        /// A GGUF file of the repository (any part of one in parts), or a packed model; `None`: safetensors, or else the
        /// only GGUF file.
        file: Option<String> = None,
        /// Whether the cache has to do, without the network; `None`: what `HF_HUB_OFFLINE` says.
        offline: Option<bool> = None,
    }
}

impl HubOptions {
    // What is wrong with a revision or a file name is said where the repository is known.
    pub(crate) fn validate(&self) -> Result<()> {
        Ok(())
    }
}
