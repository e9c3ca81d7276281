//! int4 weights whose errors matter least for texts like a calibration text ([`clawdbot_kernels::Factors`] has the method).
//!
//! Layer after layer: the texts go through the layer as it is, and what its projections read is recorded; the projections are
//! rounded with that; then the texts go through the rounded layer, so that the next one is calibrated on what it will get,
//! errors of the layers before it included. The texts also go through the layers as they are: where the last matrix of a layer
//! writes to the residual stream, it makes up for what the stream lacks. The head comes last, with the embedding if the two are
//! one matrix.
//!
//! Experts read only some tokens; their scales are searched by the mean squares of their inputs, without feedback. For
//! matrices whose inputs are not recorded (embeddings that are looked up, the heads of latent attention), all columns count the
//! same.

mod record;
mod text;
mod walk;

pub(crate) use text::{BUILTIN, Most, Text, Wanted, read};
pub(crate) use walk::{Calibrated, order};
