//! Stored tensors to packed weights.

use std::sync::Arc;

use super::decoder::{Decoder, DecoderLayer, Linear};
use super::source::Weights;
use super::spec::DecoderSpec;
use super::tensors::{LayerNames, LinearNames, MatrixName, TensorNames, joined_name};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{ComputeFormat, Int4Scales, KernelSet, PackedMatrix, RowSource};
use crate::memory::SharedBytes;
use crate::options::WeightType;
use crate::threads::ThreadPool;

/// Weights along k that share a scale in int8. `docs/numerics.md` has the measurements.
pub(crate) const INT8_GROUP: usize = 64;

/// Weights along k that share a scale in int4. `docs/numerics.md` has the measurements.
const INT4_GROUP: usize = 32;

/// The compute format of a weight type where weights are not taken over as they are stored; `rotated` says whether int8
/// and int4 weights are rotated.
pub(crate) fn format(weights: WeightType, rotated: bool) -> ComputeFormat {
    match weights {
        WeightType::Int8 | WeightType::Stored => ComputeFormat::Int8 { group: INT8_GROUP, rotated },
        WeightType::Int4 => ComputeFormat::Int4 { group: INT4_GROUP, scales: Int4Scales::Bf16, rotated },
        WeightType::Bf16 => ComputeFormat::Bf16,
        WeightType::F32 => ComputeFormat::F32,
    }
}

/// Rows and columns of every packed matrix.
pub(crate) fn packed_shapes(spec: &DecoderSpec) -> Vec<(usize, usize)> {
    let names = spec.tensors();
    let shape = |parts: &Vec<&MatrixName>| (parts.iter().map(|part| part.n).sum(), parts[0].k);
    names.packed_matrices().iter().map(shape).collect()
}

/// Weights in all matrices.
pub(crate) fn weights_in(spec: &DecoderSpec) -> u64 {
    packed_shapes(spec).iter().map(|&(n, k)| n as u64 * k as u64).sum()
}

/// Matrices that are packed side by side, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Segment<'a> {
    pub(crate) names: Vec<&'a MatrixName>,
    pub(crate) format: ComputeFormat,
}

impl Segment<'_> {
    pub(crate) fn n(&self) -> usize {
        self.names.iter().map(|name| name.n).sum()
    }

    pub(crate) fn k(&self) -> usize {
        self.names[0].k
    }
}

impl Weights {
    /// Matrices that read the same input, parted where they are packed as something else.
    ///
    /// # Errors
    /// `InvalidModel` where a packed file does not say what one is packed as.
    pub(crate) fn segments<'a>(
        &self,
        names: &[&'a MatrixName],
        weights: WeightType,
    ) -> Result<Vec<Segment<'a>>> {
        let mut segments: Vec<Segment<'a>> = Vec::new();
        if let (Weights::Packed(file), WeightType::Stored) = (self, weights) {
            let mut names = names;
            while !names.is_empty() {
                let found = (1..=names.len()).rev().find_map(|count| {
                    let format = file.info().formats.get(&joined_name(&names[..count]))?;
                    Some((count, format))
                });
                let (count, format) = found.ok_or_else(|| {
                    let message = format!("{}: formats: expected one of {:?}", file.name(), names[0].name);
                    Error::invalid_model(message).with("tensor", names[0].name.clone())
                })?;
                let format = ComputeFormat::from_name(format).ok_or_else(|| {
                    Error::unsupported_model(format!("{}: formats: {format:?} is not known", file.name()))
                })?;
                segments.push(Segment { names: names[..count].to_vec(), format });
                names = &names[count..];
            }
            return Ok(segments);
        }
        for name in names {
            let own = match self {
                Weights::Gguf(gguf) if weights == WeightType::Stored => gguf.compute_format(name)?,
                _ => None,
            };
            let format = own.unwrap_or_else(|| format(weights, self.rotated(weights)));
            match segments.last_mut() {
                Some(last) if last.format == format => last.names.push(name),
                _ => segments.push(Segment { names: vec![name], format }),
            }
        }
        Ok(segments)
    }
}

/// Packs weights: what, how, and whom to tell.
pub(crate) struct Builder<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) pool: &'a ThreadPool,
    pub(crate) weights: &'a Weights,
    /// The bytes of a packed file; without them it is read.
    pub(crate) mapped: Option<Arc<dyn SharedBytes>>,
    pub(crate) weight_type: WeightType,
    /// Called with weights packed and weights in all; false cancels.
    pub(crate) progress: &'a mut dyn FnMut(u64, u64) -> bool,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

impl Builder<'_> {
    /// The decoder with all its weights.
    ///
    /// # Errors
    /// As the weight files give them; `Cancelled` when `progress` says so.
    pub(crate) fn build(&mut self, spec: DecoderSpec) -> Result<Decoder> {
        let names: TensorNames = spec.tensors();
        self.total = weights_in(&spec);
        let embedding = self.matrices(&[&names.embed_tokens])?;
        let layers = names.layers.iter().map(|layer| self.layer(layer)).collect::<Result<_>>()?;
        let norm = self.weights.vector(&names.final_norm)?;
        let lm_head = names.lm_head.as_ref().map(|head| self.matrices(&[head])).transpose()?;
        Ok(Decoder { spec, embedding, layers, norm, lm_head })
    }

    fn layer(&mut self, names: &LayerNames) -> Result<DecoderLayer> {
        let norms = names.q_norm.as_ref().zip(names.k_norm.as_ref());
        Ok(DecoderLayer {
            input_norm: self.weights.vector(&names.input_norm)?,
            qkv: self.linear(&[&names.q, &names.k, &names.v])?,
            qk_norms: norms
                .map(|(q, k)| Ok::<_, Error>((self.weights.vector(q)?, self.weights.vector(k)?)))
                .transpose()?,
            o: self.linear(&[&names.o])?,
            post_attention_norm: self.weights.vector(&names.post_attention_norm)?,
            gate_up: self.linear(&[&names.gate, &names.up])?,
            down: self.linear(&[&names.down])?,
        })
    }

    /// Projections of the same input, side by side.
    fn linear(&mut self, parts: &[&LinearNames]) -> Result<Linear> {
        let weights: Vec<&MatrixName> = parts.iter().map(|part| &part.weight).collect();
        let weight = self.matrices(&weights)?;
        let mut bias = Vec::new();
        for name in parts.iter().filter_map(|part| part.bias.as_ref()) {
            bias.extend(self.weights.vector(name)?);
        }
        // A family gives a bias to all of the joined projections or to none.
        let bias = (bias.len() == weight.n()).then_some(bias);
        Ok(Linear { weight, bias })
    }

    /// The matrices as one.
    pub(crate) fn matrices(&mut self, names: &[&MatrixName]) -> Result<PackedMatrix> {
        let segments = self.weights.segments(names, self.weight_type)?;
        let parts = segments.iter().map(|segment| self.segment(segment)).collect::<Result<_>>()?;
        self.done += names.iter().map(|name| name.n as u64 * name.k as u64).sum::<u64>();
        match (self.progress)(self.done, self.total) {
            true => Ok(PackedMatrix::joined(parts)),
            false => Err(Error::new(ErrorKind::Cancelled, "loading was cancelled")),
        }
    }

    fn segment(&self, segment: &Segment<'_>) -> Result<PackedMatrix> {
        let Weights::Packed(file) = self.weights else { return self.pack(&segment.names, segment.format) };
        let (format, n, k) = (segment.format, segment.n(), segment.k());
        let name = joined_name(&segment.names);
        match &self.mapped {
            Some(mapped) => PackedMatrix::from_parts(format, n, k, &mut file.mapped_panels(&name, mapped)),
            None => self.pool.region(|region| {
                PackedMatrix::from_parts(format, n, k, &mut file.read_panels(&name, region))
            })?,
        }
    }

    fn pack(&self, names: &[&MatrixName], format: ComputeFormat) -> Result<PackedMatrix> {
        let sources = names.iter().map(|name| self.weights.matrix(name)).collect::<Result<Vec<_>>>()?;
        let sources: Vec<&dyn RowSource> = sources.iter().map(AsRef::as_ref).collect();
        // A region of its own for each: other models compute in between, and `progress` may do what it likes.
        self.pool
            .region(|region| PackedMatrix::pack(self.kernels, region, format, &sources))?
            .map_err(|error| error.context(&names[0].name))
    }
}
