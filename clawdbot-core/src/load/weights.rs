//! Where tensors come from: files of each kind, or nowhere.

use std::sync::Arc;

use clawdbot_kernels::{ComputeFormat, PackedMatrix, RowSource};

use super::adapter::MergedAdapters;
use super::formats::{Segment, format};
use super::gguf::GgufWeights;
use super::parts::{self, LastTensor};
use super::quantization::FileWeights;
use super::shapes::RandomRows;
use crate::error::{Error, Result};
use crate::options::WeightType;
use crate::spec::packing::Joined;
use crate::spec::tensors::{MatrixName, PartStorage, VectorName};
use crate::weights::PackedFile;

/// Where tensors come from.
pub(crate) enum Weights {
    Files(FileWeights),
    Gguf(GgufWeights),
    Packed(Arc<PackedFile>),
    Random,
    /// Others, with adapters that are added as they are read.
    Merged {
        base: Box<Weights>,
        adapters: MergedAdapters,
    },
}

impl Weights {
    /// Where they come from, whatever is added to them.
    pub(crate) fn base(&self) -> &Weights {
        match self {
            Weights::Merged { base, .. } => base,
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
            Weights::Merged { base, adapters } if !adapters.change(name) => base.own_format(name),
            Weights::Packed(_) | Weights::Random | Weights::Merged { .. } => Ok(None),
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

    /// Matrices that read the same input, parted where they are packed as something else. A gate and an up projection are
    /// one in any case: where they are stored in different formats, both are converted.
    ///
    /// # Errors
    /// `InvalidModel` where a packed file does not say what one is packed as.
    pub(crate) fn segments<'a>(&self, joined: &Joined<'a>, weights: WeightType) -> Result<Vec<Segment<'a>>> {
        if let (Weights::Packed(file), WeightType::Stored) = (self, weights) {
            return packed_segments(file, joined);
        }
        let mut formats = Vec::new();
        for name in &joined.parts {
            formats.push(match weights {
                WeightType::Stored => self.own_format(name)?.unwrap_or_else(|| self.format(weights)),
                WeightType::Int4Mixed if name.sensitive => format(WeightType::Int8),
                _ => self.format(weights),
            });
        }
        if joined.gated {
            let format = if formats[0] == formats[1] { formats[0] } else { self.format(weights) };
            return Ok(vec![Segment { names: joined.clone(), format }]);
        }
        let mut segments: Vec<Segment<'a>> = Vec::new();
        for (name, format) in joined.parts.iter().zip(formats) {
            match segments.last_mut() {
                Some(last) if last.format == format => last.names.parts.push(name),
                _ => segments.push(Segment { names: Joined::rows([*name]), format }),
            }
        }
        Ok(segments)
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
            Weights::Merged { base, adapters } => adapters.add_to(base.matrix(name, last)?, name)?,
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
            Weights::Merged { base, .. } => base.vector(name),
        }
    }

    /// Bytes of all tensors as stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self {
            Weights::Files(files) => files.source.total_bytes(),
            Weights::Gguf(gguf) => gguf.source.total_bytes(),
            Weights::Packed(file) => file.len() as u64,
            Weights::Random => 0,
            Weights::Merged { base, .. } => base.stored_bytes(),
        }
    }
}

/// The segments of `joined` in a file that names the format of each.
fn packed_segments<'a>(file: &PackedFile, joined: &Joined<'a>) -> Result<Vec<Segment<'a>>> {
    let mut segments = Vec::new();
    let mut rest = joined.clone();
    while !rest.parts.is_empty() {
        let fewest = if rest.gated { rest.parts.len() } else { 1 };
        let found = (fewest..=rest.parts.len()).rev().find_map(|count| {
            let names = Joined { parts: rest.parts[..count].to_vec(), gated: rest.gated };
            let format = file.info().formats.get(&names.name())?;
            Some((names, format))
        });
        let (names, format) = found.ok_or_else(|| {
            let message = format!("{}: formats: expected one of {:?}", file.name(), rest.parts[0].name);
            Error::invalid_model(message).with("tensor", rest.parts[0].name.clone())
        })?;
        let format = ComputeFormat::from_name(format).ok_or_else(|| {
            Error::unsupported_model(format!("{}: formats: {format:?} is not known", file.name()))
        })?;
        if let Err(clawdbot_kernels::Error::InvalidArgument(problem)) =
            PackedMatrix::parts(format, names.n(), names.k())
        {
            let (file, name) = (file.name(), format.name());
            return Err(Error::invalid_model(format!("{file}: formats: {name:?}: {problem}")));
        }
        rest.parts.drain(..names.parts.len());
        segments.push(Segment { names, format });
    }
    Ok(segments)
}

/// Whether a vector has the negative rates at which a state decays.
fn is_rate(name: &VectorName) -> bool {
    name.part.as_ref().is_some_and(|part| part.storage == PartStorage::MinusExp)
}
