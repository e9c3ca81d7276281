//! Which distribution log-probabilities are of.

use serde::{Deserialize, Serialize};

use super::declare::names;

/// The distribution that log-probabilities of generated tokens are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogprobsMode {
    /// The model's own: ln softmax of its logits.
    #[default]
    Raw,
    /// The same over the tokens that masks and the constraint allow.
    Masked,
}

names!(LogprobsMode: Raw = "raw", Masked = "masked");
