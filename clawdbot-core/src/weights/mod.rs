//! Weights on disk: name -> view with shape and storage format. Files are read piece by piece, and not trusted.

mod dtype;
mod file;
mod gguf;
mod index;
mod matrix;
mod missing;
mod mmap;
pub(crate) mod model_files;
mod names;
mod new_file;
mod packed;
mod packed_info;
mod packed_report;
mod packed_writer;
mod pieces;
mod safetensors;
mod shards;

pub(crate) use dtype::{Dtype, FloatType};
#[cfg(feature = "candle")]
pub(crate) use file::HandedIn;
pub(crate) use file::{DataFile, is_there, open_regular, read_small_file, resize};
#[cfg(test)]
pub(crate) use gguf::testing::{self as gguf_testing, Writer as GgufWriter};
pub(crate) use gguf::{
    Array, GgufHeader, GgufMatrix, GgufSource, MAGIC, Metadata, RowOrder, TensorType, Value,
};
#[cfg(feature = "fuzzing")]
pub(crate) use index::parse_index;
pub(crate) use matrix::{MatrixFormat, MatrixSize, MatrixView, TensorView};
pub(crate) use names::{outside_text, stored_names, text_name};
pub(crate) use new_file::{Readers, no_file, write_file};
pub(crate) use packed::{ExpectedMatrix, ExpectedVector, MAX_TABLES, PackedFile, hex};
pub(crate) use packed_info::{FORMAT_VERSION, PackedInfo};
pub(crate) use packed_writer::{Overwrite, PackedLayout, PackedWriter};
#[cfg(feature = "candle")]
pub(crate) use safetensors::Entry;
pub(crate) use safetensors::quoted;
pub(crate) use shards::{SCALES_SUFFIX, WeightSource};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
