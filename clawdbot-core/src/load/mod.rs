//! From files to weights in memory: what a source holds, how it is quantized and named, and how it is packed.

pub(crate) mod adapter;
pub(crate) mod build;
pub(crate) mod calibration;
pub(crate) mod check;
pub(crate) mod fingerprint;
pub(crate) mod formats;
pub(crate) mod gguf;
pub(crate) mod load_cache;
pub(crate) mod mtp;
pub(crate) mod mxfp4;
pub(crate) mod name_pattern;
pub(crate) mod open;
pub(crate) mod pack;
pub(crate) mod parts;
pub(crate) mod passes;
pub(crate) mod quantization;
mod shapes;
pub(crate) mod source;
pub(crate) mod text;
pub(crate) mod weights;
