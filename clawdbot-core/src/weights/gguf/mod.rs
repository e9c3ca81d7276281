//! GGUF files, versions 2 and 3, little-endian. Untrusted, as every model file: nothing is believed that was not checked
//! against the length of the file, and nothing allocated before.
//!
//! ```text
//! "GGUF"  u32 version  u64 tensors  u64 pairs
//! pairs:    key  u32 type  value
//! tensors:  name  u32 dimensions  u64 sizes, innermost first  u32 type  u64 offset
//! padding to `general.alignment` (32 unless said), then the data, at offsets that are multiples of it
//! ```
//! Strings are a `u64` length and UTF-8; arrays are `u32` type, `u64` length and the elements.
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod blocks;
mod cursor;
mod header;
mod matrix;
mod tensor_type;
mod tensors;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use header::{GgufHeader, GgufTensor, MAGIC};
pub(crate) use matrix::{GgufMatrix, RowOrder};
pub(crate) use tensor_type::TensorType;
pub(crate) use tensors::GgufSource;
pub(crate) use value::{Array, Metadata, Value};
