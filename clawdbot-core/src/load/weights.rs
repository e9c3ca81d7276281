//! Where tensors come from: files of each kind, or nowhere.

use std::ops::Range;
use std::sync::Arc;

use clawdbot_kernels::{ComputeFormat, RowSource, StoredScale};

use super::adapter::MergedWeights;
use super::build::format;
use super::gguf::GgufWeights;
use super::parts::{self, LastTensor};
use super::quantization::FileWeights;
use super::shapes::RandomRows;
use crate::error::{Error, Result};
use crate::options::WeightType;
use crate::spec::packing::Joined;
use crate::spec::tensors::{MatrixName, PartStorage, VectorName};
use crate::weights::{MatrixFormat, MatrixView, PackedFile};

/// Where tensors come from.
pub(crate) enum Weights {
    Files(FileWeights),
    Gguf(GgufWeights),
    Packed(Arc<PackedFile>),
    Random,
    /// With adapters that are added as they are read.
    Merged(Box<MergedWeights>),
}

impl Weights {
    /// Where they come from, whatever is added to them.
    pub(crate) fn base(&self) -> &Weights {
        match self {
            Weights::Merged(merged) => &merged.base,
            weights => weights,
        }
    }

    /// In which format a matrix's own codes are computed with; `None` of floats, and where they are converted.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub(crate) fn own_format(&self, name: &MatrixName) -> Result<Option<ComputeFormat>> {
        match self {
            Weights::Gguf(gguf) => gguf.compute_format(name),
            Weights::Files(files) => files.compute_format(name),
            Weights::Merged(merged) if !merged.changes(name) => merged.base.own_format(name),
            Weights::Packed(_) | Weights::Random | Weights::Merged(_) => Ok(None),
        }
    }

    /// The name of the format in which a packed file has matrices as their source did.
    pub(crate) fn packed_format(&self, names: &Joined<'_>) -> Option<&str> {
        match self.base() {
            Weights::Packed(file) => file.info().formats.get(&names.name()).map(String::as_str),
            _ => None,
        }
    }

    /// The name of the format in which a matrix is stored, of sources with several.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub(crate) fn stored_format(&self, name: &MatrixName) -> Result<Option<String>> {
        match self.base() {
            Weights::Gguf(gguf) => Ok(gguf.stored_type(name)?.map(|kind| kind.name().to_owned())),
            Weights::Files(files) if files.quantization.is_some() => files.stored_format(name).map(Some),
            _ => Ok(None),
        }
    }

    /// What weights of the type are computed as, where they are not used as stored, as [`segments`](Self::segments) says. What
    /// is stored as int8 in safetensors or packed is used as stored.
    pub(crate) fn format(&self, weights: WeightType) -> ComputeFormat {
        let stored = match self.base() {
            Weights::Files(files) => files.source.stored_int8_group().map(|group| (group, false)),
            Weights::Packed(file) => file.info().group_size.map(|group| (group, file.info().rotated)),
            _ => None,
        };
        match stored {
            Some((group, rotated)) if weights == WeightType::Int8 => ComputeFormat::Int8 { group, rotated },
            _ => format(weights),
        }
    }

    /// The rows of a matrix; `last` is none, or of the one before.
    pub(crate) fn matrix<'a>(
        &'a self,
        name: &MatrixName,
        last: &mut LastTensor<'a>,
    ) -> Result<Box<dyn RowSource + 'a>> {
        Ok(match self {
            Weights::Files(files) => match &name.part {
                Some(part) => parts::rows(files, name, part, last)?,
                None => {
                    *last = None;
                    parts::whole(files, &name.name, &[name.n, name.k])?
                }
            },
            Weights::Gguf(gguf) => gguf.matrix(name)?,
            Weights::Packed(file) => {
                return Err(Error::invalid_argument(format!("{}: already packed", file.name())));
            }
            Weights::Merged(merged) => merged.matrix(name, last)?,
            Weights::Random => Box::new(RandomRows::new(&name.name, name.n, name.k)),
        })
    }

    /// A norm's gains, a bias, or a small matrix that stays in f32.
    pub(crate) fn vector(&self, name: &VectorName) -> Result<Vec<f32>> {
        match self {
            Weights::Files(files) => parts::vector(files, name),
            Weights::Gguf(gguf) => gguf.vector(name),
            Weights::Packed(file) => file.vector(&name.name, name.len),
            Weights::Random if name.name.ends_with("bias") => Ok(vec![0.0; name.len]),
            Weights::Random if is_rate(name) => Ok(vec![-1.0; name.len]),
            // A matrix: what it chooses should not always be the same.
            Weights::Random if name.part.is_some() => {
                let mut row = vec![0.0; name.len];
                RandomRows::new(&name.name, 1, name.len).read_row(0, &[], &mut row);
                Ok(row)
            }
            Weights::Random => Ok(vec![1.0; name.len]),
            Weights::Merged(merged) => merged.base.vector(name),
        }
    }

    /// Bytes of all tensors as stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self {
            Weights::Files(files) => files.source.total_bytes(),
            Weights::Gguf(gguf) => gguf.source.total_bytes(),
            Weights::Packed(file) => file.len() as u64,
            Weights::Random => 0,
            Weights::Merged(merged) => merged.base.stored_bytes(),
        }
    }
}

/// Whether a vector has the negative rates at which a state decays.
fn is_rate(name: &VectorName) -> bool {
    name.part.as_ref().is_some_and(|part| part.storage == PartStorage::MinusExp)
}

/// A stored matrix.
pub(crate) struct Stored<'a>(pub(crate) MatrixView<'a>);

impl RowSource for Stored<'_> {
    fn rows(&self) -> usize {
        self.0.n
    }
    fn cols(&self) -> usize {
        self.0.k
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        Ok(self.0.fetch(rows, buffer)?)
    }
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        self.0.read_row(row, stored, out);
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        match &self.0.format {
            MatrixFormat::Int8(scales) => Some(ComputeFormat::Int8 { group: scales.group(), rotated: false }),
            MatrixFormat::Float(_) => None,
        }
    }
    fn read_codes(
        &self,
        row: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        let MatrixFormat::Int8(values) = &self.0.format else {
            return Err(Error::internal("the matrix is not stored as int8").into());
        };
        self.0.read_codes(row, stored, codes)?;
        scales.extend(values.row(row).iter().map(|&bits| StoredScale::One(bits)));
        Ok(())
    }
}
